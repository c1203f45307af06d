"""The pure core of the exactly-once path: one owned partition of the log.

No I/O, no clock: the worker hands in what Kafka and Redis said and carries out what comes back.
The steps are numbered as in docs/decisions/0003-a-view-with-a-fence.md.

The invariant above all others: everything stored at position P of a partition is a pure function
of the log from its recorded start up to P, and only the fenced script writes it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from flowagg.flow import InvalidFlow, decode_key, encode_key
from flowagg.view import Meta, decode_totals, encode_totals, totals_field

from flowagg_consumer.records import InvalidValue, Records, decode_values

ENTRY_OVERHEAD_BYTES: Final = 360
"""Estimate of an entry's memory beside its key and field: object, three integers, dict slot."""


class StopReason(StrEnum):
    """Why a partition is stopped. Each has a documented repair in docs/guides/stopped-partitions.md."""

    TOPIC_CHANGED = "TopicChanged"
    INVALID_RECORD = "InvalidRecord"
    POSITION_OUT_OF_RANGE = "PositionOutOfRange"
    LOG_TRUNCATED = "LogTruncated"
    DAMAGED_VIEW = "DamagedView"


class Stop(Exception):
    """A partition cannot go on without an operator; nothing of it is applied meanwhile."""

    def __init__(self, reason: StopReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class Refetch(Exception):
    """The log seems to have a gap: fetch again from the partition's position to see whether it stays."""


class Fenced(Exception):
    """The stored position is not the one that was expected: drop what is in memory and load again."""


class Entry:
    """Totals of one flow key, in memory. Counts in `bytes_*` are absolute once `stored` is known."""

    __slots__ = ("batch", "bytes_rx", "bytes_tx", "field", "hour", "last", "size")

    def __init__(self, field_: bytes, hour: int, size: int) -> None:
        self.field = field_
        self.hour = hour
        self.size = size
        self.bytes_tx = 0
        self.bytes_rx = 0
        self.batch = 0  # number of the last batch that touched it
        self.last = 0  # offset of the last record that touched it


@dataclass(slots=True)
class Batch:
    """Records folded, not yet applied.

    expected: the position that they follow. position: the next offset after them.
    touched: the entries that they change. missing: those of them whose stored totals are not in
    memory yet; they hold the batch's own sums until fill(). rest: records that were handed in and
    come after the batch: to be folded once it is applied.
    """

    expected: int
    position: int
    leader_epoch: int
    records: int
    touched: list[Entry]
    missing: list[Entry]
    rest: Records | None


@dataclass(frozen=True, slots=True)
class HourTotals:
    """What one hour gets from a batch: pairs field, value, field, value, ...; and its last position."""

    hour: int
    last_position: int
    pairs: list[bytes]


class Partition:
    """One owned partition: its position, and the totals of its flow keys in memory.

    Life: begin or resume with a meta; fold, fill, totals, applied, again and again; on any doubt
    it is thrown away, never mended, and a new one is loaded from Redis.
    """

    def __init__(self, number: int, meta: Meta) -> None:
        self.number = number
        self.meta = meta
        self.position = meta.position
        self.leader_epoch = meta.leader_epoch
        self.cached_bytes = 0
        self._entries: dict[bytes, Entry] = {}
        self._batches = 0
        self._seen_gap: tuple[int, int] | None = None
        # Nothing was ever applied: then Redis holds no totals either, and none need be read back.
        self._pristine = meta.position == meta.start

    @property
    def cached_entries(self) -> int:
        """Number of flow keys in memory."""
        return len(self._entries)

    def fold(self, records: Records) -> Batch | None:
        """Steps 2 and 3: fold records into entries; None where all of them were applied before.

        Records below the position are discarded. A batch ends before a gap and before a record
        that is no flow; handed in again as the rest, the gap raises Refetch (unless it was seen
        twice) and the record raises Stop, both before anything changes.
        """
        accepted = self._accept(records)
        if accepted is None:
            return None
        try:
            values = decode_values(accepted.values)
        except InvalidValue as error:
            if error.place == 0:
                raise self._invalid(accepted.offsets[0], error.reason) from None
            accepted = accepted.between(0, error.place)
            values = decode_values(accepted.values)
        self._batches = batch_number = self._batches + 1
        known = self._entries.get
        touched: list[Entry] = []
        missing: list[Entry] = []
        last = self.position - 1
        for key, counts, offset in zip(accepted.keys, values, accepted.offsets, strict=True):
            entry = known(key)  # type: ignore[arg-type] # None is simply not known
            if entry is None:
                try:
                    entry = self._admit(key)
                except InvalidFlow as error:
                    if not touched:
                        raise self._invalid(offset, str(error)) from None
                    break
                if entry.batch == 0 and not self._pristine:
                    missing.append(entry)
            if entry.batch != batch_number:
                entry.batch = batch_number
                touched.append(entry)
            entry.bytes_tx += counts.bytes_tx
            entry.bytes_rx += counts.bytes_rx
            entry.last = last = offset
        return Batch(
            expected=self.position,
            position=last + 1,
            leader_epoch=records.leader_epoch,
            records=last - accepted.offsets[0] + 1,
            touched=touched,
            missing=missing,
            rest=None if last == records.offsets[-1] else records.after(last),
        )

    def fill(self, batch: Batch, stored_position: int, incarnation: str, values: Sequence[bytes | None]) -> None:
        """Step 3: add the stored totals of batch.missing, in that order, read in one atomic call.

        Raises Fenced where the call's own position is not the one that the fold started from.
        """
        if stored_position != batch.expected or incarnation != self.meta.incarnation:
            raise Fenced
        for entry, value in zip(batch.missing, values, strict=True):
            if value is not None:
                bytes_tx, bytes_rx = decode_totals(value)
                entry.bytes_tx += bytes_tx
                entry.bytes_rx += bytes_rx

    def totals(self, batch: Batch) -> list[HourTotals]:
        """Step 4: what the script has to write for a filled batch, hour by hour, as absolute totals."""
        hours: dict[int, tuple[list[bytes], int]] = {}
        for entry in batch.touched:
            pairs, last = hours.get(entry.hour) or ([], 0)
            pairs.append(entry.field)
            pairs.append(encode_totals(entry.bytes_tx, entry.bytes_rx))
            hours[entry.hour] = pairs, max(last, entry.last)
        return [HourTotals(hour, last + 1, pairs) for hour, (pairs, last) in hours.items()]

    def applied(self, batch: Batch) -> None:
        """Step 5: the script has applied the batch."""
        self.position = batch.position
        self.leader_epoch = batch.leader_epoch
        self._pristine = False

    def forget_totals(self) -> None:
        """Free the memory of all totals; they are read back from Redis when needed."""
        self._entries.clear()
        self.cached_bytes = 0

    def _accept(self, records: Records) -> Records | None:
        """The first run of records without a gap that begins at the position."""
        offsets = records.offsets
        start = 0
        if offsets[0] < self.position:
            start = bisect_left(offsets, self.position)
            if start == len(offsets):
                return None
        first = offsets[start]
        if first != self.position:
            # Control records of transactions leave gaps that stay; a lost fetch would not.
            if self._seen_gap != (self.position, first):
                self._seen_gap = (self.position, first)
                raise Refetch
            self._seen_gap = None
        count = len(offsets)
        if offsets[-1] - first == count - 1 - start:  # offsets ascend: no gap inside
            return records if start == 0 else records.between(start, count)
        stop = next(place for place in range(start + 1, count) if offsets[place] != offsets[place - 1] + 1)
        return records.between(start, stop)

    def _admit(self, raw: bytes | None) -> Entry:
        """The entry of a key that is not in memory under this spelling. Raises InvalidFlow."""
        src_app, dest_app, vpc_id, hour = decode_key(raw)
        assert raw is not None  # noqa: S101 - decode_key refused it
        canonical = encode_key(src_app, dest_app, vpc_id, hour)
        entry = self._entries.get(canonical)
        if entry is None:
            field_ = totals_field(canonical)
            entry = Entry(field_, hour, ENTRY_OVERHEAD_BYTES + len(canonical) + len(field_))
            self._entries[canonical] = entry
            self.cached_bytes += entry.size
        if raw != canonical:
            self._entries[raw] = entry
            self.cached_bytes += len(raw) + 100
        return entry

    def _invalid(self, offset: int, reason: str) -> Stop:
        return Stop(
            StopReason.INVALID_RECORD,
            f"the record at offset {offset} of partition {self.number} is no flow: {reason}",
        )
