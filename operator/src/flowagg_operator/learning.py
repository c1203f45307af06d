"""What a group's offsets teach: how fast records arrive, how fast a consumer is, what stands in the way. Pure."""

from dataclasses import replace
from typing import Final

from flowagg_operator.capacity import totals
from flowagg_operator.lag import History
from flowagg_operator.scaling_terms import Measured, Observation, Policy, State

_STABLE: Final = "Stable"
FEW_LOOKS_SECONDS: Final = 10.0
"""The shortest time over which a rate is taken: two looks at the default pace."""
_TREND_SECONDS: Final = 600.0
_AHEAD_SECONDS: Final = 900.0
"""A trend of the last ten minutes is taken to go on for a quarter of an hour, where more consumers are started anyway:
one change instead of two."""
_TREND_STEP_SECONDS: Final = 30.0
_LASTING_SECONDS: Final = 10.0
"""For which lag must have been there before more consumers are started for it alone: not a batch in flight."""
_BUSY_SECONDS: Final = 10.0
"""A partition that never has less than so many seconds' arrivals left over is one whose consumer never waits."""
_JUDGED_SECONDS: Final = 35.0
"""For which a group must have been settled before the effect of more consumers is judged: commits may be 30 s apart."""
_GAIN: Final = 0.1
"""Part of the expected gain below which a scale-up had no effect."""
_OLD_SECONDS: Final = 600.0
"""Age past which a measurement under a backlog yields to a larger one taken without."""
_ABOVE: Final = 1.2


def settled(seen: Observation, state: State) -> State:
    """When the group came to rest: stable with the same consumers; and settled: all that are wanted, and no others."""
    if seen.history is None:
        return state  # nothing is known, which is no unrest
    shape = (seen.replicas, seen.ready, seen.members if seen.members is not None else -1)
    stable = seen.group == _STABLE
    whole = (
        stable and seen.ready == seen.desired == seen.updated == seen.replicas and seen.members in (None, seen.replicas)
    )
    same = shape == state.shape
    return replace(
        state,
        shape=shape,
        stable_since=(state.stable_since if same and state.stable_since is not None else seen.at) if stable else None,
        settled_since=(state.settled_since if same and state.settled_since is not None else seen.at) if whole else None,
        unsettled_since=None if stable else state.unsettled_since if state.unsettled_since is not None else seen.at,
    )


def learned(seen: Observation, policy: Policy, state: State) -> tuple[Measured | None, State]:
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
    lately = history.arrivals(FEW_LOOKS_SECONDS)
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
    measured = Measured(
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
        if (span := history.applied(p, max(at, stable))) is not None and span[1] >= FEW_LOOKS_SECONDS
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
