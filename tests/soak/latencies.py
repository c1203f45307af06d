"""Times of answers by slices of time, in calm moments."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.e2e.traffic import Attempt
from tests.faults.report import percentile
from tests.soak.calm import Calm

LEAST_ANSWERS: Final = 100
"""In a slice, for it to tell a p99."""
_OPEN_SLICES: Final = 2
_KEPT_FAILURES: Final = 1000


@dataclass(frozen=True, slots=True)
class Slice:
    """at: its middle, of time.monotonic(). p50, p99: of the answers with 200 in it, in milliseconds."""

    at: float
    answers: int
    p50: float
    p99: float


@dataclass(slots=True)
class Latencies:
    """slices: of POST and of GET, as they end. tries: in calm moments; failures: how many of those were not answered
    with 200; failed: the first of them.
    """

    calm: Calm
    slice_seconds: float
    slices: dict[str, list[Slice]] = field(default_factory=lambda: {"POST": [], "GET": []})
    tries: int = 0
    failures: int = 0
    failed: list[Attempt] = field(default_factory=list)
    _open: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))

    def take(self, attempts: Iterable[Attempt], to_the_end: bool = False) -> None:
        """Count tries that have ended; a slice is closed once two newer ones have begun, or at the end."""
        for one in attempts:
            if not self.calm.between(one.started, one.ended):
                continue
            self.tries += 1
            if one.is_ok:
                number = math.floor(one.started / self.slice_seconds)
                self._open[one.method, number].append((one.ended - one.started) * 1000)
            else:
                self.failures += 1
                if len(self.failed) < _KEPT_FAILURES:
                    self.failed.append(one)
        newest = max((number for _, number in self._open), default=0)
        for method, number in sorted(self._open):
            if to_the_end or number <= newest - _OPEN_SLICES:
                self._close(method, number)

    def _close(self, method: str, number: int) -> None:
        values = self._open.pop((method, number))
        p50, p99 = percentile(values, 50), percentile(values, 99)
        if len(values) >= LEAST_ANSWERS and p50 is not None and p99 is not None:
            self.slices[method].append(Slice((number + 0.5) * self.slice_seconds, len(values), p50, p99))
