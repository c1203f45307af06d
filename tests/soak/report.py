"""What a run has shown: every figure's course, the bars, and the last line."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.faults.clients import Totals
from tests.soak.backlog import Level
from tests.soak.flat import Allowed, Points, Trend, drift, steps
from tests.soak.latencies import Slice
from tests.soak.pace import SPARED
from tests.soak.sampler import Life, Sample

Rule = Callable[[Points, Allowed], Trend | None]

_OF_PROCESSES: Final[tuple[tuple[str, Callable[[Sample], float], Rule, Allowed], ...]] = (
    ("memory, MiB", lambda one: one.reading.memory_mib, drift, Allowed(share=0.05, least=4)),
    ("open files", lambda one: one.reading.files, steps, Allowed(share=0.1, least=5)),
    ("connections", lambda one: sum(one.reading.connections.values()), steps, Allowed(share=0.1, least=5)),
    ("half-closed connections", lambda one: one.reading.connections.get("close-wait", 0), steps, Allowed(0, least=2)),
    ("threads", lambda one: one.reading.threads, steps, Allowed(share=0.1, least=4)),
)
_P50: Final = Allowed(share=0.5, least=5)
_P99: Final = Allowed(share=1.0, least=25)
_VIEW: Final = Allowed(share=0.1, least=2)
_LAG_SECONDS: Final = 1.0
_FAILED_SHARE: Final = 0.005
_LOAD_SHARE: Final = 0.9
_SHOWN_OF_SERVERS: Final = 3


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure's course. judged: whether it must stay level; the others are shown beside."""

    name: str
    trend: Trend
    judged: bool = True

    @property
    def verdict(self) -> str:
        """In a word."""
        if not self.judged:
            return "for reference"
        return {True: "holds", False: "missed", None: "too few calm moments"}[self.trend.holds]


@dataclass(frozen=True, slots=True)
class Bar:
    """What must hold. holds: None where the run was too short to tell."""

    name: str
    holds: bool | None
    said: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the end of a run shows.

    false_fresh: answers. wrong: what else clients met that they must not. dead_letters: records; like totals, None
    where they could not be read. ended: parts that ended though nobody ended them. calm_tries, calm_failures:
    requests in calm moments, and those that were not answered with 200, which clients repeat.
    """

    totals: Totals | None
    false_fresh: int
    wrong: int
    dead_letters: int | None
    ended: Sequence[str]
    calm_tries: int
    calm_failures: int


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was measured, and when: of time.monotonic(). warm: seconds at the start of a series that do not count.

    flows_a_second: of the load.
    """

    since: float
    until: float
    warm: float
    flows_a_second: float
    lives: Sequence[Life]
    slices: Mapping[str, Sequence[Slice]]
    lag: Sequence[Level]
    view_mib: Sequence[Level]


def figures(seen: Seen) -> list[Figure]:
    """Of all services' processes that lived long enough, of the answers and of the view; then those for reference."""
    found = [figure for life in long_lives(seen) for figure in _of_life(life, seen, judged=True)]
    for method, slices in seen.slices.items():
        counted = [one for one in slices if one.at >= seen.since + seen.warm]
        for name, points, allowed in (
            ("p50", [(one.at, one.p50) for one in counted], _P50),
            ("p99", [(one.at, one.p99) for one in counted], _P99),
        ):
            found += _figure(f"{method} {name}, ms", steps, points, allowed)
    lag_allowed = Allowed(share=0.5, least=_LAG_SECONDS * seen.flows_a_second)
    found += _figure("lag, records", steps, _calm(seen.lag, seen), lag_allowed)
    found += _figure("view in Redis, MiB", drift, _calm(seen.view_mib, seen), _VIEW)
    others = [figure for life in _longest_of_servers(seen) for figure in _of_life(life, seen, judged=False)]
    return found + others


def long_lives(seen: Seen) -> list[Life]:
    """The services' processes whose series, after its warm-up, is at least half as long as the whole run's."""
    least = (seen.until - seen.since - seen.warm) / 2
    lives = [life for life in seen.lives if _is_service(life.name)]
    return [life for life in lives if life.samples[-1].at - life.samples[0].at - seen.warm >= least]


