"""Flows to send, and what is expected of answers."""

import itertools
import json
import time
from typing import Any, Final, Protocol

import httpx

JSON: Final = {"Content-Type": "application/json"}
NDJSON: Final = {"Content-Type": "application/x-ndjson"}
GZIP: Final = {"Content-Encoding": "gzip"}
MAX: Final = 2**53 - 1
"""The largest hour and the largest count of bytes of one flow."""
FIELDS: Final = ("src_app", "dest_app", "vpc_id", "hour", "bytes_tx", "bytes_rx")
_hours = itertools.count(time.time_ns() // 1000)


class Answer(Protocol):
    """A reply, of httpx or over a bare socket."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> httpx.Headers: ...
    def json(self) -> Any: ...


def new_hour() -> int:
    """An hour that nobody else uses."""
    return next(_hours)


def flow(
    hour: int, src: str = "foo", dest: str = "bar", vpc: str = "vpc-0", tx: int = 1, rx: int = 2
) -> dict[str, Any]:
    return {"src_app": src, "dest_app": dest, "vpc_id": vpc, "hour": hour, "bytes_tx": tx, "bytes_rx": rx}


def array(*flows: dict[str, Any], escaped: bool = True) -> bytes:
    """A JSON array. escaped: whether text beyond ASCII is written in escapes."""
    return json.dumps(flows, ensure_ascii=escaped).encode()


def lines(*flows: dict[str, Any], escaped: bool = True) -> bytes:
    """NDJSON: an object and a line end for each flow."""
    return b"".join(json.dumps(one, ensure_ascii=escaped).encode() + b"\n" for one in flows)


def with_literal(one: dict[str, Any], field: str, literal: str | bytes) -> bytes:
    """One flow's JSON in which the field's value is written as given."""
    pairs = []
    for name, value in one.items():
        written = json.dumps(value).encode()
        if name == field:
            written = literal if isinstance(literal, bytes) else literal.encode()
        pairs.append(b'"%b": %b' % (name.encode(), written))
    return b"{" + b", ".join(pairs) + b"}"


def post(client: httpx.Client, *flows: dict[str, Any]) -> str:
    """POST flows that must be taken; the position."""
    return accepted(client.post("/flows", json=list(flows)), len(flows))


def accepted(reply: Answer, count: int) -> str:
    """The position of a POST that must have been taken."""
    assert reply.status_code == 200, reply.json()
    assert reply.headers["content-type"] == "application/json"
    answer = reply.json()
    assert set(answer) == {"accepted", "position"}
    assert answer["accepted"] == count
    position: str = answer["position"]
    assert position
    return position


def rows(client: httpx.Client, hour: int) -> Any:
    """The rows of an hour, fresh."""
    reply = client.get("/flows", params={"hour": hour})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["flowagg-fresh"] == "true"
    assert reply.headers["flowagg-lag-records"] == "0"
    return reply.json()


def assert_problem(reply: Answer, *statuses: int) -> dict[str, Any]:
    """The answer is a problem document with one of the statuses; the document."""
    assert reply.status_code in statuses
    assert reply.headers.get_list("content-type") == ["application/problem+json"]
    problem: dict[str, Any] = reply.json()
    assert problem["status"] == reply.status_code
    for member in ("type", "title", "detail"):
        assert isinstance(problem[member], str)
        assert problem[member]
    if reply.status_code == 503:
        assert int(reply.headers["retry-after"]) >= 1
    if reply.status_code == 405:
        assert reply.headers["allow"]
    return problem
