"""What an autoscaling policy is told, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the group and its Deployment, in virtual time.

    at: seconds since the start. The Deployment is always known: replicas (asked for), ready (started), updated (pods
    that exist, starting ones included). Where the look-up failed, nothing of the group is known: partitions and
    members are 0, state is "", and the rest is empty.

    committed, low, high: offsets by partition; committed is what a look-up sees, so it moves with commits only, and is
    -1 where nobody ever committed. state: Kafka's: "Stable", "PreparingRebalance" or "Empty". owners: partition -> the
    consumer that has it; a partition on the move has none.

    What Flink's own metrics tell and Kafka does not, since the start of each consumer: busy_seconds it had work,
    applied records; and pending, the records that are not applied yet (exact, not as committed).
    """

    at: int
    failed: bool
    replicas: int
    ready: int
    updated: int
    partitions: int
    committed: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    state: str
    members: int
    owners: Mapping[int, str]
    busy_seconds: Mapping[str, float]
    applied: Mapping[str, float]
    pending: float


class Policy(Protocol):
    """Decides how many replicas there should be. One object sees one run from its start."""

    @property
    def name(self) -> str:
        """For the tables."""
        ...

    @property
    def minimum(self) -> int:
        """The replicas it starts with and never goes below."""
        ...

    @property
    def restarts_all(self) -> bool:
        """Whether a change stops all processing for a while (Flink), not only the partitions that move (Kafka)."""
        ...

    def looks(self, at: int) -> bool:
        """Whether it wants to look at this second; only then is step called."""
        ...

    def step(self, seen: Seen) -> int:
        """The replicas it wants from now on."""
        ...
