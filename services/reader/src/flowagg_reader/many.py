"""The core of a query over many hours: as core.answer, with a table in the place of each hour's body."""

import hashlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flowagg.errors import FlowaggError
from flowagg.position import Position
from flowagg.view import HourMark, Meta

from flowagg_reader.core import (
    UNKNOWN_LAG,
    Effect,
    FindBody,
    HourRead,
    LookHours,
    ReadHour,
    Steps,
    judge_freshness,
    until_fresh,
)
from flowagg_reader.etag import Held
from flowagg_reader.freshness import Freshness
from flowagg_reader.hour import Hour, Seen, hour_of
from flowagg_reader.pace import Pace
from flowagg_reader.query import Selection

_FORM: Final = "1"
"""Of answers; another one makes all tags new."""


class TooLarge(FlowaggError):
    """The hours hold more flow keys, or are more, than one query may cover."""


@dataclass(frozen=True, slots=True)
class SeenHours:
    """One partition, from one atomic call. hours: what it keeps of the hours that were asked for: mark and flow keys.

    meta: None where the view has not begun the partition.
    """

    meta: Meta | None
    hours: Mapping[int, tuple[HourMark, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one query. rows: flow keys in all its hours."""

    hours: int
    rows: int


@dataclass(frozen=True, slots=True)
class WantedHours:
    """What a client asks for: see core.Wanted. form: of its answer, beside the query: JSON, and the encoding.

    tables: it wants the hours' totals, and not the hours alone.
    """

    query: Selection
    bounds: Bounds
    scope: str = ""
    held: Held = field(default_factory=Held)
    head: bool = False
    view: str = ""
    named: bool = False
    form: str = ""
    tables: bool = True


@dataclass(frozen=True, slots=True)
class FoundHours:
    """hours: those that the view keeps of the ones asked for, ascending. tag: equal only for equal answers.

    freshness, lags: the worst of the replies that hours were read from.
    """

    seen: Mapping[int, SeenHours]
    hours: Mapping[int, Hour]
    freshness: Freshness
    lags: Mapping[int, int]
    expired: bool
    incomplete: bool
    tag: str


@dataclass(frozen=True, slots=True)
class AnswerHours:
    """held: the client has this answer. tables: of the hours that have rows, ascending; none with HEAD."""

    found: FoundHours
    held: bool = False
    tables: Sequence[tuple[int, Any]] = ()


def answer_hours(
    wanted: WantedHours, now: Iterable[float], wait_seconds: float, pace: Pace
) -> Generator[Effect, Any, AnswerHours]:
    """Answer a query. Raises what core.answer raises, and TooLarge.

    One look shows which hours there are: from one atomic call a partition, so an hour that is missing there has no
    flows up to the position of that call. Hours whose totals have to be read are judged by the replies that they come
    from, and the answer is as fresh as the least fresh one.
    """
    query = wanted.query

    def judge(required: Position | None, end: Position | None, seen: Mapping[int, SeenHours]) -> FoundHours:
        numbers = sorted({hour for part in seen.values() for hour in part.hours})
        if wanted.tables and len(numbers) > wanted.bounds.hours:
            raise TooLarge(
                f"The view keeps {len(numbers):,} of these hours, and a query may cover {wanted.bounds.hours:,}: ask "
                "for fewer"
            )
        hours = {number: hour_of(number, wanted.scope, _seen_of(number, seen), wanted.view) for number in numbers}
        metas = {number: part.meta for number, part in seen.items()}
        return _found(wanted, seen, hours, *judge_freshness(required, end, metas))

    def finish(
        partitions: frozenset[int], found: FoundHours, judged: Callable[[Any], FoundHours]
    ) -> Generator[Effect, Any, AnswerHours]:
        return _with_tables(wanted, partitions, found, judged)

    steps = Steps(lambda partitions: LookHours(partitions, query.hours), judge, finish)
    return until_fresh(query, steps, now, wait_seconds, pace, named=wanted.named)


def _seen_of(hour: int, seen: Mapping[int, SeenHours]) -> dict[int, Seen]:
    return {number: Seen(part.meta, *part.hours.get(hour, (None, 0))) for number, part in seen.items()}


def _found(
    wanted: WantedHours,
    seen: Mapping[int, SeenHours],
    hours: Mapping[int, Hour],
    freshness: Freshness,
    lags: Mapping[int, int],
) -> FoundHours:
    metas = [part.meta for part in seen.values() if part.meta is not None]
    floor = max((meta.floor for meta in metas), default=0)
    expired = wanted.query.hours.ranges[0][0] < floor
    incomplete = any(meta.incomplete for meta in metas)
    query = wanted.query
    named = (
        _FORM, wanted.view, wanted.scope, wanted.form, expired, incomplete, query.hours.text, query.filters,
        query.group_by, query.order, query.top, query.limit, query.cursor,
        [(number, hour.tag) for number, hour in hours.items()],
    )  # fmt: skip
    tag = hashlib.blake2b(repr(named).encode(), digest_size=16).hexdigest()
    return FoundHours(seen, hours, freshness, lags, expired, incomplete, tag)


def _with_tables(
    wanted: WantedHours, partitions: frozenset[int], found: FoundHours, judged: Callable[[Any], FoundHours]
) -> Generator[Effect, Any, AnswerHours]:
    if wanted.held.holds(found.tag):
        return AnswerHours(found, held=True)
    rows = sum(hour.rows for hour in found.hours.values())
    if wanted.tables and rows > wanted.bounds.rows:
        raise TooLarge(
            f"The hours hold {rows:,} flow keys, and a query may cover {wanted.bounds.rows:,}: ask for fewer hours"
        )
    if wanted.head or not wanted.tables:
        return AnswerHours(found)
    hours, tables = dict(found.hours), []
    for number, hour in found.hours.items():
        if not hour.rows:
            continue
        table = yield FindBody(hour.tag)
        if table is None:
            read: HourRead = yield ReadHour(partitions, number, hour.tag, hour.rows)
            table = read.body
            later = judged(_hours_of(number, read.seen))
            known = later.hours.get(number)
            if known is None or known.tag != hour.tag:
                found = _worse(found, later)
                hours.pop(number)
                if known is not None:
                    hours[number] = known
        if table is not None:
            tables.append((number, table))
    hours = dict(sorted(hours.items()))
    return AnswerHours(_found(wanted, found.seen, hours, found.freshness, found.lags), tables=tables)


def _hours_of(hour: int, seen: Mapping[int, Seen]) -> dict[int, SeenHours]:
    return {
        number: SeenHours(part.meta, {} if part.mark is None else {hour: (part.mark, part.rows)})
        for number, part in seen.items()
    }


def _worse(one: FoundHours, other: FoundHours) -> FoundHours:
    """The less fresh of both replies, with what each has shown of the other hours."""
    unknown = UNKNOWN_LAG in (one.freshness.lag_records, other.freshness.lag_records)
    lag = UNKNOWN_LAG if unknown else max(one.freshness.lag_records, other.freshness.lag_records)
    fresh = one.freshness.fresh and other.freshness.fresh
    lags = one.lags if one.freshness.lag_records >= other.freshness.lag_records else other.lags
    return FoundHours(one.seen, one.hours, Freshness(fresh, lag), lags, one.expired, one.incomplete, one.tag)
