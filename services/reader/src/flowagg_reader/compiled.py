"""An hour's body by the compiled library; what it leaves is made in Python (union.py), to the same bytes."""

from collections.abc import Callable, Generator, Sequence
from typing import Final

from flowagg_native.rows import Rows

from flowagg_reader.union import CHUNK_ROWS, EMPTY, Body, render

_RUN_ROWS: Final = 8_192
"""Rows between two yields: about a millisecond."""


def render_compiled(
    hour: int, partitions: Sequence[list[bytes]], visible: Callable[[str], bool] | None = None
) -> Generator[None, None, Body]:
    """As render. The library has rows of plain ASCII, each flow key in one partition, for who sees all of them."""
    if visible is None:
        body = yield from _compiled(hour, partitions)
        if body is not None:
            return body
    return (yield from render(hour, partitions, visible))


def _compiled(hour: int, partitions: Sequence[list[bytes]]) -> Generator[None, None, Body | None]:
    rows, count = Rows(), 0
    for flat in partitions:
        count += len(flat) // 2
        for start in range(0, len(flat), 2 * _RUN_ROWS):
            if not rows.add(flat[start : start + 2 * _RUN_ROWS]):
                return None
            yield
    if not count:
        return EMPTY
    while rows.merge():
        yield
    if rows.repeat():
        return None
    for flat in partitions:
        flat.clear()
    chunks = []
    while chunk := rows.write(hour, CHUNK_ROWS):
        chunks.append(chunk)
        yield
    return Body(tuple(chunks), sum(map(len, chunks)), count)
