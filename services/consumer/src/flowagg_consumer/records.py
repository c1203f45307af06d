"""Records of one partition, and how their values are decoded many at a time."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from flowagg.flow import ByteCounts

_decoder = msgspec.json.Decoder(ByteCounts)


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive records of one partition, as three columns of one length, in offset order.

    leader_epoch: of all of them (the worker splits where it changes).
    """

    offsets: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    leader_epoch: int

    def between(self, start: int, stop: int) -> "Records":
        """The records at places start..stop-1 of the columns."""
        return Records(
            self.offsets[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
            self.leader_epoch,
        )

    def after(self, offset: int) -> "Records":
        """The records with a larger offset."""
        return self.between(bisect_right(self.offsets, offset), len(self.offsets))


class InvalidValue(Exception):
    """The value at a place of the column is not the JSON of ByteCounts."""

    def __init__(self, place: int, reason: str) -> None:
        self.place = place
        self.reason = reason
        super().__init__(f"value {place}: {reason}")


def decode_values(values: Sequence[bytes | None]) -> list[ByteCounts]:
    """Decode a column of values, one result per value. Raises InvalidValue for the first bad one.

    One call decodes all of them, joined by line ends, where that provably gives one result per
    value. It does when every join stands between a `}` and a `{` and no value holds a line end of
    its own: inside an object or array a `}` is never followed by a `{` without a comma, and a
    string holds no line end, so no document spans a join; then each value holds at least one
    document, and as many results as values means exactly one each. (A count of the line ends alone
    does not do: `{"bytes_tx":1,` + `"bytes_rx":2}` + `{...}{...}` has three values and three
    results.) Anything else is decoded value by value.
    """
    count = len(values)
    try:
        joined = b"\n".join(values)  # type: ignore[arg-type] # a null value raises TypeError
        joins = count - 1
        if joined[:1] == b"{" and joined[-1:] == b"}" and joined.count(b"\n") == joins == joined.count(b"}\n{"):
            decoded = _decoder.decode_lines(joined)
            if len(decoded) == count:
                return decoded
    except (TypeError, UnicodeDecodeError, RecursionError, msgspec.MsgspecError):
        pass  # found again, with its place, below
    return [_decode_value(place, value) for place, value in enumerate(values)]


def _decode_value(place: int, value: bytes | None) -> ByteCounts:
    if value is None:
        raise InvalidValue(place, "the record has no value")
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise InvalidValue(place, str(error)) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise InvalidValue(place, type(error).__name__) from None
