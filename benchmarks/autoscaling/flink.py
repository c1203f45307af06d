"""The autoscaler of the Flink Kubernetes operator, for a job that is one Kafka source vertex, at its defaults.

Source, as published: apache/flink-kubernetes-operator at 6e9caeb4 (July 2026, 1.16-SNAPSHOT), flink-autoscaler:
ScalingMetricCollector (stabilization.interval 5 min, metrics.window 15 min: no decision before both are over, and both
start anew with each restart), ScalingMetrics (LAG is pendingRecords; OBSERVED_TPR while the lag is over
observed-true-processing-rate.lag-threshold 30 s), ScalingMetricEvaluator (LOAD is the busiest subtask's;
switch-threshold 0.15, min-observations 2; backlog-processing.lag-threshold 5 min), AutoScalerUtils
(getTargetProcessingCapacity: catch-up.duration 30 min, restart.time 5 min), JobVertexScaler (scale-down.max-factor
0.6, scale-up.max-factor 100000, scale-down.interval 1 h), ParallelismAligner (BALANCED), ScalingExecutor (nothing
happens within the utilisation bounds: utilization.target 0.7, target.utilization.boundary 0.3);
docs/layouts/shortcodes/generated/auto_scaler_configuration.html, and kubernetes.operator.reconcile.interval 1 min.
Effectiveness detection, memory tuning, quotas and observed scalability are off by default and left out.

Shortcuts, each in its favour: a parallelism above the partition count, which BALANCED lets through, is bounded by it;
a rescale is the adaptive scheduler's, in place (world.py), not the default stop and new start with a savepoint; its
metrics are exact and without delay; the minimum is 1 (vertex.min-parallelism).
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from benchmarks.autoscaling.policy import Seen

_RECONCILE_SECONDS: Final = 60
_STABILIZATION_SECONDS: Final = 300
_WINDOW_SECONDS: Final = 900
_TARGET: Final = 0.7
_BOUNDARY: Final = 0.3
_CATCH_UP_SECONDS: Final = 1_800
_RESTART_SECONDS: Final = 300
_BACKLOG_SECONDS: Final = 300
_OBSERVED_LAG_SECONDS: Final = 30
_OBSERVED_LEAST: Final = 2
_SWITCH: Final = 0.15
_DOWN_MOST: Final = 0.6
_DOWN_SECONDS: Final = 3_600
_UP_MOST: Final = 100_000.0
_MAX_PARALLELISM: Final = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """What one collection found. at: seconds. lag, and what was taken in since the start: in records.

    load: of the busiest subtask, 0 to 1. observed: records a second while behind, inf where none came, None where it
    was never measured.
    """

    at: int
    lag: float
    records: float
    load: float
    observed: float | None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What a full window says, in records a second, but lag in records. capacity: the true processing rate."""

    arriving: float
    capacity: float
    lag: float
    backlog: bool


