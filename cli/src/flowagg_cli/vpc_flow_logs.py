"""`flowagg import vpc-flow-logs`: AWS VPC flow logs, in their text format, as flows.

Each record tells of one direction of one connection at one network interface, so it becomes bytes_tx of (application of
srcaddr, application of dstaddr); bytes_rx is 0: what comes back is a record of its own. A connection between two
interfaces that both have flow logs is told twice; --direction egress keeps the sender's record alone, where the log has
the field flow-direction.
"""

import argparse
import csv
import hashlib
import ipaddress
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from flowagg.flow import MAX_INTEGER

from flowagg_cli.batches import Batch, lines_in_batches
from flowagg_cli.errors import WrongUsage
from flowagg_cli.post import add_posting, post_files

_DEFAULT_FIELDS: Final = (
    "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"
)
_NEEDED: Final = ("srcaddr", "dstaddr", "bytes", "start")
_HOUR_SECONDS: Final = 3600
_KEPT_ADDRESSES: Final = 100_000

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
AppOf = Callable[[str], str]


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `import` to the command line."""
    parser = subparsers.add_parser("import", help="send flows from other systems' logs")
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    logs = kinds.add_parser(
        "vpc-flow-logs",
        help="AWS VPC flow logs",
        description="Sends AWS VPC flow logs (text format, as they are or by gzip) as flows: one record is one flow.",
        epilog="The first line of each file names its fields; without one, the fields are those of AWS's default "
        "format. Hours count from 1970. Records without data are passed over. --apps names a CSV file without a first "
        "line, of network and application: 10.1.0.0/16,payments; the longest network that holds an address counts. "
        "Everything else is as with `flowagg post`.",
    )
    logs.add_argument("files", nargs="+", metavar="FILE", help="files; -: standard input")
    logs.add_argument("--apps", type=Path, metavar="FILE", help="applications by network; default: addresses stay")
    logs.add_argument(
        "--unmapped", metavar="NAME", help="the application of addresses that --apps lacks; default: the address"
    )
    logs.add_argument("--vpc-id", metavar="NAME", help="the VPC, where the log has no field vpc-id")
    logs.add_argument("--action", choices=("accept", "reject", "all"), default="accept", help="default: accept")
    logs.add_argument(
        "--direction", choices=("all", "egress", "ingress"), default="all", help="by flow-direction; default: all"
    )
    add_posting(logs)
    logs.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    app_of = _app_of({} if given.apps is None else read_apps(given.apps), given.unmapped)

    def cut(name: str, file: BinaryIO, size: int) -> Iterator[Batch]:
        first = file.readline()
        fields = first.decode("utf-8", "replace").split()
        if not set(_NEEDED) <= set(fields):
            if fields and not fields[0].isdigit():
                raise WrongUsage(f"{name}: the first line must name the fields {', '.join(_NEEDED)} among others")
            convert = converter(_DEFAULT_FIELDS.split(), app_of, given)
            return lines_in_batches(name, _with(first, file), size, convert)
        return lines_in_batches(name, file, size, converter(fields, app_of, given), first, 2)

    apps = "" if given.apps is None else hashlib.sha256(given.apps.read_bytes()).hexdigest()
    options = {"apps": apps, "unmapped": given.unmapped, "vpc": given.vpc_id}
    options |= {"action": given.action, "direction": given.direction}
    return post_files(given, given.files, cut, lambda _: f"vpc-flow-logs {msgspec.json.encode(options).decode()}")


def _with(first: bytes, file: BinaryIO) -> Iterator[bytes]:
    if first:
        yield first
    yield from file


def converter(fields: list[str], app_of: AppOf, given: argparse.Namespace) -> Callable[[bytes], bytes | None]:
    """What makes a flow of a record with these fields; None for records that are passed over. Raises WrongUsage."""
    at = {name: place for place, name in enumerate(fields)}
    if given.vpc_id is None and "vpc-id" not in at:
        raise WrongUsage("the log has no field vpc-id: say which VPC it is of by --vpc-id")
    if given.direction != "all" and "flow-direction" not in at:
        raise WrongUsage("the log has no field flow-direction, which --direction needs")
    count = len(fields)
    source, destination, size, start = (at[name] for name in _NEEDED)
    vpc, status = at.get("vpc-id"), at.get("log-status")
    action = at.get("action") if given.action != "all" else None
    direction = at.get("flow-direction") if given.direction != "all" else None
    wanted_action, wanted_direction, named_vpc = given.action.upper(), given.direction, given.vpc_id

    def convert(line: bytes) -> bytes | None:
        cells = line.decode().split()
        if len(cells) != count:
            raise ValueError(f"{len(cells)} fields, where the log has {count}")
        if status is not None and cells[status] != "OK":
            return None
        if action is not None and cells[action] != wanted_action:
            return None
        if direction is not None and cells[direction] != wanted_direction:
            return None
        if cells[size] == "-":
            return None
        return msgspec.json.encode(
            {
                "src_app": app_of(cells[source]),
                "dest_app": app_of(cells[destination]),
                "vpc_id": named_vpc if vpc is None or cells[vpc] == "-" else cells[vpc],
                "hour": _whole("start", cells[start]) // _HOUR_SECONDS,
                "bytes_tx": _whole("bytes", cells[size]),
                "bytes_rx": 0,
            }
        )

    return convert


def _whole(field: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_INTEGER):
        raise ValueError(f"{field}: {text!r} is no whole number")
    return int(text)


def read_apps(path: Path) -> dict[Network, str]:
    """Applications by network. Raises WrongUsage."""
    apps: dict[Network, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, cells in enumerate(csv.reader(file, strict=True), 1):
                if not cells or cells[0].lstrip().startswith("#"):
                    continue
                if len(cells) != 2 or not cells[1].strip():
                    raise WrongUsage(f"{path}, line {number}: write network,application: 10.1.0.0/16,payments")
                try:
                    apps[ipaddress.ip_network(cells[0].strip())] = cells[1].strip()
                except ValueError as error:
                    raise WrongUsage(f"{path}, line {number}: {error}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WrongUsage(f"{path} cannot be read: {error}") from None
    return apps


def _app_of(apps: Mapping[Network, str], unmapped: str | None) -> AppOf:
    """The application of an address: that of the longest network that holds it."""
    by_length: dict[tuple[int, int], dict[int, str]] = {}
    for network, name in apps.items():
        by_length.setdefault((network.version, network.prefixlen), {})[int(network.network_address)] = name
    lengths = sorted(by_length, key=lambda key: -key[1])

    @lru_cache(maxsize=_KEPT_ADDRESSES)
    def app_of(text: str) -> str:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise ValueError(f"{text!r} is no address") from None
        number, bits = int(address), address.max_prefixlen
        for version, length in lengths:
            if version == address.version:
                name = by_length[version, length].get(number >> (bits - length) << (bits - length))
                if name is not None:
                    return name
        return unmapped or text

    return app_of
