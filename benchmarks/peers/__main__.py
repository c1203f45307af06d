"""Everything that is compared with others, in one run: consumers, the HTTP services; how ours scales, and its floors.

    make bench-peers

Each part is a program of its own with options of its own: python -m benchmarks.peers.consumers, .http, .scale,
.budget; all of them print tables, write benchmarks/results/ and pictures for docs/assets/. The last line says which
bars hold, and the exit status follows.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Final

from flowagg.errors import FlowaggError

from benchmarks.peers import budget, scale
from benchmarks.peers.bars import Bar, summary
from benchmarks.peers.consumers.__main__ import run as run_consumers
from benchmarks.peers.http.benchmark import run as run_http

PARTS: Final[dict[str, Callable[[], list[Bar]]]] = {
    "consumers": lambda: run_consumers([]),
    "http": run_http,
    "scale": lambda: scale.run([]),
    "budget": lambda: budget.run([]),
}


def main() -> None:
    """Run the parts, one after another: one that cannot run does not keep the others from it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(PARTS), action="append", help="only this part; repeatable")
    given = parser.parse_args()
    found: list[Bar] = []
    failed: list[str] = []
    for name in given.only or PARTS:
        print(f"\n== {name}", flush=True)
        try:
            found += PARTS[name]()
        except FlowaggError as error:
            print(f"{name}: {error}")
            failed.append(name)
    print("\n== all", *(bar.text for bar in found), sep="\n")
    print(f"could not run: {', '.join(failed)}" if failed else summary(found))
    sys.exit(0 if found and not failed and all(bar.holds for bar in found) else 1)


if __name__ == "__main__":
    main()
