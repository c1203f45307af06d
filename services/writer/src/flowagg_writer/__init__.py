"""The writer: POST -> Kafka, acknowledged only once Kafka has every record."""

from flowagg.memory import bound_arenas

bound_arenas()  # before anything that is imported further on begins a thread
