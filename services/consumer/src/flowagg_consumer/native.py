"""Records and totals in the compiled library's memory, in the place of Python's objects: the same, faster.

What is spelled otherwise than writers spell it (a mark, another JSON spelling, what is no flow at all) is judged in
Python, by the same code as ever; the library only adds up.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, overload

from flowagg.flow import ByteCounts, InvalidFlow
from flowagg.view import DamagedView, encode_totals
from flowagg_native.chunk import Chunk
from flowagg_native.totals import PackedHour
from flowagg_native.totals import Totals as LibraryTotals

from flowagg_consumer.packed import Packed
from flowagg_consumer.records import Decoded, Records, decode_joined, decode_values
from flowagg_consumer.totals import Changed, ExpiredHour, NewTotals, Refused, canonical_key, stored_totals


class NativeRecords(Records):
    """Records at places start..stop-1 of a chunk. Its columns are made of what is looked at."""

    __slots__ = ("chunk", "start", "stop")

    def __init__(self, chunk: Chunk, start: int, stop: int, leader_epoch: int) -> None:
        super().__init__(
            chunk.offsets(start, stop),
            _Column(chunk.key, start, stop),
            _Column(chunk.value, start, stop),
            leader_epoch,
            _Column(lambda place: chunk.timestamps(place, place + 1)[0], start, stop),
        )
        for name, value in (("chunk", chunk), ("start", start), ("stop", stop)):
            object.__setattr__(self, name, value)  # frozen like its columns

    chunk: Chunk
    start: int
    stop: int

    @classmethod
    def of(cls, records: Records) -> "NativeRecords":
        """The same records, in a chunk."""
        chunk = Chunk.of(records.offsets, records.keys, records.values, records.timestamps)
        return cls(chunk, 0, len(chunk), records.leader_epoch)

    def between(self, start: int, stop: int) -> "NativeRecords":
        """As in Records."""
        return NativeRecords(self.chunk, self.start + start, self.start + stop, self.leader_epoch)

    def latest(self) -> int:
        """As in Records."""
        return max(self.chunk.timestamps(self.start, self.stop))

    def decode(self) -> Decoded:
        """As in Records."""
        chunk, start = self.chunk, self.start
        counts = _Column(lambda place: ByteCounts(*chunk.counts(place)), start, self.stop)
        odd = chunk.read(start, self.stop)
        if not odd:
            return Decoded(counts, {}, {})
        joined = chunk.join(odd)
        decoded = (None if joined is None else decode_joined(joined, len(odd))) or decode_values(
            [chunk.value(place) for place in odd]
        )
        good = [number for number in range(len(odd)) if number not in decoded.bad]
        found = [decoded.counts[number] for number in good]
        chunk.set_counts(
            [odd[number] for number in good], [each.bytes_tx for each in found], [each.bytes_rx for each in found]
        )
        bad = {odd[number] - start: reason for number, reason in decoded.bad.items()}
        marks = {odd[number] - start: mark for number, mark in decoded.marks.items()}
        return Decoded(counts, bad, marks)


_NOTHING = b"?"  # stored, but no totals

_T_co = TypeVar("_T_co", covariant=True)


class _Column(Sequence[_T_co]):
    """A column of which each item is made when it is looked at."""

    __slots__ = ("_item", "_start", "_stop")

    def __init__(self, item: Callable[[int], _T_co], start: int, stop: int) -> None:
        self._item, self._start, self._stop = item, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, place: int) -> _T_co: ...
    @overload
    def __getitem__(self, place: slice) -> "list[_T_co]": ...
    def __getitem__(self, place: int | slice) -> "_T_co | list[_T_co]":
        places = range(self._start, self._stop)[place]
        return self._item(places) if isinstance(places, int) else [self._item(each) for each in places]

    def __iter__(self) -> Iterator[_T_co]:
        return map(self._item, range(self._start, self._stop))


class NativeTotals:
    """Totals (see totals.py) in the library's memory."""

    def __init__(self, seed: int, floor: int) -> None:
        self._totals = LibraryTotals(seed, floor)
        self._floor = floor

    @property
    def count(self) -> int:
        """Number of flow keys."""
        return len(self._totals)

    @property
    def cached_bytes(self) -> int:
        """Their memory."""
        return self._totals.memory_bytes

    @property
    def touched(self) -> int:
        """As in Totals."""
        return self._totals.touched

    @property
    def missing(self) -> int:
        """As in Totals."""
        return self._totals.missing

    def open(self, *, read_back: bool) -> None:
        """As in Totals."""
        self._totals.open(read_back=read_back)

    def fold(
        self,
        records: Records,
        values: Decoded,  # noqa: ARG002 - the chunk holds them
        counted: Sequence[bool] | None,
    ) -> Sequence[Refused]:
        """As in Totals."""
        assert isinstance(records, NativeRecords)  # noqa: S101 - no others come together with these totals
        chunk, start = records.chunk, records.start
        refused: list[Refused] = []
        for place in self._totals.fold(chunk, start, records.stop, None if counted is None else bytes(counted)):
            try:
                canonical, hour = canonical_key(chunk.key(place), self._floor)
            except InvalidFlow as error:
                refused.append(Refused(place - start, isinstance(error, ExpiredHour), str(error)))
            else:
                self._totals.fold_as(chunk, place, canonical, hour)
        return refused

    def missing_fields(self) -> Sequence[tuple[int, Sequence[bytes]]]:
        """As in Totals."""
        return [(hour.hour, _packed(hour)) for hour in self._totals.missing_fields()]

    def fill(self, values: Sequence[bytes | None]) -> None:
        """As in Totals."""
        if self._totals.fill(b"\n".join([b"" if value is None else value or _NOTHING for value in values])):
            return
        spelled = [b"" if value is None else encode_totals(*stored_totals(value)) for value in values]
        if not self._totals.fill(b"\n".join(spelled)):
            raise DamagedView("totals in Redis are damaged")  # not seen: each of them was looked at

    def changed(self) -> Sequence[Changed]:
        """As in Totals."""
        return [Changed(hour.hour, hour.last_offset, _packed(hour)) for hour in self._totals.changed()]

    def expire(self, floor: int) -> None:
        """As in Totals."""
        self._floor = floor
        self._totals.expire(floor)

    def forget(self, down_to_bytes: int) -> None:
        """As in Totals."""
        self._totals.forget(down_to_bytes)


def native_totals(seed: int) -> NewTotals:
    """Makes totals in the library's memory. seed: 128 secret bits."""
    return lambda floor: NativeTotals(seed, floor)


def _packed(hour: PackedHour) -> Packed:
    return Packed(hour.count, hour.packed)
