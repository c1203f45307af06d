"""FlowAggregator's own policy: the operator's decision function, fed with what the modelled group shows."""

from typing import Final

from flowagg_operator.lag import History, Snapshot
from flowagg_operator.scaling import decide
from flowagg_operator.scaling_terms import Decision, Observation, Policy, State

from benchmarks.autoscaling.policy import Seen

_LOOK_SECONDS: Final = 5
"""The operator's default pace (FLOWAGG_LAG_SECONDS)."""


class Ours:
    """The operator with its defaults."""

    name = "FlowAggregator"
    minimum = 1
    restarts_all = False

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.state = State()
        self.last: Decision | None = None
        self._history = History(self.policy.rate_seconds)
        self._busy: dict[str, tuple[float, float]] = {}

    def looks(self, at: int) -> bool:
        """Every five seconds."""
        return at % _LOOK_SECONDS == 0

    def step(self, seen: Seen) -> int:
        """Decide as the operator does."""
        if not seen.failed:
            partitions = range(seen.partitions)
            committed = {p: seen.committed[p] for p in partitions if seen.committed[p] >= 0}
            low = {p: seen.low[p] for p in partitions}
            high = {p: seen.high[p] for p in partitions}
            self._history = self._history.after(Snapshot(float(seen.at), committed, low, high))
        self.last = decide(
            Observation(
                at=float(seen.at),
                replicas=seen.replicas,
                desired=seen.replicas,
                ready=seen.ready,
                updated=seen.updated,
                history=None if seen.failed else self._history,
                trouble="the look-up failed" if seen.failed else "",
                group=seen.state,
                members=seen.members,
                owners=seen.owners,
            ),
            self.policy,
            self.state,
        )
        self.state = self.last.state
        return self.last.target
