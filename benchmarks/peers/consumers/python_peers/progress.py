"""How many flows a process has applied: a little-endian long in a file of 8 bytes that two processes map."""

import mmap
import struct
from pathlib import Path

_LONG = struct.Struct("<q")


class Progress:
    """The side that counts. The file must be there, with 8 bytes."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), _LONG.size)
        self._count = 0

    def add(self, count: int) -> None:
        """Count flows that were applied."""
        self._count += count
        _LONG.pack_into(self._bytes, 0, self._count)


class ProgressFile:
    """The side that looks. reset() before each process, since each counts from 0."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(_LONG.size))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), _LONG.size)

    def reset(self) -> None:
        """Back to 0."""
        _LONG.pack_into(self._bytes, 0, 0)

    def read(self) -> int:
        """Flows so far, of the process that is running."""
        count: int = _LONG.unpack_from(self._bytes)[0]
        return count
