"""Autoscaling of the consumers beside KEDA and Flink's autoscaler, in virtual time.

    make bench-autoscaling

Each policy goes through each shape (shapes.py) in the modelled group (world.py); nothing runs and no time passes.
The exit status says whether the bars hold. --shape runs the shapes whose names contain it.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.autoscaling.flink import Flink
from benchmarks.autoscaling.keda import LAG_THRESHOLD, Keda
from benchmarks.autoscaling.policy import Policy
from benchmarks.autoscaling.report import Results, bars, score
from benchmarks.autoscaling.shapes import shapes
from benchmarks.autoscaling.timeline import Timeline, run

_OURS: Final = "benchmarks.autoscaling.ours"
_PLOTTED: Final = ("step 0.3 to 0.6", "bursts out of silence", "day", "dead partition")


def main() -> None:
    """Run, print, keep what was asked for, and end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --seed on; added up")
    parser.add_argument("--shape", default="")
    parser.add_argument("--lag-threshold", type=int, default=LAG_THRESHOLD, help="KEDA's lagThreshold")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    ours = _ours()
    policies: list[Callable[[], Policy]] = [partial(Keda, given.lag_threshold), Flink]
    if ours is not None:
        policies.insert(0, ours)
    scores = []
    plotted: dict[str, list[Timeline]] = {}
    for seed in range(given.seed, given.seed + given.seeds):
        for shape in shapes(seed):
            if given.shape not in shape.name:
                continue
            lines = [run(shape, policy(), seed) for policy in policies]
            scores += [score(line) for line in lines]
            if seed == given.seed and (shape.name in _PLOTTED or given.shape):
                plotted[shape.name] = lines
    if not scores:
        parser.error(f"no shape is named so: {given.shape}")
    results = Results(scores)
    print(results.table())
    if given.plot:
        from benchmarks.autoscaling.plot import plot  # noqa: PLC0415 (matplotlib takes a second, and may be missing)

        names = [name for name in _PLOTTED if name in plotted] or list(plotted)[: len(_PLOTTED)]
        plot([plotted[name] for name in names], given.plot)
    if given.markdown:
        given.markdown.write_text(results.markdown())
    found = bars(results, ours().name) if ours is not None else []
    if given.json:
        seeds = {"seed": given.seed, "seeds": given.seeds, "lag_threshold": given.lag_threshold}
        document = seeds | results.document() | {"bars": [asdict(bar) for bar in found]}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(document, indent=2) + "\n")
    if ours is None:
        print(f"\n{_OURS} is missing: the peers alone, no bar was measured")
        sys.exit(1)
    print("", *found, sep="\n")
    failed = [bar.name for bar in found if not bar.holds]
    print(f"bars that do not hold: {'; '.join(failed)}" if failed else f"all {len(found)} bars hold")
    sys.exit(1 if failed else 0)


def _ours() -> Callable[[], Policy] | None:
    """Our policy, where it is there."""
    try:
        found: Callable[[], Policy] = importlib.import_module(_OURS).Ours
    except ModuleNotFoundError as error:
        if error.name != _OURS:
            raise
        return None
    return found


if __name__ == "__main__":
    main()
