"""The reader's core: how one GET is answered. Pure: a generator of effects, driven by app.py or a simulation."""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flowagg.errors import FlowaggError
from flowagg.position import Position

from flowagg_reader.etag import Held
from flowagg_reader.freshness import Freshness, TopicChanged, lags
from flowagg_reader.hour import Hour, Seen, hour_of
from flowagg_reader.pace import Pace
from flowagg_reader.query import Consistency, Query

_PAUSES_SECONDS: Final = (0.001, 0.002, 0.004, 0.008, 0.016)
UNKNOWN_LAG: Final = -1


class LogAway(FlowaggError):
    """Kafka did not say where the log ends."""


class NotFresh(FlowaggError):
    """consistency=strict, and it cannot be shown that the totals are fresh."""


class TopicGone(FlowaggError):
    """The position of `after` is of a topic that no longer exists."""


class UnknownView(FlowaggError):
    """There is no view of that name."""


@dataclass(frozen=True, slots=True)
class HourRead:
    """What was seen of the partitions in the calls that have read the totals, and the body of those totals.

    body: whatever the driver makes of them, None where the hour has no rows.
    """

    seen: Mapping[int, Seen]
    body: Any


@dataclass(frozen=True, slots=True)
class LookUpEnd:
    """Look up the log's end, with a look-up that starts after this. Answered with a Position; LogAway."""


@dataclass(frozen=True, slots=True)
class Look:
    """Answered with partition -> Seen of these and of all that the view has begun, each from one atomic call."""

    partitions: frozenset[int]
    hour: int


@dataclass(frozen=True, slots=True)
class FindBody:
    """Answered with the body that is kept for this tag, or None."""

    tag: str


@dataclass(frozen=True, slots=True)
class ReadHour:
    """Answered with an HourRead of these partitions and of all that the view has begun.

    tag, rows: what the last look has shown of the hour.
    """

    partitions: frozenset[int]
    hour: int
    tag: str
    rows: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait. Answered with None."""

    seconds: float


Effect = LookUpEnd | Look | FindBody | ReadHour | Pause


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asks for.

    scope: what it may see, which goes into the tag, as the view's name does. held: the tags it has answers of. head:
    it wants no body. named: it asks for a view by a name that need not be one.
    """

    query: Query
    scope: str = ""
    held: Held = field(default_factory=Held)
    head: bool = False
    view: str = ""
    named: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What one reply has shown, of which alone freshness and tag are judged.

    No other connection is asked: a demoted master answers too. freshness.lag_records is UNKNOWN_LAG where
    it is not known; lags: by partition, empty then.
    """

    seen: Mapping[int, Seen]
    hour: Hour
    freshness: Freshness
    lags: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """held: the client has this answer. body: None also where there are no rows, and may be with HEAD."""

    found: Found
    held: bool = False
    body: Any = None


def answer(wanted: Wanted, now: Iterable[float], wait_seconds: float, pace: Pace) -> Generator[Effect, Any, Answer]:
    """Answer a GET. now: the clock, as an endless iterable. Raises NotFresh, TopicGone, UnknownView,
    DamagedView.

    A body that is kept is served only for the tag of an atomic reply, and with what that reply has shown.
    """
    query, clock = wanted.query, iter(now)
    required, end = yield from _required(query)
    partitions: frozenset[int] = frozenset() if required is None else frozenset(required.offsets)
    deadline = next(clock) + wait_seconds
    turn = 0

    def judged(seen: Mapping[int, Seen]) -> Found:
        return _judged(wanted, required, end, seen)

    def waits(found: Found, pause: float) -> bool:
        if found.freshness.fresh or found.freshness.lag_records == UNKNOWN_LAG:
            return False
        time = next(clock)
        return time + pause < deadline and not pace.hopeless(time, found.lags, deadline - time)

    while True:
        pause = _PAUSES_SECONDS[min(turn, len(_PAUSES_SECONDS) - 1)]
        seen: Mapping[int, Seen] = yield Look(partitions, query.hour)
        if wanted.named and all(part.meta is None for part in seen.values()):
            # Nobody has begun it, or it was removed meanwhile. The reader's own view may be one that will begin.
            raise UnknownView("there is no view of that name")
        found = judged(seen)
        if query.after is None:
            positions = {number: part.meta.position for number, part in found.seen.items() if part.meta is not None}
            pace.observe(next(clock), positions, found.lags)
        if not waits(found, pause):
            _refuse_stale(query, found)
            result = yield from _with_body(wanted, partitions, found, judged)
            if not waits(result.found, pause):
                _refuse_stale(query, result.found)
                return result
        yield Pause(pause)
        turn += 1


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


def _with_body(
    wanted: Wanted, partitions: frozenset[int], found: Found, judged: Callable[[Mapping[int, Seen]], Found]
) -> Generator[Effect, Any, Answer]:
    """What was found with its body. Where the hour has moved before its totals were read, that reply counts."""
    hour = found.hour
    if wanted.held.holds(hour.tag):
        return Answer(found, held=True)
    if not hour.rows:
        return Answer(found)
    body = yield FindBody(hour.tag)
    if body is None and not wanted.head:
        read: HourRead = yield ReadHour(partitions, wanted.query.hour, hour.tag, hour.rows)
        body = read.body
        later = judged(read.seen)
        if later.hour.tag != hour.tag:
            found = later
    return Answer(found, body=body)


def _judged(wanted: Wanted, required: Position | None, end: Position | None, seen: Mapping[int, Seen]) -> Found:
    hour = hour_of(wanted.query.hour, wanted.scope, seen, wanted.view)
    unknown = Found(seen, hour, Freshness(fresh=False, lag_records=UNKNOWN_LAG), {})
    if required is None:
        return unknown
    metas = {number: part.meta for number, part in seen.items()}
    try:
        if end is not None:
            lags(end, metas)  # the topic alone
        lacking = lags(required, metas)
    except TopicChanged:
        return unknown
    lag = sum(lacking.values())
    return Found(seen, hour, Freshness(lag == 0, lag), lacking)


def _refuse_stale(query: Query, found: Found) -> None:
    if query.consistency is Consistency.STRICT and not found.freshness.fresh:
        lag = found.freshness.lag_records
        known = "an unknown number of" if lag == UNKNOWN_LAG else lag
        raise NotFresh(f"The totals are not fresh yet: {known} records are still to be applied")
