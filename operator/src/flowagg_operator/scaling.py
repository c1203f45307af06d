"""How many consumers there should be: a pure decision, taken from what was observed and what was learned before.

Rates decide, not lag alone: what arrives, what a consumer applies, and how soon a backlog should be gone. Only counts
that take partitions off the busiest consumer are considered, since a group spreads partitions by count. What is not
known changes nothing. Nobody has to say how fast a consumer is: that is measured while it has a backlog.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from flowagg_operator.capacity import busiest, needed, totals, useful_above, useful_below
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
]
"""Why the target is what it is."""

WELL: Final = frozenset({"Steady", "CatchingUp", "Waiting", "Settling", "ScaledUp", "ScaledDown"})
"""Reasons that need nobody's attention."""

_STABLE: Final = "Stable"
_FEW_LOOKS_SECONDS: Final = 10.0
"""The shortest time over which a rate is taken: two looks at the default pace."""
_MEASURING_SECONDS: Final = 35.0
"""For which a consumer's first backlog may last before more consumers are started without knowing its speed: commits
may be 30 s apart."""
_TREND_SECONDS: Final = 600.0
_AHEAD_SECONDS: Final = 900.0
"""A trend of the last ten minutes is taken to go on for a quarter of an hour, where more consumers are started anyway:
one change instead of two."""
_TREND_STEP_SECONDS: Final = 30.0
_LASTING_SECONDS: Final = 10.0
"""For which lag must have been there before more consumers are started for it alone: not a batch in flight."""
_BUSY_SECONDS: Final = 10.0
"""A partition that never has less than so many seconds' arrivals left over is one whose consumer never waits."""
_SLOWED: Final = 0.6
"""Part of the speed that consumers once had below which it is their sink that has become slow."""
_SETTLING_SECONDS: Final = 120.0
"""For which a group may be unsettled before that is said to be trouble."""
_JUDGED_SECONDS: Final = 35.0
"""For which a group must have been settled before the effect of more consumers is judged: commits may be 30 s apart."""
_TRIAL_SECONDS: Final = 180.0
"""So long the next scale-up waits for that judgement at most."""
_GAIN: Final = 0.1
"""Part of the expected gain below which a scale-up had no effect."""
_LESSON_SECONDS: Final = 3600.0
_LESSON_ROOM: Final = 0.8
"""So long a count that proved too small is not tried again, unless arrivals are below so much of those it failed at."""
_LESSONS: Final = 8
_GAP_SECONDS: Final = 180.0
"""Without a judgement for so long, the time over which consumers are judged to be too many begins anew."""
_OLD_SECONDS: Final = 600.0
"""Age past which a measurement under a backlog yields to a larger one taken without."""
_ABOVE: Final = 1.2


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
class _Measured:
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
        return sum(self.arrivals.values())


def decide(seen: Observation, policy: Policy, state: State) -> Decision:
    """Decide how many consumers the FlowAggregator should ask for."""
    # 1. Whose number is it that is there now?
    state = _recognised(seen, policy, state)
    # 2. Is the group at rest, and what do its offsets teach? This goes on whoever sets the number.
    state = _settled(seen, state)
    measured, state = _learned(seen, policy, state)
    wanted = None
    if measured is not None and state.stable_since is not None:
        wanted = _wanted(policy, state, measured)
        state = _asked(seen, policy, state, measured, wanted)
    # 3. What forbids any change.
    if (held := _held(seen, policy, state)) is not None:
        decision = _said(seen, state, measured, *held)
        until = None if state.manual_since is None else state.manual_since + policy.manual_hold_seconds
        return replace(decision, manual_until=until)
    if measured is None:
        text = seen.trouble or "the first look at the group's offsets: rates need two"
        return _said(seen, state, None, "LagUnknown" if seen.trouble else "Settling", text)
    if len(measured.aside) * 2 > measured.partitions:
        text = f"{len(measured.aside)} partitions with lag make no progress: another number of consumers would not help"
        return _said(seen, state, measured, "StalledPartition", text)
    # 4. What may be at all.
    lowest, highest = _bounds(policy, measured)
    # 5. Bounds come first: partitions and limits can have changed.
    if seen.replicas > highest or seen.replicas < lowest:
        target = _within(seen.replicas, lowest, highest)
        bound = f"{measured.partitions} partitions, min {policy.min_replicas}, max {policy.max_replicas or 'not set'}"
        return _changed(seen, state, measured, target, f"{seen.replicas} is out of bounds ({bound})")
    # 6. Up at once, or down once all is quiet.
    up = _up(seen, policy, state, measured, highest)
    if up is not None:
        return up
    return _down(seen, policy, state, measured, lowest)


