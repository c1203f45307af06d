"""FlowAggregator's operator: keeps what a FlowAggregator resource asks for."""

from flowagg.memory import bound_arenas

bound_arenas()  # before anything that is imported further on begins a thread
