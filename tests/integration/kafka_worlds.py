"""One script of operations, run on a real Kafka and on the simulation's model of it: two worlds with one face."""

import itertools
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol, TypeVar

from confluent_kafka import IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, OffsetSpec
from flowagg.kafka import known_offset
from flowagg_consumer import effects as fx
from flowagg_consumer.log import Log
from flowagg_consumer.partition import StopReason
from flowagg_consumer.records import Records
from flowagg_consumer.settings import ConsumerSettings
from flowagg_stack.topics import ensure_topic

from tests.conftest import Place
from tests.integration.tools import wait_for
from tests.simulation import kafka_model

SECONDS: Final = 90
_T = TypeVar("_T")
UNKNOWN: Final = -1
_numbers = itertools.count(1)


class Record(NamedTuple):
    """What is appended."""

    key: bytes | None
    value: bytes | None


class Seen(NamedTuple):
    """What is fetched."""

    offset: int
    key: bytes | None
    value: bytes | None
    leader_epoch: int


@dataclass(frozen=True, slots=True)
class Read:
    """What came of a partition until its end (of committed records) was told, or it was stopped."""

    records: Sequence[Seen]
    end: int | None
    stop: StopReason | None

    @property
    def offsets(self) -> list[int]:
        return [record.offset for record in self.records]


class Reader(Protocol):
    """What the core has of Kafka; Log and Member both are one."""

    def restart(self, number: int, start: fx.Start) -> None: ...

    def pause(self, number: int) -> None: ...


@dataclass
class Follower:
    """A member of the group: what it owns, and what it was told and nobody has looked at yet."""

    world: "World"
    reader: Reader
    fetch: Callable[[], fx.Fetched]
    owned: set[int] = field(default_factory=set)
    revoked: list[int] = field(default_factory=list)
    _records: dict[int, list[Seen]] = field(default_factory=dict)
    _ends: dict[int, int] = field(default_factory=dict)
    _stops: dict[int, StopReason] = field(default_factory=dict)

    def turn(self) -> None:
        """One fetch."""
        fetched = self.fetch()
        self.owned -= set(fetched.revoked)
        self.revoked += fetched.revoked
        self.owned |= set(fetched.assigned)
        for number, runs in fetched.records.items():
            for run in runs:
                self._records.setdefault(number, []).extend(_rows(run))
        self._ends |= fetched.ends
        self._stops |= {number: reason for number, (reason, _) in fetched.stops.items()}

    def start(self, number: int, offset: int, leader_epoch: int = UNKNOWN) -> None:
        """Start a partition once it is owned; what it told before is forgotten."""
        self._until(lambda: number in self.owned, f"partition {number} is assigned")
        for told in (self._records, self._ends, self._stops):
            told.pop(number, None)
        self.reader.restart(number, fx.Start(offset, leader_epoch))

    def read(self, number: int) -> Read:
        """Fetch until the partition's end is told, or its stop."""
        self._until(
            lambda: number in self._stops or self._ends.get(number) == self.world.stable(number),
            f"partition {number} tells its end",
        )
        return self.told(number)

    def told(self, number: int) -> Read:
        """What was told so far."""
        return Read(self._records.pop(number, []), self._ends.pop(number, None), self._stops.pop(number, None))

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {SECONDS} s; told: {self}"
            self.turn()


class World(Protocol):
    """A topic and a group of its own."""

    @property
    def followers(self) -> list[Follower]:
        """The group's members."""

    def append(self, number: int, records: Iterable[Record]) -> None:
        """Append records, and wait until they are there."""

    def open(self, number: int, records: Iterable[Record]) -> None:
        """Append records of a transaction."""

    def end(self, number: int, *, commit: bool) -> None:
        """End it."""

    def retain(self, number: int, low: int) -> None:
        """Lose the records before an offset."""

    def recreate(self) -> None:
        """Delete the topic and make it again."""

    def grow(self, partitions: int) -> None:
        """Add partitions, up to so many."""

    def topic_id(self) -> str:
        """As described now."""

    def bounds(self, number: int) -> fx.Bounds:
        """As the core sees them."""

    def stable(self, number: int) -> int:
        """The last stable offset."""

    def join(self) -> Follower:
        """A new member of the group."""

    def leave(self, follower: Follower) -> None:
        """One member fewer."""


class LosingWorld(World, Protocol):
    """One in which a log can lose its tail by an unclean election."""

    def part(self, number: int) -> None:
        """From now on the partition's leader alone has what is appended."""

    def lose(self, number: int) -> None:
        """The leader is gone, and what it alone had; another leads."""


