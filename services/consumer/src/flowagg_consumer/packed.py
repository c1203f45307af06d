"""Byte strings as they go to Redis, many in one."""

from collections.abc import Iterator, Sequence
from typing import overload


class Packed(Sequence[bytes]):
    """Arguments of Redis' protocol, `$3\\r\\nfoo\\r\\n`, in one text: taken apart only if they are looked at."""

    __slots__ = ("_count", "_parts", "text")

    def __init__(self, count: int, text: bytes) -> None:
        self._count = count
        self.text = text
        self._parts: list[bytes] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: int | slice) -> bytes | list[bytes]:
        if self._parts is None:
            self._parts = list(self._take_apart())
        return self._parts[place]

    def _take_apart(self) -> Iterator[bytes]:
        at = 0
        while at < len(self.text):
            end = self.text.index(b"\r\n", at)
            start = end + 2
            at = start + int(self.text[at + 1 : end])
            yield self.text[start:at]
            at += 2
