"""What the core asks of the world: each effect, and what it is answered with.

The core is a generator that yields these and is sent their answers. worker.py carries them out on
Kafka and Redis; the simulation carries them out on models. An answer may also be an exception of
this module's, thrown into the core.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flowagg.errors import FlowaggError

from flowagg_consumer.partition import DeadLetter, HourTotals, StopReason
from flowagg_consumer.records import Records
from flowagg_consumer.retention import Expiry


class Away(FlowaggError):
    """Something that is waited for. source: what, as states and logs name it."""

    source = ""


class LogAway(Away):
    """Kafka did not answer, or refused."""

    source = "kafka"


class DeadLettersAway(LogAway):
    """The dead-letter topic takes no records."""

    source = "dead_letters"


class TopicRefused(LogAway):
    """A setting of the topic would make totals wrong."""

    source = "topic"


class StoreAway(Away):
    """Redis is away, refused, or did not answer in time: what was sent may or may not have been done."""

    source = "redis"


@dataclass(frozen=True, slots=True)
class Start:
    """Where to start a partition: offset, and the leader epoch of the record before it (-1: unknown)."""

    offset: int
    leader_epoch: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch brought, in the order in which the core takes it.

    revoked, assigned: partitions that the group took and gave meanwhile; an assigned one is paused
    and must be restarted. records: per partition, in order, runs of one leader epoch. ends: where
    a partition's log ended when all before had been handed over. stops: partitions that Kafka
    cannot read on from where they are, why, and Kafka's words. errors: what else Kafka said.
    commit_failed: a commit since the last fetch did not work. waiting: how many more records there are of
    partitions, as far as is known.
    """

    revoked: Sequence[int] = ()
    assigned: Sequence[int] = ()
    records: Mapping[int, Sequence[Records]] = field(default_factory=dict)
    ends: Mapping[int, int] = field(default_factory=dict)
    stops: Mapping[int, tuple[StopReason, str]] = field(default_factory=dict)
    errors: Sequence[str] = ()
    commit_failed: bool = False
    waiting: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fetch:
    """Wait up to wait_seconds for a record, then up to linger_seconds for more. Answered with Fetched."""

    wait_seconds: float
    linger_seconds: float


@dataclass(frozen=True, slots=True)
class Restart:
    """Fetch an owned partition from start on; what was fetched before is dropped. Answered with None; LogAway."""

    partition: int
    start: Start


@dataclass(frozen=True, slots=True)
class Pause:
    """Fetch nothing more of a partition until Restart. Answered with None."""

    partition: int


@dataclass(frozen=True, slots=True)
class StartDescribe:
    """Start a description of the topic, now, beside other work. Answered with a ticket."""


@dataclass(frozen=True, slots=True)
class AwaitTopic:
    """Wait for a description. Answered with the topic's id; LogAway."""

    ticket: object


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a partition's log begins and ends, and the leader epoch at its end (-1: unknown)."""

    low: int
    high: int
    leader_epoch: int


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Where the log of partitions begins and ends. Answered with partition -> Bounds; LogAway."""

    partitions: Sequence[int]


@dataclass(frozen=True, slots=True)
class CheckTopic:
    """Look at the topic's settings. Answered with None where they will do; TopicRefused, LogAway."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Step 7: tell Kafka the positions, for lag tools. Answered with None, whether it worked or not."""

    positions: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class SendDeadLetters:
    """Produce to the dead-letter topic and wait for every acknowledgement. Answered with None; DeadLettersAway."""

    partition: int
    topic_id: str
    letters: Sequence[DeadLetter]


@dataclass(frozen=True, slots=True)
class Load:
    """Read the metas of partitions. Received as partition -> Meta, None, or DamagedView."""

    partitions: Sequence[int]


@dataclass(frozen=True, slots=True)
class Begin:
    """Write a partition's first meta unless it has one. Received as the Meta that it has then."""

    partition: int
    position: int
    topic_id: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class ReadTotals:
    """In one atomic call: stored position, incarnation, and totals. fields: hours, and which fields of each.

    Received as (position, incarnation, values in the order of fields); (None, None, []) without a meta.
    """

    partition: int
    incarnation: str
    fields: Sequence[tuple[int, Sequence[bytes]]]


@dataclass(frozen=True, slots=True)
class ReadMarks:
    """In one atomic call: stored position, incarnation, and the marks of keys in buckets.

    Received as (position, incarnation, per key: bucket -> value); (None, None, []) without a meta.
    """

    partition: int
    incarnation: str
    keys: Sequence[str]
    buckets: Sequence[int]


@dataclass(frozen=True, slots=True)
class ReadHours:
    """In one atomic call: stored position, incarnation, and what is kept of each hour.

    Received as (position, incarnation, hour -> HourMark); (None, None, {}) without a meta.
    """

    partition: int
    incarnation: str


@dataclass(frozen=True, slots=True)
class Apply:
    """Step 4: the fenced call. Received as True where it was applied, False where the fence refused.

    expected, topic_id, incarnation: the fence. position, leader_epoch, time, writer: the new meta.
    hours, marks (bucket -> pairs of key and value), expired (buckets to delete): what it writes.
    lost: the meta's new list of lost ranges, None to leave it. expiry: what a new tick of retention
    brings, None to leave it.
    """

    partition: int
    expected: int
    topic_id: str
    incarnation: str
    position: int
    leader_epoch: int
    time: int
    writer: str
    hours: Sequence[HourTotals]
    marks: Mapping[int, Sequence[str | bytes]]
    expired: Sequence[int]
    lost: str | None
    expiry: Expiry | None = None


@dataclass(frozen=True, slots=True)
class ReadPositions:
    """Step 6. Received as partition -> (position, incarnation), None without a meta, or DamagedView."""

    partitions: Sequence[int]


@dataclass(frozen=True, slots=True)
class Diverge:
    """Keep in the meta that the log has another history than what was applied. Received as Apply is.

    expected, topic_id, incarnation: the fence. detail: how it was seen.
    """

    partition: int
    expected: int
    topic_id: str
    incarnation: str
    detail: str


Command = Load | Begin | ReadTotals | ReadMarks | ReadHours | Apply | Diverge | ReadPositions


@dataclass(frozen=True, slots=True)
class Send:
    """Send a command to Redis on the one connection, without waiting. Answered with None; StoreAway."""

    command: Command


@dataclass(frozen=True, slots=True)
class Receive:
    """Wait for the answer to the oldest command that was sent and not answered. StoreAway."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection to Redis; answers under way are lost. The next Send connects. Answered with None."""


Effect = (
    Fetch
    | Restart
    | Pause
    | StartDescribe
    | AwaitTopic
    | Watermarks
    | CheckTopic
    | Commit
    | SendDeadLetters
    | Send
    | Receive
    | Disconnect
)