def settle(world: World, partitions: int) -> None:
    """Fetch with all members until each partition has exactly one."""

    def settled() -> bool:
        for follower in world.followers:
            follower.turn()
        owned = [number for follower in world.followers for number in follower.owned]
        return sorted(owned) == list(range(partitions)) and all(follower.owned for follower in world.followers)

    wait_for(settled, "each partition has exactly one owner", SECONDS)


class Model:
    """The simulation's model."""

    def __init__(self, partitions: int, seed: int) -> None:
        self._rng = random.Random(seed)
        self.broker = kafka_model.Broker(self._rng, partitions)
        self.followers: list[Follower] = []
        self._kept: dict[int, int] = {}

    def append(self, number: int, records: Iterable[Record]) -> None:
        for record in records:
            self.broker.append(number, *record)

    def open(self, number: int, records: Iterable[Record]) -> None:
        for record in records:
            self.broker.append(number, *record, "open")

    def end(self, number: int, *, commit: bool) -> None:
        self.broker.end_transaction(number, commit=commit)

    def retain(self, number: int, low: int) -> None:
        self.broker.topic.logs[number].low = low

    def recreate(self) -> None:
        self.broker.recreate()

    def grow(self, partitions: int) -> None:
        while len(self.broker.topic.logs) < partitions:
            self.broker.topic.logs.append(kafka_model.Log())
        self.broker.rebalance(self.broker.members)

    def topic_id(self) -> str:
        return self.broker.topic.topic_id

    def bounds(self, number: int) -> fx.Bounds:
        log = self.broker.topic.logs[number]
        return fx.Bounds(log.low, log.end, log.epoch)

    def stable(self, number: int) -> int:
        return self.broker.topic.logs[number].stable

    def part(self, number: int) -> None:
        self._kept[number] = self.broker.topic.logs[number].end

    def lose(self, number: int) -> None:
        self.broker.truncate(number, self.broker.topic.logs[number].end - self._kept.pop(number))

    def join(self) -> Follower:
        member = kafka_model.Member(self.broker, self._rng)
        self.broker.members.append(member)
        self.broker.rebalance(self.broker.members)
        self.followers.append(Follower(self, member, lambda: member.fetch(self._rng.choice([1, 2, 20]))))
        return self.followers[-1]

    def leave(self, follower: Follower) -> None:
        self.followers.remove(follower)
        self.broker.members.remove(follower.reader)  # type: ignore[arg-type]
        self.broker.rebalance(self.broker.members)


class Real:
    """A topic of a test's own on a real Kafka, which the consumer's own adapter reads. Close it."""

    def __init__(self, place: Place, partitions: int, protocol: str = "auto") -> None:
        self._place = place
        self._partitions = partitions
        settings = place.environment_of("consumer")
        self._settings = ConsumerSettings(
            kafka_bootstrap_servers=settings["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"],
            kafka_topic=place.topic,
            view=place.view,
            kafka_timeout_seconds=10,
            session_timeout_seconds=2,
            group_protocol=protocol,
        )
        self.followers: list[Follower] = []
        self._logs: list[Log] = []
        self._transactions: dict[int, Producer] = {}
        self._producer = Producer(self._properties())

    def close(self) -> None:
        for log in self._logs:
            log.close()

    def append(self, number: int, records: Iterable[Record]) -> None:
        self._produce(self._producer, number, records)

    def open(self, number: int, records: Iterable[Record]) -> None:
        producer = self._transactions.get(number)
        if producer is None:
            producer = Producer(self._properties() | {"transactional.id": f"pinned-{next(_numbers)}"})
            producer.init_transactions(SECONDS)
            producer.begin_transaction()
            self._transactions[number] = producer
        self._produce(producer, number, records)

    def end(self, number: int, *, commit: bool) -> None:
        producer = self._transactions.pop(number)
        before = self.bounds(number).high
        if commit:
            producer.commit_transaction(SECONDS)
        else:
            producer.abort_transaction(SECONDS)
        # The coordinator answers before the partition has its control record.
        wait_for(lambda: self.bounds(number).high > before, "the transaction's end is in the log", SECONDS)

    def retain(self, number: int, low: int) -> None:
        part = TopicPartition(self._place.topic, number, low)

        def ask() -> object:
            admin = AdminClient({"bootstrap.servers": self._settings.kafka_bootstrap_servers})
            return admin.delete_records([part])[part].result(SECONDS)

        _once_there(ask, f"partition {number} loses its first records")

    def recreate(self) -> None:
        admin, topic = self._place.admin, self._place.topic
        admin.delete_topics([topic], operation_timeout=10)[topic].result(SECONDS)
        wait_for(lambda: topic not in admin.list_topics(timeout=5).topics, "the topic is gone", SECONDS)
        ensure_topic(admin, topic, self._partitions)
        self._producer = Producer(self._properties())  # the old one would go on counting its sequence

    def grow(self, partitions: int) -> None:
        topic = self._place.topic
        self._place.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(SECONDS)
        self._partitions = partitions
        # A client goes on with the partitions that it has seen.
        self._producer = Producer(self._properties())

    def topic_id(self) -> str:
        log = self._logs[0]
        return _once_there(lambda: log.await_topic(log.start_describe()), "the topic's id")

    def bounds(self, number: int) -> fx.Bounds:
        return _once_there(lambda: self._logs[0].watermarks([number])[number], f"the bounds of partition {number}")

    def stable(self, number: int) -> int:
        part = TopicPartition(self._place.topic, number)

        def ask() -> int:
            # A client of its own: one keeps what it has seen of a topic that was made again, or has another leader.
            admin = AdminClient({"bootstrap.servers": self._settings.kafka_bootstrap_servers})
            futures = admin.list_offsets(
                {part: OffsetSpec.latest()}, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=10
            )
            stable: int = known_offset(futures[part].result(SECONDS)).offset
            return stable

        return _once_there(ask, f"the last stable offset of partition {number}")

    def join(self) -> Follower:
        log = Log(self._settings)
        self._logs.append(log)
        self.followers.append(Follower(self, log, lambda: log.fetch(0.1, 0.005)))
        return self.followers[-1]

    def leave(self, follower: Follower) -> None:
        self.followers.remove(follower)
        log = follower.reader
        assert isinstance(log, Log)
        self._logs.remove(log)
        log.close()

    def _properties(self) -> dict[str, str | int]:
        return {"bootstrap.servers": self._settings.kafka_bootstrap_servers, "acks": "all"}

    def _produce(self, producer: Producer, number: int, records: Iterable[Record]) -> None:
        failed: list[str] = []
        for record in records:
            producer.produce(
                self._place.topic,
                record.value,
                record.key,
                number,
                on_delivery=lambda error, _: failed.append(error.str()) if error is not None else None,
            )
        assert producer.flush(SECONDS) == 0
        assert not failed, failed


