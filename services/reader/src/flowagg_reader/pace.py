"""Pace: how fast a view applies records, to tell a wait that cannot succeed. Pure: time comes in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_LEAST_SECONDS: Final = 1.0
"""Shorter stretches say nothing: consumers apply in batches, and take some hundred milliseconds to wake."""
_RECENT_SECONDS: Final = 2.0
"""A stretch begins anew after this, so that a pace is of the last two to four seconds."""
_GAP_SECONDS: Final = 5.0
"""After so long without a look nothing is known."""


@dataclass(slots=True)
class _Stretch:
    """A time in which a partition had more to apply than it did.

    began and later: (seconds, position), of which `later` takes over from `began` when that is old.
    """

    began: tuple[float, int]
    later: tuple[float, int]
    last: tuple[float, int]
    lag: int


class Pace:
    """Per partition the records a second that the view has applied of late, while it had any to apply.

    A time in which the partition may have caught up says nothing of its pace, only how much there was:
    an idle view is not a slow one.
    """

    def __init__(self) -> None:
        self._stretches: dict[int, _Stretch] = {}

    def observe(self, now: float, positions: Mapping[int, int], lags: Mapping[int, int]) -> None:
        """Take in what a look has shown. now: in seconds. positions, lags: by partition, in records."""
        for number, lag in lags.items():
            position = positions.get(number, 0)
            known = self._stretches.get(number)
            if lag == 0:
                self._stretches.pop(number, None)
            elif known is None or not _busy(known, now, position):
                self._stretches[number] = _Stretch((now, position), (now, position), (now, position), lag)
            else:
                if now - known.later[0] >= _RECENT_SECONDS:
                    known.began, known.later = known.later, (now, position)
                known.last, known.lag = (now, position), lag

    def hopeless(self, now: float, lags: Mapping[int, int], seconds: float) -> bool:
        """Whether some partition cannot apply what it lacks within the seconds; False where that is not known."""
        return any(lag > self._most(number, now, seconds) for number, lag in lags.items() if lag)

    def _most(self, number: int, now: float, seconds: float) -> float:
        known = self._stretches.get(number)
        if known is None or now - known.last[0] > _GAP_SECONDS:
            return float("inf")
        (began, first), (ended, last) = known.began, known.last
        if ended - began < _LEAST_SECONDS:
            return float("inf")
        return (last - first) / (ended - began) * seconds


def _busy(known: _Stretch, now: float, position: int) -> bool:
    """Whether the partition had something to apply all the time since the last look."""
    applied = position - known.last[1]
    return 0 <= applied < known.lag and now - known.last[0] <= _GAP_SECONDS
