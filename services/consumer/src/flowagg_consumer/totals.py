"""Totals of one partition's flow keys in memory, and what an open batch has changed of them: in Python's objects.

native.py has the same compiled. This one is what that is compared with, and what FLOWAGG_NATIVE=false runs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Final, NamedTuple, Protocol, cast

from flowagg.flow import InvalidFlow, decode_key, encode_key
from flowagg.view import DamagedView, decode_totals, encode_totals_column, totals_field

from flowagg_consumer.records import Decoded, Records

ENTRY_OVERHEAD_BYTES: Final = 320
"""Estimate of an entry's memory beside its key and field: object, two integers, dict slot."""
MOST_STORED: Final = 10**38
"""A stored total is below it: more than 2^63 records of 2^53 bytes have."""


class ExpiredHour(InvalidFlow):
    """A flow of an hour that the view no longer keeps."""


class Refused(NamedTuple):
    """A record whose key counts nothing. place: among the records. expired: its hour has; else it is no flow key.

    No exception is kept: its traceback would hold the records, and with them what Kafka's client waits for to end.
    """

    place: int
    expired: bool
    why: str


@dataclass(frozen=True, slots=True)
class Changed:
    """What a batch changes of one hour: pairs field, value, field, value, ...; the offset of its last record."""

    hour: int
    last_offset: int
    pairs: Sequence[bytes]


class Totals(Protocol):
    """Absolute totals by flow key. Batches come one after the other: open, fold, fill what is missing, changed.

    touched: flow keys that the open batch has touched. missing: those of them whose stored totals are still to be
    added; until then they hold the batch's own sums. cached_bytes: memory of all (estimated).
    """

    @property
    def count(self) -> int:
        """Number of flow keys."""

    @property
    def cached_bytes(self) -> int: ...  # noqa: D102 - above

    @property
    def touched(self) -> int: ...  # noqa: D102

    @property
    def missing(self) -> int: ...  # noqa: D102

    def open(self, *, read_back: bool) -> None:
        """Begin a batch. read_back: what is new in it may be stored already."""

    def fold(self, records: Records, values: Decoded, counted: Sequence[bool] | None) -> Sequence[Refused]:
        """Add records, where counted (None: all). Returns what is refused."""

    def missing_fields(self) -> Sequence[tuple[int, Sequence[bytes]]]:
        """The fields whose stored totals fill() takes, by hour."""

    def fill(self, values: Sequence[bytes | None]) -> None:
        """Add stored totals, in the order of missing_fields. Raises DamagedView."""

    def changed(self) -> Sequence[Changed]:
        """What the open batch changes, hour by hour, once nothing is missing."""

    def expire(self, floor: int) -> None:
        """Forget hours below a floor and take none of them any more; before the open batch has records."""

    def forget(self, down_to_bytes: int) -> None:
        """Forget what was used least recently, down to an estimate. Not while a batch is open."""


NewTotals = Callable[[int], Totals]
"""Makes empty totals, for hours from a floor on."""


def canonical_key(raw: bytes | None, floor: int) -> tuple[bytes, int]:
    """A key's canonical spelling, and its hour. Raises InvalidFlow; ExpiredHour below the floor."""
    src_app, dest_app, vpc_id, hour = decode_key(raw)
    if hour < floor:
        raise ExpiredHour(f"the hour {hour} has expired: the view keeps hours from {floor} on")
    return encode_key(src_app, dest_app, vpc_id, hour), hour


def stored_totals(raw: bytes) -> tuple[int, int]:
    """A stored value. Raises DamagedView."""
    bytes_tx, bytes_rx = decode_totals(raw)
    if not (0 <= bytes_tx < MOST_STORED and 0 <= bytes_rx < MOST_STORED):
        raise DamagedView(f"totals in Redis are damaged: {raw[:80]!r}")
    return bytes_tx, bytes_rx


class _Entry:
    """Totals of one flow key."""

    __slots__ = ("batch", "bytes_rx", "bytes_tx", "field", "hour")

    def __init__(self, field_: bytes, hour: int) -> None:
        self.field = field_
        self.hour = hour
        self.bytes_tx = 0
        self.bytes_rx = 0
        self.batch = 0  # number of the last batch that touched it

    @property
    def size(self) -> int:
        """Its memory, in bytes (estimated). Not kept, for that would be a tenth more of it."""
        return ENTRY_OVERHEAD_BYTES + 2 * len(self.field)


