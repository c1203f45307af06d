"""The consumer: Kafka -> Redis, each record counted exactly once."""