def _bounds(policy: Policy, measured: _Measured) -> tuple[int, int]:
    """Fewest and most consumers that may be asked for."""
    highest = min(measured.partitions, policy.max_replicas or measured.partitions)
    return min(policy.min_replicas, highest), highest


def _wanted(policy: Policy, state: State, measured: _Measured) -> int | None:
    """How many are needed, within bounds; None: a consumer's speed is not known."""
    rate = state.rate_per_consumer
    if rate is None:
        return None
    count = needed(measured.loads, rate)
    return _within(count if count is not None else measured.partitions, *_bounds(policy, measured))


def _recognised(seen: Observation, policy: Policy, state: State) -> State:
    if state.target is None:
        state = replace(state, target=seen.replicas, renewal=seen.renewal)
    elif seen.replicas == state.target:
        state = replace(state, previous=None)
    elif seen.replicas == state.previous:
        # The number was decided and did not arrive: the write failed, or this process began in between.
        state = replace(state, target=seen.replicas, previous=None)
    else:
        state = replace(
            state, target=seen.replicas, previous=None, manual_since=seen.at, changed_at=seen.at, trial=None
        )
    if state.manual_since is not None and seen.at - state.manual_since >= policy.manual_hold_seconds:
        state = replace(state, manual_since=None)
    if seen.renewal != state.renewal:
        state = replace(state, renewal=seen.renewal, manual_since=seen.at if seen.renewal else None)
    return state


def _settled(seen: Observation, state: State) -> State:
    """When the group came to rest: stable with the same consumers; and settled: all that are wanted, and no others."""
    if seen.history is None:
        return state  # nothing is known, which is no unrest
    shape = (seen.replicas, seen.ready, seen.members if seen.members is not None else -1)
    stable = seen.group == _STABLE
    settled = (
        stable and seen.ready == seen.desired == seen.updated == seen.replicas and seen.members in (None, seen.replicas)
    )
    same = shape == state.shape
    return replace(
        state,
        shape=shape,
        stable_since=(state.stable_since if same and state.stable_since is not None else seen.at) if stable else None,
        settled_since=(state.settled_since if same and state.settled_since is not None else seen.at)
        if settled
        else None,
        unsettled_since=None if stable else state.unsettled_since if state.unsettled_since is not None else seen.at,
    )


