"""What was made of hours by tag, rendered bodies or tables, bounded in bytes."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

_ENTRY_BYTES: Final = 1024
"""What an entry costs beside its body, so that many small ones are bounded too."""


class Made(Protocol):
    """A body or a table. size: in bytes. rows: flow keys."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def rows(self) -> int:
        """Flow keys."""


_M = TypeVar("_M", bound=Made)


class Entry(Generic[_M]):
    """A body, and how many hold it to send it. A body in use stays where it is found, and is shared."""

    def __init__(self, tag: str, body: _M) -> None:
        self.tag = tag
        self.body = body
        self.users = 0
        self.when_idle: Callable[[], None] | None = None

    def hold(self) -> "Entry[_M]":
        """Count a user; each must release once."""
        self.users += 1
        return self

    def release(self) -> None:
        """End a use."""
        self.users -= 1
        assert self.users >= 0, "released more often than held"  # noqa: S101 - an invariant
        if self.users == 0 and self.when_idle is not None:
            self.when_idle()


class Cache(Generic[_M]):
    """Least recently used entries go; those in use never do, else their bytes would be counted no more.

    A body that finds no room stays outside: found as long as it is in use, and then forgotten. What it
    takes in memory is bounded by whoever has let it be rendered.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._inside: OrderedDict[str, Entry[_M]] = OrderedDict()
        self._outside: dict[str, Entry[_M]] = {}
        self.bytes = 0

    def find(self, tag: str) -> Entry[_M] | None:
        """The entry of a tag, now the most recently used."""
        entry = self._inside.get(tag)
        if entry is None:
            return self._outside.get(tag)
        self._inside.move_to_end(tag)
        return entry

    def add(self, tag: str, body: _M, when_outside_and_idle: Callable[[], None]) -> tuple[Entry[_M], bool]:
        """The entry of a body, the one known already where there is one; and whether it is new and outside.

        An entry outside must be held at once: with its last release it is forgotten and the function is called.
        """
        known = self.find(tag)
        if known is not None:
            return known, False
        entry = Entry(tag, body)
        size = body.size + _ENTRY_BYTES
        if self._make_room(size):
            self._inside[tag] = entry
            self.bytes += size
            return entry, False

        def forget() -> None:
            del self._outside[tag]
            when_outside_and_idle()

        entry.when_idle = forget
        self._outside[tag] = entry
        return entry, True

    def _make_room(self, size: int) -> bool:
        idle = [entry for entry in self._inside.values() if not entry.users] if self.bytes + size > self._limit else []
        if self.bytes - sum(entry.body.size + _ENTRY_BYTES for entry in idle) + size > self._limit:
            return False
        for entry in idle:
            if self.bytes + size <= self._limit:
                break
            del self._inside[entry.tag]
            self.bytes -= entry.body.size + _ENTRY_BYTES
        return True
