"""What a dashboard of this project is made of: rows of panels, each with its queries. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["stat", "timeseries", "state-timeline"]

YES_NO: Final = {0: ("no", "red"), 1: ("yes", "green")}
WAITS: Final = {0: ("no", "green"), 1: ("waits", "red")}
HELD: Final = {0: ("no", "green"), 1: ("held", "orange")}
ACTIVE: Final = {0: ("standby", "blue"), 1: ("active", "green")}


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and the legend of its series."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel. unit: Grafana's name of it. steps: value from which on a colour holds, the first for all below.

    words: value -> what stands for it, and its colour. names: a stat that shows its series' names, not its value.
    width, height: in Grafana's grid of 24 columns.
    """

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    names: bool = False
    steps: Sequence[tuple[float | None, str]] = ()
    words: dict[int, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a title; their widths fill lines of 24."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard. name: of its file, and of its uid behind flow-aggregator-."""

    name: str
    title: str
    description: str
    rows: Sequence[Row]


def of(metric: str, **matchers: str) -> str:
    """A metric's series of the FlowAggregator that was chosen. matchers: label -> value, or ~ and a pattern."""
    chosen = ['namespace="$namespace"', 'flowaggregator="$instance"']
    for label, value in matchers.items():
        sign, text = ("=~", value[1:]) if value.startswith("~") else ("=", value)
        chosen.append(f'{label}{sign}"{text}"')
    return f"{metric}{{{', '.join(chosen)}}}"


def rate(metric: str, **matchers: str) -> str:
    """How fast a counter grows, a second."""
    return f"rate({of(metric, **matchers)}[$__rate_interval])"


def per(label: str, expr: str, how: str = "sum") -> str:
    """An expression by one or more labels."""
    return f"{how} by ({label}) ({expr})"


def at_least_zero(expr: str, where: str) -> str:
    """An expression, or 0 where there is no such series yet but one of `where`."""
    return f"{expr} or 0 * {where}"


def per_or_none(label: str, expr: str, there: str, how: str = "sum") -> str:
    """An expression by a label; without any such series 0 for the label none, where there is one of `there`."""
    return f'{per(label, expr, how)} or on () label_replace(0 * {there}, "{label}", "none", "", "")'


def quantiles(histogram: str, *of_hundred: float) -> list[Query]:
    """The quantiles of a histogram of seconds, as p50, p95 and so on."""
    wanted = of_hundred or (50, 95, 99)
    inner = per("le", rate(f"{histogram}_bucket"))
    return [Query(f"histogram_quantile({each / 100:g}, {inner})", f"p{each:g}") for each in wanted]


def share(part: str, whole: str) -> str:
    """One rate as a share of another; 0 where there is nothing of the part."""
    return f"({at_least_zero(part, whole)}) / {whole}"