@dataclass(frozen=True)
class Lost:
    """What a member sees that has read up to offset 5 of a log of which then 3 and 4 are lost.

    running: what stops it. started: what stops it at 5, with the epoch of what it has read.
    started_when_regrown: likewise, when the log has come to offset 7. from_the_cut: what it reads from 3
    on. bounds: of the cut and the regrown log. epochs_grow: whether all that is new has a newer leader epoch.
    """

    running: StopReason | None
    started: StopReason | None
    started_when_regrown: StopReason | None
    from_the_cut: list[int]
    bounds: list[tuple[int, int]]
    epochs_grow: bool


def lose_a_tail(world: LosingWorld) -> Lost:
    member = world.join()
    member.start(0, 0)
    world.append(0, [Record(b"k", b"kept")] * 3)
    epoch = member.read(0).records[-1].leader_epoch
    world.part(0)
    world.append(0, [Record(b"k", b"lost")] * 2)
    assert member.read(0).offsets == [3, 4]
    world.lose(0)
    bounds = [world.bounds(0)]
    running = member.read(0).stop
    member.start(0, 5, epoch)
    started = member.read(0).stop
    world.append(0, [Record(b"k", b"new")] * 4)
    bounds.append(world.bounds(0))
    member.start(0, 5, epoch)
    regrown = member.read(0).stop
    member.start(0, 3, epoch)
    rest = member.read(0)
    grown = {row.leader_epoch > epoch for row in rest.records} | {found.leader_epoch > epoch for found in bounds}
    return Lost(running, started, regrown, rest.offsets, [(found.low, found.high) for found in bounds], grown == {True})


LOST: Final = Lost(
    running=StopReason.LOG_TRUNCATED,
    started=StopReason.LOG_TRUNCATED,
    started_when_regrown=StopReason.LOG_TRUNCATED,
    from_the_cut=[3, 4, 5, 6],
    bounds=[(0, 3), (0, 7)],
    epochs_grow=True,
)


def _once_there(ask: Callable[[], _T], what: str) -> _T:
    """The answer, once the topic or its leader is known."""

    def answer() -> list[_T]:
        try:
            return [ask()]
        except (fx.LogAway, KafkaException):
            return []

    found: list[_T] = wait_for(answer, what, SECONDS)
    return found[0]


def _rows(run: Records) -> list[Seen]:
    """A run's records; its columns are as Records says."""
    count = len(run.offsets)
    assert len(run.keys) == len(run.values) == len(run.timestamps) == len(list(run.timestamps)) == count > 0
    assert sorted(set(run.offsets)) == list(run.offsets)
    assert isinstance(run.offsets, range) == (run.offsets[-1] - run.offsets[0] == count - 1)
    return [Seen(*row, run.leader_epoch) for row in zip(run.offsets, run.keys, run.values, strict=True)]
