"""The Python peers, each a program of its own in a virtual environment of its own."""