def _learned(seen: Observation, policy: Policy, state: State) -> tuple[_Measured | None, State]:
    """The numbers of now, and what they teach; None: there are no rates yet."""
    history = seen.history
    if history is None or not (every := history.arrivals(policy.rate_seconds)):
        return None, state
    # While nobody had it, a partition could not move on: that is no lack of progress.
    rested = 0.0 if state.stable_since is None else seen.at - state.stable_since
    aside = {
        partition: seconds
        for partition, seconds in history.stalled(policy.stalled_seconds).items()
        if (seen.owners is None or partition in seen.owners) and rested >= policy.stalled_seconds
    }
    arrivals = {p: rate for p, rate in every.items() if p not in aside}
    lately = history.arrivals(_FEW_LOOKS_SECONDS)
    standing = history.standing(aside)
    arriving, lag = sum(arrivals.values()), sum(standing.values())
    # Who never waits, since when; and what they apply.
    busy = {p: state.busy.get(p, seen.at) for p, left in standing.items() if left > arrivals[p] * _BUSY_SECONDS}
    state = replace(state, busy=busy, unhindered=seen.unhindered_rate or state.unhindered)
    if (rate := _measured_rate(seen, history, state)) is not None:
        state = replace(state, rate=rate, measured_at=seen.at, fastest=max(rate, state.fastest or rate))
    elif state.rate is not None and state.unhindered is not None:
        old = seen.at - state.measured_at > _OLD_SECONDS
        if old and state.unhindered > _ABOVE * state.rate:
            state = replace(state, rate=None)
    rate = state.rate_per_consumer
    if arriving > 0:
        seconds = lag / arriving
    else:
        seconds = lag / (rate * max(1, seen.ready)) if rate else float(lag > 0) * policy.lag_seconds * 2
    kept = tuple(entry for entry in state.lags if entry[0] > seen.at - policy.rate_seconds)
    lags = (*(kept or state.lags[-1:]), (seen.at, seconds))
    rates = tuple(entry for entry in state.rates if entry[0] > seen.at - _TREND_SECONDS)
    if not rates or seen.at - rates[-1][0] >= _TREND_STEP_SECONDS:
        rates = (*rates, (seen.at, arriving))
    state = replace(state, lags=lags, rates=rates)
    growth = _growth(seen.at, arriving, rates)
    whole = lags[0][0] <= seen.at - _LASTING_SECONDS
    lasting = min(s for at, s in lags if at >= seen.at - _LASTING_SECONDS) if whole else 0.0

    def load(partition: int, arrival: float) -> float:
        # What is spare at the target utilisation works a backlog off: only what that cannot do is added.
        return max(arrival / policy.target_utilization, arrival + standing[partition] / policy.catch_up_seconds)

    count = len(history.moves)
    measured = _Measured(
        partitions=count,
        arrivals=arrivals,
        loads=[load(p, a) for p, a in arrivals.items()] + [0.0] * len(aside),
        grown=[load(p, max(a, lately.get(p, 0.0), a * growth)) for p, a in arrivals.items()] + [0.0] * len(aside),
        lag=lag,
        lag_seconds=seconds,
        lasting_seconds=lasting,
        aside=aside,
    )
    return measured, _judged(seen, history, policy, state)


