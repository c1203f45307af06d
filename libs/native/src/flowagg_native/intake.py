"""Where records come from: confluent-kafka's client, without an object of Python's for each of them.

The client is confluent-kafka's as ever, with its group, its callbacks and its errors; only records take another way
(c/intake.c).
"""

import math
import weakref

from flowagg_native.chunk import Chunk
from flowagg_native.client import ClientRefuses
from flowagg_native.library import calls, waits


class Intake:
    """Takes the records of the client that this thread has made last, and what is said of their partitions.

    The client is made with_plugin(); the group's events are its own. To be closed before the client is.
    """

    def __init__(self) -> None:
        """Raises ClientRefuses."""
        self._taken: weakref.WeakSet[Chunk] = weakref.WeakSet()
        self._handle: int | None = calls.intake_open()
        if self._handle is None:
            raise ClientRefuses("librdkafka did not load the plugin")

    def lead(self, topic: str, partition: int) -> None:
        """Take a partition's records until it is stopped; those that have come already, too. Raises ClientRefuses."""
        if calls.intake_lead(self._open(), topic.encode(), partition) != 0:
            raise ClientRefuses(f"partition {partition} has no queue")

    def take(self, most: int, wait_seconds: float, linger_seconds: float) -> Chunk:
        """Wait for a record, and once there is one for others up to linger_seconds.

        An event of the client ends the wait: who takes records looks at its events in between.
        """
        linger_ms = math.ceil(linger_seconds * 1000)
        chunk = Chunk(waits.intake_take(self._open(), most, math.ceil(wait_seconds * 1000), linger_ms))
        self._taken.add(chunk)
        return chunk

    @property
    def shelved(self) -> int:
        """Messages whose chunks are gone, and which their broker's thread has still to free (c/intake.c)."""
        count: int = calls.intake_shelved(self._open())
        return count

    def close(self) -> None:
        """Take no more, and give back what was taken: chunks that are still there are empty then."""
        for chunk in self._taken:
            chunk.release()
        if self._handle is not None:
            calls.intake_close(self._handle)
            self._handle = None

    def _open(self) -> int:
        if self._handle is None:
            raise ClientRefuses("it is closed")
        return self._handle
