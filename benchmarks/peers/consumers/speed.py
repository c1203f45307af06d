"""Rates from what was seen at two moments of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LEAST_SECONDS: Final = 0.2
"""CPU times come in steps of 10 ms: what is shorter has no rate."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was seen at one moment.

    at: seconds of a monotonic clock. applied: flows so far. cpu, redis, kafka: CPU seconds so far of the peer's
    processes, of Redis and of Kafka. machine: CPU seconds of everything on this machine so far. rss_mib: the peer's
    peak resident memory so far.
    """

    at: float
    applied: int
    cpu: float
    redis: float
    kafka: float
    machine: float
    rss_mib: float = 0.0


@dataclass(frozen=True, slots=True)
class Speed:
    """Rates between two moments. CPU figures are CPU seconds over that time, each of its own processes."""

    flows: int
    seconds: float
    cpu: float
    redis_cpu: float
    kafka_cpu: float
    machine_cpu: float

    @property
    def others(self) -> float:
        """Cores that were used by others than the peer, Redis and Kafka: this benchmark's own looks, or strangers."""
        return max(0.0, self.machine_cpu - self.cpu - self.redis_cpu - self.kafka_cpu) / self.seconds

    @property
    def flows_a_second(self) -> float:
        """Flows a second."""
        return self.flows / self.seconds

    @property
    def flows_a_cpu_second(self) -> float:
        """Flows per CPU second of the peer's own processes."""
        return self.flows / max(self.cpu, 1e-9)

    @property
    def flows_a_cpu_second_with_redis(self) -> float:
        """Flows per CPU second of the peer's own processes and Redis."""
        return self.flows / max(self.cpu + self.redis_cpu, 1e-9)


def between(first: Snapshot, last: Snapshot) -> Speed | None:
    """The rates between two moments; None where nothing was applied between them.

    What had been applied at the first is left out, and so is what led up to it: starting a process, joining a group.
    """
    if last.applied <= first.applied or last.at <= first.at:
        return None
    return Speed(
        flows=last.applied - first.applied,
        seconds=last.at - first.at,
        cpu=last.cpu - first.cpu,
        redis_cpu=last.redis - first.redis,
        kafka_cpu=last.kafka - first.kafka,
        machine_cpu=last.machine - first.machine,
    )


def second_half(snapshots: Sequence[Snapshot]) -> Speed | None:
    """The rates over the second half of what was applied; None where that was too short to be seen.

    snapshots: in order, the first and the last of the run among them.
    """
    first, last = snapshots[0], snapshots[-1]
    middle = (first.applied + last.applied) / 2
    half = next(snapshot for snapshot in snapshots if snapshot.applied >= middle)
    return between(half, last) if last.at - half.at >= LEAST_SECONDS else None
