"""`flowagg views`: list, export, import, clone and remove views."""

import argparse
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Final

import msgspec
from flowagg.settings import describe
from flowagg.view import VIEW_NAME

from flowagg_cli import backup, listing
from flowagg_cli.errors import Refused, WrongUsage
from flowagg_cli.places import spot
from flowagg_cli.redis_source import Pace, Source
from flowagg_cli.settings import ViewSettings, read_settings
from flowagg_cli.snapshot import Limits

_EXIT_CODES: Final = """\
exit codes: 0 done; 1 something did not answer, or did not end well; 2 the command line or the settings are wrong;
3 refused: it would lose exactness or harm what is there, and nothing was changed; 4 the file or the view is damaged;
5 refused because consumers of the view run: the same command will do once they have ended.
"""
_CREDENTIALS: Final = """\
Object stores: s3://BUCKET/PREFIX/, gs://BUCKET/PREFIX/, az://ACCOUNT/CONTAINER/PREFIX/. Credentials come from the
environment as the providers' own tools have them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION or a web
identity; GOOGLE_APPLICATION_CREDENTIALS; AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY or a workload identity.
"""

_LIMITS: Final = Limits()
_RATE: Final = 50_000
"""Measured on two cores that consumers, Kafka and Redis share (make bench-backups): applies were 5.5 % slower then."""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `views` to the command line."""
    parser = subparsers.add_parser(
        "views",
        help="list, export, import, clone and remove views",
        description="Views: the totals in Redis of one consumer group each. docs/guides/backups.md goes through all.",
        epilog=_EXIT_CODES
        + "\nsettings, from the environment as a consumer has them (NAME_FILE may name a file with the value):\n\n"
        + describe(ViewSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace, ViewSettings], int], text: str, epilog: str = ""
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=epilog + _EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=_prepared(run))
        return command

    listed = add("list", _list, "show the views in Redis: partitions, records applied, hours, lag")
    _add_json(listed)

    exported = add(
        "export", _export, "write a view to a file, each partition as of one position, while it lives", _CREDENTIALS
    )
    exported.add_argument("view", type=_view, metavar="NAME", help="the view")
    exported.add_argument(
        "--to", required=True, metavar="PATH|URL",
        help="file; or folder, ending in /, for a file that is named after the view and the time",
    )  # fmt: skip
    exported.add_argument(
        "--keep", type=_positive, metavar="N", help="then remove all but the N newest exports of the view in the folder"
    )
    _add_endpoint(exported)
    _add_reading(exported)
    _add_json(exported)

    imported = add(
        "import", _import, "make a view of a file; the view must be absent and its consumers stopped", _CREDENTIALS
    )
    imported.add_argument(
        "--from", required=True, metavar="PATH|URL", dest="source",
        help="file; or folder, ending in /, for the newest export there of the view that --of names",
    )  # fmt: skip
    imported.add_argument("--of", type=_view, metavar="VIEW", help="with a folder: whose newest export; default: --as")
    imported.add_argument(
        "--as", type=_view, metavar="NAME", dest="as_name", help="the view's name; default: as it was"
    )
    _add_endpoint(imported)
    _add_accept(imported)
    _add_json(imported)

    cloned = add("clone", _clone, "make a view of a live one, in the same Redis and at its positions")
    cloned.add_argument("view", type=_view, metavar="SRC", help="the view that is copied; it may be in use")
    cloned.add_argument("clone", type=_view, metavar="DST", help="the new view; absent, and its consumers not started")
    _add_accept(cloned)
    _add_reading(cloned)
    _add_json(cloned)

    removed = add("remove", _remove, "remove a view from Redis, and its consumer group from Kafka")
    removed.add_argument("view", type=_view, metavar="NAME", help="the view; its consumers must have ended")
    removed.add_argument("--yes", action="store_true", help="without it nothing is removed")
    _add_json(removed)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document instead of text")


def _add_endpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--endpoint", metavar="URL", help="of an S3-compatible store; default: AWS_ENDPOINT_URL, or AWS"
    )


def _add_accept(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--accept-incomplete", action="store_true",
        help="go on where the log no longer holds all that follows the positions",
    )  # fmt: skip


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", choices=("auto", "master", "replica"), default="auto",
        help="Redis node to read: auto takes a replica where the sentinels know one that is well",
    )  # fmt: skip
    parser.add_argument(
        "--rate",
        type=_natural,
        default=_RATE,
        metavar="ENTRIES",
        help=f"most flow keys and marks read a second; 0: no bound (default {_RATE})",
    )
    parser.add_argument(
        "--group", type=_positive, default=_LIMITS.group_entries, metavar="ENTRIES",
        help=f"flow keys that Redis is asked for at once, unless one hour has more (default {_LIMITS.group_entries})",
    )  # fmt: skip
    parser.add_argument(
        "--nice", type=_nice, default=19, metavar="N", help="priority that is given up to others, 0 to 19 (default 19)"
    )


def _prepared(run: Callable[[argparse.Namespace, ViewSettings], int]) -> Callable[[argparse.Namespace], int]:
    def prepared(given: argparse.Namespace) -> int:
        settings = read_settings(ViewSettings)
        logging.basicConfig(
            stream=sys.stderr, level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
        )
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that what is half written goes
        return run(given, settings)

    return prepared


def _list(given: argparse.Namespace, settings: ViewSettings) -> int:
    ends = listing.find_ends(settings)
    found = listing.rows(listing.find_views(settings), ends)
    _print(given, {"views": found, "kafka": ends.trouble or "ok"}, listing.table(found))
    if ends.trouble:
        print(f"flowagg: no lag is shown: {ends.trouble}", file=sys.stderr)
    return 0


def _export(given: argparse.Namespace, settings: ViewSettings) -> int:
    to = spot(given.to, given.endpoint)
    if given.keep is not None and to.name:
        raise WrongUsage("--keep needs a folder in --to (ending in /), where names carry the view and the time")
    with closing(_source(given, settings)) as source:
        done = backup.export(settings, given.view, source, to, given.keep)
    document = {
        "view": given.view,
        "to": done.where,
        "node": done.node,
        "positions": {str(number): position for number, position in done.positions.items()},
        "entries": done.trailer.entries,
        "sha256": done.trailer.sha256,
        "exported_at": done.header.exported_at,
        "restarts": done.restarts,
        "removed": done.removed,
    }
    lines = [
        f"exported the view {given.view} to {done.where}, from the Redis {done.node}",
        f"  partition -> position: {_pairs(done.positions)}",
        f"  {done.trailer.entries:,} flow keys and idempotency marks",
        *(f"  removed {name}" for name in done.removed),
    ]
    _print(given, document, "\n".join(lines))
    return 0


def _import(given: argparse.Namespace, settings: ViewSettings) -> int:
    source = spot(given.source, given.endpoint)
    if not source.name:
        of = given.of or given.as_name
        if of is None:
            raise WrongUsage("--from names a folder: say with --of whose newest export is meant, or name the file")
        source = backup.newest(source, of)
    restored = backup.restore(settings, source, given.as_name, given.accept_incomplete)
    _print(given, backup.summary(restored), _told(restored))
    return 0


def _clone(given: argparse.Namespace, settings: ViewSettings) -> int:
    if given.view == given.clone:
        raise WrongUsage("a view cannot be cloned to itself")
    with closing(_source(given, settings)) as source:
        restored = backup.clone(settings, source, given.view, given.clone, given.accept_incomplete)
    _print(given, backup.summary(restored), _told(restored))
    return 0


def _remove(given: argparse.Namespace, settings: ViewSettings) -> int:
    if not given.yes:
        raise Refused(f"this would remove the view {given.view!r} for good: say --yes")
    keys, group = backup.delete(settings, given.view)
    document = {"view": given.view, "keys": keys, "group": group}
    text = f"removed the view {given.view}: {keys:,} Redis keys" if keys else f"there was no view {given.view}"
    _print(given, document, text + (", and its consumer group" if group else ""))
    return 0


def _source(given: argparse.Namespace, settings: ViewSettings) -> Source:
    os.nice(given.nice)
    return Source(settings, given.view, given.source, Limits(group_entries=given.group), Pace(given.rate or None))


def _told(restored: backup.Restored) -> str:
    tail = restored.fit.tail
    lines = [
        f"the view {restored.view} is there, from {restored.source}",
        f"  partition -> position: {_pairs({number: meta.position for number, meta in restored.metas.items()})}",
        f"  {restored.entries:,} flow keys and idempotency marks",
        f"  its consumers will apply the {sum(tail.values()):,} records that follow: {_pairs(tail)}",
    ]
    if restored.cleaned:
        lines.insert(1, "  what an import had left that did not end was cleaned up")
    lines += [f"  lost: {loss}" for loss in restored.fit.losses]
    lines.append(f"Start its consumers now: FLOWAGG_VIEW={restored.view}, with the same window and retention.")
    return "\n".join(lines)


def _print(given: argparse.Namespace, document: Any, text: str) -> None:
    if given.json:
        text = msgspec.json.format(msgspec.json.encode(document)).decode()
    print(text)


def _pairs(numbers: Mapping[int, int]) -> str:
    return ", ".join(f"{partition}: {number:,}" for partition, number in sorted(numbers.items()))


def _view(text: str) -> str:
    if not re.fullmatch(VIEW_NAME, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a view: lower-case letters, digits and hyphens")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _natural(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _nice(text: str) -> int:
    if not text.isdecimal() or int(text) > 19:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 19")
    return int(text)
