"""The rows of an hour, sorted and written as JSON, in memory of the library's."""

import ctypes
from collections.abc import Sequence

from flowagg_native.library import calls


class Rows:
    """Sorted rows by (src_app, dest_app, vpc_id). Life: add some, merge until one run is left, write."""

    def __init__(self) -> None:
        self._handle = calls.rows_new()

    def __del__(self) -> None:
        calls.rows_free(self._handle)

    def add(self, flat: Sequence[bytes]) -> bool:
        """Add field, totals, field, totals, ... False, with nothing added, where one is not spelled plainly."""
        lines = b"\n".join(flat)
        added: bool = calls.rows_add(self._handle, lines, len(lines), len(flat)) == 0
        return added

    def merge(self) -> bool:
        """Merge two of the runs that were added; whether there are still several."""
        runs: int = calls.rows_merge(self._handle)
        return runs > 1

    def repeat(self) -> bool:
        """Whether a flow key stands there twice, once they are one run."""
        found: bool = calls.rows_repeat(self._handle) != 0
        return found

    def write(self, hour: int, most: int) -> bytes:
        """The next rows, up to so many, as a part of a JSON array; nothing where none are left."""
        body = ctypes.c_void_p()
        size = calls.rows_write(self._handle, b"%d" % hour, most, ctypes.byref(body))
        return ctypes.string_at(body, size) if size else b""
