"""The query of GET /flows and GET /hours."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from flowagg.flow import MAX_INTEGER
from flowagg.position import InvalidToken, Position, decode_token
from flowagg.problem import Problem
from flowagg.view import VIEW_NAME

from flowagg_reader.cursor import InvalidCursor, decode_cursor

NAMES: Final = ("src_app", "dest_app", "vpc_id")
_PLAIN = ("hour", "after", "consistency", "view")
_KNOWN = (*_PLAIN, *NAMES, "group_by", "order_by", "top", "limit", "cursor", "format")
KNOWN_OF_HOURS = ("after", "consistency", "view", "format")
"""Parameters of GET /hours."""
_REPEATABLE = frozenset({*NAMES, "group_by"})
_VIEW = re.compile(VIEW_NAME)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_WILD = re.compile(r"[*?\\]")
_HOURS = re.compile(r"(?P<first>[0-9]{1,16})(?:(?P<to>-)(?P<last>[0-9]{1,16})?)?")

KEY: Final = (*NAMES, "hour")
"""The fields of a flow key, in the order in which rows are sorted."""
MEASURES: Final = ("bytes_tx", "bytes_rx", "bytes")
"""What rows can be ordered by beside the fields of their key; bytes is the sum of both."""
MAX_TOP: Final = 10_000
MAX_LIMIT: Final = 100_000
_WAYS: Final = ("asc", "desc")
_MAX_RANGES: Final = 1000
_MAX_PATTERNS: Final = 100
_MAX_WILD: Final = 10
"""Patterns of a field that are tried on each name."""
_MAX_PATTERN_CHARACTERS: Final = 512


class Consistency(StrEnum):
    """What an answer must reflect."""

    FRESH = "fresh"  # every POST acknowledged before, else stale and marked so
    STRICT = "strict"  # every POST acknowledged before, else 503
    EVENTUAL = "eventual"  # what is there now


class Format(StrEnum):
    """How rows are written."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Query:
    """hour: of the rows. after: a POST's position that is enough to reflect. view: its name, None: the reader's own."""

    hour: int
    consistency: Consistency
    after: Position | None
    view: str | None = None


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours by ranges, both ends included, sorted and apart from each other."""

    ranges: tuple[tuple[int, int], ...]

    def __contains__(self, hour: int) -> bool:
        return any(first <= hour <= last for first, last in self.ranges)

    @property
    def text(self) -> str:
        """As in a query; equal for the same hours."""
        return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in self.ranges)


ALL_HOURS: Final = Hours(((0, MAX_INTEGER),))


@dataclass(frozen=True, slots=True)
class Order:
    """by: a field of the key, or a measure."""

    by: str
    descending: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """A query of more than the plain rows of one hour.

    filters: patterns by field, of which one must match. group_by: fields of the key, in its order; rows that agree in
    them are added up. order: None is that of the key. top: so many rows, and one for all others. limit: rows of a page,
    which begins after the key in the cursor. format: None: as the client accepts.
    """

    hours: Hours
    consistency: Consistency = Consistency.FRESH
    after: Position | None = None
    view: str | None = None
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    group_by: tuple[str, ...] = KEY
    order: Order | None = None
    top: int | None = None
    limit: int | None = None
    cursor: tuple[str | int, ...] | None = None
    format: Format | None = None


def parse_query(parameters: Iterable[tuple[str, str]]) -> Query | Selection:
    """Read the parameters of GET /flows. Raises Problem (400) that says what is wrong with them."""
    given = _given(parameters, _KNOWN)
    if "hour" not in given:
        raise Problem(400, "The query parameter hour is missing: GET /flows?hour=1")
    text = given["hour"][0]
    consistency, after, view = _reading(given)
    if given.keys() <= set(_PLAIN) and not ("," in text or "-" in text):
        return Query(_hour(text), consistency, after, view)
    hours = parse_hours(text)
    group_by = _group_by(given.get("group_by"))
    order = _order(given, group_by)
    top, limit = _number(given, "top", MAX_TOP), _number(given, "limit", MAX_LIMIT)
    cursor = _cursor(given, group_by)
    if top is not None and (limit is not None or cursor is not None):
        raise Problem(400, "top gives one answer and limit and cursor give pages: send one of them.")
    if order is not None and (limit is not None or cursor is not None):
        raise Problem(
            400, "Pages come in the order of the flow key: leave order_by out, or send top in place of limit."
        )
    if cursor is not None and limit is None:
        raise Problem(400, "cursor goes on with pages: send the limit with it, as the Link header does.")
    filters = tuple((name, _patterns(name, given[name])) for name in NAMES if name in given)
    return Selection(
        hours, consistency, after, view, filters, group_by, order, top, limit, cursor, _format(given)
    )  # fmt: skip


def parse_hours_query(parameters: Iterable[tuple[str, str]]) -> Selection:
    """Read the parameters of GET /hours. Raises Problem (400) that says what is wrong with them."""
    given = _given(parameters, KNOWN_OF_HOURS)
    consistency, after, view = _reading(given)
    return Selection(ALL_HOURS, consistency, after, view, format=_format(given))


def _given(parameters: Iterable[tuple[str, str]], known: Sequence[str]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        if name not in known:
            raise Problem(400, f"Unknown query parameter {name!r}; known ones: {', '.join(known)}.")
        if name in given and name not in _REPEATABLE:
            raise Problem(400, f"The query parameter {name} may stand once only.")
        given.setdefault(name, []).append(value)
    return given


def _reading(given: Mapping[str, Sequence[str]]) -> tuple[Consistency, Position | None, str | None]:
    try:
        consistency = Consistency(given["consistency"][0]) if "consistency" in given else Consistency.FRESH
    except ValueError:
        raise Problem(400, f"consistency must be one of {', '.join(Consistency)}.") from None
    try:
        after = decode_token(given["after"][0]) if "after" in given else None
    except InvalidToken as error:
        raise Problem(400, f"after: {error}.") from None
    if after is not None and consistency is Consistency.EVENTUAL:
        raise Problem(400, "after waits for a POST and consistency=eventual never waits: send one of them.")
    view = given["view"][0] if "view" in given else None
    if view is not None and _VIEW.fullmatch(view) is None:
        raise Problem(400, "view must be the name of a view: 1 to 63 lower-case letters, digits and hyphens.")
    return consistency, after, view


def _hour(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 16 and (text == "0" or text[0] != "0"):
        hour = int(text)
        if hour <= MAX_INTEGER:
            return hour
    raise Problem(
        400,
        f"hour must be a whole number from 0 to {MAX_INTEGER}, in decimal digits; a range of them, as 3-9 or 3-; or "
        "a list of these, as 1,3-5.",
    )


def parse_hours(text: str) -> Hours:
    """`3`, `3-9`, `3-` or a list of these. Raises Problem."""
    parts = text.split(",")
    if len(parts) > _MAX_RANGES:
        raise Problem(400, f"hour has {len(parts)} parts, and may have {_MAX_RANGES}: use ranges, as 3-9.")
    ranges = []
    for part in parts:
        match = _HOURS.fullmatch(part)
        first = _hour(part if match is None else match["first"])
        last = first
        if match is not None and match["to"]:
            last = _hour(match["last"]) if match["last"] else MAX_INTEGER
        if last < first:
            raise Problem(400, f"hour: the range {part} ends before it begins.")
        ranges.append((first, last))
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return Hours(tuple(joined))


def is_wild(pattern: str) -> bool:
    """Whether it is tried on each name: it has more than a `*` at its end."""
    return _WILD.search(pattern.removesuffix("*")) is not None


def _patterns(name: str, values: Sequence[str]) -> tuple[str, ...]:
    if len(values) > _MAX_PATTERNS:
        raise Problem(400, f"{name} may stand {_MAX_PATTERNS} times at most.")
    for value in values:
        if not value or len(value) > _MAX_PATTERN_CHARACTERS:
            raise Problem(
                400, f"{name} must have 1 to {_MAX_PATTERN_CHARACTERS} characters; * stands for any text in it."
            )
        if _CONTROL.search(value) is not None:
            raise Problem(400, f"{name}: no name has control characters.")
    if sum(is_wild(value) for value in values) > _MAX_WILD:
        raise Problem(400, f"{name} may have {_MAX_WILD} patterns with * or ? at most; names may stand more often.")
    return tuple(sorted(set(values)))


def _group_by(values: Sequence[str] | None) -> tuple[str, ...]:
    if values is None:
        return KEY
    names = [name for value in values for name in value.split(",")]
    if len(set(names)) < len(names) or not set(names) <= set(KEY):
        raise Problem(400, f"group_by takes each of {', '.join(KEY)} once at most, as group_by=src_app,hour.")
    return tuple(name for name in KEY if name in names)


def _order(given: Mapping[str, Sequence[str]], group_by: Sequence[str]) -> Order | None:
    if "order_by" not in given:
        return Order("bytes", descending=True) if "top" in given else None
    name, colon, way = given["order_by"][0].partition(":")
    if name not in (*group_by, *MEASURES) or (colon and way not in _WAYS):
        raise Problem(
            400,
            f"order_by must be one of {', '.join((*group_by, *MEASURES))}; with :asc or :desc behind it to have the "
            "smallest or the largest first. Without, names and hours ascend and bytes descend.",
        )
    return Order(name, way == "desc" if colon else name in MEASURES)


def _number(given: Mapping[str, Sequence[str]], name: str, most: int) -> int | None:
    if name not in given:
        return None
    text = given[name][0]
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= most):
        raise Problem(400, f"{name} must be a whole number from 1 to {most}.")
    return int(text)


def _cursor(given: Mapping[str, Sequence[str]], group_by: Sequence[str]) -> tuple[str | int, ...] | None:
    if "cursor" not in given:
        return None
    try:
        return decode_cursor(given["cursor"][0], group_by)
    except InvalidCursor as error:
        raise Problem(400, f"cursor: {error}.") from None


def _format(given: Mapping[str, Sequence[str]]) -> Format | None:
    if "format" not in given:
        return None
    try:
        return Format(given["format"][0])
    except ValueError:
        raise Problem(400, f"format must be one of {', '.join(Format)}.") from None
