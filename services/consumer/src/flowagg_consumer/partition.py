"""The pure core of the exactly-once path: one owned partition of the log.

No I/O, no clock. core.py hands in what Kafka and Redis said and carries out what comes back. The
steps are numbered as in docs/decisions/0003-a-view-with-a-fence.md.

The invariant above all others: everything stored at position P of a partition is a pure function
of the log from its recorded start up to P, and only the fenced call writes it.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import compress
from typing import Final, cast

from flowagg.flow import InvalidFlow, decode_key, encode_key
from flowagg.idempotency import InvalidMark, Mark
from flowagg.view import HourMark, Meta, decode_totals, encode_hour, encode_totals_column, totals_field

from flowagg_consumer.marks import ENTRY_BYTES, NO_TIME, MarkEntry, Verdict, Window, decode_entry
from flowagg_consumer.records import Decoded, Records, decode_values
from flowagg_consumer.retention import NO_TICK, Expiry, Retention

ENTRY_OVERHEAD_BYTES: Final = 320
"""Estimate of an entry's memory beside its key and field: object, two integers, dict slot."""


class StopReason(StrEnum):
    """Why a partition is stopped. Each has a documented repair in docs/guides/stopped-partitions.md."""

    TOPIC_CHANGED = "TopicChanged"
    POSITION_BEYOND_LOG = "PositionBeyondLog"
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


class _ExpiredHour(InvalidFlow):
    """A flow of an hour that the view no longer keeps."""


