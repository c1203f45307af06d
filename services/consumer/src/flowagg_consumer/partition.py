"""The pure core of the exactly-once path: one owned partition of the log.

No I/O, no clock. core.py hands in what Kafka and Redis said and carries out what comes back. The
steps are numbered as in docs/decisions/0003-a-view-with-a-fence.md.

The invariant above all others: everything stored at position P of a partition is a pure function
of the log from its recorded start up to P, and only the fenced call writes it.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum

from flowagg.flow import InvalidFlow, decode_key
from flowagg.idempotency import InvalidMark, Mark
from flowagg.view import HourMark, Meta, encode_hour

from flowagg_consumer.marks import ENTRY_BYTES, NO_TIME, MarkEntry, Verdict, Window, decode_entry
from flowagg_consumer.records import Decoded, Records
from flowagg_consumer.retention import NO_TICK, Expiry, Retention
from flowagg_consumer.totals import NewTotals, PythonTotals


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

    expected: the position that they follow. position: the next offset after them. touched: how many flow keys
    they change. missing: how many of these have stored totals that are not in memory yet.
    marks: entries of keys that they change.
    time: the running maximum of keyed records' log time after them; expired: the buckets of marks
    that it ends. expiry: what a new tick of retention brings. dead: records that count nothing.
    lost: a range of offsets that the log no longer held. opened_at: by the core's clock.
    """

    expected: int
    position: int
    leader_epoch: int
    records: int = 0
    touched: int = 0
    missing: int = 0
    marks: dict[str, MarkEntry] = field(default_factory=dict)
    time: int = NO_TIME
    expired: list[int] = field(default_factory=list)
    expiry: Expiry | None = None
    dead: list[DeadLetter] = field(default_factory=list)
    lost: tuple[int, int] | None = None
    opened_at: float | None = None

    @property
    def writes(self) -> int:
        """What is to be written for it: totals, marks and dead letters."""
        return self.touched + len(self.marks) + len(self.dead)


@dataclass(frozen=True, slots=True)
class HourTotals:
    """What one hour gets from a batch: pairs field, value, field, value, ...; and its mark, encoded."""

    hour: int
    mark: bytes
    pairs: Sequence[bytes]


