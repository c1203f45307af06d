"""Compares policies that scale a Kafka consumer group, in virtual time."""
