"""flowagg: the command."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from confluent_kafka import KafkaException
from flowagg.errors import FlowaggError
from flowagg.settings import InvalidSettings
from flowagg.view import DamagedView

from flowagg_cli import dead_letters, views
from flowagg_cli.errors import DAMAGED, FAILED, USAGE, CommandError

Command = Callable[[argparse.Namespace], int]
"""What `register` of a module sets as the default `run` of each of its subcommands: returns the exit code."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand, and exit with its code."""
    parser = argparse.ArgumentParser(prog="flowagg", description="Looks after FlowAggregator's views and dead letters.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('flowagg-cli')}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    views.register(subparsers)
    dead_letters.register(subparsers)
    given = parser.parse_args(arguments)
    command: Command = given.run
    try:
        code = command(given)
    except InvalidSettings as error:
        code = _told("the settings are wrong:\n  " + str(error).replace("\n", "\n  "), USAGE)
    except CommandError as error:
        code = _told(str(error), error.exit_code)
    except DamagedView as error:
        code = _told(str(error), DAMAGED)
    except (FlowaggError, KafkaException) as error:
        code = _told(str(error), FAILED)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _told(text: str, code: int) -> int:
    print(f"flowagg: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
