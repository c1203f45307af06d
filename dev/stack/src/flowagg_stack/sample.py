"""The sample flow log: posting it, and its true totals."""

import gzip
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import httpx
import msgspec
from flowagg.errors import FlowaggError
from flowagg.flow import Flow
from flowagg.position import Position, decode_token, encode_token
from flowagg_load.generator import Ledger

FLOWS_A_POST: Final = 500
_TRIES = 100
_PAUSE_SECONDS = 0.2

Totals = dict[tuple[str, str, str, int], tuple[int, int]]


class SampleFailed(FlowaggError):
    """The sample could not be posted or read back."""


def read_flows(path: Path) -> list[Flow]:
    """The flows of a gzipped NDJSON file, in its order."""
    with gzip.open(path) as lines:
        return msgspec.json.Decoder(Flow).decode_lines(lines.read())


def post(client: httpx.Client, flows: list[Flow], advance: Callable[[int], None]) -> tuple[str, Ledger]:
    """POST flows in batches; a token of the position that holds all of them, and their ledger.

    Raises SampleFailed at the first answer that is not 200.
    """
    ledger = Ledger()
    topic_id = ""
    ends: dict[int, int] = {}
    for batch in _batches(flows):
        reply = client.post("/flows", content=msgspec.json.encode(batch), headers={"Content-Type": "application/json"})
        if reply.status_code != 200:
            raise SampleFailed(f"POST /flows answered {reply.status_code}: {reply.text}")
        position = decode_token(reply.json()["position"])
        topic_id = position.topic_id
        for partition, offset in position.offsets.items():
            ends[partition] = max(offset, ends.get(partition, 0))
        for flow in batch:
            ledger.add(flow)
        advance(len(batch))
    return encode_token(Position(topic_id, ends)), ledger


def wait_applied(client: httpx.Client, token: str, left: Callable[[int], None]) -> None:
    """Wait until the view has applied the position. Raises SampleFailed."""
    for _ in range(_TRIES):
        reply = client.get("/flows", params={"hour": 0, "after": token})
        if reply.status_code not in (200, 503):
            raise SampleFailed(f"GET /flows answered {reply.status_code}: {reply.text}")
        if reply.headers.get("Flowagg-Fresh") == "true":
            left(0)
            return
        lag = reply.headers.get("Flowagg-Lag-Records", "")
        if lag.isdecimal():
            left(int(lag))
        time.sleep(_PAUSE_SECONDS)
    raise SampleFailed("the consumers have not applied what was posted: see their /readyz")


def read_totals(client: httpx.Client, hours: list[int]) -> Totals:
    """The totals of hours, as GET /flows serves them once they are fresh. Raises SampleFailed."""
    totals: Totals = {}
    for hour in hours:
        reply = _get_fresh(client, hour)
        for row in msgspec.json.decode(reply.content, type=list[_Row]):
            totals[row.src_app, row.dest_app, row.vpc_id, row.hour] = (row.bytes_tx, row.bytes_rx)
    return totals


def differences(before: Totals, after: Totals, ledger: Ledger) -> list[str]:
    """Where the totals have not grown by exactly what the ledger holds; one line each."""
    wrong = []
    for key in sorted(after.keys() | ledger.totals.keys()):
        old, new, true = (totals.get(key, (0, 0)) for totals in (before, after, ledger.totals))
        grown = (new[0] - old[0], new[1] - old[1])
        if grown != true:
            wrong.append(f"{key}: {grown}, true {true}")
    return wrong


def _get_fresh(client: httpx.Client, hour: int) -> httpx.Response:
    for left in range(_TRIES, 0, -1):
        reply = client.get("/flows", params={"hour": hour, "consistency": "strict"})
        if reply.status_code == 200:
            return reply
        if reply.status_code != 503 or left == 1:
            raise SampleFailed(f"GET /flows?hour={hour} answered {reply.status_code}: {reply.text}")
        time.sleep(_PAUSE_SECONDS)
    raise AssertionError("the last try returns or raises")


class _Row(msgspec.Struct):
    src_app: str
    dest_app: str
    vpc_id: str
    hour: int
    bytes_tx: int
    bytes_rx: int


def _batches(flows: list[Flow]) -> Iterator[list[Flow]]:
    for start in range(0, len(flows), FLOWS_A_POST):
        yield flows[start : start + FLOWS_A_POST]
