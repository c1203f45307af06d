"""Whether a figure stays level. Pure.

Two rules, since two kinds of figures grow in two ways.

`drift` is for what is large and noisy: memory. The series is cut into spans of equal time, and the median of each is
taken. The slope is Theil and Sen's: the median of the slopes of all pairs, which a fourth of the points being outliers
does not move. A figure rises when three things hold, where the allowed growth is a share of the level at the start, or
a least amount:

1. the slope leads to more than the allowed growth by the end of the series;
2. the slope is surely above zero: so is the lower limit of its confidence interval (Sen, 1968, by Kendall's statistic;
   99.5 %, one-sided), so that noise alone is none;
3. it goes on to new highs: the highest median of the last third is above that of the first two thirds by more than the
   third of the allowed growth. A leak goes on at its pace; a cache that has filled does not, nor does a saw-tooth that
   has been at its top before.

A series that ends while a cache still fills is called a rise, as it must be: give it a longer warm-up.

`steps` is for what is counted or swings with its neighbours: files, connections, threads, latencies. The median of the
last third may be above that of the first third by no more than what is allowed.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

Points = Sequence[tuple[float, float]]
"""(seconds, value), ascending in time."""

SPANS: Final = 60
LEAST_SPANS: Final = 12
_SURE: Final = 2.576
"""Standard deviations: 99.5 % on one side."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Growth from the start of a series to its end that is none: a share of the start's level, or a least amount."""

    share: float
    least: float

    def at(self, level: float) -> float:
        """In the figure's unit."""
        return max(self.share * abs(level), self.least)


@dataclass(frozen=True, slots=True)
class Trend:
    """A series in short. start, end: levels. slope, surely: growth an hour, and its lower limit. allowed: growth from
    start to end. holds: whether it stays level; None where there were too few points to tell.
    """

    start: float
    end: float
    slope: float
    surely: float
    allowed: float
    holds: bool | None


def drift(points: Points, allowed: Allowed) -> Trend | None:
    """Whether the series stays level, by its slope; None without a point."""
    spans = medians(points, SPANS)
    if not spans:
        return None
    slope, surely, start, end = _line(spans)
    seconds = spans[-1][0] - spans[0][0]
    growth = allowed.at(start)
    if len(spans) < LEAST_SPANS:
        return Trend(start, end, slope, surely, growth, None)
    cut = spans[0][0] + seconds * 2 / 3
    before = max(value for at, value in spans if at <= cut)
    highest = max(value for at, value in spans if at > cut)
    rises = end - start > growth and surely > 0 and highest - before > growth / 3
    return Trend(start, end, slope, surely, growth, not rises)


def steps(points: Points, allowed: Allowed) -> Trend | None:
    """Whether the series stays level, by the medians of its first and its last third; None without a point."""
    if not points:
        return None
    slope, surely, _, _ = _line(medians(points, SPANS))
    first, last = points[0][0], points[-1][0]
    third = (last - first) / 3
    start = statistics.median(value for at, value in points if at <= first + third)
    end = statistics.median(value for at, value in points if at >= last - third)
    growth = allowed.at(start)
    holds = end - start <= growth if len(points) >= LEAST_SPANS else None
    return Trend(start, end, slope, surely, growth, holds)


def medians(points: Points, count: int) -> list[tuple[float, float]]:
    """The series in at most so many spans of equal time: the median time and value of each that has points."""
    if not points:
        return []
    first, seconds = points[0][0], points[-1][0] - points[0][0]
    spans: list[list[tuple[float, float]]] = [[] for _ in range(count)]
    for at, value in points:
        spans[min(count - 1, int((at - first) / seconds * count)) if seconds else 0].append((at, value))
    return [
        (statistics.median(at for at, _ in span), statistics.median(value for _, value in span))
        for span in spans
        if span
    ]


def _line(spans: Points) -> tuple[float, float, float, float]:
    """Theil and Sen's slope an hour and its lower limit, and the line's values at the start and at the end."""
    slopes = sorted((b - a) / (t - s) for (s, a), (t, b) in combinations(spans, 2) if t > s)
    if not slopes:
        level = statistics.median(value for _, value in spans)
        return 0.0, 0.0, level, level
    count = len(spans)
    slope = statistics.median(slopes)
    width = _SURE * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    rank = int((len(slopes) - width) / 2)
    surely = slopes[max(0, rank)]
    level = statistics.median(value - slope * at for at, value in spans)
    return slope * 3600, surely * 3600, level + slope * spans[0][0], level + slope * spans[-1][0]
