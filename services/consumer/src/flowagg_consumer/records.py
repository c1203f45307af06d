"""Records of one partition as columns, and how their values are decoded many at a time."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from flowagg.flow import ByteCounts
from flowagg.idempotency import Mark

_decoder = msgspec.json.Decoder(ByteCounts)


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive records of one partition, as columns of one length, in offset order.

    leader_epoch: of all of them (whoever fetches splits where it changes). timestamps: log-append
    times in milliseconds, looked at where a record has a mark or hours expire.
    """

    offsets: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    leader_epoch: int
    timestamps: Sequence[int]

    def between(self, start: int, stop: int) -> "Records":
        """The records at places start..stop-1 of the columns."""
        return Records(
            self.offsets[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
            self.leader_epoch,
            self.timestamps[start:stop],
        )

    def after(self, offset: int) -> "Records":
        """The records with a larger offset."""
        return self.between(bisect_right(self.offsets, offset), len(self.offsets))

    def latest(self) -> int:
        """The largest of their timestamps."""
        return max(self.timestamps)

    def decode(self) -> "Decoded":
        """Their values, decoded."""
        return decode_values(self.values)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A column of values, decoded.

    bad: by place, why a value is none; its result is a placeholder. marks: by place, of those that have one.
    """

    counts: Sequence[ByteCounts]
    bad: Mapping[int, str]
    marks: Mapping[int, Mark]


_PLACEHOLDER = ByteCounts(0, 0)


def decode_values(values: Sequence[bytes | None]) -> Decoded:
    """Decode a column of values.

    One call decodes all of them, joined by line ends, where that provably gives one result per
    value. It does when every join stands between a `}` and a `{` and no value holds a line end of
    its own: inside an object or array a `}` is never followed by a `{` without a comma, and a
    string holds no line end, so no document spans a join; then each value holds at least one
    document, and as many results as values means exactly one each. (A count of the line ends alone
    does not do: `{"bytes_tx":1,` + `"bytes_rx":2}` + `{...}{...}` has three values and three
    results.) Anything else is decoded value by value.
    """
    try:
        joined = b"\n".join(values)  # type: ignore[arg-type] # a null value raises TypeError
    except TypeError:
        pass
    else:
        decoded = decode_joined(joined, len(values))
        if decoded is not None:
            return decoded
    counts: list[ByteCounts] = []
    bad: dict[int, str] = {}
    for place, value in enumerate(values):
        try:
            counts.append(_decode_value(value))
        except _InvalidValue as error:
            counts.append(_PLACEHOLDER)
            bad[place] = str(error)
    return Decoded(counts, bad, _marks(counts))


def decode_joined(joined: bytes, count: int) -> Decoded | None:
    """Decode values that were joined by line ends; None where one is bad, or it is not certain whose a result is."""
    if not joins_are_between_objects(joined, count - 1):
        return None
    try:
        counts = _decoder.decode_lines(joined)
    except (UnicodeDecodeError, RecursionError, msgspec.MsgspecError):
        return None  # found again, with its place, value by value
    if len(counts) != count:
        return None
    # A name in JSON is spelled as it is, or with a backslash.
    return Decoded(counts, {}, _marks(counts) if b'"mark"' in joined or b"\\" in joined else {})


def _marks(counts: Sequence[ByteCounts]) -> dict[int, Mark]:
    return {place: each.mark for place, each in enumerate(counts) if each.mark is not None}


def joins_are_between_objects(joined: bytes, joins: int) -> bool:
    """Whether text joined by line ends has a `}` before and a `{` after each join, and no other line end."""
    return joined[:1] == b"{" and joined[-1:] == b"}" and joined.count(b"\n") == joins == joined.count(b"}\n{")


class _InvalidValue(Exception):
    """A value that is not the JSON of ByteCounts."""


def _decode_value(value: bytes | None) -> ByteCounts:
    if value is None:
        raise _InvalidValue("the record has no value")
    try:
        return _decoder.decode(value)
    except (UnicodeDecodeError, RecursionError, msgspec.MsgspecError) as error:
        raise _InvalidValue(f"{type(error).__name__}: {error}") from None
