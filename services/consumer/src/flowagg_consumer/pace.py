"""A bound on how many records are taken a second. Pure: times come in."""

from typing import Final

_BURST_SECONDS: Final = 0.25
"""So much of the rate is held ready at most: what was not taken in time is not made up for."""


class Pace:
    """A token bucket. rate: records a second; times in seconds of a steady clock."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate * _BURST_SECONDS)
        self._room = self._most
        self._at = now

    def room(self, now: float) -> int:
        """Records that may be taken now."""
        self._fill(now)
        return int(self._room)

    def took(self, records: int) -> None:
        """So many records were taken."""
        self._room -= records

    def wait_seconds(self, now: float) -> float:
        """Time until half of what may be held ready is there, so that batches stay batches."""
        self._fill(now)
        return max(0.0, (max(1.0, self._most / 2) - self._room) / self._rate)

    def _fill(self, now: float) -> None:
        self._room = min(self._most, self._room + (now - self._at) * self._rate)
        self._at = now
