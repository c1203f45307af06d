"""The same work: every service is asked the same before it is measured, and must answer as the contract says."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from flowagg.errors import FlowaggError

from benchmarks.peers.http.logged import Record
from benchmarks.peers.http.peers import Peer, Variant
from benchmarks.peers.http.wire import JSON, Client

_FLOW: Final[dict[str, Any]] = {
    "src_app": "foo",
    "dest_app": "bar",
    "vpc_id": "vpc-0",
    "hour": 7,
    "bytes_tx": 100,
    "bytes_rx": 300,
}
_MOST: Final = 2**53 - 1


class Unlike(FlowaggError):
    """A service answers otherwise than the contract says, so that its speed compares with nothing."""


def _with(**changes: Any) -> bytes:
    return json.dumps([_FLOW | changes], ensure_ascii=False).encode()


def _literal(field: str, literal: bytes) -> bytes:
    """A flow whose field is written so."""
    marked = json.dumps([_FLOW | {field: "HERE"}]).encode()
    return marked.replace(b'"HERE"', literal)


def _without(field: str) -> bytes:
    return json.dumps([{name: value for name, value in _FLOW.items() if name != field}]).encode()


ACCEPTED: Final = (
    (b"[]", 0),
    (b" \n[ ] ", 0),
    (_with(), 1),
    (json.dumps([_FLOW, _FLOW | {"hour": 8}], indent=1).encode(), 2),
    (_with(extra={"more": [1, 2.5, None]}), 1),
    (_with(src_app='a,b:"c"\\d', dest_app="é漢🚀", vpc_id="x" * 256), 1),
    (_literal("src_app", b'"\\u00e9\\ud83d\\ude80"'), 1),
    (_with(vpc_id="漢" * 256), 1),
    (_with(hour=0, bytes_tx=0, bytes_rx=0), 1),
    (_with(hour=_MOST, bytes_tx=_MOST, bytes_rx=_MOST), 1),
)
"""body -> flows that are accepted"""

REFUSED: Final = (
    b"",
    b"{",
    b"null",
    json.dumps(_FLOW).encode(),
    b"[null]",
    b"[1]",
    _with() + b"x",
    _with()[:-1],
    *(_without(field) for field in _FLOW),
    *(_literal(field, b"null") for field in _FLOW),
    *(_literal(field, b"true") for field in _FLOW),
    *(_literal(field, wrong) for field in ("hour", "bytes_tx") for wrong in (b"-1", b"1.0", b"1e3", b'"1"', b"NaN")),
    *(_literal(field, str(_MOST + 1).encode()) for field in ("hour", "bytes_tx", "bytes_rx")),
    _literal("src_app", b"5"),
    *(_with(dest_app=name) for name in ("", "x" * 257, "a\x7fb", "a\x85b")),
    *(_literal("dest_app", name) for name in (b'"a\\u0000b"', b'"a\\nb"', b'"\\ud800"', b'"a\xffb"')),
    json.dumps([_FLOW, _FLOW | {"hour": -1}]).encode(),
)
"""bodies that are refused with 400, all of each"""


def check_posts(peer: Peer) -> None:
    """Post what must be accepted and what must be refused. Raises Unlike."""
    name = peer.variant.name
    for body, count in ACCEPTED:
        answer = Client(peer.url).ask("POST", "/flows", body, JSON)
        if answer.status != 200:
            raise Unlike(f"{name} answers {answer.status} to {body[:200]!r}, not 200: {answer.body!r}")
        given = json.loads(answer.body)
        if given.get("accepted") != count or not isinstance(given.get("position"), str):
            raise Unlike(f"{name} answers {answer.body!r} to {body[:200]!r}, not {count} accepted and a position")
    for body in REFUSED:
        status = Client(peer.url).ask("POST", "/flows", body, JSON).status
        if status != 400:
            raise Unlike(f"{name} answers {status} to {body[:200]!r}, not 400")
    status = Client(peer.url).ask("POST", "/flows", _with(), {"Content-Type": "text/plain"}).status
    if status != 415:
        raise Unlike(f"{name} answers {status} to a body of text/plain, not 415")


def check_logs(logged: Mapping[Variant, Sequence[Record]]) -> None:
    """What check_posts has left in the log must be the same for all durable services. Raises Unlike."""
    (first, expected), *others = logged.items()
    count = sum(count for _, count in ACCEPTED)
    if len(expected) != count:
        raise Unlike(f"{first.name} has appended {len(expected)} records for {count} flows")
    for variant, records in others:
        if records != expected:
            differing = sorted(set(records) ^ set(expected), key=repr)[:2]
            raise Unlike(f"{variant.name} appends other records than {first.name}: {differing}")


def check_reads(peer: Peer, target: str, expected: list[dict[str, Any]]) -> str:
    """The tag of a GET whose rows must be these; with it the next answer must be 304. Raises Unlike."""
    name, client = peer.variant.name, Client(peer.url)
    answer = client.ask("GET", target)
    if answer.status != 200 or json.loads(answer.body) != expected:
        raise Unlike(f"{name} answers {answer.status} and {len(answer.body)} bytes to {target}, not the rows expected")
    tag = answer.headers["etag"]
    again = client.ask("GET", target, headers={"If-None-Match": tag})
    client.close()
    if again.status != 304:
        raise Unlike(f"{name} answers {again.status} to {target} with the tag {tag}, not 304")
    return tag
