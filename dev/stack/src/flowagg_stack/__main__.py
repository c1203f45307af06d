"""python -m flowagg_stack: run (make run) and provision (what make test needs)."""

import argparse
import sys
from collections.abc import Sequence

from flowagg.errors import FlowaggError
from rich.console import Console

from flowagg_stack.provision import provision
from flowagg_stack.reference import write_reference
from flowagg_stack.run import run


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the stack."""
    parser = argparse.ArgumentParser(prog="flowagg-stack", description="FlowAggregator as processes on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="start everything, post the sample, stay up")
    running.add_argument("--port", type=int, default=8080, help="port of the one address for POST and GET")
    running.add_argument("--once", action="store_true", help="end after the sample has been checked")
    running.add_argument("--flows", type=_count, metavar="N", help="post the sample's first N flow records only")
    commands.add_parser("provision", help="bring what the tests need beside Python")
    reference = commands.add_parser("reference", help="write the generated reference in docs/reference")
    reference.add_argument("--check", action="store_true", help="only say whether it is up to date")
    given = parser.parse_args(arguments)
    console = Console()
    try:
        if given.command == "run":
            status = run(given.port, console, stay=not given.once, most=given.flows)
        elif given.command == "provision":
            provision(lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True))
            status = 0
        else:
            status = write_reference(check=given.check)
    except FlowaggError as error:
        console.print("\n[bold red]It cannot go on:[/bold red]")
        console.print(str(error), highlight=False, markup=False, soft_wrap=True)
        for note in getattr(error, "__notes__", []):
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        status = 2
    sys.exit(status)


def _count(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


if __name__ == "__main__":
    main()
