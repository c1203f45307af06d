"""A model of Kafka: logs with epochs, transactions, retention and truncation; a group; in virtual time."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from flowagg_consumer import effects as fx
from flowagg_consumer.native import NativeRecords
from flowagg_consumer.partition import StopReason
from flowagg_consumer.records import Records

CLOCK_SKEW_MS = 30
"""How far the log time of a record may lie behind that of the one before: leaders have clocks of their own."""


@dataclass(slots=True)
class Entry:
    """One offset of a log. state: data records are open, committed or aborted; control ones are control."""

    key: bytes | None
    value: bytes | None
    time: int
    epoch: int
    state: str = "committed"


@dataclass(slots=True)
class Log:
    """One partition. versions: what it was before each truncation, oldest first."""

    entries: list[Entry] = field(default_factory=list)
    low: int = 0
    epoch: int = 0
    versions: list[list[Entry]] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The high watermark."""
        return len(self.entries)

    @property
    def stable(self) -> int:
        """The last stable offset: where readers of committed records must stop."""
        return next((offset for offset in range(self.low, self.end) if self.entries[offset].state == "open"), self.end)

    def epoch_end(self, epoch: int) -> int:
        """The end offset of an epoch, as the leader answers OffsetForLeaderEpoch: none lies before the log's start."""
        return next((offset for offset in range(self.low, self.end) if self.entries[offset].epoch > epoch), self.end)


class Topic:
    """A topic's life from creation to deletion."""

    def __init__(self, topic_id: str, partitions: int) -> None:
        self.topic_id = topic_id
        self.logs = [Log() for _ in range(partitions)]


class Broker:
    """The cluster: the topic as it is now, all topics that ever were, and the consumer group."""

    def __init__(self, rng: random.Random, partitions: int) -> None:
        self._rng = rng
        self.topic = Topic("topic-0", partitions)
        self.topics = {self.topic.topic_id: self.topic}
        self.time = 0
        self.away = False
        self.members: list[Member] = []
        self.committed: dict[int, int] = {}

    def append(self, partition: int, key: bytes | None, value: bytes | None, state: str = "committed") -> int:
        """Append a record; its offset."""
        log = self.topic.logs[partition]
        time = max(0, self.time - self._rng.choice([0, 0, 0, CLOCK_SKEW_MS]))
        log.entries.append(Entry(key, value, time, log.epoch, state))
        return log.end - 1

    def end_transaction(self, partition: int, *, commit: bool) -> None:
        """End whatever is open in a partition, with a control record."""
        log = self.topic.logs[partition]
        for entry in log.entries:
            if entry.state == "open":
                entry.state = "committed" if commit else "aborted"
        log.entries.append(Entry(None, None, self.time, log.epoch, "control"))

    def recreate(self) -> None:
        """Delete the topic and make it again."""
        self.topic = Topic(f"topic-{len(self.topics)}", len(self.topic.logs))
        self.topics[self.topic.topic_id] = self.topic

    def truncate(self, partition: int, count: int) -> None:
        """An unclean election: the new leader lacks the last records."""
        log = self.topic.logs[partition]
        kept = max(log.low, log.end - count)
        log.versions.append(list(log.entries))
        log.entries = log.entries[:kept]
        log.epoch += 1

    def rebalance(self, members: Iterable["Member"]) -> None:
        """Share the partitions over members; each learns of it with its next fetch."""
        sharing = list(members)
        if not sharing:
            return
        first = self._rng.randrange(len(sharing))
        for member in self.members:
            mine = {
                number for number in range(len(self.topic.logs)) if sharing[(number + first) % len(sharing)] is member
            }
            member.told = mine


