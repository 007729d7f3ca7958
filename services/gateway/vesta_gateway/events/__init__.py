"""Live events of projects: consumption from Kafka, replay, and delivery to watchers."""
