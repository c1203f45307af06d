"""Write the dashboards into the chart; with --check say which are out of date."""

import argparse
import sys
from pathlib import Path
from typing import Final

from flowagg_dashboards.boards import BOARDS
from flowagg_dashboards.grafana import rendered

DIRECTORY: Final = Path(__file__).parents[4] / "charts" / "flow-aggregator" / "dashboards"


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m flowagg_dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where a file is out of date")
    check = parser.parse_args().check
    wanted = {f"{board.name}.json": rendered(board) for board in BOARDS}
    there = {path.name: path.read_text(encoding="utf-8") for path in DIRECTORY.glob("*.json")}
    stale = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if check:
        if stale:
            print(f"charts/flow-aggregator/dashboards: {', '.join(stale)} out of date: make docs")
        return 1 if stale else 0
    for name in stale:
        if name in wanted:
            (DIRECTORY / name).write_text(wanted[name], encoding="utf-8")
        else:
            (DIRECTORY / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
