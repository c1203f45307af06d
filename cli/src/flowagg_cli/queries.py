"""`flowagg get`, `top`, `watch`, `hours` and `lag`: questions to the reader, answered as tables or as they come."""

import argparse
import csv
import io
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TextIO

from flowagg.openapi_parts import KEY, MEASURES

from flowagg_cli.api import Api, Reply, add_address, api_of
from flowagg_cli.errors import CommandError, WrongUsage

_FILTERS: Final = ("src_app", "dest_app", "vpc_id")
_PAGE_ROWS: Final = 10_000
_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_OTHERS: Final = "(all others)"
_LONGEST_CELL: Final = 48
_CLEAR: Final = "\033[H\033[J"
STALE: Final = 10
"""The exit code of `flowagg lag` where the view is behind, or nothing is known."""

Table = list[list[str]]
"""Rows of cells; the first has the names of the columns."""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the questions to the command line."""
    got = _add(
        subparsers, "get", _get, "show totals", "Shows totals, one row for each flow key, or for each group.",
        "examples:\n  flowagg get --hour 3\n  flowagg get --hour 0-23 --src-app 'pay*' --format csv > payments.csv\n"
        "  flowagg get --hour 0- --group-by src_app",
    )  # fmt: skip
    _add_selection(got)
    got.add_argument(
        "--format", choices=("table", "json", "ndjson", "csv"), default="table",
        help="table (default), or as the API writes it; these come page by page, however many rows there are",
    )  # fmt: skip
    got.add_argument("--exact", action="store_true", help="bytes in a table as they are, not as kB and MB")

    top = _add(
        subparsers, "top", _top, "show who moves the most bytes",
        "Shows who moves the most bytes, and all others in one row.",
        "examples:\n  flowagg top --hour 3\n  flowagg top --hour 0-23 --by src_app -n 5 --measure bytes_tx",
    )  # fmt: skip
    _add_top(top)

    watched = _add(
        subparsers, "watch", _watch, "show who moves the most bytes, again and again",
        "As top, again and again; only what has changed is read. Ctrl-C ends it.",
        "example:\n  flowagg watch --hour 3-",
    )  # fmt: skip
    _add_top(watched)
    watched.add_argument("--every", type=_seconds, default=2.0, metavar="SECONDS", help="default: 2")
    watched.add_argument("--count", type=_natural, metavar="N", help="end after so many looks")

    hours = _add(
        subparsers, "hours", _hours, "list the hours that there are", "Lists the hours that the view keeps.", ""
    )
    hours.add_argument("--view", metavar="NAME", help="the view; default: the one that the reader is for")
    hours.add_argument("--format", choices=("table", "json", "ndjson", "csv"), default="table", help="default: table")

    lag = _add(
        subparsers, "lag", _lag, "tell how far the view is behind",
        "Tells how many acknowledged records are not in the totals yet.",
        f"exit codes: 0 nothing is behind; {STALE} something is, or it is not known; else as of all commands.",
    )  # fmt: skip
    lag.add_argument("--view", metavar="NAME", help="the view; default: the one that the reader is for")
    lag.add_argument("--wait", type=_seconds, metavar="SECONDS", help="wait so long for it to catch up")


def _add(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    description: str,
    epilog: str,
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name, help=text, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_address(parser)
    parser.set_defaults(run=run)
    return parser


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hour", default="0-", help="an hour, a range (3-9, 3-), or a list of these; default: all")
    for name in _FILTERS:
        parser.add_argument(
            f"--{name.replace('_', '-')}", action="append", default=[], metavar="PATTERN", dest=name,
            help=f"only this {name}; * is any text, ? one character; repeatable",
        )  # fmt: skip
    parser.add_argument("--group-by", metavar="FIELDS", help=f"add up by these, comma-separated: {', '.join(KEY)}")
    parser.add_argument("--view", metavar="NAME", help="the view; default: the one that the reader is for")
    parser.add_argument(
        "--consistency", choices=("fresh", "strict", "eventual"), default="fresh",
        help="fresh (default): all that is acknowledged, or a warning; strict: or an error; eventual: what is there",
    )  # fmt: skip


def _add_top(parser: argparse.ArgumentParser) -> None:
    _add_selection(parser)
    parser.set_defaults(group_by="src_app,dest_app")
    parser.add_argument("--by", dest="group_by", metavar="FIELDS", help="as --group-by (default: src_app,dest_app)")
    parser.add_argument("-n", type=_natural, default=10, help="how many (default: 10)")
    parser.add_argument("--measure", choices=MEASURES, default="bytes", help="of what (default: bytes, both ways)")
    parser.add_argument("--exact", action="store_true", help="bytes as they are, not as kB and MB")


def _selection(given: argparse.Namespace) -> list[tuple[str, str]]:
    found = [("hour", given.hour), ("consistency", given.consistency)]
    found += [(name, pattern) for name in _FILTERS for pattern in getattr(given, name)]
    found += [("group_by", given.group_by)] if given.group_by else []
    return found + ([("view", given.view)] if given.view else [])


# The commands ------------------------------------------------------------------------------------


def _get(given: argparse.Namespace) -> int:
    if given.exact and given.format != "table":
        raise WrongUsage("--exact is for tables: the other formats are exact")
    table = given.format == "table"
    # JSON comes as lines here, and is put into one array, whatever pages it came in.
    form = {"table": "csv", "json": "ndjson"}.get(given.format, given.format)
    pages = _pages(api_of(given), [*_selection(given), ("format", form)])
    if table:
        rows: Table = []
        for reply in pages:
            found = _table(reply)
            rows += found[1:] if rows else found
        _show(rows, sys.stdout, exact=given.exact)
        return 0
    out = sys.stdout.buffer
    first = True
    if given.format == "json":
        out.write(b"[")
        for reply in pages:
            for line in reply.body.splitlines():
                out.write((b"" if first else b",\n") + line)
                first = False
        out.write(b"]\n")
        return 0
    for reply in pages:
        body = reply.body if first or form != "csv" else reply.body.partition(b"\r\n")[2]
        out.write(body)
        first = False
    return 0


def _top(given: argparse.Namespace) -> int:
    reply = api_of(given).get("/flows", _top_query(given))
    _warn(reply)
    _show(_table(reply), sys.stdout, exact=given.exact)
    return 0


def _watch(given: argparse.Namespace) -> int:
    api, query = api_of(given), _top_query(given)
    tag: str | None = None
    shown: Table = []
    looks = 0
    while given.count is None or looks < given.count:
        looks += 1
        reply = api.get("/flows", query, tag)
        if reply.status == 200:
            shown, tag = _table(reply), reply.headers.get("etag")
        fresh = "fresh" if reply.headers.get("flowagg-fresh") == "true" else "some records are not counted yet"
        if sys.stdout.isatty():
            sys.stdout.write(_CLEAR)
        print(f"{time.strftime('%H:%M:%S')}  hours {given.hour}  {fresh}\n")
        _show(shown, sys.stdout, exact=given.exact)
        sys.stdout.flush()
        if given.count is None or looks < given.count:
            time.sleep(given.every)
    return 0


def _hours(given: argparse.Namespace) -> int:
    form = "csv" if given.format == "table" else given.format
    view = [("view", given.view)] if given.view else []
    reply = api_of(given).get("/hours", [("format", form), *view])
    _warn(reply)
    if given.format == "table":
        _show(_table(reply), sys.stdout, exact=True)
    else:
        sys.stdout.buffer.write(reply.body + (b"\n" if given.format == "json" else b""))
    return 0


def _lag(given: argparse.Namespace) -> int:
    api = api_of(given)
    view = [("view", given.view)] if given.view else []
    deadline = time.monotonic() + (given.wait or 0.0)
    while True:
        reply = api.get("/hours", [("format", "csv"), *view])
        lag = reply.headers.get("flowagg-lag-records", "unknown")
        if lag == "0":
            print("0 records behind: the totals hold all that is acknowledged.")
            return 0
        if time.monotonic() >= deadline:
            break
        time.sleep(0.2)
    if lag == "unknown":
        print("It is not known how far the totals are behind: Kafka does not answer, or the topic was made anew.")
    else:
        print(f"{int(lag):,} records behind.")
    return STALE


# Answers -----------------------------------------------------------------------------------------


def _pages(api: Api, query: Sequence[tuple[str, str]]) -> Iterator[Reply]:
    """All pages of an answer. Raises ApiAway, ApiError."""
    cursor: str | None = None
    warned = False
    while True:
        more = [("limit", str(_PAGE_ROWS))] + ([("cursor", cursor)] if cursor is not None else [])
        reply = api.get("/flows", [*query, *more])
        if not warned:
            warned = _warn(reply)
        yield reply
        cursor = _next_cursor(reply)
        if cursor is None:
            return


def _next_cursor(reply: Reply) -> str | None:
    link = reply.headers.get("link")
    if link is None:
        return None
    _, found, cursor = link.partition("cursor=")
    if not found:
        raise CommandError(f"the next page cannot be found in {link!r}")
    return cursor.partition(">")[0].partition("&")[0]


def _warn(reply: Reply) -> bool:
    """Tell what the answer lacks, and whether there was anything to tell."""
    said = []
    if reply.headers.get("flowagg-fresh") != "true":
        lag = reply.headers.get("flowagg-lag-records", "unknown")
        said.append("the totals may lack what was acknowledged last" + (f": {lag} records" if lag.isdigit() else ""))
    if reply.headers.get("flowagg-incomplete") == "true":
        said.append("the view is incomplete: the log had lost records before they were counted")
    if reply.headers.get("flowagg-expired") == "true":
        said.append("some of these hours have expired")
    for text in said:
        print(f"flowagg: {text}", file=sys.stderr)
    return bool(said)


def _top_query(given: argparse.Namespace) -> list[tuple[str, str]]:
    return [*_selection(given), ("order_by", given.measure), ("top", str(given.n)), ("format", "csv")]


def _table(reply: Reply) -> Table:
    return list(csv.reader(io.StringIO(reply.body.decode(), newline="")))


def _show(table: Table, out: TextIO, *, exact: bool) -> None:
    """A table in columns: names to the left, numbers to the right. The row of all others has no names: it says so."""
    names, *rows = table or [[]]
    numbers = [name.startswith("bytes") or name in ("hour", "flow_keys") for name in names]
    measures = [name.startswith("bytes") for name in names]
    shown = []
    for row in rows:
        cells = [
            short(int(cell)) if measure and not exact else f"{int(cell):,}" if measure else _cut(cell)
            for cell, measure in zip(row, measures, strict=True)
        ]
        if (
            rows
            and not any(cell for cell, measure in zip(row, measures, strict=True) if not measure)
            and not all(measures)
        ):
            cells[0] = _OTHERS
        shown.append(cells)
    widths = [max(map(len, column)) for column in zip(names, *shown, strict=True)]
    limit = shutil.get_terminal_size((10_000, 24)).columns if out.isatty() else 10_000
    for cells in (names, *shown):
        line = "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(cells, widths, numbers, strict=True)
        )
        out.write(line.rstrip()[:limit] + "\n")
    if not rows:
        out.write("(nothing)\n")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"


def short(count: int) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    return f"{value:.1f} {_UNITS[unit]}" if unit and value < 99.95 else f"{value:.0f} {_UNITS[unit]}"


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 10000, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"must be seconds, from 0 to 86400, not {text!r}")
    return value
