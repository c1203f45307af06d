"""Time lines as a picture. Needs matplotlib, and is imported only where a picture is asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import MultipleLocator

from benchmarks.autoscaling.report import LATE_SECONDS
from benchmarks.autoscaling.shapes import HOUR, RATE
from benchmarks.autoscaling.timeline import Timeline

_STYLES: Final = (("#0072B2", "-", 2.0), ("#D55E00", "--", 1.6), ("#009E73", ":", 2.0), ("#CC79A7", "-.", 1.6))
"""Okabe and Ito's colours, with line styles of their own for those who see none."""
_LEAST_LAG_SECONDS: Final = 0.5


def plot(columns: Sequence[Sequence[Timeline]], file: Path) -> None:
    """A column for each shape (its time lines, one a policy): arrivals, replicas, true lag."""
    mpl.use("Agg")
    figure, axes = plt.subplots(
        3, len(columns), figsize=(4.6 * len(columns), 7.6), sharex="col", squeeze=False, layout="constrained"
    )
    for number, lines in enumerate(columns):
        load, replicas, lag = (axes[row][number] for row in range(3))
        hours = [second / HOUR for second in range(len(lines[0].arrived))]
        _load(load, hours, lines[0])
        for line, (colour, style, width) in zip(lines, _STYLES, strict=False):
            look = {"color": colour, "linestyle": style, "linewidth": width, "label": line.policy}
            replicas.step(hours, line.replicas, where="post", **look)
            lag.plot(hours, [max(seconds, _LEAST_LAG_SECONDS) for seconds in line.lag_seconds], **look)
        replicas.set_ylim(bottom=0)
        lag.set_yscale("log")
        lag.axhline(LATE_SECONDS, color="black", linewidth=0.8)
        lag.set_xlabel("hours")
        lag.xaxis.set_major_locator(MultipleLocator(6 if hours[-1] > 12 else 0.5))
        for axis in (load, replicas, lag):
            axis.grid(visible=True, color="0.9")
            axis.set_axisbelow(True)
            axis.margins(x=0.01)
    for row, name in enumerate(("load, 1,000 records/s", "replicas asked for", "true lag, seconds (line: 30)")):
        axes[row][0].set_ylabel(name)
    handles, labels = axes[1][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _load(axis: Any, hours: list[float], line: Timeline) -> None:
    """What arrives, and what as many replicas as partitions can apply."""
    axis.set_title(line.shape.name)
    axis.plot(hours, [records / 1_000 for records in line.arrived], color="0.35", linewidth=0.8, label="arrives")
    most = [partitions * RATE / 1_000 for partitions in line.partitions]
    axis.plot(hours, most, color="black", linestyle="--", linewidth=1.0, label="P replicas apply")
    axis.set_ylim(0, max(most) * 1.3)
    axis.legend(loc="upper right", ncols=2, fontsize="small", frameon=False)
