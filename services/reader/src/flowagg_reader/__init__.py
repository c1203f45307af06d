"""The reader: Redis -> GET, by default no older than the last acknowledged POST."""

from flowagg.memory import bound_arenas, keep_large_apart

bound_arenas()  # before anything that is imported further on begins a thread
keep_large_apart()
