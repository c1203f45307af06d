"""The base of the project's own errors."""


class FlowaggError(Exception):
    """Base of every error that FlowAggregator raises itself; its text says what to do next."""
