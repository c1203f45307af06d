"""The HTTP contract as a client sees it."""
