"""Batches that the compiled library reads and hands to Kafka: of plain bodies without an Idempotency-Key.

All others are read and handed over in Python (batch.py), to the same records.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from confluent_kafka import KafkaError
from flowagg_native.client import ClientRefuses
from flowagg_native.outlet import Outlet, Parcel, Tray

from flowagg_writer.batch import KnownKeys, Told

FLOWS_A_STEP: Final = 8_000
"""Flows handed to Kafka before other requests get their turn: some 2 ms."""


class ParcelBatch:
    """The valid flows of one POST on their way to the log, as Batch is."""

    __slots__ = ("_parcel", "count", "size_bytes")

    key: Final = None
    partitions_needed: Final = 1

    def __init__(self, parcel: Parcel, size_bytes: int) -> None:
        self._parcel = parcel
        self.count = len(parcel)
        self.size_bytes = size_bytes

    def check(self, known: KnownKeys) -> None:
        """As Batch does: it has no key."""

    def told(self) -> Told:
        """What became of its records so far."""
        told = self._parcel.told()
        return Told(told.taken, told.all, told.error, told.next_offsets)

    def send(self, outlet: Outlet, tray: Tray, partitions: int, complete: Callable[[], object]) -> None:
        """As hand_over, in one go."""
        tray.send_whole(self._parcel, outlet, partitions, KafkaError._PURGE_QUEUE, complete)

    def answer(self, tray: Tray, topic_id: str) -> bytes | None:
        """The body of the answer; None where told() is to say what became of it. tray: that it was on."""
        return tray.answer(self._parcel, topic_id.encode())

    def hand_over(self, outlet: Outlet, tray: Tray, partitions: int, complete: Callable[[], object]) -> Iterator[None]:
        """Hand every record to Kafka, a partition's in order, pausing (yielding) after each FLOWS_A_STEP of them.

        partitions: of the topic, as far as is known: where a key goes. The client decides where it knows better.

        What the client does not take is told as a record's error, and nothing behind it is handed over. complete:
        called by the tray, once all is told.
        """
        sending = tray.send(self._parcel, partitions, complete)
        try:
            with contextlib.suppress(ClientRefuses):  # another producer has taken its place
                while sending.hand_over(outlet, FLOWS_A_STEP):
                    yield
        finally:
            sending.close(KafkaError._PURGE_QUEUE)


def plan_parcel(body: bytes) -> ParcelBatch | None:
    """The batch of a JSON array of flows; None where that is for Python to judge."""
    parcel = Parcel.of(body)
    return None if parcel is None else ParcelBatch(parcel, len(body))
