"""The reader's core: how one GET is answered. Pure: a generator of effects, driven by app.py or a simulation."""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flowagg.errors import FlowaggError
from flowagg.position import Position
from flowagg.view import Meta

from flowagg_reader.freshness import Freshness, TopicChanged, judge
from flowagg_reader.query import Consistency, Query

_PAUSES_SECONDS: Final = (0.001, 0.002, 0.004, 0.008, 0.016)
UNKNOWN_LAG: Final = -1


class LogAway(FlowaggError):
    """Kafka did not say where the log ends."""


class NotFresh(FlowaggError):
    """consistency=strict, and it cannot be shown that the totals are fresh."""


class TopicGone(FlowaggError):
    """The position of `after` is of a topic that no longer exists."""


@dataclass(frozen=True, slots=True)
class PartitionHour:
    """One partition's meta and one hour's totals, read in one atomic call."""

    meta: Meta | None
    totals: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class LookUpEnd:
    """Look up the log's end, with a look-up that starts after this. Answered with a Position; LogAway."""


@dataclass(frozen=True, slots=True)
class ListPartitions:
    """Answered with the set of partitions that the view has ever begun."""


@dataclass(frozen=True, slots=True)
class ReadMetas:
    """Answered with partition -> Meta or None; good for waiting alone."""

    partitions: frozenset[int]


@dataclass(frozen=True, slots=True)
class ReadHour:
    """Answered with partition -> PartitionHour, each read in one atomic call."""

    partitions: frozenset[int]
    hour: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait. Answered with None."""

    seconds: float


Effect = LookUpEnd | ListPartitions | ReadMetas | ReadHour | Pause


@dataclass(frozen=True, slots=True)
class Answer:
    """freshness.lag_records is UNKNOWN_LAG where it is not known.

    expired: a partition no longer keeps the hour; what others may still hold of it would be a part.
    """

    parts: Mapping[int, PartitionHour]
    freshness: Freshness
    expired: bool = False


def answer(query: Query, now: Iterable[float], wait_seconds: float) -> Generator[Effect, Any, Answer]:
    """Answer a GET. now: the clock, as an endless iterable. Raises NotFresh, TopicGone."""
    clock = iter(now)
    required, end = yield from _required(query)
    partitions: frozenset[int] = frozenset((yield ListPartitions()))
    deadline = next(clock) + wait_seconds
    freshness = Freshness(fresh=False, lag_records=UNKNOWN_LAG)
    while True:
        if required is not None:
            yield from _wait(required, deadline, clock)
            partitions |= required.offsets.keys()
        parts: Mapping[int, PartitionHour] = yield ReadHour(partitions, query.hour)
        if required is not None:
            # Judged from this very reply: no other connection is asked, a demoted master answers too.
            freshness = _judge(required, end, {number: part.meta for number, part in parts.items()})
        final = required is None or freshness.fresh or freshness.lag_records == UNKNOWN_LAG
        if final or next(clock) + _PAUSES_SECONDS[-1] >= deadline:
            break
        yield Pause(_PAUSES_SECONDS[-1])
    if query.consistency is Consistency.STRICT and not freshness.fresh:
        lag = "an unknown number of" if freshness.lag_records == UNKNOWN_LAG else freshness.lag_records
        raise NotFresh(f"The totals are not fresh yet: {lag} records are still to be applied")
    floor = max((part.meta.floor for part in parts.values() if part.meta is not None), default=0)
    return Answer(parts, freshness, expired=query.hour < floor)


def _required(query: Query) -> Generator[Effect, Any, tuple[Position | None, Position | None]]:
    """The position that the answer must reflect (None where none can be had), and the log's end, if known.

    `after` needs no end to be judged. But a topic that was made again, which only Kafka knows, makes
    its position meaningless, so Kafka is asked all the same, and its absence is borne.
    """
    if query.consistency is Consistency.EVENTUAL:
        return None, None
    end: Position | None = None
    try:
        end = yield LookUpEnd()
    except LogAway as error:
        if query.consistency is Consistency.STRICT and query.after is None:
            raise NotFresh(f"It cannot be shown that the totals are fresh: {error}") from error
    if query.after is None:
        return end, end
    if end is not None and end.topic_id != query.after.topic_id:
        raise TopicGone("The position is of a topic that no longer exists")
    return query.after, end


def _wait(required: Position, deadline: float, clock: Iterable[float]) -> Generator[Effect, Any, None]:
    """Wait until the view has reached the position, or until the deadline."""
    times = iter(clock)
    turn = 0
    while True:
        metas: Mapping[int, Meta | None] = yield ReadMetas(frozenset(required.offsets))
        try:
            if judge(required, metas).fresh:
                return
        except TopicChanged:
            return
        pause = _PAUSES_SECONDS[min(turn, len(_PAUSES_SECONDS) - 1)]
        if next(times) + pause >= deadline:
            return
        yield Pause(pause)
        turn += 1


def _judge(required: Position, end: Position | None, metas: Mapping[int, Meta | None]) -> Freshness:
    try:
        if end is not None:
            judge(Position(end.topic_id, dict.fromkeys(end.offsets, 0)), metas)  # the topic alone
        return judge(required, metas)
    except TopicChanged:
        return Freshness(fresh=False, lag_records=UNKNOWN_LAG)
