"""Metrics that one thread alone counts, for paths on which every request pays for each microsecond.

prometheus-client takes a lock for each count, and goes through a histogram's buckets one by one: together some 3 us of
a POST. Here a count is an addition, and the metric is brought up to it when it is collected, by whatever thread.
"""

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client import Counter, Histogram
from prometheus_client.samples import Sample


class LoopCounter(Counter):
    """A counter; inc() belongs to one thread."""

    def _metric_init(self) -> None:
        super()._metric_init()
        self._tally = 0.0

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:  # noqa: ARG002 - none is kept
        """Count; amount is not negative."""
        self._tally += amount

    def _child_samples(self) -> Iterable[Sample]:
        self._value.set(self._tally)
        return super()._child_samples()


class LoopHistogram(Histogram):
    """A histogram; observe() belongs to one thread."""

    def _metric_init(self) -> None:
        super()._metric_init()
        self._tallies = [0] * len(self._upper_bounds)
        self._total = 0.0

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:  # noqa: ARG002 - none is kept
        """Count an amount."""
        self._tallies[bisect_left(self._upper_bounds, amount)] += 1
        self._total += amount

    def _child_samples(self) -> Iterable[Sample]:
        for bucket, tally in zip(self._buckets, self._tallies, strict=True):
            bucket.set(tally)
        self._sum.set(self._total)
        return super()._child_samples()
