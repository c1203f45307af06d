"""The comparison as a picture. Needs matplotlib, and is imported only where a picture is asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.peers.consumers.peers import OURS
from benchmarks.peers.consumers.rounds import Measured

_OURS_COLOUR: Final = "#0072B2"
_PEER_COLOUR: Final = "#E69F00"


def plot(measured: Sequence[Measured], file: Path) -> None:
    """A row for each log: flows/s, flows per CPU second with Redis's, peak RSS; ours in a colour of its own."""
    mpl.use("Agg")
    shapes = list(dict.fromkeys(row.shape for row in measured))
    heights = [max(1, sum(row.shape == shape for row in measured)) for shape in shapes]
    figure, axes = plt.subplots(
        len(shapes),
        3,
        figsize=(13, 0.9 * len(shapes) + 0.3 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        sharex="col",
        layout="constrained",
    )
    for number, shape in enumerate(shapes):
        rows = [row for row in reversed(measured) if row.shape == shape and row.whole is not None]
        speeds = [(row, row.whole) for row in rows if row.whole is not None]
        columns = (
            ("1,000 flows/s", [speed.flows_a_second / 1e3 for _, speed in speeds]),
            ("1,000 flows per CPU second, with Redis's", [s.flows_a_cpu_second_with_redis / 1e3 for _, s in speeds]),
            ("peak RSS, MiB", [row.rss_mib for row in rows]),
        )
        for axis, (name, values) in zip(axes[number], columns, strict=True):
            colours = [_OURS_COLOUR if row.family == OURS else _PEER_COLOUR for row in rows]
            shown = axis.barh([row.peer for row in rows], values, color=colours)
            axis.bar_label(shown, labels=[f"{value:,.0f}" for value in values], padding=2, fontsize="small")
            axis.margins(x=0.15)
            axis.grid(visible=True, axis="x", color="0.9")
            axis.set_axisbelow(True)
            if number == len(shapes) - 1:
                axis.set_xlabel(name)
        axes[number][0].set_title(shape, loc="left", fontsize="medium")
        for axis in axes[number][1:]:
            axis.set_yticklabels([])
    figure.savefig(file, dpi=110)
    plt.close(figure)