class Flink:
    """The autoscaler; it sees the job's metrics, not the group's offsets."""

    name: Final = "Flink autoscaler"
    minimum: Final = 1
    restarts_all: Final = True

    def __init__(self) -> None:
        self._running_at: int | None = None
        self._samples: deque[Sample] = deque()
        self._counted: tuple[int, dict[str, float], dict[str, float]] = (0, {}, {})
        self._records = 0.0
        self._downs: list[tuple[int, int, bool]] = []
        self._down_since: int | None = None

    def looks(self, at: int) -> bool:
        """Each reconcile interval; and each second until the job runs (again), whose moment its status tells."""
        return self._running_at is None or at % _RECONCILE_SECONDS == 0

    def step(self, seen: Seen) -> int:
        """Collect, evaluate, scale."""
        if seen.failed or seen.state != "Stable" or seen.members != seen.replicas:
            return seen.replicas  # the job does not run (yet), or does not answer
        if self._running_at is None:
            self._running_at = seen.at
            self._samples.clear()
            self._count(seen)
        if seen.at % _RECONCILE_SECONDS != 0 or seen.at == self._running_at:
            return seen.replicas
        self._samples.append(self._collect(seen))
        if not self._is_full(seen.at):
            return seen.replicas
        while self._samples[0].at < seen.at - _WINDOW_SECONDS:
            self._samples.popleft()
        if len(self._samples) < 2:
            return seen.replicas
        wanted = self._scale(seen, evaluate(list(self._samples)))
        if wanted != seen.replicas:
            self._running_at = None
        return wanted

    def _count(self, seen: Seen) -> None:
        self._counted = (seen.at, dict(seen.busy_seconds), dict(seen.applied))

    def _collect(self, seen: Seen) -> Sample:
        """The gauges are means over the time since the last look, a minute, as Flink's are."""
        at, busy, applied = self._counted
        self._count(seen)
        seconds = seen.at - at
        load = max((now - busy[name]) / seconds for name, now in seen.busy_seconds.items())
        records = sum(now - applied[name] for name, now in seen.applied.items())
        self._records += records
        return Sample(seen.at, seen.pending, self._records, load, self._observe(seen.pending, records / seconds))

    def _observe(self, lag: float, rate: float) -> float | None:
        if rate == 0:
            return math.inf
        if lag >= _OBSERVED_LAG_SECONDS * rate:
            return rate
        return average([sample.observed for sample in self._samples], _OBSERVED_LEAST)

    def _is_full(self, now: int) -> bool:
        """Whether the metric window is full: counted from the first sample after the stabilisation."""
        stable_at = (self._running_at or 0) + _STABILIZATION_SECONDS
        first = next((sample.at for sample in self._samples if sample.at >= stable_at), None)
        return first is not None and now >= first + _WINDOW_SECONDS

    def _scale(self, seen: Seen, found: Evaluated) -> int:
        now, current = seen.at, seen.replicas
        target = needed(found, _TARGET, restart=True)
        factor = min(max(target / found.capacity, 1 - _DOWN_MOST), 1 + _UP_MOST)
        wanted = parallelism(current, factor, seen.partitions)
        if wanted >= current:
            self._downs, self._down_since = [], None
            return wanted if wanted > current and is_outside(found) else current
        if self._down_since is None:
            self._down_since = now
        self._downs.append((now, wanted, is_outside(found)))
        if now - _DOWN_SECONDS < self._down_since:
            return current
        self._downs = [down for down in self._downs if down[0] >= now - _DOWN_SECONDS]
        _, most, outside = max(self._downs, key=lambda down: (down[1], down[0]))
        if not outside:
            return current
        self._downs, self._down_since = [], None
        return most


def average(values: list[float | None], least: int = 1) -> float | None:
    """The mean of what was measured and is finite, of at least so many; inf where all that was measured is."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return math.inf if any(value is not None for value in values) else None
    return sum(finite) / len(finite) if len(finite) >= least else None


def evaluate(samples: list[Sample]) -> Evaluated:
    """The window: rates between its ends, the mean load; the observed rate where the busy time promises too much."""
    first, last = samples[0], samples[-1]
    seconds = last.at - first.at
    applied = (last.records - first.records) / seconds
    arriving = max(0.0, applied + (last.lag - first.lag) / seconds)
    load = sum(sample.load for sample in samples) / len(samples)
    by_busy = applied / load if applied and load else math.inf
    observed = average([sample.observed for sample in samples], _OBSERVED_LEAST)
    capacity = by_busy
    if observed is not None and (math.isinf(by_busy) or by_busy > observed * (1 + _SWITCH)):
        capacity = observed
    backlog = last.lag > _BACKLOG_SECONDS * applied
    return Evaluated(arriving, capacity, last.lag, backlog)


def needed(found: Evaluated, utilisation: float, *, restart: bool) -> float:
    """The capacity that a utilisation takes: lag caught up, what a restart costs caught up, and what arrives."""
    if utilisation <= 0:
        return math.inf
    again = found.arriving * _RESTART_SECONDS / _CATCH_UP_SECONDS if restart else 0.0
    return float(round(found.lag / _CATCH_UP_SECONDS + again + found.arriving / min(1.0, utilisation)))


def is_outside(found: Evaluated) -> bool:
    """Whether the capacity is outside the bounds; while a backlog is worked off they are 0 and 1."""
    upper, lower = (1.0, 0.0) if found.backlog else (_TARGET + _BOUNDARY, _TARGET - _BOUNDARY)
    up = needed(found, upper, restart=False)
    down = needed(found, lower, restart=True)
    return found.capacity < up or found.capacity > down


def parallelism(current: int, factor: float, partitions: int) -> int:
    """The new one, aligned (BALANCED): from the target up the first that divides the partitions or eases the load."""
    target = min(max(1, math.ceil(factor * current)), _MAX_PARALLELISM, partitions)
    if target == current:
        return current
    end = partitions if target > current else min(current, partitions)
    aligned = (n for n in range(target, end + 1) if partitions % n == 0 or partitions // n < partitions // target)
    return next(aligned, target)