def bars(found: Sequence[Figure], outcome: Outcome, planned_flows: float) -> list[Bar]:
    """All of them: what must be exact, each judged figure, and one for each service that nothing was told of.

    planned_flows: that the load has when this machine carries it.
    """
    totals = outcome.totals
    share = None if totals is None else totals.flows / planned_flows
    exact = [
        _none("lost bytes", None if totals is None else totals.lost_bytes),
        _none("doubled bytes", None if totals is None else totals.doubled_bytes),
        _none("false fresh answers", outcome.false_fresh),
        _none("other wrong answers", outcome.wrong),
        _none("dead letters", outcome.dead_letters),
        _none("services that ended by themselves", sum(_is_service(text) for text in outcome.ended)),
        Bar(
            "requests that failed in calm moments",
            outcome.calm_failures <= _FAILED_SHARE * outcome.calm_tries,
            f" ({outcome.calm_failures:,} of {outcome.calm_tries:,})",
        ),
        Bar(
            "the load kept its pace",
            None if share is None else share >= _LOAD_SHARE,
            "" if share is None else f" ({share:.0%})",
        ),
    ]
    judged = [one for one in found if one.judged]
    wanted = (*SPARED.values(), "POST", "GET", "lag", "view")
    unseen = [name for name in wanted if not any(one.name.startswith(name) for one in judged)]
    return [
        *exact,
        *(Bar(one.name, one.trend.holds) for one in judged),
        *(Bar(f"{name} was seen for long enough", None) for name in unseen),
    ]


def table(found: Iterable[Figure]) -> str:
    """Markdown: the levels at the start and at the end, what growth is allowed between, and the slope."""
    lines = [
        "| figure | start | end | allowed growth | slope an hour | |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for one in found:
        trend = one.trend
        numbers = f"{trend.start:,.1f} | {trend.end:,.1f} | {trend.allowed:,.1f} | {trend.slope:+,.1f}"
        lines.append(f"| {one.name} | {numbers} | {one.verdict} |")
    return "\n".join(lines)


def last_line(found: Sequence[Bar]) -> str:
    """Which bars hold, and which do not."""
    missed = [f"{bar.name}{bar.said}" for bar in found if bar.holds is False]
    untold = [bar.name for bar in found if bar.holds is None]
    said = f"{sum(bar.holds is True for bar in found)} of {len(found)} bars hold"
    said += f"; missed: {', '.join(missed)}" if missed else ""
    return said + (f"; not told: {', '.join(untold)}" if untold else "")


def _of_life(life: Life, seen: Seen, judged: bool) -> list[Figure]:
    since = max(seen.since, life.samples[0].at) + seen.warm
    samples = [one for one in life.samples if one.calm and one.at >= since]
    found = []
    for name, value, rule, allowed in _OF_PROCESSES[: None if judged else _SHOWN_OF_SERVERS]:
        found += _figure(f"{life.name} {name}", rule, [(one.at, value(one)) for one in samples], allowed, judged)
    return found


def _figure(name: str, rule: Rule, points: Points, allowed: Allowed, judged: bool = True) -> list[Figure]:
    trend = rule(points, allowed)
    return [] if trend is None else [Figure(name, trend, judged)]


def _calm(levels: Iterable[Level], seen: Seen) -> list[tuple[float, float]]:
    return [(one.at, one.value) for one in levels if one.calm and one.at >= seen.since + seen.warm]


def _longest_of_servers(seen: Seen) -> list[Life]:
    """Of each broker, Redis node and sentinel the process that lived longest."""
    by_name = defaultdict[str, list[Life]](list)
    for life in seen.lives:
        if not _is_service(life.name):
            by_name[life.name].append(life)
    return [max(some, key=lambda life: life.samples[-1].at - life.samples[0].at) for some in by_name.values()]


def _is_service(name: str) -> bool:
    return name.startswith(tuple(SPARED))


def _none(name: str, count: int | None) -> Bar:
    return Bar(name, None if count is None else count == 0, "" if count is None else f" ({count:,})")