class Partition:
    """One owned partition: its position, and the totals and marks that are in memory.

    position: the next offset to fold. open: the batch that has been folded and not sent, if there is one.
    sent_position: the next offset after all that was sent to Redis, where the open batch begins. applied: the
    position that Redis has acknowledged. Life: examine, learn_marks, expire and fold, again and again into one
    batch; then fill, totals, sent, and in the end acknowledged. On any doubt it is thrown away, never mended, and
    a new one is loaded from Redis, unless Redis is seen to hold exactly what was sent.
    """

    def __init__(
        self,
        number: int,
        meta: Meta,
        window: Window,
        retention: Retention | None = None,
        new_totals: NewTotals = PythonTotals,
    ) -> None:
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
        self._window = window
        self._retention = Retention() if retention is None else retention
        self._totals = new_totals(meta.floor)
        self._marks: dict[str, MarkEntry | None] = {}  # None: known not to be stored
        self._marks_bytes = 0
        self._seen_gap: tuple[int, int] | None = None
        # Nothing was ever applied: then Redis holds no totals either, and none need be read back.
        self._pristine = meta.position == meta.start and meta.lost is None

    @property
    def cached_entries(self) -> int:
        """Number of flow keys in memory."""
        return self._totals.count

    @property
    def cached_bytes(self) -> int:
        """Memory of totals and marks (estimated)."""
        return self._totals.cached_bytes + self._marks_bytes

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
        values = accepted.decode()
        found = _checked(values.marks)
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
            self._marks_bytes += ENTRY_BYTES + len(key)

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
        """Step 3: fold records into totals and the open batch. Records that count nothing become dead letters.

        A tick's expiry is the first thing of a batch: what was folded before it must have been sent.
        """
        records = examined.records
        batch = self.open
        if batch is None:
            self._totals.open(read_back=not self._pristine)
            batch = self.open = Batch(self.position, self.position, self.leader_epoch, time=self.time)
        if expiry is not None:
            assert not batch.records, "an open batch has the tick before"  # noqa: S101
            self._take(expiry)
            batch.expiry = expiry
        batch.position = self.position = examined.position
        batch.leader_epoch = self.leader_epoch = records.leader_epoch
        batch.records += len(records.offsets)
        counted = self._judge(examined, batch) if examined.marks or examined.values.bad else None
        for refused in self._totals.fold(records, examined.values, counted):
            reason = DeadLetterReason.EXPIRED_HOUR if refused.expired else DeadLetterReason.INVALID_KEY
            batch.dead.append(_dead(records, refused.place, reason, refused.why))
        batch.touched, batch.missing = self._totals.touched, self._totals.missing
        if batch.dead:
            batch.dead.sort(key=lambda letter: letter.offset)
        return batch

    def missing_fields(self) -> Sequence[tuple[int, Sequence[bytes]]]:
        """Step 3: the fields whose stored totals are missing in the open batch, by hour."""
        return self._totals.missing_fields()

    def fill(self, batch: Batch, stored_position: int, incarnation: str, values: Sequence[bytes | None]) -> None:
        """Step 3: add the stored totals of missing_fields, in that order, read in one atomic call.

        Raises Fenced where the call's own position is not the one that the batch follows.
        """
        self._check_read(stored_position, incarnation)
        self._totals.fill(values)
        batch.missing = 0

    def totals(self, batch: Batch) -> list[HourTotals]:
        """Step 4: what the call has to write for a batch, once filled, hour by hour, as absolute totals."""
        if batch is not self.open:
            return []  # it has no records
        return [
            HourTotals(hour.hour, encode_hour(HourMark(hour.last_offset + 1, self._touched_tick)), hour.pairs)
            for hour in self._totals.changed()
        ]

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
        self._marks = {}
        self._marks_bytes = 0
        self._totals.forget(down_to_bytes)

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
        if self._retention.tick(records.latest()) <= self.tick:
            return records, None
        times = records.timestamps
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
        self._totals.expire(expiry.floor)

    def _judge(self, examined: Examined, batch: Batch) -> list[bool]:
        """Which records count, as far as their marks and values tell; moves the log time and the batch's marks."""
        records, window = examined.records, self._window
        counted = [True] * len(records.offsets)
        for place, reason in examined.values.bad.items():
            counted[place] = False
            batch.dead.append(_dead(records, place, DeadLetterReason.INVALID_VALUE, reason))
        for place, mark in examined.marks.items():
            if isinstance(mark, InvalidMark):
                counted[place] = False
                batch.dead.append(_dead(records, place, DeadLetterReason.INVALID_MARK, str(mark)))
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
                batch.dead.append(_dead(records, place, DeadLetterReason.KEY_REUSED, detail))
        # A mark that a later record of the same batch has ended is not written any more.
        live = window.live(batch.time)
        batch.marks = {key: entry for key, entry in batch.marks.items() if entry.bucket in live}
        return counted


def _checked(marks: Mapping[int, Mark]) -> dict[int, Mark | InvalidMark]:
    """Marks by place, those that break a rule replaced by how."""
    found: dict[int, Mark | InvalidMark] = {}
    good: set[tuple[str, str]] = set()  # the records of one POST share their key and digest
    for place, mark in marks.items():
        if (mark.key, mark.digest) not in good:
            try:
                mark.check()
            except InvalidMark as error:
                found[place] = InvalidMark(str(error))  # without a traceback, which would hold the records
                continue
            good.add((mark.key, mark.digest))
        found[place] = mark
    return found


def _dead(records: Records, place: int, reason: DeadLetterReason, detail: str) -> DeadLetter:
    return DeadLetter(records.offsets[place], records.keys[place], records.values[place], reason, detail)
