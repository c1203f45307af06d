"""How far a consumer group is behind its topic, in records and in seconds. Pure.

Offsets are looked up in this order: committed, then watermarks, then the group. So a commit in between makes the lag
look larger by a moment, and never negative.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

RATE_SECONDS: Final = 60.0
"""The time over which rates are taken."""
_STALLED_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A group's offsets at a moment (seconds of a steady clock).

    committed: the next record to apply, by partition; a partition that nobody commits is missing. low, high: the
    log's first offset and the one past its last.
    """

    at: float
    committed: Mapping[int, int]
    low: Mapping[int, int]
    high: Mapping[int, int]
    members: int | None = None

    def position(self, partition: int) -> int:
        """Where the group goes on in a partition: what is gone from the log is no work any more."""
        low = self.low[partition]
        return max(self.committed.get(partition, low), low)

    def lag(self, partition: int) -> int:
        """Records of a partition that are not applied yet."""
        return max(0, self.high[partition] - self.position(partition))

    @property
    def lags(self) -> dict[int, int]:
        """Partition -> its lag."""
        return {partition: self.lag(partition) for partition in sorted(self.high)}

    @property
    def total(self) -> int:
        """Records that are not applied yet, over all partitions."""
        return sum(self.lags.values())


@dataclass(slots=True)
class History:
    """The snapshots of the last minute, and since when each partition has not moved on."""

    _snapshots: deque[Snapshot] = field(default_factory=deque)
    _moved: dict[int, tuple[int, float]] = field(default_factory=dict)

    def add(self, snapshot: Snapshot) -> None:
        """Take a new snapshot; the oldest that is kept is at least RATE_SECONDS old, once there is one."""
        if self._snapshots and _is_other_log(self._snapshots[-1], snapshot):
            self._snapshots.clear()
            self._moved.clear()
        self._snapshots.append(snapshot)
        while len(self._snapshots) > 2 and self._snapshots[1].at <= snapshot.at - RATE_SECONDS:
            self._snapshots.popleft()
        for partition in snapshot.high:
            position = snapshot.position(partition)
            if snapshot.lag(partition) == 0 or self._moved.get(partition, (-1, 0.0))[0] != position:
                self._moved[partition] = (position, snapshot.at)
        for gone in self._moved.keys() - snapshot.high.keys():
            del self._moved[gone]

    @property
    def last(self) -> Snapshot | None:
        """The newest snapshot."""
        return self._snapshots[-1] if self._snapshots else None

    @property
    def arrival_rate(self) -> float | None:
        """Records that arrive a second; None before there are two snapshots."""
        if len(self._snapshots) < 2:
            return None
        first, last = self._snapshots[0], self._snapshots[-1]
        seconds = last.at - first.at
        came = sum(last.high[p] - first.high.get(p, last.low[p]) for p in last.high)
        return came / seconds if seconds > 0 else None

    @property
    def processing_rate(self) -> float | None:
        """Records that are applied a second; None before there are two snapshots."""
        if len(self._snapshots) < 2:
            return None
        first, last = self._snapshots[0], self._snapshots[-1]
        seconds = last.at - first.at
        done = sum(last.position(p) - first.position(p) for p in last.high if p in first.high)
        return max(0, done) / seconds if seconds > 0 else None

    @property
    def lag_seconds(self) -> float | None:
        """The lag as time: at the rate of arrival, else at that of processing; None: it cannot be said."""
        last = self.last
        if last is None:
            return None
        if last.total == 0:
            return 0.0
        rate = self.arrival_rate or self.processing_rate
        return last.total / rate if rate else None

    def stalled(self) -> dict[int, float]:
        """Partitions with lag that have not moved on for a minute -> since how many seconds."""
        last = self.last
        if last is None:
            return {}
        still = {p: last.at - self._moved[p][1] for p in last.high if last.lag(p) > 0}
        return {partition: seconds for partition, seconds in still.items() if seconds >= _STALLED_SECONDS}


def _is_other_log(before: Snapshot, now: Snapshot) -> bool:
    """Whether an end went back: the topic was deleted and made again."""
    return any(now.high.get(partition, high) < high for partition, high in before.high.items())
