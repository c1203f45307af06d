"""How fast a consumer applies records while it has some, told from its own counters. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

_LEAST_SECONDS: Final = 0.2
"""Work that is needed before anything is said of it."""
_SURE: Final = 0.8
"""The wait for records hides some of the work, such as librdkafka's: so much of the figure is taken to be certain."""


class Worked(NamedTuple):
    """What a consumer has done since its start: records that it applied, and the seconds that this took."""

    records: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Speeds:
    """What consumers had done at some moments of the last while, by pod. seconds: how far back it goes."""

    seconds: float = 60.0
    looks: tuple[tuple[float, Mapping[str, Worked]], ...] = ()

    def after(self, at: float, worked: Mapping[str, Worked]) -> "Speeds":
        """With a new look; its oldest is at least `seconds` older, once there is one."""
        known = self.looks
        while len(known) > 1 and known[1][0] <= at - self.seconds:
            known = known[1:]
        return Speeds(self.seconds, (*known, (at, worked)))

    @property
    def rate(self) -> float | None:
        """Records a second that one consumer applies while it does not wait for them; None: too few came."""
        if len(self.looks) < 2:
            return None
        before, now = self.looks[0][1], self.looks[-1][1]
        records = seconds = 0.0
        for pod, end in now.items():
            start = before.get(pod, end)  # one that was not there before, or did not answer, counts next time
            if end.seconds >= start.seconds and end.records >= start.records:  # else it began anew
                records += end.records - start.records
                seconds += end.seconds - start.seconds
        return _SURE * records / seconds if seconds >= _LEAST_SECONDS and records > 0 else None
