"""One answer from many partitions: the union of their totals, summed, sorted and written as JSON.

Written for speed: nothing is done row by row in Python that one call can do for thousands. What Redis
holds is canonical JSON already, so it is spliced into rows and not decoded, but for names with a quote
or a backslash. A row on its way is a line of text,

    foo <1> bar <2> vpc-0 <3> 100 <4> 300

with control characters for separators: names hold none, so lines sort as (src_app, dest_app, vpc_id)
does by code point, and each separator becomes its piece of JSON in one call.
"""

import re
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from flowagg.view import DamagedView, decode_field, decode_totals, encode_totals

_SLICE_ROWS: Final = 2048
"""Rows between two yields: one or two milliseconds."""
CHUNK_ROWS: Final = 2048
"""Rows in a chunk of a body: about 256 KiB."""
_DIGITS: Final = b"0123456789"
_CONTROLS: Final = bytes(range(32))
_CONTROL: Final = re.compile("[\x00-\x1f]")
_TOTALS: Final = re.compile(rb"(0|[1-9][0-9]*) (0|[1-9][0-9]*)")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Body:
    """A rendered answer, in chunks of about 256 KiB, so that whoever holds one of them holds no more.

    size: in bytes. rows: in all.
    """

    chunks: tuple[bytes, ...]
    size: int
    rows: int


EMPTY: Final = Body((b"[]",), 2, 0)


def render(
    hour: int, partitions: Sequence[list[bytes]], visible: Callable[[str], bool] | None = None
) -> Generator[None, None, Body]:
    """The body of an hour: one row per flow key. Arguments and errors as of sorted_lines."""
    lines = yield from sorted_lines(partitions, visible)
    if not lines:
        return EMPTY
    chunks = []
    for start in range(0, len(lines), CHUNK_ROWS):
        chunks.append(_chunk(hour, lines[start : start + CHUNK_ROWS], b"[" if start == 0 else b","))
        yield
    chunks[-1] += b"]"
    return Body(tuple(chunks), sum(map(len, chunks)), len(lines))


def sorted_lines(
    partitions: Sequence[list[bytes]], visible: Callable[[str], bool] | None = None
) -> Generator[None, None, list[str]]:
    """A line per flow key, sorted by (src_app, dest_app, vpc_id) by code point.

    partitions: each a list of field, totals, field, totals, ..., which is emptied on the way. visible: tells
    by vpc_id which rows are shown; None: all. Yields every one or two milliseconds of work (merging the
    sorted parts of a million rows: up to 100). A flow key stands in two partitions when the topic has grown
    in between: its totals are added. Raises DamagedView.
    """
    runs = []
    for flat in (yield from disjoint(partitions)):
        for start in range(0, len(flat), 2 * _SLICE_ROWS):
            lines = _lines(flat[start : start + 2 * _SLICE_ROWS])
            if visible is not None:
                lines = _shown(lines, visible)
            lines.sort()
            runs.append(lines)
            yield
        flat.clear()
    return (yield from _merge(runs))


def disjoint(partitions: Sequence[list[bytes]]) -> Generator[None, None, Sequence[list[bytes]]]:
    """The partitions, or where two share a field, one list with its totals added."""
    held = [flat for flat in partitions if flat]
    seen: set[bytes] = set()
    for flat in held if len(held) > 1 else ():
        fields = flat[::2]
        if not seen.isdisjoint(fields):
            break
        seen.update(fields)
        yield
    else:
        return held
    sums: dict[bytes, bytes] = {}
    for flat in held:
        for field, raw in zip(flat[::2], flat[1::2], strict=True):
            known = sums.get(field)
            sums[field] = raw if known is None else _add(known, raw)
        flat.clear()
        yield
    return [[part for pair in sums.items() for part in pair]]


def _add(one: bytes, other: bytes) -> bytes:
    (tx, rx), (more_tx, more_rx) = decode_totals(one), decode_totals(other)
    return encode_totals(tx + more_tx, rx + more_rx)


def _lines(flat: list[bytes]) -> list[str]:
    """The lines of fields and totals. Raises DamagedView."""
    values = _values(flat[1::2])
    fields = flat[::2]
    return _splice(fields, values) or _lines_one_by_one(fields, values)


def columns(flat: list[bytes]) -> tuple[list[str], list[int]]:
    """Fields and totals as src_app, dest_app, vpc_id, src_app, ... and bytes_tx, bytes_rx, bytes_tx, ...

    Raises DamagedView.
    """
    fields, raw = flat[::2], flat[1::2]
    totals = list(map(int, _checked(raw).split()))
    joined = _joined_if_plain(fields)
    if joined is not None:
        try:
            names = joined[2:-2].decode().replace('"]\n["', "\1").replace('","', "\1").split("\1")
        except UnicodeDecodeError:
            pass
        else:
            if len(names) == 3 * len(fields):
                return names, totals
    return [name for field in fields for name in _decoded(field)], totals


