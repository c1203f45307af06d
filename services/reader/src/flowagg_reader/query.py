"""The query of GET /flows."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from flowagg.flow import MAX_INTEGER
from flowagg.position import InvalidToken, Position, decode_token
from flowagg.problem import Problem

_KNOWN = ("hour", "after", "consistency")


class Consistency(StrEnum):
    """What an answer must reflect."""

    FRESH = "fresh"  # every POST acknowledged before, else stale and marked so
    STRICT = "strict"  # every POST acknowledged before, else 503
    EVENTUAL = "eventual"  # what is there now


@dataclass(frozen=True, slots=True)
class Query:
    """hour: of the rows. after: a POST's position that is enough to reflect."""

    hour: int
    consistency: Consistency
    after: Position | None


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
    return Query(_hour(given["hour"]), consistency, after)


def _hour(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 16 and (text == "0" or text[0] != "0"):
        hour = int(text)
        if hour <= MAX_INTEGER:
            return hour
    raise Problem(400, f"hour must be a whole number from 0 to {MAX_INTEGER}, in decimal digits.")
