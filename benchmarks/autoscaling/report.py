"""What counts in a run, tables of it, and the bars."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.autoscaling.shapes import HOUR
from benchmarks.autoscaling.timeline import Timeline

LATE_SECONDS: Final = 30.0
BAR_CHANGES: Final = 3
BAR_RECOVERY_SECONDS: Final = 180
BAR_REPLICA_HOURS: Final = 1.1


@dataclass(frozen=True, slots=True)
class Score:
    """What counts in one run, or in several that were added up.

    busiest_hour: the most changes within any hour. late_seconds: seconds with a true lag over LATE_SECONDS.
    replica_hours: of pods asked for, starting ones included. recovery_seconds: from a step until the lag is under
    LATE_SECONDS for good; None where the shape has no step. above, below, late_downs: changes to more replicas than
    partitions, to fewer than the policy's minimum, and downwards while late.
    """

    shape: str
    policy: str
    hours: float
    changes: int
    busiest_hour: int
    late_seconds: int
    replica_hours: float
    most_replicas: int
    recovery_seconds: int | None
    above: int
    below: int
    late_downs: int
    constant: bool

    @property
    def changes_an_hour(self) -> float:
        """Changes an hour, over the whole of it."""
        return self.changes / self.hours

    @property
    def violations(self) -> int:
        """Changes that should never be."""
        return self.above + self.below + self.late_downs


def score(line: Timeline) -> Score:
    """What counts in a run."""
    late = [seconds > LATE_SECONDS for seconds in line.lag_seconds]
    downs = [change for change in line.changes if change.after < change.before]
    return Score(
        shape=line.shape.name,
        policy=line.policy,
        hours=len(line.replicas) / HOUR,
        changes=len(line.changes),
        busiest_hour=_most_within_an_hour([change.at for change in line.changes]),
        late_seconds=sum(late),
        replica_hours=sum(line.replicas) / HOUR,
        most_replicas=max(line.replicas),
        recovery_seconds=max((_recovery(late, step) for step in line.shape.steps), default=None),
        above=sum(change.after > change.partitions for change in line.changes),
        below=sum(change.after < line.minimum for change in line.changes),
        late_downs=sum(change.lag_seconds > LATE_SECONDS for change in downs),
        constant=line.shape.constant,
    )


def added(scores: Sequence[Score], shape: str = "all") -> Score:
    """Several runs of one policy as one: sums, and the worst where a sum would say nothing."""
    recoveries = [one.recovery_seconds for one in scores if one.recovery_seconds is not None]
    return Score(
        shape=shape,
        policy=scores[0].policy,
        hours=sum(one.hours for one in scores),
        changes=sum(one.changes for one in scores),
        busiest_hour=max(one.busiest_hour for one in scores),
        late_seconds=sum(one.late_seconds for one in scores),
        replica_hours=sum(one.replica_hours for one in scores),
        most_replicas=max(one.most_replicas for one in scores),
        recovery_seconds=max(recoveries, default=None),
        above=sum(one.above for one in scores),
        below=sum(one.below for one in scores),
        late_downs=sum(one.late_downs for one in scores),
        constant=all(one.constant for one in scores),
    )


class Results:
    """The scores of all runs, by shape and policy."""

    def __init__(self, scores: Iterable[Score]) -> None:
        self._runs: dict[tuple[str, str], list[Score]] = defaultdict(list)
        for one in scores:
            self._runs[one.shape, one.policy].append(one)
        self.shapes = list(dict.fromkeys(shape for shape, _ in self._runs))
        self.policies = list(dict.fromkeys(policy for _, policy in self._runs))

    def of(self, shape: str, policy: str) -> Score:
        """A policy in a shape, over all seeds."""
        return added(self._runs[shape, policy], shape)

    def total(self, policy: str) -> Score:
        """A policy in all shapes."""
        return added([one for (_, whose), runs in self._runs.items() if whose == policy for one in runs])

    def rows(self) -> list[Score]:
        """Each shape and policy, and the totals in the end."""
        each = [self.of(shape, policy) for shape in self.shapes for policy in self.policies]
        return each + [self.total(policy) for policy in self.policies]

    def table(self) -> str:
        """For a terminal."""
        head = f"{'shape':31} {'policy':17}{'changes':>8}{'an hour':>8}{'busiest':>8}{'s > 30':>9}{'replica-h':>11}"
        lines = [f"{head}{'most':>6}{'recovery':>9}{'P< <min late':>14}"]
        for row in self.rows():
            counts = f"{row.changes:>8,}{row.changes_an_hour:>8.1f}{row.busiest_hour:>8}{row.late_seconds:>9,}"
            sizes = f"{row.replica_hours:>11,.1f}{row.most_replicas:>6}{_seconds(row.recovery_seconds):>9}"
            wrong = f"{row.above:>5}{row.below:>5}{row.late_downs:>4}" if row.violations else f"{'-':>14}"
            first = row.shape if row.policy == self.policies[0] else ""
            lines.append(f"{first:31} {row.policy:17}{counts}{sizes}{wrong}")
        return "\n".join(lines)

    def markdown(self) -> str:
        """For docs/performance.md: of each policy, changes / seconds over 30 s of lag / replica-hours."""
        lines = [f"| | {' | '.join(self.policies)} |", f"| --- |{' ---: |' * len(self.policies)}"]
        for shape in self.shapes:
            lines.append(f"| {shape} | {' | '.join(_cell(self.of(shape, policy)) for policy in self.policies)} |")
        lines.append(f"| **all** | {' | '.join(_cell(self.total(policy)) for policy in self.policies)} |")
        return "\n".join(lines) + "\n"

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {"rows": [asdict(row) for row in self.rows()]}


@dataclass(frozen=True, slots=True)
class Bar:
    """What must hold. value: what was found."""

    name: str
    value: float
    holds: bool

    def __str__(self) -> str:
        return f"{self.name:70} {self.value:>10,.2f}  {'holds' if self.holds else 'DOES NOT HOLD'}"


def bars(results: Results, ours: str) -> list[Bar]:
    """The bars for our policy, beside the others. Where no shape of a kind was run, its bar is left out."""
    rows = [results.of(shape, ours) for shape in results.shapes]
    total = results.total(ours)
    others = [results.total(policy) for policy in results.policies if policy != ours]
    keenest = min(others, key=lambda other: other.late_seconds)
    least_changes = min(other.changes for other in others)
    hours = total.replica_hours / keenest.replica_hours
    found = []
    constants = [row.busiest_hour for row in rows if row.constant]
    if constants:
        most = max(constants)
        found.append(Bar(f"changes in any hour at a constant load <= {BAR_CHANGES}", most, most <= BAR_CHANGES))
    if total.recovery_seconds is not None:
        name = f"seconds from a step to a lag under 30 s again <= {BAR_RECOVERY_SECONDS}"
        found.append(Bar(name, total.recovery_seconds, total.recovery_seconds <= BAR_RECOVERY_SECONDS))
    found.append(
        Bar("changes above P, below the minimum or down while late: none", total.violations, total.violations == 0)
    )
    late, least_late = total.late_seconds, keenest.late_seconds
    found.append(Bar(f"seconds over 30 s of lag < {least_late:,} (the better peer)", late, late < least_late))
    name = f"changes < {least_changes:,} (the better peer)"
    found.append(Bar(name, total.changes, total.changes < least_changes))
    name = f"replica-hours / those of {keenest.policy} <= {BAR_REPLICA_HOURS}"
    found.append(Bar(name, hours, hours <= BAR_REPLICA_HOURS))
    return found


def _cell(row: Score) -> str:
    return f"{row.changes:,} / {row.late_seconds:,} s / {row.replica_hours:,.1f}"


def _seconds(seconds: int | None) -> str:
    return "" if seconds is None else f"{seconds:,} s"


def _most_within_an_hour(moments: list[int]) -> int:
    """moments: seconds, in order."""
    return max((sum(at <= other < at + HOUR for other in moments) for at in moments), default=0)


def _recovery(late: list[bool], step: int) -> int:
    """Seconds from the step until it is late no more; 0 where it never was."""
    return max((at + 1 - step for at in range(step, len(late)) if late[at]), default=0)
