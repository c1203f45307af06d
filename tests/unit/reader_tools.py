"""What tests of the reader share."""

from flowagg.position import Position


class FakeLog:
    """A log of one partition that ends at 10, or that does not answer."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def end(self) -> Position:
        """Where it ends."""
        if self.error is not None:
            raise self.error
        return Position("t", {0: 10})

    def serve_logs(self) -> None:
        """Nothing to serve."""