def _growth(at: float, arriving: float, rates: tuple[tuple[float, float], ...]) -> float:
    """By what arrivals are multiplied, should the trend of the last minutes go on for a while; at least 1."""
    began, oldest = rates[0]
    between, middle = rates[len(rates) // 2]
    if arriving <= 0 or at - began < _TREND_SECONDS / 2 or not began < between < at:
        return 1.0
    # The lesser slope of two halves: a step is no trend.
    slope = min((arriving - middle) / (at - between), (middle - oldest) / (between - began))
    return max(1.0, 1.0 + slope * _AHEAD_SECONDS / arriving)


def _measured_rate(seen: Observation, history: History, state: State) -> float | None:
    """Records a second of a consumer that never waits: the mean of those that have a backlog; None: none had long."""
    if state.stable_since is None or not state.busy:
        return None
    stable = state.stable_since
    measured = {
        p: max(at, stable)
        for p, at in state.busy.items()
        if (span := history.applied(p, max(at, stable))) is not None and span[1] >= _FEW_LOOKS_SECONDS
    }
    if seen.owners is None:
        # Who has what is not known: only where all partitions have a backlog do all consumers.
        if len(measured) < len(history.moves) or not seen.members:
            return None
        rates = [("all", _applied(history, p, since)) for p, since in measured.items()]
        each = [total / min(seen.members, len(measured)) for total in totals(rates).values()]
    else:
        # All that a consumer applies while one of its partitions has a backlog.
        since: dict[str, float] = {}
        for partition, at in measured.items():
            if (owner := seen.owners.get(partition)) is not None:
                since[owner] = min(at, since.get(owner, at))
        each = list(
            totals(
                (owner, _applied(history, partition, since[owner]))
                for partition, owner in seen.owners.items()
                if owner in since and partition in history.moves
            ).values()
        )
    rate = sum(each) / len(each) if each else 0.0
    return rate if rate > 0 else None


def _applied(history: History, partition: int, since: float) -> float:
    span = history.applied(partition, since)
    return span[0] if span is not None else 0.0


def _judged(seen: Observation, history: History, policy: Policy, state: State) -> State:
    """Whether the last scale-up had an effect, once that can be told."""
    trial = state.trial
    if trial is None or seen.replicas != trial.replicas or not state.busy:
        return replace(state, trial=None)  # without a backlog: it had
    since = state.settled_since
    if since is None or seen.at - since < _JUDGED_SECONDS:
        return state
    spans = [span for p in history.moves if (span := history.applied(p, since)) is not None]
    if not spans:
        return state
    gain = sum(span[0] for span in spans) - trial.applied_rate
    if gain < _GAIN * trial.expected_gain:
        return replace(state, trial=None, ineffective_until=seen.at + policy.ineffective_hold_seconds)
    return replace(state, trial=None)


def _held(seen: Observation, policy: Policy, state: State) -> tuple[Reason, str] | None:
    if seen.rival:
        return (
            "AutoscalerConflict",
            f"{seen.rival} scales the same consumers: delete it, or set spec.consumer.autoscaling.enabled to false",
        )
    if seen.replicas == 0:
        return "Paused", "spec.consumer.replicas is 0: nothing is applied until it is set to 1 or more"
    if state.manual_since is not None and (left := state.manual_since + policy.manual_hold_seconds - seen.at) > 0:
        text = f"{seen.replicas} was set by hand: it holds for {_minutes(left)} more, then the lag decides again"
        return "ManualOverride", text
    if seen.history is None:
        return "LagUnknown", f"{seen.trouble or 'offsets could not be looked up'}: nothing is changed until they can be"
    if state.stable_since is None:
        since = state.unsettled_since if state.unsettled_since is not None else seen.at
        lasting = seen.at - since
        text = f"the group is {seen.group or 'in an unknown state'} for {lasting:.0f} s, not Stable: nothing is changed"
        return "Unsettled" if lasting >= _SETTLING_SECONDS else "Settling", text
    return None


def _asked(seen: Observation, policy: Policy, state: State, measured: _Measured, wanted: int | None) -> State:
    """Remember how many were needed, for as long as that keeps consumers from being taken away."""
    if wanted is None:
        lowest, _ = _bounds(policy, measured)
        # Nothing is known of a consumer's speed: without lag, fewer are worth a try.
        quiet = measured.lag_seconds <= policy.lag_seconds / 2
        wanted = max(lowest, useful_below(measured.partitions, seen.replicas)) if quiet else seen.replicas
    kept = [(at, count) for at, count in state.asked if at >= seen.at - policy.scale_down_window_seconds]
    while kept and kept[-1][1] <= wanted:
        kept.pop()
    since = state.asked_since
    if since is None or seen.at - state.asked[-1][0] > _GAP_SECONDS:
        since = seen.at  # for too long nobody could tell
    return replace(state, asked=(*kept, (seen.at, wanted)), asked_since=since)


def _up(seen: Observation, policy: Policy, state: State, measured: _Measured, highest: int) -> Decision | None:
    """More consumers, or what stands against it; None: enough are there."""
    rate = state.rate_per_consumer
    load = busiest(measured.arrivals, seen.replicas, seen.owners)
    crowded = rate is not None and load > policy.scale_up_utilization * rate
    late = measured.lasting_seconds > policy.lag_seconds
    if not crowded and not late:
        return None
    if rate is None and (text := _unmeasured(seen, state)):
        return _said(seen, state, measured, "Waiting", f"lag is {_seconds(measured.lag_seconds)}: {text}")
    target, why = _more(seen, policy, state, measured, late=late)
    if target <= seen.replicas and late and not _lasts(seen, policy, state):
        text = f"{_numbers(seen, measured, rate)}: {seen.replicas} consumers are working the backlog off"
        return _said(seen, state, measured, "CatchingUp", text)
    target = min(target, highest)
    if target <= seen.replicas:
        return _at_the_end(seen, policy, state, measured, highest) if late or seen.replicas >= highest else None
    if (wait := _waits(seen, policy, state, target, why)) is not None:
        return _said(seen, state, measured, *wait)
    return _changed(seen, _lesson(seen, state, measured, target), measured, target, why)


def _unmeasured(seen: Observation, state: State) -> str:
    """Why a speed that is not known is waited for; empty: it is not."""
    if seen.ready < seen.replicas:
        return f"{seen.ready} of {seen.replicas} consumers are ready"
    if state.busy and seen.at - min(state.busy.values()) < _MEASURING_SECONDS:
        return "the consumers' speed is being measured"
    return ""


def _waits(seen: Observation, policy: Policy, state: State, target: int, why: str) -> tuple[Reason, str] | None:
    """Why more consumers are not started now; None: they are."""
    if state.ineffective_until is not None and seen.at < state.ineffective_until:
        left = _minutes(state.ineffective_until - seen.at)
        return "ScalingIneffective", (
            "more consumers applied no more: look at Redis, and at partitions that take most of the flows; "
            f"no more are started for {left}"
        )
    since = None if state.changed_at is None else seen.at - state.changed_at
    if state.trial is not None and since is not None and since < _TRIAL_SECONDS:
        return "Waiting", f"{why}: {target}, once it is known what the last consumers that were added apply"
    if state.changed_at is not None:
        left_seconds = policy.scale_up_interval_seconds - (seen.at - state.changed_at)
        if left_seconds > 0:
            return "Waiting", f"{why}: {target} in {left_seconds:.0f} s, so soon after the last change"
    return None


def _more(seen: Observation, policy: Policy, state: State, measured: _Measured, *, late: bool) -> tuple[int, str]:
    """How many there should be, and why."""
    rate, partitions = state.rate_per_consumer, measured.partitions
    if rate is None:
        target = useful_above(partitions, seen.replicas, 2 * seen.replicas)
        return target, f"lag is {_seconds(measured.lag_seconds)}, and a consumer's speed is not known yet"
    target = needed(measured.grown, rate) or partitions
    if target <= seen.replicas and late and _lasts(seen, policy, state):
        target = useful_above(partitions, seen.replicas)
        return target, f"lag of {_seconds(measured.lag_seconds)} does not become less"
    return target, _numbers(seen, measured, rate)


def _lesson(seen: Observation, state: State, measured: _Measured, target: int) -> State:
    """What a scale-up says of the number before it, and what is expected of the new one."""
    settled = state.settled_since is not None and seen.at - state.settled_since >= _FEW_LOOKS_SECONDS
    if not settled or seen.history is None:
        return replace(state, trial=None)
    kept = [lesson for lesson in state.lessons if seen.at - lesson.at < _LESSON_SECONDS]
    lesson = Lesson(seen.replicas, measured.arrival_rate, seen.at)
    state = replace(state, lessons=(*kept[1 - _LESSONS :], lesson), trial=None)
    applied = seen.history.processing_rate
    if state.rate is not None and applied and state.measured_at == seen.at:  # under a backlog
        state = replace(state, trial=Trial(target, applied, state.rate * (target - seen.replicas)))
    return state


def _lasts(seen: Observation, policy: Policy, state: State) -> bool:
    """Whether the group has been settled for a while, and its lag does not become less."""
    settled = state.settled_since is not None and seen.at - state.settled_since >= policy.settle_seconds
    return settled and len(state.lags) > 1 and state.lags[-1][1] >= 0.95 * state.lags[0][1]


def _at_the_end(seen: Observation, policy: Policy, state: State, measured: _Measured, highest: int) -> Decision | None:
    """As many as can be, or as are needed, and lag all the same."""
    rate = state.rate_per_consumer
    if seen.replicas < highest:
        return None
    numbers = _numbers(seen, measured, rate)
    if state.ineffective_until is not None and seen.at < state.ineffective_until:
        text = f"{numbers}: the last consumers that were added applied no more; look at Redis"
        return _said(seen, state, measured, "ScalingIneffective", text)
    if highest < measured.partitions:
        text = f"{numbers}: spec.consumer.autoscaling.max is {policy.max_replicas}: raise it"
        return _said(seen, state, measured, "MaximumReached", text)
    heaviest = max(measured.arrivals.values(), default=0.0)
    if rate is not None and state.fastest is not None and rate < _SLOWED * state.fastest:
        text = f"{numbers}, and applied {_count(state.fastest)}/s before: look at Redis, more consumers would not help"
        return _said(seen, state, measured, "ScalingIneffective", text)
    if rate is not None and (heaviest > rate or measured.arrival_rate > rate * measured.partitions):
        enough = -int(-measured.arrival_rate // (policy.target_utilization * rate))
        if enough > measured.partitions:
            text = f"{numbers}: {enough} partitions would do (spec.kafka.topic.partitions, which can only grow)"
        else:
            text = f"{numbers}: one partition alone takes {_count(heaviest)}/s, more than a consumer applies"
        return _said(seen, state, measured, "PartitionsExhausted", text)
    return _said(seen, state, measured, "CatchingUp", f"{numbers}: as many consumers as there are partitions")


def _down(seen: Observation, policy: Policy, state: State, measured: _Measured, lowest: int) -> Decision:
    """Fewer consumers, where all has been quiet for long enough; else as many as there are."""
    rate = state.rate_per_consumer
    numbers = _numbers(seen, measured, rate)
    most = max(count for _, count in state.asked)
    if most >= seen.replicas or seen.replicas <= lowest:
        return _said(seen, state, measured, "Steady", numbers)
    target = max(most, lowest)
    whole = state.asked_since is not None and seen.at - state.asked_since >= policy.scale_down_window_seconds
    if not whole:
        left = policy.scale_down_window_seconds - (
            seen.at - (seen.at if state.asked_since is None else state.asked_since)
        )
        return _said(seen, state, measured, "Waiting", f"{numbers}: {target} would do, judged in {left:.0f} s")
    if measured.lag_seconds >= policy.lag_seconds:
        return _said(seen, state, measured, "CatchingUp", numbers)
    if state.settled_since is None or seen.at - state.settled_since < policy.settle_seconds:
        return _said(seen, state, measured, "Waiting", f"{numbers}: {target} would do, once the group has settled")
    if state.rate is None:  # not measured under a backlog: step by step
        target = max(target, useful_below(measured.partitions, seen.replicas))
    for lesson in state.lessons:
        recent = seen.at - lesson.at < _LESSON_SECONDS
        if recent and lesson.replicas >= target and measured.arrival_rate > _LESSON_ROOM * lesson.arrival_rate:
            target = useful_above(measured.partitions, lesson.replicas)
    if target >= seen.replicas:
        text = f"{numbers}: fewer consumers proved too few for such arrivals within the last hour"
        return _said(seen, state, measured, "Steady", text)
    state = replace(state, trial=None, ineffective_until=None)
    return _changed(seen, state, measured, target, numbers)


def _changed(seen: Observation, state: State, measured: _Measured, target: int, why: str) -> Decision:
    state = replace(state, target=target, previous=seen.replicas, changed_at=seen.at, manual_since=None)
    reason: Reason = "ScaledUp" if target > seen.replicas else "ScaledDown"
    return _said(seen, state, measured, reason, f"{why}: {seen.replicas} -> {target} consumers", target)


def _said(
    seen: Observation,
    state: State,
    measured: _Measured | None,
    reason: Reason,
    message: str,
    target: int | None = None,
) -> Decision:
    rate = state.rate_per_consumer
    aside = measured.aside if measured is not None else {}
    if aside and reason in WELL:
        said = ", ".join(f"{partition} ({seconds:.0f} s)" for partition, seconds in sorted(aside.items())[:3])
        message += f"; without progress and set aside: partition {said}"
    return Decision(
        target=seen.replicas if target is None else target,
        reason=reason,
        message=message,
        state=state,
        needed=state.asked[-1][1] if measured is not None and rate is not None and state.asked else None,
        arrival_rate=measured.arrival_rate if measured is not None else None,
        capacity=None if rate is None else rate * min(seen.ready, measured.partitions if measured else seen.ready),
        rate_per_consumer=rate,
        lag_seconds=measured.lag_seconds if measured is not None else None,
        aside=aside,
    )


def _within(count: int, lowest: int, highest: int) -> int:
    return max(lowest, min(count, highest))


def _numbers(seen: Observation, measured: _Measured, rate: float | None) -> str:
    each = "a consumer's speed is not known yet" if rate is None else f"a consumer applies {_count(rate)}/s"
    return (
        f"{_count(measured.arrival_rate)} records/s arrive, {each}, "
        f"lag {_count(measured.lag)} records = {_seconds(measured.lag_seconds)}, consumers {seen.replicas}"
    )


def _count(number: float) -> str:
    """A number to three places or so, as people read it."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
