"""The reader's core: how one GET is answered. Pure: a generator of effects, driven by app.py or a simulation."""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

from flowagg.errors import FlowaggError
from flowagg.position import Position
from flowagg.view import Meta

from flowagg_reader.etag import Held
from flowagg_reader.freshness import Freshness, TopicChanged, lags
from flowagg_reader.hour import Hour, Seen, hour_of
from flowagg_reader.pace import Pace
from flowagg_reader.query import Consistency, Hours, Query, Selection

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
class LookHours:
    """As Look, of many hours: answered with partition -> SeenHours."""

    partitions: frozenset[int]
    hours: Hours


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


Effect = LookUpEnd | Look | LookHours | FindBody | ReadHour | Pause


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


class Reply(Protocol):
    """What one reply has shown, and how fresh that is."""

    @property
    def freshness(self) -> Freshness:
        """Whether it reflects what was asked for."""

    @property
    def lags(self) -> Mapping[int, int]:
        """What each partition lacks."""


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


class Answered(Protocol):
    """An answer. found: the reply that it rests on."""

    @property
    def found(self) -> Any:
        """A Reply."""


_F = TypeVar("_F", bound=Reply)
_A = TypeVar("_A", bound=Answered)
_Answering = Generator["Effect", Any, _A]


def answer(wanted: Wanted, now: Iterable[float], wait_seconds: float, pace: Pace) -> Generator[Effect, Any, Answer]:
    """Answer a GET of one hour. now: the clock, as an endless iterable. Raises NotFresh, TopicGone, UnknownView,
    DamagedView.

    A body that is kept is served only for the tag of an atomic reply, and with what that reply has shown.
    """
    query = wanted.query

    def judge(required: Position | None, end: Position | None, seen: Mapping[int, Seen]) -> Found:
        hour = hour_of(query.hour, wanted.scope, seen, wanted.view)
        return Found(seen, hour, *judge_freshness(required, end, {number: part.meta for number, part in seen.items()}))

    def finish(partitions: frozenset[int], found: Found, judged: Callable[[Any], Found]) -> _Answering[Answer]:
        return _with_body(wanted, partitions, found, judged)

    steps = Steps(lambda partitions: Look(partitions, query.hour), judge, finish)
    return until_fresh(query, steps, now, wait_seconds, pace, named=wanted.named)


@dataclass(frozen=True, slots=True)
class Steps(Generic[_F, _A]):
    """How GETs of one kind are answered. look: what shows partitions, each by an atomic call. judge: what such a reply
    has shown, by the position that is required and the log's end. finish: the answer of a reply that will do."""

    look: Callable[[frozenset[int]], Effect]
    judge: Callable[[Position | None, Position | None, Any], _F]
    finish: Callable[[frozenset[int], _F, Callable[[Any], _F]], "_Answering[_A]"]


def until_fresh(
    query: Query | Selection,
    steps: Steps[_F, _A],
    now: Iterable[float],
    wait_seconds: float,
    pace: Pace,
    *,
    named: bool,
) -> "_Answering[_A]":
    """Look until the view reflects what is asked for, or the wait is over. named: the view need not be one.

    Raises NotFresh, TopicGone, UnknownView, and what the steps raise.
    """
    clock = iter(now)
    required, end = yield from _required(query)
    partitions: frozenset[int] = frozenset() if required is None else frozenset(required.offsets)
    deadline = next(clock) + wait_seconds
    turn = 0

    def judged(seen: Any) -> _F:
        return steps.judge(required, end, seen)

    def waits(found: Reply, pause: float) -> bool:
        if found.freshness.fresh or found.freshness.lag_records == UNKNOWN_LAG:
            return False
        time = next(clock)
        return time + pause < deadline and not pace.hopeless(time, found.lags, deadline - time)

    while True:
        pause = _PAUSES_SECONDS[min(turn, len(_PAUSES_SECONDS) - 1)]
        seen = yield steps.look(partitions)
        if named and all(part.meta is None for part in seen.values()):
            # Nobody has begun it, or it was removed meanwhile. The reader's own view may be one that will begin.
            raise UnknownView("there is no view of that name")
        found = judged(seen)
        if query.after is None:
            positions = {number: part.meta.position for number, part in seen.items() if part.meta is not None}
            pace.observe(next(clock), positions, found.lags)
        if not waits(found, pause):
            _refuse_stale(query, found)
            result = yield from steps.finish(partitions, found, judged)
            if not waits(result.found, pause):
                _refuse_stale(query, result.found)
                return result
        yield Pause(pause)
        turn += 1


def _required(query: Query | Selection) -> Generator[Effect, Any, tuple[Position | None, Position | None]]:
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
    wanted: Wanted, partitions: frozenset[int], found: Found, judged: Callable[[Any], Found]
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


def judge_freshness(
    required: Position | None, end: Position | None, metas: Mapping[int, Meta | None]
) -> tuple[Freshness, Mapping[int, int]]:
    """Whether these metas, all of one reply, reflect the required position; and what each partition lacks."""
    unknown = Freshness(fresh=False, lag_records=UNKNOWN_LAG), dict[int, int]()
    if required is None:
        return unknown
    try:
        if end is not None:
            lags(end, metas)  # the topic alone
        lacking = lags(required, metas)
    except TopicChanged:
        return unknown
    lag = sum(lacking.values())
    return Freshness(lag == 0, lag), lacking


def _refuse_stale(query: Query | Selection, found: Reply) -> None:
    if query.consistency is Consistency.STRICT and not found.freshness.fresh:
        lag = found.freshness.lag_records
        known = "an unknown number of" if lag == UNKNOWN_LAG else lag
        raise NotFresh(f"The totals are not fresh yet: {known} records are still to be applied")
