"""The totals of an hour as columns, for queries: filters, groups and orders are a few calls of NumPy then.

Names are codes into sorted lists, so that codes compare as the names do. A table of 200,000 flow keys takes about a
quarter of the memory of its JSON.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from flowagg_reader.union import columns, disjoint

Array = np.ndarray[Any, Any]

_SLICE_ROWS: Final = 4096
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
    _joined: dict[int, str] = field(default_factory=dict, repr=False, compare=False)

    def joined(self, place: int) -> str:
        """The names of a field, one a line: for patterns that are looked for in all of them at once."""
        found = self._joined.get(place)
        if found is None:
            found = self._joined[place] = "\n".join(self.names[place])
        return found


def tabulate(
    hour: int,  # noqa: ARG001 - as of union.render
    partitions: Sequence[list[bytes]],
    visible: Callable[[str], bool] | None = None,
) -> Generator[None, None, Table]:
    """The table of an hour, from what its partitions hold: see union.sorted_lines. Raises DamagedView.

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
            yield
        flat.clear()
    names: list[list[str]] = []
    ranked: list[Array] = []
    for into, of in zip(codes, known, strict=True):
        listed = sorted(of)
        ranks = np.empty(len(listed), np.int32)
        ranks[np.fromiter(map(of.__getitem__, listed), np.int32, len(listed))] = np.arange(len(listed), dtype=np.int32)
        names.append(listed)
        ranked.append(ranks[np.array(into, np.int32)])
        yield
    order = np.lexsort(ranked[::-1])
    if visible is not None:
        seen = np.fromiter(map(visible, names[2]), bool, len(names[2]))
        order = order[seen[ranked[2][order]]]
    yield
    sent, received = numbers(tx)[order], numbers(rx)[order]
    found = [column[order] for column in ranked]
    if visible is not None:
        names, found = _without_unused(names, found)
    characters = sum(len(name) for listed in names for name in listed)
    size = 28 * len(order) + _NAME_BYTES * sum(map(len, names)) + 2 * characters
    return Table((names[0], names[1], names[2]), (found[0], found[1], found[2]), sent, received, len(order), size)


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
