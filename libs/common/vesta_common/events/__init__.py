"""Events on Kafka: the transactional outbox, idempotent consumers and dead-letter topics."""
