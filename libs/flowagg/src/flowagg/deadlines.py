"""Deadlines of many things that have the same time each.

A timer of the event loop's for each request costs it 2 us, and nearly all of them are cancelled.
"""

import asyncio
import itertools
from collections.abc import Callable


class Deadlines:
    """Of one event loop, which has one timer for all of them. seconds: from set() on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._numbers = itertools.count()
        self._open: dict[int, tuple[float, Callable[[], object]]] = {}  # the next one first
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def set(self, expired: Callable[[], object]) -> int:
        """Set one. expired: called when it has come, unless clear() is called with the number before."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._seconds
        number = next(self._numbers)
        self._open[number] = due, expired
        if self._timer is None:
            self._timer = loop.call_at(due, self._look, loop)
        return number

    def clear(self, number: int) -> None:
        """It has been kept; one that has come already is nothing."""
        self._open.pop(number, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call what is due, and wait for the next one: of those set by then, not of any that was cleared since."""
        try:
            while self._open:
                number = next(iter(self._open))
                due, expired = self._open[number]
                if due > loop.time():
                    break
                del self._open[number]
                expired()
        finally:
            self._timer = None
            for due, _ in itertools.islice(self._open.values(), 1):
                self._timer = loop.call_at(due, self._look, loop)
