"""Retention: which hours a partition still keeps. Pure.

Only log time moves it: the running maximum of the records' log-append time, in ticks of a sixteenth
of the time to keep. At the first record of a new tick, and before it counts, an hour has expired when
none of its records was appended for the time to keep, and every hour below it has expired too or
never was. So an hour far in the future, which any producer may send, expires nothing below itself
while the hours below still get records. The floor is one more than the highest hour that has
expired; what comes for an hour below it counts nothing, else a late record would bring an hour back
with a part of its totals. All of this is a function of the log alone, wherever batches were cut.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from flowagg.view import HourMark

TICKS_A_RETENTION: Final = 16
NO_TICK: Final = -1
"""The tick before the first record with a time, or where nothing expires."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """What a new tick brings. tick: its start, in milliseconds of log time. floor: the new floor hour.

    gone: the hours that expire. adopted: stored hours without a tick (from a time when nothing
    expired): they count as touched in this one.
    """

    tick: int
    floor: int
    gone: list[int] = field(default_factory=list)
    adopted: dict[int, HourMark] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retention:
    """keep_ms: log time for which an hour is kept after its last record, in milliseconds; None: for ever.

    It goes up to a tick later, and only when a record of the partition shows the time.
    """

    keep_ms: int | None = None

    @property
    def tick_ms(self) -> int:
        """The length of a tick in milliseconds."""
        return max(1, (self.keep_ms or 0) // TICKS_A_RETENTION)

    def tick(self, time_ms: int) -> int:
        """The start of the tick of a log time; NO_TICK where nothing expires."""
        if self.keep_ms is None or time_ms < 0:
            return NO_TICK
        return time_ms // self.tick_ms * self.tick_ms

    def expire(self, tick: int, floor: int, hours: Mapping[int, HourMark], next_hour: int | None) -> Expiry:
        """What expires at the first record of a tick. hours: the stored ones.

        next_hour: that of the record, None where it is no flow. It has not counted yet, but the hours
        from it upwards are in use.
        """
        assert self.keep_ms is not None  # noqa: S101 - else there are no ticks
        gone_before = tick - self.keep_ms - self.tick_ms
        adopted = {hour: HourMark(mark.position, tick) for hour, mark in hours.items() if mark.tick == NO_TICK}
        idle = [hour for hour, mark in hours.items() if hour not in adopted and mark.tick <= gone_before]
        live = list(hours.keys() - set(idle))
        if next_hour is not None and next_hour >= floor:
            live.append(next_hour)
        lowest = min(live, default=None)
        gone = sorted(hour for hour in idle if lowest is not None and hour < lowest)
        return Expiry(tick, max(gone[-1] + 1, floor) if gone else floor, gone, adopted)
