"""The totals of an hour as columns, for queries: filters, groups and orders are a few calls of NumPy then.

Names are codes into sorted lists, so that codes compare as the names do. A table of 200,000 flow keys takes about a
quarter of the memory of its JSON.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from flowagg_reader.union import columns, disjoint

Array = np.ndarray[Any, Any]

_SLICE_ROWS: Final = 4096
_FEW_ROWS: Final = 20_000
"""Sorted within some milliseconds."""
_NAME_BYTES: Final = 80
"""What a name costs beside its characters: its string, and its place in a list."""
_SMALL: Final = 2**62


@dataclass(frozen=True, slots=True)
class Table:
    """Rows sorted by (src_app, dest_app, vpc_id) by code point.

    names: by field as in query.NAMES, sorted. codes: by field, into them, of each row. tx, rx: int64, or Python's
    numbers where one is too large for that. size: in bytes, about.
    """

    names: tuple[list[str], list[str], list[str]]
    codes: tuple[Array, Array, Array]
    tx: Array
    rx: Array
    rows: int
    size: int


def tabulate(
    hour: int,  # noqa: ARG001 - as of union.render
    partitions: Sequence[list[bytes]],
    visible: Callable[[str], bool] | None = None,
) -> Generator[Callable[[], Table] | None, Any, Table]:
    """The table of an hour, from what its partitions hold: see union.sorted_lines. Raises DamagedView.

    Of many rows it yields the last part of its work as a function, for another thread, and is sent its result.
    Rows are sorted by their codes, once the names have their ranks: a small part of what sorting them as text takes.
    """
    known: tuple[_Codes, _Codes, _Codes] = (_Codes(), _Codes(), _Codes())
    codes: tuple[list[int], list[int], list[int]] = ([], [], [])
    tx: list[int] = []
    rx: list[int] = []
    for flat in (yield from disjoint(partitions)):
        for start in range(0, len(flat), 2 * _SLICE_ROWS):
            cells, totals = columns(flat[start : start + 2 * _SLICE_ROWS])
            for place, (into, of) in enumerate(zip(codes, known, strict=True)):
                into.extend(map(of.__getitem__, cells[place::3]))
            tx.extend(totals[::2])
            rx.extend(totals[1::2])
            yield None
        flat.clear()

    def finish() -> Table:
        return _table(known, codes, numbers(tx), numbers(rx), visible)

    if len(tx) <= _FEW_ROWS:
        return finish()
    made: Table = yield finish
    return made


def _table(
    known: "Sequence[_Codes]", codes: Sequence[list[int]], tx: Array, rx: Array, visible: Callable[[str], bool] | None
) -> Table:
    names: list[list[str]] = []
    found: list[Array] = []
    for into, of in zip(codes, known, strict=True):
        listed = sorted(of)
        ranks = np.empty(len(listed), np.int32)
        ranks[np.fromiter(map(of.__getitem__, listed), np.int32, len(listed))] = np.arange(len(listed), dtype=np.int32)
        names.append(listed)
        found.append(ranks[np.array(into, np.int32)])
    order = np.lexsort(found[::-1])
    if visible is not None:
        seen = np.fromiter(map(visible, names[2]), bool, len(names[2]))
        order = order[seen[found[2][order]]]
    found = [column[order] for column in found]
    if visible is not None:
        names, found = _without_unused(names, found)
    characters = sum(len(name) for listed in names for name in listed)
    size = 28 * len(order) + _NAME_BYTES * sum(map(len, names)) + 2 * characters
    return Table((names[0], names[1], names[2]), (found[0], found[1], found[2]), tx[order], rx[order], len(order), size)


def _without_unused(names: list[list[str]], codes: list[Array]) -> tuple[list[list[str]], list[Array]]:
    """Without names of rows that are not shown: nothing is completed by them, and no memory is counted for them."""
    kept_names, kept_codes = [], []
    for listed, column in zip(names, codes, strict=True):
        used, inverse = np.unique(column, return_inverse=True)
        kept_names.append([listed[code] for code in used.tolist()])
        kept_codes.append(inverse.astype(np.int32))
    return kept_names, kept_codes


def numbers(values: list[int]) -> Array:
    """Whole numbers of any size: int64 where they fit with room for one sum of two."""
    if values and max(values) >= _SMALL:
        return np.array(values, dtype=object)
    return np.array(values, dtype=np.int64)


class _Codes(dict[str, int]):
    """Names in the order in which they come -> 0, 1, 2 and so on."""

    def __missing__(self, name: str) -> int:
        self[name] = code = len(self)
        return code
