"""Tables of what was measured, and the bars."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

from benchmarks.peers.bars import Bar
from benchmarks.peers.consumers.exactness import Difference
from benchmarks.peers.consumers.peers import FAUST, OURS, QUIX, STREAMS_LEAST, STREAMS_ONCE
from benchmarks.peers.consumers.rounds import Measured, Struck
from benchmarks.peers.consumers.speed import Speed

RATIOS: Final = (
    # family, least ratio in flows/s, least ratio per CPU second
    (STREAMS_ONCE, 5.0, 8.0),
    (STREAMS_LEAST, 2.5, 5.0),
    (QUIX, 10.0, None),
    (FAUST, 10.0, None),
)
BAR_RSS: Final = 0.5
_TROUBLE_CHARACTERS: Final = 100
_ESCAPES: Final = re.compile("\x1b\\[[0-9;?]*[a-zA-Z]")
"""Of a terminal, in a log."""


def measured_head(shape: str) -> str:
    """Above the rows of one log.

    2nd half: of the flows, when a JVM is warm. Kafka: its CPU seconds per million flows. others: cores that neither
    the peer nor Redis nor Kafka used, so that a noisy machine is seen.
    """
    rates = f"{'flows/s':>12}{'2nd half':>11}{'/CPU-s':>11}{'2nd half':>11}{'+ Redis':>11}"
    return f"{shape:48}{rates}{'Kafka':>7}{'RSS MiB':>9}{'others':>8}  exact"


def measured_row(row: Measured) -> str:
    """A peer on one log."""
    if row.whole is None:
        return f"{row.peer:48}  {does_not_run(row.trouble)}"
    whole, second = row.whole, row.second
    rates = f"{whole.flows_a_second:>12,.0f}{_or_none(second, 'flows_a_second'):>11}"
    cpu = f"{whole.flows_a_cpu_second:>11,.0f}{_or_none(second, 'flows_a_cpu_second'):>11}"
    cpu += f"{whole.flows_a_cpu_second_with_redis:>11,.0f}{1e6 * whole.kafka_cpu / whole.flows:>7.1f}"
    return f"{row.peer:48}{rates}{cpu}{row.rss_mib:>9,.0f}{whole.others:>8.2f}  {_exactness(row)}"


def struck_head(flows: int) -> str:
    """Above the rows of those that are killed."""
    return f"{f'killed with -9 and started again, {flows:,} flows':48}{'killed after':>24}  in the end"


def struck_row(row: Struck) -> str:
    """A peer that was killed."""
    said = row.difference.text if row.difference is not None else does_not_run(row.trouble)
    places = ", ".join(f"{applied / 1000:,.0f} k" for applied in row.applied)
    return f"{row.peer:48}{places:>24}  {said}"


def does_not_run(trouble: str) -> str:
    """Why a peer has no figures, in one line: the first words and the last."""
    lines = [line for raw in trouble.splitlines() if (line := _ESCAPES.sub("", raw).strip())]
    if not lines:
        return "does not run here: no reason was given"
    ends = lines if len(lines) == 1 else [lines[0], lines[-1]]
    return f"does not run here: {' ... '.join(line[:_TROUBLE_CHARACTERS] for line in ends)}"


def bars(measured: Sequence[Measured], struck: Sequence[Struck]) -> list[Bar]:
    """The bars for ours, of each log that was read; of memory the worst.

    Ours has its rate over the whole log. A family has its best: of its variants, of the whole log and its second half.
    CPU is the process's and Redis's. A family that was not measured has no bar; a run of ours that failed has none that
    holds.
    """
    ours: dict[str, Measured] = {}
    for row in measured:
        if row.family == OURS:  # of several rounds the slowest
            ours[row.shape] = min(ours.get(row.shape, row), row, key=_own_rate)
    if not ours:
        return []
    found: list[Bar] = []
    for family, least_rate, least_cpu in RATIOS:
        for name, least, figure in (
            ("flows/s", least_rate, _rate),
            ("flows per CPU second, Redis's included", least_cpu, _cpu_rate),
        ):
            if least is not None:
                ratios = _ratios(ours.values(), measured, family, figure)
                found += (Bar(f"{name} / {family}: {shape}", ratio, least, at_least=True) for shape, ratio in ratios)
    rss = [
        _over(own.rss_mib, min(others))
        for own in ours.values()
        if (others := [row.rss_mib for row in _of(measured, own.shape, STREAMS_LEAST, STREAMS_ONCE)])
    ]
    if rss:
        found.append(Bar("peak RSS / the least of Kafka Streams", max(rss), BAR_RSS, at_least=False))
    wrong = sum(_wrong(row.difference) for row in measured if row.family == OURS)
    found.append(Bar("our wrong totals", wrong, 0, at_least=False))
    killed = [_wrong(one.difference) for one in struck if one.family == OURS]
    if killed:
        found.append(Bar("our wrong totals after kills with -9", sum(killed), 0, at_least=False))
    return found


def document(measured: Iterable[Measured], struck: Iterable[Struck], found: Iterable[Bar]) -> dict[str, Any]:
    """For JSON."""
    return {
        "measured": [asdict(row) | {"rates": _rates(row)} for row in measured],
        "killed": [asdict(row) for row in struck],
        "bars": [asdict(bar) | {"holds": bar.holds} for bar in found],
    }


def _ratios(
    ours: Iterable[Measured], measured: Sequence[Measured], family: str, figure: Callable[[Speed], float]
) -> list[tuple[str, float]]:
    """For each log that both have read, its name and the ratio."""
    ratios = []
    for own in ours:
        speeds = [speed for row in _of(measured, own.shape, family) for speed in (row.whole, row.second) if speed]
        if speeds:
            ratio = _over(0.0 if own.whole is None else figure(own.whole), max(map(figure, speeds)))
            ratios.append((own.shape, ratio))
    return ratios


def _of(measured: Iterable[Measured], shape: str, *families: str) -> list[Measured]:
    """Those with figures."""
    return [row for row in measured if row.shape == shape and row.family in families and row.whole is not None]


def _wrong(difference: Difference | None) -> float:
    """Wrong totals; no number where they were not compared, which holds no bar."""
    return math.nan if difference is None else difference.wrong_keys


def _own_rate(row: Measured) -> float:
    return 0.0 if row.whole is None else row.whole.flows_a_second


def _over(value: float, other: float) -> float:
    return value / other if value > 0 and other > 0 else math.nan


def _rate(speed: Speed) -> float:
    return speed.flows_a_second


def _cpu_rate(speed: Speed) -> float:
    return speed.flows_a_cpu_second_with_redis


def _or_none(speed: Speed | None, figure: str) -> str:
    return "" if speed is None else f"{getattr(speed, figure):,.0f}"


def _exactness(row: Measured) -> str:
    if row.difference is None:
        return "not at the end in time"
    said = "yes" if row.difference.exact else f"NO, {row.difference.wrong_keys:,} keys"
    return f"{said}; {row.trouble}" if row.trouble else said


def _rates(row: Measured) -> dict[str, dict[str, float]]:
    return {
        name: {"flows_a_second": _rate(speed), "flows_a_cpu_second_with_redis": _cpu_rate(speed)}
        for name, speed in (("whole", row.whole), ("second", row.second))
        if speed is not None
    }