class DeadLetterReason(StrEnum):
    """Why a record went to the dead-letter topic."""

    INVALID_KEY = "InvalidKey"
    INVALID_VALUE = "InvalidValue"
    INVALID_MARK = "InvalidIdempotencyMark"
    KEY_REUSED = "IdempotencyKeyReused"
    EXPIRED_HOUR = "ExpiredHour"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that counts nothing: where it stood, what it held, and why."""

    offset: int
    key: bytes | None
    value: bytes | None
    reason: DeadLetterReason
    detail: str


class Entry:
    """Totals of one flow key, in memory; absolute, once a missing one was filled."""

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


@dataclass(frozen=True, slots=True)
class Examined:
    """Records that follow the position, before they are folded.

    position: the next offset after them. values: decoded, in place. marks: by place, of keyed
    records. unknown_marks: keys whose entries are not in memory. tick: the tick of retention that
    begins with the first record, None where none does; then hours may expire first. rest: records
    that were handed in and come after: to be handed in again.
    """

    records: Records
    position: int
    values: Decoded
    marks: Mapping[int, Mark | InvalidMark]
    unknown_marks: list[str]
    tick: int | None
    rest: Records | None


@dataclass(slots=True)
class Batch:
    """Records folded, not yet applied; or, with no records, a move over what holds no records.

    expected: the position that they follow. position: the next offset after them. touched: the
    entries that they change. runs: of each fold, entries and offsets of the records that count. missing:
    those of touched whose stored totals are not in memory yet; they hold the batch's own sums until fill().
    marks: entries of keys that they change.
    time: the running maximum of keyed records' log time after them; expired: the buckets of marks
    that it ends. expiry: what a new tick of retention brings. dead: records that count nothing.
    lost: a range of offsets that the log no longer held. due_at: when it is sent even if more records
    wait, by the core's clock, once enough are gathered; overdue_at: in any case.
    """

    expected: int
    position: int
    leader_epoch: int
    records: int = 0
    touched: list[Entry] = field(default_factory=list)
    runs: list[tuple[Sequence[Entry], Sequence[int]]] = field(default_factory=list)
    missing: list[Entry] = field(default_factory=list)
    marks: dict[str, MarkEntry] = field(default_factory=dict)
    time: int = NO_TIME
    expired: list[int] = field(default_factory=list)
    expiry: Expiry | None = None
    dead: list[DeadLetter] = field(default_factory=list)
    lost: tuple[int, int] | None = None
    due_at: float | None = None
    overdue_at: float | None = None

    @property
    def writes(self) -> int:
        """What is to be written for it: totals, marks and dead letters."""
        return len(self.touched) + len(self.marks) + len(self.dead)


@dataclass(frozen=True, slots=True)
class HourTotals:
    """What one hour gets from a batch: pairs field, value, field, value, ...; and its mark, encoded."""

    hour: int
    mark: bytes
    pairs: list[bytes]


class Partition:
    """One owned partition: its position, and the totals and marks that are in memory.

    position: the next offset to fold. open: the batch that has been folded and not sent, if there is one.
    sent_position: the next offset after all that was sent to Redis, where the open batch begins. applied: the
    position that Redis has acknowledged. Life: examine, learn_marks, expire and fold, again and again into one
    batch; then fill, totals, sent, and in the end acknowledged. On any doubt it is thrown away, never mended, and
    a new one is loaded from Redis, unless Redis is seen to hold exactly what was sent.
    """

    def __init__(self, number: int, meta: Meta, window: Window, retention: Retention | None = None) -> None:
        self.number = number
        self.meta = meta
        self.position = meta.position
        self.sent_position = meta.position
        self.applied = meta.position
        self.open: Batch | None = None
        self.leader_epoch = meta.leader_epoch
        self.time = meta.time
        self.floor = meta.floor
        self.tick = meta.tick
        self.cached_bytes = 0
        self._window = window
        self._retention = Retention() if retention is None else retention
        self._entries: dict[bytes, Entry] = {}
        self._marks: dict[str, MarkEntry | None] = {}  # None: known not to be stored
        self._batches = 0
        self._seen_gap: tuple[int, int] | None = None
        # Nothing was ever applied: then Redis holds no totals either, and none need be read back.
        self._pristine = meta.position == meta.start and meta.lost is None

    @property
    def cached_entries(self) -> int:
        """Number of flow keys in memory."""
        return len(self._entries)

    def live_buckets(self) -> range:
        """The buckets in which a mark may be stored."""
        return self._window.live(self.time)

    def examine(self, records: Records) -> Examined | None:
        """Step 2: the first run of records that follows the position; None where all were applied before.

        Records below the position are discarded. Raises Refetch at a gap that was not seen twice.
        """
        accepted = self._accept(records)
        if accepted is None:
            return None
        accepted, tick = self._cut_at_tick(accepted)
        values = decode_values(accepted.values)
        found = _marks(values)
        keys = dict.fromkeys(mark.key for mark in found.values() if isinstance(mark, Mark))
        last = accepted.offsets[-1]
        return Examined(
            records=accepted,
            position=last + 1,
            values=values,
            marks=found,
            unknown_marks=[] if self._pristine else [key for key in keys if key not in self._marks],
            tick=tick,
            rest=None if last == records.offsets[-1] else records.after(last),
        )

    def learn_marks(
        self, examined: Examined, stored_position: int, incarnation: str, values: Sequence[Mapping[int, bytes]]
    ) -> None:
        """Step 3: take the stored marks of examined.unknown_marks, in that order, each by bucket.

        Raises Fenced where the position of the same atomic read is not the one that the batch follows.
        """
        self._check_read(stored_position, incarnation)
        for key, by_bucket in zip(examined.unknown_marks, values, strict=True):
            newest = max(by_bucket, default=None)
            self._marks[key] = None if newest is None else decode_entry(by_bucket[newest], newest)
            self.cached_bytes += ENTRY_BYTES + len(key)

    def expire(
        self, examined: Examined, stored_position: int, incarnation: str, hours: Mapping[int, HourMark]
    ) -> Expiry:
        """Step 3: what the tick that begins with the records brings, from the stored hours.

        Raises Fenced where the position of the same atomic read is not the one that the fold starts from.
        """
        self._check_read(stored_position, incarnation)
        assert examined.tick is not None  # noqa: S101 - asked only then
        next_hour: int | None = None
        with suppress(InvalidFlow):
            *_, next_hour = decode_key(examined.records.keys[0])
        return self._retention.expire(examined.tick, self.floor, hours, next_hour)

    def fold(self, examined: Examined, expiry: Expiry | None = None) -> Batch:
        """Step 3: fold records into entries and the open batch. Records that count nothing become dead letters.

        A tick's expiry is the first thing of a batch: what was folded before it must have been sent.
        """
        records = examined.records
        batch = self.open
        if batch is None:
            self._batches += 1
            batch = self.open = Batch(self.position, self.position, self.leader_epoch, time=self.time)
        if expiry is not None:
            assert not batch.records, "an open batch has the tick before"  # noqa: S101
            self._take(expiry)
            batch.expiry = expiry
        batch_number = self._batches
        batch.position = self.position = examined.position
        batch.leader_epoch = self.leader_epoch = records.leader_epoch
        batch.records += len(records.offsets)
        keys, values, offsets = records.keys, examined.values.counts, records.offsets
        if examined.marks or examined.values.bad:
            counted = self._judge(examined, batch)
            keys, values = list(compress(keys, counted)), list(compress(values, counted))
            offsets = list(compress(offsets, counted))
        # By columns: each turn of a loop in Python costs more than all that C does for a record in the same time.
        entries = list(map(self._entries.get, keys))  # type: ignore[arg-type] # None is simply not known
        if not all(entries):
            self._admit_unknown(records, keys, offsets, entries, batch)
            if not all(entries):  # what is left is dead
                values, offsets = list(compress(values, entries)), list(compress(offsets, entries))
                entries = list(compress(entries, entries))
        known = cast(list[Entry], entries)
        batch.runs.append((known, offsets))
        touch = batch.touched.append
        for entry, counts in zip(known, values, strict=True):
            if entry.batch != batch_number:
                entry.batch = batch_number
                touch(entry)
            entry.bytes_tx += counts.bytes_tx
            entry.bytes_rx += counts.bytes_rx
        if batch.dead:
            batch.dead.sort(key=lambda letter: letter.offset)
        return batch

    def _admit_unknown(
        self,
        records: Records,
        keys: Sequence[bytes | None],
        offsets: Sequence[int],
        entries: list[Entry | None],
        batch: Batch,
    ) -> None:
        """Find entries for the keys that have none, in place; one that gets none has become a dead letter."""
        for place in [place for place, entry in enumerate(entries) if entry is None]:
            key = keys[place]
            try:
                entry = self._entries.get(key) or self._admit(key)  # type: ignore[arg-type] # as in fold
            except _ExpiredHour as error:
                batch.dead.append(_dead(records, offsets[place], DeadLetterReason.EXPIRED_HOUR, str(error)))
                continue
            except InvalidFlow as error:
                batch.dead.append(_dead(records, offsets[place], DeadLetterReason.INVALID_KEY, str(error)))
                continue
            entries[place] = entry
            if entry.batch == 0:  # new
                entry.batch = self._batches
                batch.touched.append(entry)
                if not self._pristine:
                    batch.missing.append(entry)

    def fill(self, batch: Batch, stored_position: int, incarnation: str, values: Sequence[bytes | None]) -> None:
        """Step 3: add the stored totals of batch.missing, in that order, read in one atomic call.

        Raises Fenced where the call's own position is not the one that the batch follows.
        """
        self._check_read(stored_position, incarnation)
        for entry, value in zip(batch.missing, values, strict=True):
            if value is not None:
                bytes_tx, bytes_rx = decode_totals(value)
                entry.bytes_tx += bytes_tx
                entry.bytes_rx += bytes_rx
        batch.missing = []

    def totals(self, batch: Batch) -> list[HourTotals]:
        """Step 4: what the call has to write for a filled batch, hour by hour, as absolute totals."""
        by_hour: dict[int, list[Entry]] = {}
        for entry in batch.touched:
            entries = by_hour.get(entry.hour)
            if entries is None:
                by_hour[entry.hour] = [entry]
            else:
                entries.append(entry)
        lasts = _last_offsets(by_hour.keys(), batch)
        hours = []
        for hour, entries in by_hour.items():
            pairs: list[bytes] = [b""] * (2 * len(entries))
            pairs[::2] = [entry.field for entry in entries]
            pairs[1::2] = encode_totals_column([(entry.bytes_tx, entry.bytes_rx) for entry in entries])
            mark = HourMark(lasts[hour] + 1, self._touched_tick)
            hours.append(HourTotals(hour, encode_hour(mark), pairs))
        return hours

    def confirms(self, end: int) -> bool:
        """Whether the position may move to the log's end as Kafka told it, over what holds no records.

        False where it is there already. Raises Refetch where the gap was not seen twice.
        """
        if end <= self.position:
            return False
        if self._seen_gap != (self.position, end):
            self._seen_gap = (self.position, end)
            raise Refetch
        self._seen_gap = None
        return True

    def move(self, end: int, leader_epoch: int) -> Batch:
        """A batch without records, up to end. leader_epoch: at the log's end, now."""
        return Batch(self.position, end, leader_epoch, time=self.time)

    def skip_lost(self, low_watermark: int, leader_epoch: int) -> Batch:
        """A batch that records that the log has lost its records up to its low watermark."""
        return Batch(self.position, low_watermark, leader_epoch, time=self.time, lost=(self.position, low_watermark))

    def lost_with(self, more: tuple[int, int]) -> str:
        """The meta's list of lost ranges with one more."""
        return ",".join(filter(None, (self.meta.lost, "{}-{}".format(*more))))

    def sent(self, batch: Batch) -> None:
        """Step 4: the call is on its way; the next fold opens another batch."""
        self.position = self.sent_position = batch.position
        self.leader_epoch = batch.leader_epoch
        self.time = batch.time
        if batch.lost is not None:
            self.meta = replace(self.meta, incomplete=True, lost=self.lost_with(batch.lost))
        self.open = None
        self._pristine = False

    def acknowledged(self, batch: Batch) -> None:
        """Step 5: the call has applied the batch."""
        self.applied = batch.position

    def forget(self, down_to_bytes: int) -> None:
        """Free the memory of what was used least recently, down to an estimate; it is read back when needed.

        Not while a batch is open: it holds sums that Redis does not have.
        """
        assert self.open is None  # noqa: S101
        if down_to_bytes <= 0:
            self._entries.clear()
            self._marks.clear()
            self.cached_bytes = 0
            return
        self._marks = {}
        sizes: dict[int, int] = {}
        for entry in self._entries.values():
            sizes[entry.batch] = sizes.get(entry.batch, 0) + entry.size
        kept, oldest = 0, self._batches + 1
        for batch_number in sorted(sizes, reverse=True):
            if kept + sizes[batch_number] > down_to_bytes:
                break
            kept += sizes[batch_number]
            oldest = batch_number
        self._entries = {key: entry for key, entry in self._entries.items() if entry.batch >= oldest}
        self.cached_bytes = kept

    def _check_read(self, stored_position: int, incarnation: str) -> None:
        if stored_position != self.sent_position or incarnation != self.meta.incarnation:
            raise Fenced

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

    @property
    def _touched_tick(self) -> int:
        return NO_TICK if self._retention.keep_ms is None else self.tick

    def _cut_at_tick(self, records: Records) -> tuple[Records, int | None]:
        """The records before a new tick of retention; or from one on, before the next, with the tick's start."""
        if self._retention.keep_ms is None:
            return records, None
        times = records.timestamps
        if self._retention.tick(max(times)) <= self.tick:
            return records, None
        tick_of = self._retention.tick
        now = max(self.tick, tick_of(times[0]))
        stop = next((place for place, time in enumerate(times) if tick_of(time) > now), len(times))
        before = records if stop == len(times) else records.between(0, stop)
        return before, now if now > self.tick else None

    def _take(self, expiry: Expiry) -> None:
        self.tick = expiry.tick
        if expiry.floor == self.floor:
            return
        self.floor = expiry.floor
        self._entries = {key: entry for key, entry in self._entries.items() if entry.hour >= expiry.floor}
        self.cached_bytes = sum(entry.size for entry in self._entries.values())
        self.cached_bytes += sum(ENTRY_BYTES + len(key) for key in self._marks)

    def _admit(self, raw: bytes | None) -> Entry:
        """The entry of a key that is not in memory under this spelling. Raises InvalidFlow."""
        src_app, dest_app, vpc_id, hour = decode_key(raw)
        if hour < self.floor:
            raise _ExpiredHour(f"the hour {hour} has expired: the view keeps hours from {self.floor} on")
        assert raw is not None  # noqa: S101 - decode_key refused it
        canonical = encode_key(src_app, dest_app, vpc_id, hour)
        entry = self._entries.get(canonical)
        if entry is None:
            field_ = totals_field(canonical)
            entry = Entry(field_, hour)
            self._entries[canonical] = entry
            self.cached_bytes += entry.size
        if raw != canonical:
            self._entries[raw] = entry
            self.cached_bytes += len(raw) + 100
        return entry

    def _judge(self, examined: Examined, batch: Batch) -> list[bool]:
        """Which records count, as far as their marks and values tell; moves the log time and the batch's marks."""
        records, window = examined.records, self._window
        counted = [True] * len(records.offsets)
        for place, reason in examined.values.bad.items():
            counted[place] = False
            batch.dead.append(_dead(records, records.offsets[place], DeadLetterReason.INVALID_VALUE, reason))
        for place, mark in examined.marks.items():
            offset = records.offsets[place]
            if isinstance(mark, InvalidMark):
                counted[place] = False
                batch.dead.append(_dead(records, offset, DeadLetterReason.INVALID_MARK, str(mark)))
                continue
            now = max(batch.time, records.timestamps[place])
            batch.expired += window.expired(batch.time, now)
            batch.time = now
            entry = self._marks.get(mark.key)
            if entry is None or entry.bucket not in window.live(now):
                entry = self._marks[mark.key] = MarkEntry(mark.digest, window.bucket(now))
            verdict = entry.judge(mark)
            if verdict is Verdict.NEW:
                batch.marks[mark.key] = entry
                continue
            counted[place] = False
            if verdict is Verdict.OTHER_BODY:
                detail = f"the Idempotency-Key {mark.key!r} stands for another body"
                batch.dead.append(_dead(records, offset, DeadLetterReason.KEY_REUSED, detail))
        # A mark that a later record of the same batch has ended is not written any more.
        live = window.live(batch.time)
        batch.marks = {key: entry for key, entry in batch.marks.items() if entry.bucket in live}
        return counted


