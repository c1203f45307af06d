"""What a scaling decision is taken from, and what it says. Times are in seconds, rates in records a second."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from flowagg_operator.lag import History

Reason = Literal[
    "Steady",
    "CatchingUp",
    "Waiting",
    "Settling",
    "ScaledUp",
    "ScaledDown",
    "LagUnknown",
    "ManualOverride",
    "Paused",
    "AutoscalerConflict",
    "PartitionsExhausted",
    "MaximumReached",
    "ScalingIneffective",
    "StalledPartition",
    "Unsettled",
    "WriteFailed",
]
"""Why the target is what it is."""

WELL: Final = frozenset({"Steady", "CatchingUp", "Waiting", "Settling", "ScaledUp", "ScaledDown"})
"""Reasons that need nobody's attention."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user may set (spec.consumer.autoscaling). Utilisations are parts of capacity; times are in seconds.

    max_replicas: None: as many as there are partitions.
    """

    min_replicas: int = 1
    max_replicas: int | None = None
    target_utilization: float = 0.6
    scale_up_utilization: float = 0.95
    catch_up_seconds: float = 120.0
    lag_seconds: float = 30.0
    rate_seconds: float = 60.0
    scale_up_interval_seconds: float = 30.0
    settle_seconds: float = 60.0
    scale_down_window_seconds: float = 1800.0
    stalled_seconds: float = 60.0
    ineffective_hold_seconds: float = 900.0
    manual_hold_seconds: float = 900.0


@dataclass(frozen=True, slots=True)
class Observation:
    """What was found at a moment (seconds of a steady clock).

    history: the group's offsets, the last snapshot of now; None: they could not be looked up, and trouble says why.
    replicas: what the FlowAggregator asks for. desired, ready, updated: of the consumers' Deployment. group: the
    group's state in Kafka's words. members: of the group; None: not known. owners: partition -> its consumer; None:
    not known. unhindered_rate: records a second that a consumer applies while it does not wait for records; None: not
    known. rival: another autoscaler that sets the same number; empty: none. renewal: the annotation by which a user
    has a number set by hand hold for longer.
    """

    at: float
    replicas: int = 0
    desired: int = 0
    ready: int = 0
    updated: int = 0
    history: History | None = None
    trouble: str = ""
    group: str = ""
    members: int | None = None
    owners: Mapping[int, str] | None = None
    unhindered_rate: float | None = None
    rival: str = ""
    renewal: str = ""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A number of consumers that proved too small, for so many records a second, at a moment."""

    replicas: int
    arrival_rate: float
    at: float


@dataclass(frozen=True, slots=True)
class Trial:
    """A scale-up under a backlog whose effect is to be judged. Rates in records a second."""

    replicas: int
    applied_rate: float
    expected_gain: float


@dataclass(frozen=True, slots=True)
class State:
    """What is kept from one decision to the next. Times are those of Observation.at; None: not so far.

    target: what the FlowAggregator should ask for, as last decided; previous: what it asked for before, until the new
    number has been seen there. rate: records a second that one consumer applies, measured under a backlog at
    measured_at; fastest: the most of these; unhindered: the same, measured without a backlog. asked: (moment, consumers
    that were needed), of which later ones are smaller. rates: (moment, records a second that arrived), some of the last
    ten minutes. lags: (moment, seconds of lag).
    """

    target: int | None = None
    previous: int | None = None
    manual_since: float | None = None
    renewal: str = ""
    changed_at: float | None = None
    rate: float | None = None
    measured_at: float = 0.0
    fastest: float | None = None
    unhindered: float | None = None
    stable_since: float | None = None
    settled_since: float | None = None
    unsettled_since: float | None = None
    shape: tuple[int, ...] = ()
    busy: Mapping[int, float] = field(default_factory=dict)
    asked: tuple[tuple[float, int], ...] = ()
    asked_since: float | None = None
    rates: tuple[tuple[float, float], ...] = ()
    lags: tuple[tuple[float, float], ...] = ()
    lessons: tuple[Lesson, ...] = ()
    trial: Trial | None = None
    ineffective_until: float | None = None

    @property
    def rate_per_consumer(self) -> float | None:
        """Records a second that one consumer applies, as well as that is known."""
        return self.rate if self.rate is not None else self.unhindered


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be asked for, why in a word and in a sentence, and what to remember.

    needed: consumers that would do, None: not known. arrival_rate, capacity, rate_per_consumer: records a second,
    None: not known. lag_seconds: without the partitions that are set aside. aside: these, and for how many seconds
    each has made no progress. manual_until: until when a number set by hand holds.
    """

    target: int
    reason: Reason
    message: str
    state: State
    needed: int | None = None
    arrival_rate: float | None = None
    capacity: float | None = None
    rate_per_consumer: float | None = None
    lag_seconds: float | None = None
    aside: Mapping[int, float] = field(default_factory=dict)
    manual_until: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """The numbers of a moment, without the partitions that are set aside. Rates in records a second.

    loads: partition -> records a second to hold for arrivals at the target utilisation and for the backlog to go in
    time; grown: the same with arrivals as they were in the last few looks, where these are more.
    """

    partitions: int
    arrivals: Mapping[int, float]
    loads: list[float]
    grown: list[float]
    lag: int
    lag_seconds: float
    lasting_seconds: float
    aside: Mapping[int, float]

    @property
    def arrival_rate(self) -> float:
        """Records a second that arrive, over all partitions."""
        return sum(self.arrivals.values())
