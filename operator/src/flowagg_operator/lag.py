"""How far a consumer group is behind its topic, and how fast records arrive and are applied. Pure.

Offsets are looked up in this order: committed, then watermarks, then the group. So a commit in between makes the lag
look larger by a moment, and never negative.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

RATE_SECONDS: Final = 60.0
"""The time over which rates are taken, unless said otherwise."""
STALLED_SECONDS: Final = 60.0
"""Time without progress after which a partition with lag is stalled, unless said otherwise."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A group's offsets at a moment (seconds of a steady clock).

    committed: the next record to apply, by partition; a partition that nobody commits is missing. low, high: the
    log's first offset and the one past its last. state: of the group, in Kafka's words (Stable, Empty, ...); members:
    name of each -> its partitions; empty and None where this broker does not say.
    """

    at: float
    committed: Mapping[int, int]
    low: Mapping[int, int]
    high: Mapping[int, int]
    state: str = ""
    members: Mapping[str, Collection[int]] | None = None

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


class Move(NamedTuple):
    """A partition's last step: its position, when that was first seen, and the lag that was left then, as far as that
    is known."""

    position: int
    at: float
    lag: int


@dataclass(frozen=True, slots=True)
class History:
    """The snapshots of the last while, oldest first, and each partition's last step.

    seconds: how far back rates can look.
    """

    seconds: float = RATE_SECONDS
    snapshots: tuple[Snapshot, ...] = ()
    moves: Mapping[int, Move] = field(default_factory=dict)

    def after(self, snapshot: Snapshot) -> "History":
        """The history with a new snapshot; its oldest is at least `seconds` older, once there is one."""
        known, moves = self.snapshots, self.moves
        if known and _is_other_log(known[-1], snapshot):
            known, moves = (), {}
        first = 0
        while first + 1 < len(known) and known[first + 1].at <= snapshot.at - self.seconds:
            first += 1
        now: dict[int, Move] = {}
        for partition in snapshot.high:
            position, lag = snapshot.position(partition), snapshot.lag(partition)
            before = moves.get(partition)
            if before is None:
                # What was there before is not known to be worked on yet.
                now[partition] = Move(position, snapshot.at, 0)
            else:
                moved = before.position != position or lag == 0
                now[partition] = Move(position, snapshot.at, lag) if moved else before
        return History(self.seconds, (*known[first:], snapshot), now)

    @property
    def last(self) -> Snapshot | None:
        """The newest snapshot."""
        return self.snapshots[-1] if self.snapshots else None

    def arrivals(self, seconds: float | None = None) -> dict[int, float]:
        """Partition -> records that arrive a second, over the last so many seconds; empty: not known yet."""
        span = self._span(self.seconds if seconds is None else seconds)
        if span is None:
            return {}
        first, last = span
        elapsed = last.at - first.at
        return {p: max(0, end - first.high.get(p, last.low[p])) / elapsed for p, end in last.high.items()}

    @property
    def arrival_rate(self) -> float | None:
        """Records that arrive a second; None before there are two snapshots."""
        rates = self.arrivals()
        return sum(rates.values()) if rates else None

    @property
    def processing_rate(self) -> float | None:
        """Records that are applied a second; None before there are two snapshots."""
        span = self._span(self.seconds)
        if span is None:
            return None
        first, last = span
        done = sum(last.position(p) - first.position(p) for p in last.high if p in first.high)
        return max(0, done) / (last.at - first.at)

    def applied(self, partition: int, since: float) -> tuple[float, float] | None:
        """Records a second that were applied between a partition's first step after `since` and its last one, and the
        seconds between these two; None: it made less than two steps.

        From step to step: in between, a position only shows how long the interval of commits is.
        """
        end = self.moves.get(partition)
        if end is None:
            return None
        before: int | None = None
        for snapshot in self.snapshots:
            if partition not in snapshot.high:
                continue
            position = snapshot.position(partition)
            if snapshot.at >= since and before is not None and position != before:
                done, elapsed = end.position - position, end.at - snapshot.at
                return (done / elapsed, elapsed) if done > 0 and elapsed > 0 else None
            before = position
        return None

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

    def standing(self, without: Collection[int] = ()) -> dict[int, int]:
        """Partition -> the lag that was left when it last moved on: what commits alone do not explain."""
        return {partition: move.lag for partition, move in self.moves.items() if partition not in without}

    def stalled(self, seconds: float = STALLED_SECONDS) -> dict[int, float]:
        """Partitions with lag that have not moved on for so long -> since how many seconds."""
        last = self.last
        if last is None:
            return {}
        still = {p: last.at - self.moves[p].at for p in last.high if last.lag(p) > 0}
        return {partition: since for partition, since in still.items() if since >= seconds}

    def _span(self, seconds: float) -> tuple[Snapshot, Snapshot] | None:
        """The newest snapshot, and the newest of those that are at least so much older, else the oldest."""
        if len(self.snapshots) < 2:
            return None
        last = self.snapshots[-1]
        first = self.snapshots[0]
        for snapshot in self.snapshots[1:-1]:
            if snapshot.at > last.at - seconds:
                break
            first = snapshot
        return (first, last) if last.at > first.at else None


def _is_other_log(before: Snapshot, now: Snapshot) -> bool:
    """Whether an end went back: the topic was deleted and made again."""
    return any(now.high.get(partition, high) < high for partition, high in before.high.items())
