"""python -m flowagg_stack: run (make run) and provision (what make test needs)."""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from flowagg.errors import FlowaggError
from flowagg_stack.run import run


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the stack."""
    parser = argparse.ArgumentParser(prog="flowagg-stack", description="FlowAggregator as processes on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="start everything, post the sample, stay up")
    running.add_argument("--port", type=int, default=8080, help="port of the one address for POST and GET")
    running.add_argument("--once", action="store_true", help="end after the sample has been checked")
    given = parser.parse_args(arguments)
    console = Console()
    try:
        status = run(given.port, console, stay=not given.once)
    except FlowaggError as error:
        console.print("\n[bold red]It does not run:[/bold red]")
        console.print(str(error), highlight=False, markup=False, soft_wrap=True)
        for note in getattr(error, "__notes__", []):
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        status = 2
    sys.exit(status)


if __name__ == "__main__":
    main()
