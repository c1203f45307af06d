"""Records as they come, many at a time, in memory of the library's."""

import ctypes
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from flowagg_native.library import ChunkHead, Event, Record, Run, calls


@dataclass(frozen=True, slots=True)
class Said:
    """What Kafka's client says that is no record. partition: -1 of none. error: its code."""

    partition: int
    error: int
    offset: int
    text: str


class Chunk:
    """Records at places 0..len-1, in runs of one partition each (of columns, without); freed with this object."""

    def __init__(self, handle: int, kept: object = None) -> None:
        self.handle = handle
        self._kept = kept  # memory that the records lie in
        self._head = ChunkHead.from_address(handle)
        self._records: ctypes.Array[Record] | None = None

    @classmethod
    def of(
        cls,
        offsets: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps: Sequence[int],
    ) -> "Chunk":
        """A chunk of columns."""
        parts = [part for pair in zip(keys, values, strict=True) for part in pair]
        text = b"".join(part for part in parts if part is not None)
        columns = [
            array("q", column)
            for column in ([-1 if part is None else len(part) for part in parts], offsets, timestamps)
        ]
        if not len(keys) == len(columns[1]) == len(columns[2]):
            raise ValueError("columns of different lengths")
        return cls(calls.chunk_of(len(keys), text, *(column.buffer_info()[0] for column in columns)), text)

    def __del__(self) -> None:
        calls.chunk_free(self.handle)

    def release(self) -> None:
        """Give messages of Kafka's client back: it is empty then. The client does not end before it has all of them."""
        calls.chunk_release(self.handle)

    def __len__(self) -> int:
        count: int = self._head.count
        return count

    def runs(self) -> list[tuple[int, int, int, int]]:
        """(partition, leader epoch, start, stop) of each stretch of consecutive places; -1 where there is no epoch."""
        count = self._head.run_count
        runs = (Run * count).from_address(self._head.runs)
        return [(run.partition, run.leader_epoch, run.start, run.stop) for run in runs]

    def said(self) -> list[Said]:
        """What came beside the records."""
        events = (Event * self._head.event_count).from_address(self._head.events)
        return [
            Said(event.partition, event.error, event.offset, (event.text or b"").decode("utf-8", "replace"))
            for event in events
        ]

    def offsets(self, start: int, stop: int) -> Sequence[int]:
        """Offsets of places start..stop-1."""
        self._check(start, stop)
        if start == stop:
            return range(0)
        all_offsets = (ctypes.c_int64 * len(self)).from_address(self._head.offsets)
        first, last = all_offsets[start], all_offsets[stop - 1]
        if last - first == stop - start - 1:  # they ascend: no gap inside
            return range(first, last + 1)
        return all_offsets[start:stop]

    def timestamps(self, start: int, stop: int) -> Sequence[int]:
        """Log-append times of places start..stop-1, in milliseconds."""
        self._check(start, stop)
        found = array("q", bytes(8 * (stop - start)))
        calls.chunk_timestamps(self.handle, start, stop, found.buffer_info()[0])
        return found

    def key(self, place: int) -> bytes | None:
        """The key at a place."""
        record = self._record(place)
        return None if record.key is None else ctypes.string_at(record.key, record.key_size)

    def value(self, place: int) -> bytes | None:
        """The value at a place."""
        record = self._record(place)
        return None if record.value is None else ctypes.string_at(record.value, record.value_size)

    def counts(self, place: int) -> tuple[int, int]:
        """(bytes_tx, bytes_rx) at a place whose value has been read."""
        record = self._record(place)
        return record.bytes_tx, record.bytes_rx

    def read(self, start: int, stop: int) -> list[int]:
        """Read the values of places start..stop-1. Those that are not spelled as writers spell them are left: which."""
        self._check(start, stop)
        odd = (ctypes.c_uint32 * (stop - start))()
        return odd[: calls.chunk_read(self.handle, start, stop, odd)]

    def join(self, places: Sequence[int]) -> bytes | None:
        """The values at places, with line ends between them; None where one has no value."""
        numbers, text = array("I", places), ctypes.c_void_p()
        size = calls.chunk_join(self.handle, len(numbers), numbers.buffer_info()[0], ctypes.byref(text))
        if size == -1:
            raise IndexError("a place that is none")
        return None if size < 0 else ctypes.string_at(text, size) if size else b""

    def set_counts(self, places: Sequence[int], bytes_tx: Sequence[int], bytes_rx: Sequence[int]) -> None:
        """Set what the values at places count, of 0..2^53-1 each."""
        if not len(places) == len(bytes_tx) == len(bytes_rx):
            raise ValueError("columns of different lengths")
        columns = (array("I", places), array("Q", bytes_tx), array("Q", bytes_rx))
        if calls.chunk_set(self.handle, len(places), *(column.buffer_info()[0] for column in columns)) != 0:
            raise ValueError("a place that is none, or a count out of bounds")

    def _check(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= len(self):
            raise IndexError("places that are none")

    def _record(self, place: int) -> Record:
        self._check(place, place + 1)
        if self._records is None:
            self._records = (Record * len(self)).from_address(self._head.records)
        return self._records[place]
