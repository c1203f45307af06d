"""KEDA's Kafka scaler with the Kubernetes HPA, at their documented defaults.

Sources, as published:
- KEDA 2.20 (kedacore/keda at 8b4f083c, August 2026): pkg/scalers/apache_kafka_scaler.go and kafka_scaler.go (lag,
  lagThreshold 10, activationLagThreshold 0, offsetResetPolicy latest, allowIdleConsumers, excludePersistentLag,
  limitToPartitionsWithLag, ensureEvenDistributionOfPartitions and scaleToZeroOnInvalidOffset false),
  pkg/scaling/executor/scale_scaledobjects.go (0 <-> 1, cooldownPeriod 300 s, an error changes nothing),
  apis/keda/v1alpha1 (pollingInterval 30 s, minReplicaCount 0, maxReplicaCount 100; the HPA's minimum is 1),
  controllers/keda/hpa.go; keda.sh/docs, ScaledObject specification.
- Kubernetes (kubernetes/kubernetes at 00067268): pkg/controller/podautoscaler/replica_calculator.go
  (GetExternalPerPodMetricReplicas: AverageValue, by the pods that exist, tolerance 0.1) and horizontal.go
  (reconcileAutoscaler, stabilizeRecommendation); "Horizontal Pod Autoscaling" of kubernetes.io (kubernetes/website at
  01650250: sync 15 s; up 100 % or 4 pods a 15 s, the greater; down 100 %, 300 s stabilisation).

The bound by partitions divides by integers, so now and then it lets one replica too many through: keda#4483.

Shortcuts, each in its favour: KEDA leaves the HPA's behaviour empty, for which the controller allows max(2 n, 4) a
sync; here it is the documented max(2 n, n + 4). The HPA's sync comes one second after KEDA's poll, and both see the
group as it is, without delay or cache. Of the two offsetResetPolicy, latest (the default) did better here than
earliest: a group that never committed counts as active, so KEDA starts its first pod at once.

lagThreshold 10 is far below what a consumer of logs has in flight, so KEDA goes to the partition count and stays there.
Other thresholds can be given (--lag-threshold): the replicas then follow the commits.
"""

import math
from collections import deque
from typing import Final

from benchmarks.autoscaling.policy import Seen

LAG_THRESHOLD: Final = 10
_POLL_SECONDS: Final = 30
_COOLDOWN_SECONDS: Final = 300
_SYNC_SECONDS: Final = 15
_SYNC_AFTER_POLL: Final = 1
_TOLERANCE: Final = 0.1
_STABILISATION_SECONDS: Final = 300
_MOST_REPLICAS: Final = 100


class Keda:
    """The two controllers: KEDA's operator does 0 <-> 1, the HPA 1 <-> n."""

    name: Final = "KEDA + HPA"
    minimum: Final = 0
    restarts_all: Final = False

    def __init__(self, lag_threshold: int = LAG_THRESHOLD) -> None:
        self._threshold = lag_threshold
        self._active_at: int | None = None
        self._recommended: deque[tuple[int, int]] = deque()

    def looks(self, at: int) -> bool:
        """KEDA's poll and the HPA's sync."""
        return at % _POLL_SECONDS == 0 or at % _SYNC_SECONDS == _SYNC_AFTER_POLL

    def step(self, seen: Seen) -> int:
        """One poll or one sync."""
        if seen.at % _POLL_SECONDS == 0:
            return self._poll(seen)
        if not self._recommended:
            self._recommended.append((seen.at, seen.replicas))
        if seen.failed or seen.replicas == 0:
            return seen.replicas
        return self._sync(seen)

    def _poll(self, seen: Seen) -> int:
        """KEDA's operator."""
        if seen.failed:
            return seen.replicas
        if sum(lags(seen)) > 0:
            self._active_at = seen.at
            return max(1, seen.replicas)
        cooled = self._active_at is None or self._active_at + _COOLDOWN_SECONDS < seen.at
        return 0 if cooled else seen.replicas

    def _sync(self, seen: Seen) -> int:
        """The HPA."""
        value = metric(seen, self._threshold)
        pods = seen.updated
        near = pods > 0 and abs(1 - value / (self._threshold * pods)) <= _TOLERANCE
        desired = pods if near else math.ceil(value / self._threshold)
        while self._recommended and self._recommended[0][0] < seen.at - _STABILISATION_SECONDS:
            self._recommended.popleft()
        self._recommended.append((seen.at, desired))
        stable = max(replicas for _, replicas in self._recommended)
        most = min(max(2 * seen.replicas, seen.replicas + 4), _MOST_REPLICAS)
        return max(1, min(stable, most))


def lags(seen: Seen) -> list[int]:
    """The lag by partition as the scaler counts it: 1 where nothing is committed yet (offsetResetPolicy latest)."""
    pairs = zip(seen.committed, seen.high, strict=True)
    return [1 if committed < 0 else high - committed for committed, high in pairs]


def metric(seen: Seen, threshold: int) -> int:
    """What the HPA gets: the lag, so bounded that no more replicas than partitions come out (by integer division)."""
    lag = sum(lags(seen))
    return seen.partitions * threshold if lag // threshold > seen.partitions else lag
