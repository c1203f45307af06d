"""flowagg: the command."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from confluent_kafka import KafkaException
from flowagg.errors import FlowaggError
from flowagg.settings import InvalidSettings
from flowagg.view import DamagedView

from flowagg_cli import completion, dead_letters, post, queries, views, vpc_flow_logs
from flowagg_cli.errors import DAMAGED, FAILED, USAGE, CommandError

Command = Callable[[argparse.Namespace], int]
"""What `register` of a module sets as the default `run` of each of its subcommands: returns the exit code."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand, and exit with its code."""
    parser = argparse.ArgumentParser(
        prog="flowagg",
        description="Sends flows to FlowAggregator, asks it for totals, and looks after its views and dead letters.",
        epilog="post, get, top, watch, hours, lag and import need the system's address alone (--url, or FLOWAGG_URL); "
        "views and dead-letters need Kafka and Redis, by the same settings as the services.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('flowagg-cli')}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    post.register(subparsers)
    queries.register(subparsers)
    vpc_flow_logs.register(subparsers)
    views.register(subparsers)
    dead_letters.register(subparsers)
    completion.register(subparsers, parser)
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
    except BrokenPipeError:  # who reads has seen enough: `flowagg get | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
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