class PythonTotals:
    """Totals in a dictionary of objects."""

    def __init__(self, floor: int) -> None:
        self.cached_bytes = 0
        self._floor = floor
        self._entries: dict[bytes, _Entry] = {}
        self._batch = 0
        self._read_back = False
        self._touched: list[_Entry] = []
        self._missing: list[_Entry] = []
        self._runs: list[tuple[Sequence[_Entry], Sequence[int]]] = []

    @property
    def count(self) -> int:
        """Number of flow keys, each spelling counted."""
        return len(self._entries)

    @property
    def touched(self) -> int:
        """Flow keys that the open batch has touched."""
        return len(self._touched)

    @property
    def missing(self) -> int:
        """Those of them whose stored totals are still to be added."""
        return len(self._missing)

    def open(self, *, read_back: bool) -> None:
        """As in Totals."""
        self._batch += 1
        self._read_back = read_back
        self._touched, self._missing, self._runs = [], [], []

    def fold(self, records: Records, values: Decoded, counted: Sequence[bool] | None) -> Sequence[Refused]:
        """As in Totals. By columns: a turn of a loop in Python costs more than what C does for a record meanwhile."""
        keys, counts, offsets = records.keys, values.counts, records.offsets
        places: Sequence[int] = range(len(keys))
        if counted is not None:
            keys, counts = list(compress(keys, counted)), list(compress(counts, counted))
            offsets, places = list(compress(offsets, counted)), list(compress(places, counted))
        entries = list(map(self._entries.get, keys))  # type: ignore[arg-type] # None is simply not known
        refused: list[Refused] = []
        if not all(entries):
            refused = self._admit_unknown(keys, places, entries)
            if refused:
                counts, offsets = list(compress(counts, entries)), list(compress(offsets, entries))
                entries = list(compress(entries, entries))
        known = cast(list[_Entry], entries)
        self._runs.append((known, offsets))
        batch, touch = self._batch, self._touched.append
        for entry, each in zip(known, counts, strict=True):
            if entry.batch != batch:
                entry.batch = batch
                touch(entry)
            entry.bytes_tx += each.bytes_tx
            entry.bytes_rx += each.bytes_rx
        return refused

    def missing_fields(self) -> Sequence[tuple[int, Sequence[bytes]]]:
        """As in Totals."""
        return [(hour, [entry.field for entry in entries]) for hour, entries in _by_hour(self._missing).items()]

    def fill(self, values: Sequence[bytes | None]) -> None:
        """As in Totals."""
        entries = [entry for entries in _by_hour(self._missing).values() for entry in entries]
        stored = [None if value is None else stored_totals(value) for value in values]
        for entry, found in zip(entries, stored, strict=True):
            if found is not None:
                entry.bytes_tx += found[0]
                entry.bytes_rx += found[1]
        self._missing = []

    def changed(self) -> Sequence[Changed]:
        """As in Totals."""
        by_hour = _by_hour(self._touched)
        lasts = self._last_offsets(by_hour.keys())
        changed = []
        for hour, entries in by_hour.items():
            pairs: list[bytes] = [b""] * (2 * len(entries))
            pairs[::2] = [entry.field for entry in entries]
            pairs[1::2] = encode_totals_column([(entry.bytes_tx, entry.bytes_rx) for entry in entries])
            changed.append(Changed(hour, lasts[hour], pairs))
        return changed

    def expire(self, floor: int) -> None:
        """As in Totals."""
        self._floor = floor
        self._entries = {key: entry for key, entry in self._entries.items() if entry.hour >= floor}
        self.cached_bytes = sum(entry.size for entry in self._entries.values())

    def forget(self, down_to_bytes: int) -> None:
        """As in Totals."""
        if down_to_bytes <= 0:
            self._entries.clear()
            self.cached_bytes = 0
            return
        sizes: dict[int, int] = {}
        for entry in self._entries.values():
            sizes[entry.batch] = sizes.get(entry.batch, 0) + entry.size
        kept, oldest = 0, self._batch + 1
        for batch in sorted(sizes, reverse=True):
            if kept + sizes[batch] > down_to_bytes:
                break
            kept += sizes[batch]
            oldest = batch
        self._entries = {key: entry for key, entry in self._entries.items() if entry.batch >= oldest}
        self.cached_bytes = kept

    def _admit_unknown(
        self, keys: Sequence[bytes | None], places: Sequence[int], entries: list[_Entry | None]
    ) -> list[Refused]:
        """Find entries for the keys that have none, in place; the places of those that get none, and why."""
        refused: list[Refused] = []
        for number in [number for number, entry in enumerate(entries) if entry is None]:
            key = keys[number]
            try:
                entry = self._entries.get(key) or self._admit(key)  # type: ignore[arg-type] # as in fold
            except InvalidFlow as error:
                refused.append(Refused(places[number], isinstance(error, ExpiredHour), str(error)))
                continue
            entries[number] = entry
            if entry.batch == 0:  # new
                entry.batch = self._batch
                self._touched.append(entry)
                if self._read_back:
                    self._missing.append(entry)
        return refused

    def _admit(self, raw: bytes | None) -> _Entry:
        """The entry of a key that is not in memory under this spelling. Raises InvalidFlow."""
        canonical, hour = canonical_key(raw, self._floor)
        assert raw is not None  # noqa: S101 - a key without bytes was refused
        entry = self._entries.get(canonical)
        if entry is None:
            entry = _Entry(totals_field(canonical), hour)
            self._entries[canonical] = entry
            self.cached_bytes += entry.size
        if raw != canonical:
            self._entries[raw] = entry
            self.cached_bytes += len(raw) + 100
        return entry

    def _last_offsets(self, hours: Iterable[int]) -> dict[int, int]:
        """By hour, which each has one, the offset of the last record that counts. Sought from the end: it is near."""
        left = set(hours)
        found: dict[int, int] = {}
        for entries, offsets in reversed(self._runs):
            for entry, offset in zip(reversed(entries), reversed(offsets), strict=True):
                if entry.hour in left:
                    left.discard(entry.hour)
                    found[entry.hour] = offset
                    if not left:
                        return found
        return found


def _by_hour(entries: Iterable[_Entry]) -> Mapping[int, list[_Entry]]:
    by_hour: dict[int, list[_Entry]] = {}
    for entry in entries:
        found = by_hour.get(entry.hour)
        if found is None:
            by_hour[entry.hour] = [entry]
        else:
            found.append(entry)
    return by_hour