def _values(raw: list[bytes]) -> list[bytes]:
    """`100 300` as `100<4>300`. Raises DamagedView."""
    return _checked(raw)[1:-1].replace(b" ", b"\4").split(b"\n")


def _checked(raw: list[bytes]) -> bytes:
    """Totals, one a line. All are checked at once: pairs of decimal numbers without leading zeros.

    Raises DamagedView.
    """
    joined = b"\n%b\n" % b"\n".join(raw)
    sound = (
        joined.translate(None, _DIGITS) == b"\n" + len(raw) * b" \n"
        and b"\n " not in joined
        and b" \n" not in joined
        and joined.count(b"\n0") == joined.count(b"\n0 ")
        and joined.count(b" 0") == joined.count(b" 0\n")
    )
    if not sound:
        damaged = next(value for value in raw if _TOTALS.fullmatch(value) is None)
        raise DamagedView(f"totals in Redis are damaged: {damaged[:80]!r}")
    return joined


def _joined_if_plain(fields: list[bytes]) -> bytes | None:
    """Fields, one a line; None where one is not plainly three strings without escapes.

    Every field begins and ends as it should, and there are six quotes a field in all. Each then has at least
    two separators, so at least six quotes: so exactly two and six, and no quote stands within a name.
    """
    count = len(fields)
    joined = b"\n".join(fields)
    plain = (
        b"\\" not in joined
        and joined.startswith(b'["')
        and joined.endswith(b'"]')
        and joined.count(b'"]\n["') == count - 1
        and joined.count(b'"') == 6 * count
        and len(joined.translate(None, _CONTROLS)) == len(joined) - (count - 1)
    )
    return joined if plain else None


def _splice(fields: list[bytes], values: list[bytes]) -> list[str] | None:
    """The lines, by splicing; None where a field is not plainly three strings without escapes."""
    if _joined_if_plain(fields) is None:
        return None
    count = len(fields)
    mixed = [b""] * (2 * count)
    mixed[::2], mixed[1::2] = fields, values
    try:
        text = b"\n".join(mixed).decode()
    except UnicodeDecodeError:
        return None
    lines = [
        line[2:].replace('","', "\1", 1).replace('","', "\2", 1) for line in text.replace('"]\n', "\3").split("\n")
    ]
    text = "".join(lines)
    return lines if text.count("\1") == text.count("\2") == count else None


def _lines_one_by_one(fields: list[bytes], values: list[bytes]) -> list[str]:
    lines = []
    for field, value in zip(fields, values, strict=True):
        lines.append("{}\1{}\2{}\3{}".format(*_decoded(field), value.decode("ascii")))
    return lines


def _decoded(field: bytes) -> tuple[str, str, str]:
    names = decode_field(field)
    if _encode(names) != field or any(map(_CONTROL.search, names)):
        raise DamagedView(f"a field of the totals in Redis is damaged: {field[:80]!r}")
    return names


class _Seen(dict[str, bool]):
    """What a caller may see, asked once a vpc_id."""

    def __init__(self, visible: Callable[[str], bool]) -> None:
        self._visible = visible

    def __missing__(self, vpc_id: str) -> bool:
        self[vpc_id] = found = self._visible(vpc_id)
        return found


def _shown(lines: Iterable[str], visible: Callable[[str], bool]) -> list[str]:
    seen = _Seen(visible)
    return [line for line in lines if seen[line[line.index("\2") + 1 : line.index("\3")]]]


def _merge(runs: list[list[str]]) -> Generator[None, None, list[str]]:
    """One sorted list of sorted ones. Two by two, so that no single call takes long: sort() merges two runs."""
    while len(runs) > 1:
        merged = []
        while runs:
            run = runs.pop()
            if runs:
                run += runs.pop()
                run.sort()
                yield
            merged.append(run)
        runs = merged
    return runs[0] if runs else []


def _chunk(hour: int, lines: list[str], start: bytes) -> bytes:
    text = "\n".join(lines).replace("\\", "\\\\").replace('"', '\\"')
    text = (
        text.replace("\1", '","dest_app":"')
        .replace("\2", '","vpc_id":"')
        .replace("\3", f'","hour":{hour},"bytes_tx":')
        .replace("\4", ',"bytes_rx":')
        .replace("\n", '},{"src_app":"')
    )
    return b'%b{"src_app":"%b}' % (start, text.encode())
