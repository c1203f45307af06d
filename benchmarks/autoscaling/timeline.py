"""One run of a policy through a shape: what happened, second by second."""

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from benchmarks.autoscaling.policy import Policy
from benchmarks.autoscaling.shapes import RATE, Shape
from benchmarks.autoscaling.world import World

RATE_SECONDS: Final = 60
_NOTHING: Final = 1.0
"""Records a second below which nothing arrives."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of replicas. at: seconds; lag_seconds, partitions: as they truly were when it was made."""

    at: int
    before: int
    after: int
    lag_seconds: float
    partitions: int


@dataclass(slots=True)
class Timeline:
    """By second: replicas asked for (starting ones too), the true lag in seconds, records that arrived, partitions."""

    shape: Shape
    policy: str
    minimum: int
    replicas: list[int] = field(default_factory=list)
    lag_seconds: list[float] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    partitions: list[int] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


def run(shape: Shape, policy: Policy, seed: int) -> Timeline:
    """Put a policy through a shape.

    True lag seconds: records that are not applied, over partitions that are not dead, by the rate at which such records
    arrived over the last RATE_SECONDS; where nothing arrives, by what the replicas asked for can apply.
    """
    world = World(shape, seed, policy.minimum, restarts_all=policy.restarts_all)
    line = Timeline(shape, policy.name, policy.minimum, arrived=world.arrivals)
    came = list(accumulate(world.arrivals, initial=0.0))
    lag_seconds = 0.0
    for at in range(shape.seconds):
        if policy.looks(at):
            wanted = policy.step(world.look())
            if wanted != world.replicas:
                line.changes.append(Change(at, world.replicas, wanted, lag_seconds, world.partitions))
                world.scale(wanted)
        world.tick()
        since = max(0, at + 1 - RATE_SECONDS)
        arriving = (came[at + 1] - came[since]) / (at + 1 - since) * world.living
        rate = arriving if arriving >= _NOTHING else RATE * max(1, world.replicas)
        lag_seconds = world.behind / rate
        line.replicas.append(world.replicas)
        line.lag_seconds.append(lag_seconds)
        line.partitions.append(world.partitions)
    return line
