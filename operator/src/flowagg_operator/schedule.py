"""When which FlowAggregator is looked at next. Pure: times come in.

Many wishes for one name become one pass; a name is never in two passes at a time; a pass that failed is tried again
after a wait that doubles, within bounds.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class _Entry:
    due: float
    running: bool = False
    again: float | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """Times in seconds. settle: from a wish to the pass, so that wishes that come together become one; period: to the
    next pass without a wish; first_retry and last_retry: bounds of the wait after a failure."""

    settle: float
    period: float
    first_retry: float
    last_retry: float


class Schedule:
    """The names and when they are due. Not safe for threads by itself."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._entries: dict[str, _Entry] = {}

    def wish(self, name: str, now: float) -> None:
        """Have a pass soon; while one is running, one more after it."""
        due = now + self._pace.settle
        entry = self._entries.get(name)
        if entry is None:
            self._entries[name] = _Entry(due)
        elif entry.running:
            entry.again = due if entry.again is None else min(entry.again, due)
        else:
            entry.due = min(entry.due, due)

    def forget(self, name: str) -> None:
        """Have no further pass; one that is running ends by itself."""
        self._entries.pop(name, None)

    def take(self, now: float) -> str | None:
        """The name that has been due for longest, and is in hand from now on; None: nothing is due."""
        due = [(entry.due, name) for name, entry in self._entries.items() if not entry.running and entry.due <= now]
        if not due:
            return None
        _, name = min(due)
        self._entries[name].running = True
        return name

    def done(self, name: str, now: float, *, failed: bool, retry: float | None = None) -> None:
        """The pass has ended. retry: seconds to the next one, where the pass knows better than the period."""
        entry = self._entries.get(name)
        if entry is None or not entry.running:
            return
        pace = self._pace
        if failed:
            wait = min(pace.last_retry, pace.first_retry * 2.0 ** min(entry.failures, 30))
            entry.failures += 1
        else:
            wait, entry.failures = pace.period if retry is None else min(retry, pace.period), 0
        entry.due = now + wait
        if entry.again is not None:
            # After a failure a wish does not cut the wait short of the first retry: no hot loop.
            entry.due = min(entry.due, max(entry.again, now + (pace.first_retry if failed else 0.0)))
        entry.running, entry.again = False, None

    def next_due(self) -> float | None:
        """When the next one is due; None: nothing waits."""
        return min((entry.due for entry in self._entries.values() if not entry.running), default=None)

    def names(self) -> list[str]:
        """The names that are looked at."""
        return sorted(self._entries)
