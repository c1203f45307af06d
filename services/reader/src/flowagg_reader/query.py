"""The query of GET /flows."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from flowagg.flow import MAX_INTEGER
from flowagg.position import InvalidToken, Position, decode_token
from flowagg.problem import Problem
from flowagg.view import VIEW_NAME

_KNOWN = ("hour", "after", "consistency", "view")
_VIEW = re.compile(VIEW_NAME)


class Consistency(StrEnum):
    """What an answer must reflect."""

    FRESH = "fresh"  # every POST acknowledged before, else stale and marked so
    STRICT = "strict"  # every POST acknowledged before, else 503
    EVENTUAL = "eventual"  # what is there now


@dataclass(frozen=True, slots=True)
class Query:
    """hour: of the rows. after: a POST's position that is enough to reflect. view: its name, None: the reader's own."""

    hour: int
    consistency: Consistency
    after: Position | None
    view: str | None = None


def parse_query(parameters: Iterable[tuple[str, str]]) -> Query:
    """Read the parameters. Raises Problem (400) that says what is wrong with them."""
    given: dict[str, str] = {}
    for name, value in parameters:
        if name not in _KNOWN:
            raise Problem(400, f"Unknown query parameter {name!r}; known ones: {', '.join(_KNOWN)}.")
        if name in given:
            raise Problem(400, f"The query parameter {name} may stand once only.")
        given[name] = value
    if "hour" not in given:
        raise Problem(400, "The query parameter hour is missing: GET /flows?hour=1")
    try:
        consistency = Consistency(given.get("consistency", Consistency.FRESH))
    except ValueError:
        raise Problem(400, f"consistency must be one of {', '.join(Consistency)}.") from None
    try:
        after = decode_token(given["after"]) if "after" in given else None
    except InvalidToken as error:
        raise Problem(400, f"after: {error}.") from None
    if after is not None and consistency is Consistency.EVENTUAL:
        raise Problem(400, "after waits for a POST and consistency=eventual never waits: send one of them.")
    view = given.get("view")
    if view is not None and _VIEW.fullmatch(view) is None:
        raise Problem(400, "view must be the name of a view: 1 to 63 lower-case letters, digits and hyphens.")
    return Query(_hour(given["hour"]), consistency, after, view)


def _hour(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 16 and (text == "0" or text[0] != "0"):
        hour = int(text)
        if hour <= MAX_INTEGER:
            return hour
    raise Problem(400, f"hour must be a whole number from 0 to {MAX_INTEGER}, in decimal digits.")
