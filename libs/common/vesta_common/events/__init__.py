"""Events on Kafka: published by an outbox, consumed once, kept as dead letters where they cannot be handled."""
