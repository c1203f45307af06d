"""The consumer: Kafka -> Redis, each record counted exactly once."""

from flowagg.memory import bound_arenas

bound_arenas()  # before anything that is imported further on begins a thread
