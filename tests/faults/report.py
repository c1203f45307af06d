"""What a run has shown: a table per kind of fault, and the bars."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.faults.clients import Totals
from tests.faults.driver import Round
from tests.faults.kinds import KILL_BROKER, KILL_CONSUMER, KILL_MASTER, STALE_MASTER

_FAILOVERS: Final = frozenset({KILL_MASTER, STALE_MASTER})
_SERVICES: Final = ("writer-", "consumer-", "reader-")


@dataclass(frozen=True, slots=True)
class Bar:
    """What must hold. value: None where the run had nothing to tell it by."""

    name: str
    value: float | None
    most: float
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether it does; also where nothing was seen."""
        return self.value is None or self.value <= self.most

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: not seen"
        value = f"{self.value:,.2f} {self.unit}" if self.unit else f"{self.value:,.0f}"
        verdict = "holds" if self.holds else "missed"
        return f"{self.name}: {value}, bar {self.most:g}{' ' + self.unit if self.unit else ''}: {verdict}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the end of a run shows.

    false_fresh: answers. wrong: what else clients met that they must not. dead_letters: records.
    totals: None where they could not be read.
    """

    totals: Totals | None
    false_fresh: int
    wrong: int
    dead_letters: int


def bars(rounds: Sequence[Round], outcome: Outcome, slack: float = 1.0) -> list[Bar]:
    """All bars. slack: the times' bars are so many times as long, for a machine that others use meanwhile."""
    consumer = [one.stalls.apply for one in rounds if one.fault.kind == KILL_CONSUMER]
    failover = [one.stalls.apply for one in rounds if one.fault.kind in _FAILOVERS]
    broker = [one.stalls.write for one in rounds if one.fault.kind == KILL_BROKER]
    ended = sum(text.startswith(_SERVICES) for one in rounds for text in one.ended)
    totals = outcome.totals
    return [
        Bar("lost bytes", None if totals is None else totals.lost_bytes, 0),
        Bar("doubled bytes", None if totals is None else totals.doubled_bytes, 0),
        Bar("false fresh answers", outcome.false_fresh, 0),
        Bar("other wrong answers", outcome.wrong, 0),
        Bar("dead letters", outcome.dead_letters, 0),
        Bar("services that ended by themselves", ended, 0),
        Bar("applies stand still at a kill of a consumer, p50", _p50(consumer), 3 * slack, "s"),
        Bar("applies stand still at a failover of Redis, p50", _p50(failover), 2.5 * slack, "s"),
        Bar("applies stand still at a failover of Redis, max", max(failover, default=None), 5 * slack, "s"),
        Bar("writes stand still at a kill of a broker, p99", percentile(broker, 99), 10 * slack, "s"),
    ]


def table(rounds: Sequence[Round], outcome: Outcome) -> str:
    """Per kind: how often, and the p50 and max of the longest stand-stills, in seconds; Markdown.

    What was lost or doubled shows in the end alone, so it has no kind.
    """
    kinds = defaultdict[str, list[Round]](list)
    for one in rounds:
        kinds[one.fault.kind].append(one)
    totals = outcome.totals
    unknown = "unknown" if totals is None else None
    lines = [
        "| fault | count | writes p50 | max | applies p50 | max | fresh reads p50 | max | healed p50 "
        "| false fresh | lost | double |",
        f"| --- |{' ---: |' * 11}",
        *(_row(kind, some, sum(one.false_fresh for one in some), "", "") for kind, some in sorted(kinds.items())),
    ]
    if rounds:
        lost, doubled = (unknown or f"{getattr(totals, name):,}" for name in ("lost_bytes", "doubled_bytes"))
        lines.append(_row("all", rounds, outcome.false_fresh, lost, doubled))
    return "\n".join(lines)


def _row(name: str, rounds: Sequence[Round], *ends: object) -> str:
    columns = [[getattr(one.stalls, of) for one in rounds] for of in ("write", "apply", "read")]
    figures = [f"{number:.2f}" for column in columns for number in (statistics.median(column), max(column))]
    figures.append(f"{statistics.median(one.healed for one in rounds):.1f}")
    return f"| {' | '.join(str(cell) for cell in (name, len(rounds), *figures, *ends))} |"


def last_line(found: Sequence[Bar]) -> str:
    """Which bars hold, and which do not."""
    missed = [bar.name for bar in found if not bar.holds]
    unseen = [bar.name for bar in found if bar.value is None]
    held = len(found) - len(missed) - len(unseen)
    said = f"{held} of {len(found)} bars hold"
    said += f"; missed: {', '.join(missed)}" if missed else ""
    return said + (f"; not seen: {', '.join(unseen)}" if unseen else "")


def percentile(values: Sequence[float], percent: int) -> float | None:
    """The value that so many percent of the values do not exceed; None without any."""
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else None


def _p50(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