def _marks(values: Decoded) -> dict[int, Mark | InvalidMark]:
    """The marks of a column of values, by place."""
    if values.unmarked:
        return {}
    marked = {place: value.mark for place, value in enumerate(values.counts) if value.mark is not None}
    found: dict[int, Mark | InvalidMark] = {}
    good: set[tuple[str, str]] = set()  # the records of one POST share their key and digest
    for place, mark in marked.items():
        if (mark.key, mark.digest) not in good:
            try:
                mark.check()
            except InvalidMark as error:
                found[place] = error
                continue
            good.add((mark.key, mark.digest))
        found[place] = mark
    return found


def _last_offsets(hours: Iterable[int], batch: Batch) -> dict[int, int]:
    """By hour, which each has one, the offset of the last record that counts. Sought from the end: they are near it."""
    left = set(hours)
    found: dict[int, int] = {}
    for entries, offsets in reversed(batch.runs):
        for entry, offset in zip(reversed(entries), reversed(offsets), strict=True):
            if entry.hour in left:
                left.discard(entry.hour)
                found[entry.hour] = offset
                if not left:
                    return found
    return found


def _dead(records: Records, offset: int, reason: DeadLetterReason, detail: str) -> DeadLetter:
    place = bisect_left(records.offsets, offset)
    return DeadLetter(offset, records.keys[place], records.values[place], reason, detail)