class Member:
    """A consumer's place in the group, and its fetch positions."""

    def __init__(self, broker: Broker, rng: random.Random, *, native: bool = False) -> None:
        """native: whether records come in the compiled library's memory."""
        self._native = native
        self._broker = broker
        self._rng = rng
        self.told: set[int] = set()
        self.fetching: dict[int, fx.Start | None] = {}  # None: paused
        self._at_end: dict[int, tuple[str, int]] = {}
        self.commit_fails = False

    def fetch(self, batch: int) -> fx.Fetched:
        """What consume() and its callbacks bring."""
        revoked = sorted(self.fetching.keys() - self.told)
        assigned = sorted(self.told - self.fetching.keys())
        for number in revoked:
            del self.fetching[number]
        for number in assigned:
            self.fetching[number] = self.assignment_start(number)
        if self._broker.away:
            return fx.Fetched(revoked, assigned, errors=["away"] if self._rng.random() < 0.2 else [])
        records: dict[int, list[Records]] = {}
        ends: dict[int, int] = {}
        stops: dict[int, tuple[StopReason, str]] = {}
        for number, start in self.fetching.items():
            if start is None or self._rng.random() < 0.3 or number >= len(self._broker.topic.logs):
                continue
            self._fetch_one(number, start, batch, records, ends, stops)
        failed, self.commit_fails = self.commit_fails, False
        waiting = self._waiting() if self._rng.random() < 0.7 else {}  # the client may know, or not
        return fx.Fetched(revoked, assigned, records, ends, stops, commit_failed=failed, waiting=waiting)

    def _waiting(self) -> dict[int, int]:
        logs = self._broker.topic.logs
        places = {n: start.offset for n, start in self.fetching.items() if start is not None and n < len(logs)}
        return {n: logs[n].end - place for n, place in places.items() if logs[n].end > place}

    def assignment_start(self, number: int) -> fx.Start | None:
        """The callback assigns paused: the core starts the partition once it knows where."""
        return None

    def _fetch_one(
        self,
        number: int,
        start: fx.Start,
        batch: int,
        records: dict[int, list[Records]],
        ends: dict[int, int],
        stops: dict[int, tuple[StopReason, str]],
    ) -> None:
        log = self._broker.topic.logs[number]
        position = start.offset
        if start.leader_epoch > log.epoch or (start.leader_epoch >= 0 and log.epoch_end(start.leader_epoch) < position):
            stops[number] = StopReason.LOG_TRUNCATED, "truncated"
            self.fetching[number] = None
            return
        if position > log.end or position < log.low:
            stops[number] = StopReason.POSITION_BEYOND_LOG, "out of range"
            self.fetching[number] = None
            return
        if position > log.stable:
            return  # it waits for the end of a transaction
        stop = min(log.stable, position + self._rng.randint(1, batch))
        found = [offset for offset in range(position, stop) if log.entries[offset].state == "committed"]
        runs: list[list[int]] = []
        for offset in found:
            if runs and log.entries[runs[-1][-1]].epoch == log.entries[offset].epoch:
                runs[-1].append(offset)
            else:
                runs.append([offset])
        if runs:
            columns = [_columns(log, run) for run in runs]
            records[number] = [NativeRecords.of(each) for each in columns] if self._native else columns
            self._at_end.pop(number, None)
        epoch = log.entries[stop - 1].epoch if stop > position else start.leader_epoch
        self.fetching[number] = fx.Start(stop, epoch)
        here = (self._broker.topic.topic_id, stop)
        if stop == log.stable and self._at_end.get(number) != here:
            self._at_end[number] = here
            ends[number] = stop

    def restart(self, number: int, start: fx.Start) -> None:
        """Raises LogAway where the partition is not this member's any more."""
        if number not in self.fetching:
            raise fx.LogAway("not assigned")
        self.fetching[number] = start
        self._at_end.pop(number, None)

    def pause(self, number: int) -> None:
        """Fetch nothing more of a partition."""
        if number in self.fetching:
            self.fetching[number] = None


def _columns(log: Log, offsets: list[int]) -> Records:
    entries = [log.entries[offset] for offset in offsets]
    contiguous = offsets[-1] - offsets[0] == len(offsets) - 1
    return Records(
        range(offsets[0], offsets[-1] + 1) if contiguous else offsets,
        [entry.key for entry in entries],
        [entry.value for entry in entries],
        entries[0].epoch,
        [entry.time for entry in entries],
    )
