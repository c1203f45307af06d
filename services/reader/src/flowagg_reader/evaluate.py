"""Filters, groups, orders and pages of rows, by columns. Sums are exact, whatever their size."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from flowagg_reader.cursor import encode_cursor
from flowagg_reader.query import KEY, NAMES, Order, Selection, is_wild
from flowagg_reader.table import Array, Table

_WILD: Final = re.compile(r"[*?\\]")
_PIECES: Final = re.compile(r"\\(.)|([*?])|([^*?\\]+)|\\", re.S)
_ROOM: Final = 2**62
_SLICE_ROWS: Final = 2048

Row = tuple[str | int | None, ...]
"""Values of the fields of a result, then bytes_tx and bytes_rx."""


@dataclass(frozen=True, slots=True)
class Result:
    """The rows of an answer. fields: of the key that they have. others: the sums of all rows that are not in a top.

    names: by field, what its codes stand for. codes: by field, of each row. next_cursor: where the next page begins.
    """

    fields: tuple[str, ...]
    names: tuple[Sequence[str | int], ...]
    codes: tuple[Array, ...]
    tx: Array
    rx: Array
    others: tuple[int, int] | None = None
    next_cursor: str | None = None

    @property
    def rows(self) -> int:
        """In all, the one for the others too."""
        return len(self.tx) + (self.others is not None)

    def slices(self) -> Iterator[list[Row]]:
        """All rows, some thousands at a time, in order."""
        for start in range(0, len(self.tx), _SLICE_ROWS):
            part = slice(start, start + _SLICE_ROWS)
            columns: list[list[str | int]] = [
                [names[code] for code in codes[part].tolist()]
                for names, codes in zip(self.names, self.codes, strict=True)
            ]
            yield list(zip(*columns, self.tx[part].tolist(), self.rx[part].tolist(), strict=True))
        if self.others is not None:
            yield [(*(None for _ in self.fields), *self.others)]


@dataclass(slots=True)
class _Rows:
    """Rows in hand. names: by field, sorted, so that codes compare as names do."""

    names: list[Sequence[str | int]]
    codes: list[Array]
    tx: Array
    rx: Array

    def taken(self, places: Array | slice) -> "_Rows":
        return _Rows(self.names, [codes[places] for codes in self.codes], self.tx[places], self.rx[places])


class Abandoned(Exception):
    """Nobody waits for the result any more."""


def never() -> bool:
    """Of an evaluation that somebody waits for to its end."""
    return False


def evaluate(
    tables: Sequence[tuple[int, Table]], selection: Selection, is_abandoned: Callable[[], bool] = never
) -> Result:
    """The result of a query over the tables of its hours, which ascend. Raises Abandoned."""
    fields = selection.group_by
    rows = _selected(tables, selection, is_abandoned)
    if len(tables) > 1 or fields != KEY:
        rows = _grouped(rows)
    if selection.top is not None:
        assert selection.order is not None  # noqa: S101 - a top has one
        return _top(rows, fields, selection.order, selection.top)
    if selection.limit is not None:
        return _page(rows, fields, selection.limit, selection.cursor)
    if selection.order is not None:
        rows = rows.taken(_ordered(rows, fields, selection.order))
    return _result(rows, fields)


# Filters -----------------------------------------------------------------------------------------


def effort(tables: Sequence[tuple[int, Table]], selection: Selection) -> int:
    """About how many names and rows an evaluation looks at one by one."""
    found = sum(table.rows for _, table in tables)
    for field, patterns in selection.filters:
        wild = sum(map(is_wild, patterns))
        found += wild * sum(len(table.names[NAMES.index(field)]) for _, table in tables)
    return found


def _selected(tables: Sequence[tuple[int, Table]], selection: Selection, is_abandoned: Callable[[], bool]) -> _Rows:
    """The rows that pass the filters, with the fields that are grouped by."""
    kept = [(hour, table, _passing(table, selection, is_abandoned)) for hour, table in tables]
    names: list[Sequence[str | int]] = []
    codes: list[Array] = []
    for field in selection.group_by:
        if field == "hour":
            names.append([hour for hour, _ in tables])
            codes.append(
                _joined([np.full(_count(table, places), at, np.int32) for at, (_, table, places) in enumerate(kept)])
            )
            continue
        place = NAMES.index(field)
        all_names, remaps = _union([table.names[place] for _, table in tables])
        names.append(all_names)
        parts = []
        for (_, table, places), remap in zip(kept, remaps, strict=True):
            found = _at(table.codes[place], places)
            parts.append(found if remap is None else remap[found])
        codes.append(_joined(parts))
    tx, rx = (
        _totals([_at(column, places) for column, (_, _, places) in zip(columns, kept, strict=True)])
        for columns in ([table.tx for _, table in tables], [table.rx for _, table in tables])
    )
    return _Rows(names, codes, tx, rx)


def _union(lists: Sequence[list[str]]) -> tuple[list[str], list[Array | None]]:
    """One sorted list of sorted ones, and for each what its codes become; None: they stay."""
    if len(lists) == 1:
        return lists[0], [None]
    merged = sorted(set().union(*lists))
    index = {name: code for code, name in enumerate(merged)}
    return merged, [np.fromiter(map(index.__getitem__, names), np.int32, len(names)) for names in lists]


def _passing(table: Table, selection: Selection, is_abandoned: Callable[[], bool]) -> Array | None:
    """Places of the rows that pass all filters; None: all rows do."""
    mask: Array | None = None
    for field, patterns in selection.filters:
        place = NAMES.index(field)
        found = np.zeros(len(table.names[place]), bool)
        for pattern in patterns:
            _mark(table.names[place], pattern, found, is_abandoned)
        passes = found[table.codes[place]]
        mask = passes if mask is None else mask & passes
    return None if mask is None else np.flatnonzero(mask)


def _mark(names: list[str], pattern: str, found: Array, is_abandoned: Callable[[], bool]) -> None:
    """Mark the names of a field that match a pattern.

    Name by name: one call for all of them would keep every other thread waiting for as long as it takes.
    """
    wild = _WILD.search(pattern)
    if wild is None:
        at = bisect_left(names, pattern)
        if at < len(names) and names[at] == pattern:
            found[at] = True
        return
    prefix = pattern[: wild.start()]
    first = bisect_left(names, prefix)
    last = bisect_left(names, prefix + "\U0010ffff" * 256, first) if prefix else len(names)
    if pattern == prefix + "*":
        found[first:last] = True
        return
    matches = re.compile(expression(pattern)).fullmatch
    for start in range(first, last, _SLICE_ROWS):
        if is_abandoned():
            raise Abandoned
        for place in range(start, min(start + _SLICE_ROWS, last)):
            if matches(names[place]) is not None:
                found[place] = True


def expression(pattern: str) -> str:
    r"""The regular expression of a pattern: `*` is any text, `?` one character, `\` takes what follows as it is.

    What stands between two `*` is taken where it comes first and never tried again, so no pattern takes long.
    """
    parts: list[str] = [""]
    for match in _PIECES.finditer(pattern):
        escaped, wild, text = match.groups()
        if wild == "*":
            parts.append("")
        elif wild == "?":
            parts[-1] += "."
        else:
            parts[-1] += re.escape(escaped or text or "\\")
    if len(parts) == 1:
        return parts[0]
    first, *middle, last = parts
    return first + "".join(f"(?>.*?{part})" for part in middle if part) + f".*{last}"


def _count(table: Table, places: Array | None) -> int:
    return table.rows if places is None else len(places)


def _at(column: Array, places: Array | None) -> Array:
    return column if places is None else column[places]


def _joined(parts: Sequence[Array]) -> Array:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def _totals(parts: Sequence[Array]) -> Array:
    """Totals of several hours: Python's numbers where one of them has those."""
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


# Groups ------------------------------------------------------------------------------------------


def _grouped(rows: _Rows) -> _Rows:
    """One row for each combination of the fields' values, in their order."""
    if not len(rows.tx):
        return rows
    order = _key_order(rows)
    codes = [column[order] for column in rows.codes]
    new = np.zeros(len(order), bool)
    new[0] = True
    for column in codes:
        new[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(new)
    return _Rows(
        rows.names,
        [column[starts] for column in codes],
        _sums(rows.tx[order], starts),
        _sums(rows.rx[order], starts),
    )


def _key_order(rows: _Rows) -> Array:
    """Places of the rows in the order of their key."""
    size = 1
    for names in rows.names:
        size *= max(1, len(names))
    if size >= _ROOM:
        return np.lexsort(rows.codes[::-1])
    joined = np.zeros(len(rows.tx), np.int64)
    for names, codes in zip(rows.names, rows.codes, strict=True):
        joined = joined * len(names) + codes
    return np.argsort(joined, kind="stable")


def _sums(values: Array, starts: Array) -> Array:
    """The sums of runs of values. Of int64 only where none can pass it."""
    if values.dtype != object and int(values.max()) * len(values) >= _ROOM:
        values = values.astype(object)
    found: Array = np.add.reduceat(values, starts)
    return found


def _sum(values: Array) -> int:
    return int(_sums(values, np.zeros(1, np.intp))[0]) if len(values) else 0


# Orders and pages --------------------------------------------------------------------------------


def _measure(rows: _Rows, fields: Sequence[str], order: Order) -> Array:
    """What rows are ordered by; it ascends."""
    if order.by in fields:
        found = rows.codes[fields.index(order.by)].astype(np.int64)
    elif order.by == "bytes":
        found = rows.tx + rows.rx  # each of them is below half of what fits
    else:
        found = rows.tx if order.by == "bytes_tx" else rows.rx
    return -found if order.descending else found


def _ordered(rows: _Rows, fields: Sequence[str], order: Order) -> Array:
    """Places of all rows in an order; where it says nothing, in that of the key."""
    return np.argsort(_measure(rows, fields, order), kind="stable")


def _top(rows: _Rows, fields: tuple[str, ...], order: Order, top: int) -> Result:
    count = len(rows.tx)
    if count <= top:
        return _result(rows.taken(_ordered(rows, fields, order)), fields)
    measure = _measure(rows, fields, order)
    last = np.partition(measure, top - 1)[top - 1]
    candidates = np.flatnonzero(measure <= last)
    places = candidates[np.argsort(measure[candidates], kind="stable")][:top]
    shown = rows.taken(places)
    others = _sum(rows.tx) - _sum(shown.tx), _sum(rows.rx) - _sum(shown.rx)
    return _result(shown, fields, others=others)


def _page(rows: _Rows, fields: tuple[str, ...], limit: int, cursor: tuple[str | int, ...] | None) -> Result:
    def key(place: int) -> tuple[str | int, ...]:
        return tuple(names[int(codes[place])] for names, codes in zip(rows.names, rows.codes, strict=True))

    count = len(rows.tx)
    first = 0 if cursor is None else bisect_right(range(count), cursor, key=key)
    last = min(first + limit, count)
    next_cursor = encode_cursor(key(last - 1)) if last < count else None
    return _result(rows.taken(np.arange(first, last)), fields, next_cursor=next_cursor)


def _result(
    rows: _Rows, fields: tuple[str, ...], others: tuple[int, int] | None = None, next_cursor: str | None = None
) -> Result:
    """A result that holds what it shows and nothing more, for as long as it takes to be sent."""
    names: list[Sequence[str | int]] = []
    codes: list[Array] = []
    for listed, column in zip(rows.names, rows.codes, strict=True):
        used, inverse = np.unique(column, return_inverse=True)
        names.append([listed[code] for code in used.tolist()])
        codes.append(inverse)
    return Result(fields, tuple(names), tuple(codes), rows.tx.copy(), rows.rx.copy(), others, next_cursor)
