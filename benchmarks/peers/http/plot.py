"""The comparison as a picture. Needs matplotlib, and is imported only where a picture is asked for."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.peers.http.load import KINDS
from benchmarks.peers.http.peers import DURABLE, MEMORY, OURS
from benchmarks.peers.http.readers import EVENTUAL, FRESH, HOURS, KEPT, RENDERED, Readers
from benchmarks.peers.http.report import served_of
from benchmarks.peers.http.writers import Writers, fastest

_COLOURS: Final = {
    OURS: "#0072B2",
    EVENTUAL: "#0072B2",
    FRESH: "#56B4E9",
    DURABLE: "#D55E00",
    MEMORY: "#009E73",
    KEPT: "#009E73",
    RENDERED: "#CC79A7",
}
"""Okabe and Ito's."""
_WIDTH: Final = 0.8


def plot(writers: Writers | None, readers: Readers | None, file: Path) -> None:
    """Writers above, readers below; of several JSON libraries the fastest alone."""
    mpl.use("Agg")
    rows = (writers is not None) + (readers is not None)
    figure, axes = plt.subplots(rows, 3, figsize=(13, 3.9 * rows), squeeze=False, layout="constrained")
    if writers is not None:
        _writers(axes[0], writers)
    if readers is not None:
        _readers(axes[-1], readers)
    for axis in axes.flat:
        axis.grid(visible=True, axis="y", color="0.9")
        axis.set_axisbelow(True)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, fontsize="small", frameon=False)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _writers(axes: Sequence[Any], writers: Writers) -> None:
    sizes = [kind.flows for kind in KINDS]
    names = [f"{size:,}" for size in sizes]
    speeds = {
        role: [
            statistics.median(
                row.flows_a_cpu_second
                for row in writers.throughput
                if (row.variant, row.flows) == (fastest(writers.throughput, role, size), size)
            )
            for size in sizes
        ]
        for role in (OURS, DURABLE, MEMORY)
    }
    _bars(axes[0], names, speeds, "flows a CPU second, by flows a POST")
    axes[0].set_yscale("log")
    times = {
        f"{role}, {share:.0%}": [
            statistics.median(
                row.p99_ms for row in writers.latency if (row.variant.role, row.flows, row.share) == (role, size, share)
            )
            for size in sizes
        ]
        for role in (OURS, DURABLE)
        for share in (0.5, 0.9)
    }
    _bars(axes[1], names, times, "p99 in ms at a share of its own capacity, by flows a POST")
    axes[1].set_yscale("log")
    held = {row.variant.role: [row.idle_kib, row.posted_kib] for row in writers.held}
    _bars(axes[2], ["idle", "having posted"], held, f"KiB a connection, of {writers.held[0].connections:,}")


def _readers(axes: Sequence[Any], readers: Readers) -> None:
    names = [f"{keys:,}" for keys in HOURS]
    for axis, kind in ((axes[0], "warm"), (axes[1], "304")):
        found: dict[str, list[float]] = {}
        for role in (EVENTUAL, FRESH, KEPT, RENDERED):
            values = []
            for keys in HOURS:
                medians = [
                    statistics.median(speeds.values())
                    for variant, speeds in served_of(readers.served, keys, kind).items()
                    if variant.role == role
                ]
                values += [max(medians)] if medians else []
            if values:
                found[role] = values
        _bars(axis, names, found, f"{kind}: GETs a CPU second, by flow keys")
        axis.set_yscale("log")
    cold = {
        role: [
            min(
                statistics.median(row.p50_ms for row in readers.cold if (row.variant, row.keys) == (variant, keys))
                for variant in {row.variant for row in readers.cold if row.variant.role == role}
            )
            for keys in HOURS
        ]
        for role in (EVENTUAL, FRESH, KEPT)
    }
    _bars(axes[2], names, cold, "cold GET, p50 in ms, by flow keys")
    axes[2].set_yscale("log")


def _bars(axis: Any, names: Sequence[str], values: Mapping[str, Sequence[float]], title: str) -> None:
    width = _WIDTH / len(values)
    for number, (name, heights) in enumerate(values.items()):
        role = next((role for role in sorted(_COLOURS, key=len, reverse=True) if name.startswith(role)), OURS)
        places = [place - _WIDTH / 2 + (number + 0.5) * width for place in range(len(names))]
        faint = 0.55 if name.endswith("50%") else 1.0
        axis.bar(places, heights, width, label=name, color=_COLOURS[role], alpha=faint)
    axis.set_xticks(range(len(names)), names)
    axis.set_title(title, fontsize="medium")
