"""The courses as a picture. Needs matplotlib, and is imported only where a picture is asked for."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt

from tests.soak.report import Seen
from tests.soak.sampler import Sample

_COLOURS: Final = {"writer": "#0072B2", "consumer": "#D55E00", "reader": "#009E73"}
"""Okabe and Ito's, a colour a service."""
_COURSES: Final[tuple[tuple[str, Callable[[Sample], float]], ...]] = (
    ("memory, MiB", lambda one: one.reading.memory_mib),
    ("open files", lambda one: one.reading.files),
    ("connections", lambda one: sum(one.reading.connections.values())),
)


def plot(seen: Seen, storms: Sequence[tuple[float, float]], file: Path) -> None:
    """A panel for each kind of figure; faults are grey, the warm-up ends at the dashed line."""
    mpl.use("Agg")
    figure, grid = plt.subplots(3, 2, figsize=(12, 9), sharex=True, layout="constrained")
    axes = list(grid.flat)
    for axis, (name, value) in zip(axes, _COURSES, strict=False):
        _of_services(axis, seen, value)
        axis.set_ylabel(f"{name}, a line a process")
    _line(axes[3], seen, [(one.at, one.value) for one in seen.view_mib], "view in Redis", "#CC79A7")
    axes[3].set_ylabel("view in Redis, MiB")
    for method, colour in (("POST", "#0072B2"), ("GET", "#009E73")):
        slices = seen.slices[method]
        _line(axes[4], seen, [(one.at, one.p50) for one in slices], f"{method} p50", colour)
        _line(axes[4], seen, [(one.at, one.p99) for one in slices], f"{method} p99", colour, "--")
    axes[4].set_yscale("log")
    axes[4].set_ylabel("answers in calm moments, ms")
    _line(axes[5], seen, [(one.at, one.value) for one in seen.lag], "lag", "#D55E00")
    axes[5].set_yscale("symlog")
    axes[5].set_ylabel("lag, records")
    for axis in axes:
        for began, over in storms:
            axis.axvspan((began - seen.since) / 60, (min(over, seen.until) - seen.since) / 60, color="0.9", zorder=0)
        axis.axvline(seen.warm / 60, color="black", linestyle="--", linewidth=0.8)
        axis.set_ylim(bottom=0 if axis is not axes[4] else None)
        axis.legend(loc="upper left", fontsize="small", frameon=False)
    for axis in axes[4:]:
        axis.set_xlabel("minutes")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _of_services(axis: Any, seen: Seen, value: Callable[[Sample], float]) -> None:
    named: set[str] = set()
    for life in seen.lives:
        service = life.name.partition("-")[0]
        if service not in _COLOURS:
            continue
        label = "" if service in named else service
        named.add(service)
        _line(axis, seen, [(one.at, value(one)) for one in life.samples], label, _COLOURS[service])


def _line(
    axis: Any, seen: Seen, points: Iterable[tuple[float, float]], label: str, colour: str, style: str = "-"
) -> None:
    some = list(points)
    minutes = [(at - seen.since) / 60 for at, _ in some]
    axis.plot(minutes, [value for _, value in some], color=colour, linestyle=style, linewidth=1.0, label=label or None)
