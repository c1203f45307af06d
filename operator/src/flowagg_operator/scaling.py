"""How many consumers there should be: a pure decision, taken from what was observed and what was learned before.

Rates decide, not lag alone: what arrives, what a consumer applies, and how soon a backlog should be gone. Only counts
that take partitions off the busiest consumer are considered, since a group spreads partitions by count. What is not
known changes nothing. Nobody has to say how fast a consumer is: that is measured while it has a backlog.
"""

from dataclasses import replace
from typing import Final

from flowagg_operator.capacity import busiest, needed, useful_above, useful_below
from flowagg_operator.learning import FEW_LOOKS_SECONDS, learned, settled
from flowagg_operator.scaling_terms import WELL, Decision, Lesson, Measured, Observation, Policy, Reason, State, Trial

_MEASURING_SECONDS: Final = 35.0
"""For which a consumer's first backlog may last before more consumers are started without knowing its speed: commits
may be 30 s apart."""
_MOST: Final = 1000
"""More the FlowAggregator's schema does not take."""
_SLOWED: Final = 0.6
"""Part of the speed that consumers once had below which it is their sink that has become slow."""
_SETTLING_SECONDS: Final = 120.0
"""For which a group may be unsettled before that is said to be trouble."""
_TRIAL_SECONDS: Final = 180.0
"""So long the next scale-up waits for that judgement at most."""
_LESSON_SECONDS: Final = 3600.0
_LESSON_ROOM: Final = 0.8
"""So long a count that proved too small is not tried again, unless arrivals are below so much of those it failed at."""
_LESSONS: Final = 8
_GAP_SECONDS: Final = 180.0
"""Without a judgement for so long, the time over which consumers are judged to be too many begins anew."""


def decide(seen: Observation, policy: Policy, state: State) -> Decision:
    """Decide how many consumers the FlowAggregator should ask for."""
    # 1. Whose number is it that is there now?
    state = _recognised(seen, policy, state)
    # 2. Is the group at rest, and what do its offsets teach? This goes on whoever sets the number.
    state = settled(seen, state)
    measured, state = learned(seen, policy, state)
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


def _bounds(policy: Policy, measured: Measured) -> tuple[int, int]:
    """Fewest and most consumers that may be asked for."""
    highest = min(measured.partitions, policy.max_replicas or measured.partitions, _MOST)
    return min(policy.min_replicas, highest), highest


def _wanted(policy: Policy, state: State, measured: Measured) -> int | None:
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
        state = replace(state, renewal=seen.renewal, manual_since=seen.at if seen.renewal else state.manual_since)
    return state


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


def _asked(seen: Observation, policy: Policy, state: State, measured: Measured, wanted: int | None) -> State:
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


def _up(seen: Observation, policy: Policy, state: State, measured: Measured, highest: int) -> Decision | None:
    """More consumers, or what stands against it; None: enough are there."""
    rate = state.rate_per_consumer
    # While one is missing the others have its share too, which is no lack of consumers.
    all_there = seen.ready == seen.replicas and seen.members in (None, seen.replicas)
    load = busiest(measured.arrivals, seen.replicas, seen.owners if all_there else None)
    crowded = rate is not None and load > policy.scale_up_utilization * rate
    late = measured.lasting_seconds > policy.lag_seconds
    if not crowded and not late:
        return None
    if rate is None and (text := _unmeasured(seen, state)):
        return _said(seen, state, measured, "Waiting", f"lag is {_seconds(measured.lag_seconds)}: {text}")
    target, why = _more(seen, policy, state, measured, late=late)
    if target <= seen.replicas and late and not _lasts(seen, policy, state):
        text = f"{_numbers(measured, rate)}: {seen.replicas} consumers are working the backlog off"
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


def _more(seen: Observation, policy: Policy, state: State, measured: Measured, *, late: bool) -> tuple[int, str]:
    """How many there should be, and why."""
    rate, partitions = state.rate_per_consumer, measured.partitions
    if rate is None:
        target = useful_above(partitions, seen.replicas, 2 * seen.replicas)
        return target, f"lag is {_seconds(measured.lag_seconds)}, and a consumer's speed is not known yet"
    target = needed(measured.grown, rate) or partitions
    if target <= seen.replicas and late and _lasts(seen, policy, state):
        target = useful_above(partitions, seen.replicas)
        return target, f"lag of {_seconds(measured.lag_seconds)} does not become less"
    return target, _numbers(measured, rate)


def _lesson(seen: Observation, state: State, measured: Measured, target: int) -> State:
    """What a scale-up says of the number before it, and what is expected of the new one."""
    settled = state.settled_since is not None and seen.at - state.settled_since >= FEW_LOOKS_SECONDS
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


def _at_the_end(seen: Observation, policy: Policy, state: State, measured: Measured, highest: int) -> Decision | None:
    """As many as can be, or as are needed, and lag all the same."""
    rate = state.rate_per_consumer
    if seen.replicas < highest:
        return None
    numbers = _numbers(measured, rate)
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


def _down(seen: Observation, policy: Policy, state: State, measured: Measured, lowest: int) -> Decision:
    """Fewer consumers, where all has been quiet for long enough; else as many as there are."""
    rate = state.rate_per_consumer
    numbers = _numbers(measured, rate)
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
    if not _rested(seen, policy, state, target):
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


def _rested(seen: Observation, policy: Policy, state: State, target: int) -> bool:
    """Whether the group has been settled for long enough; or stable, with fewer than are wanted and yet enough: pods
    for which there is no room would keep it from going down for ever."""
    since = state.settled_since
    if since is None and target <= seen.ready < seen.replicas and seen.updated == seen.desired:
        since = state.stable_since if seen.members in (None, seen.ready) else None
    return since is not None and seen.at - since >= policy.settle_seconds


def _changed(seen: Observation, state: State, measured: Measured, target: int, why: str) -> Decision:
    state = replace(state, target=target, previous=seen.replicas, changed_at=seen.at, manual_since=None)
    reason: Reason = "ScaledUp" if target > seen.replicas else "ScaledDown"
    return _said(seen, state, measured, reason, f"{seen.replicas} -> {target} consumers: {why}", target)


def _said(
    seen: Observation,
    state: State,
    measured: Measured | None,
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


def _numbers(measured: Measured, rate: float | None) -> str:
    each = "a consumer's speed is not known yet" if rate is None else f"a consumer applies {_count(rate)}/s"
    return (
        f"{_count(measured.arrival_rate)} records/s arrive, {each}, "
        f"lag {_count(measured.lag)} records = {_seconds(measured.lag_seconds)}"
    )


def _count(number: float) -> str:
    """A number to three places or so, as people read it."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
