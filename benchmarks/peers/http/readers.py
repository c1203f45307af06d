"""Readers side by side: ours, and the Go services that hold the totals in memory.

Warm: the hour has not changed since the last GET. 304: nor has it for this client, which sends its tag. Cold: a flow
has been posted to the hour since. Ours is asked for what the view has (eventual) and, as by default, for what every
acknowledged POST has left (fresh), which each GET of the Go services has for nothing, having one process.

The Go services: rendered anew for each GET, or kept until the hour changes. A body that is kept needs no JSON library
to go out, so warm and 304 of it are measured with one.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from flowagg.flow import Flow
from flowagg_stack import provision
from flowagg_stack.embedded import start_redis_binary
from flowagg_stack.services import start_service

from benchmarks.http.common import cpu_seconds, kafka_here, percentile, run_wrk
from benchmarks.peers.http.contract import Unlike, check_posts, check_reads
from benchmarks.peers.http.peers import Peer, Variant, start_go, start_ours
from benchmarks.peers.http.programs import Programs
from benchmarks.peers.http.wire import JSON, Client
from benchmarks.peers.http.writers import turned

EVENTUAL: Final = "ours, eventual"
FRESH: Final = "ours, fresh"
KEPT: Final = "Go, kept"
RENDERED: Final = "Go, rendered"
HOURS: Final = {100: 1_000_001, 10_000: 1_000_002, 200_000: 1_000_003}
"""flow keys -> the hour that has so many"""
_FILL: Final = 10_000
_WARM_CONNECTIONS: Final = {100: 4, 10_000: 4, 200_000: 1}
"""flow keys -> connections; where few answers fit into a run, those that it cuts off would count as work for nothing"""
_UNCHANGED_CONNECTIONS: Final = 16
_UNCHANGED_BYTES: Final = 1024
"""more than an answer without a body has"""
_COLD: Final = {100: 20, 10_000: 20, 200_000: 4}
"""flow keys -> cold GETs a round"""
_APPLIED_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is kept saturated with GETs of one hour. kind: warm or 304. CPU seconds are of its process."""

    variant: Variant
    keys: int
    kind: str
    round: int
    requests_a_second: float
    requests_a_cpu_second: float
    mb_a_cpu_second: float
    errors: int


@dataclass(frozen=True, slots=True)
class Cold:
    """GETs one after the other, each of an hour that has changed since. body_bytes: of an answer."""

    variant: Variant
    keys: int
    round: int
    gets: int
    p50_ms: float
    max_ms: float
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Readers:
    """What was measured."""

    served: Sequence[Served]
    cold: Sequence[Cold]


@dataclass(frozen=True, slots=True)
class Reader:
    """A server and how to ask it. kinds: what is measured. change: posts a flow of an hour, until a GET shows it."""

    peer: Peer
    query: str
    kinds: Sequence[str]
    change: Callable[[int], None]

    def target(self, hour: int) -> str:
        """What a GET of an hour asks for."""
        return f"/flows?hour={hour}{self.query}"


def measure_readers(
    programs: Programs, libraries: Sequence[str], seconds: int, rounds: int, say: Callable[[str], None]
) -> Readers:
    """All of it. Raises Unlike, ProcessFailed."""
    served, cold = [], []
    with kafka_here() as (processes, kafka, _):
        redis = start_redis_binary(processes, provision.redis_server())
        settings = {
            "FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": kafka.address,
            "FLOWAGG_REDIS_URL": f"redis://{redis.address}/0",
            "FLOWAGG_VIEW": "bench",
        }
        writer = start_service(processes, "writer", settings)
        consumer = start_service(processes, "consumer", settings)
        ours = start_ours(processes, "reader", settings, EVENTUAL)
        for service in (writer, consumer):
            service.wait_ready()
        to_view = _View(Client(writer.url), Client(ours.url))
        every = ("warm", "304", "cold")
        readers = [
            Reader(ours, "&consistency=eventual", every, to_view.change),
            Reader(Peer(Variant(FRESH), ours.url, ours.child), "", every, to_view.change),
        ]
        for library in libraries:
            kept = start_go(processes, programs, Variant(KEPT, library), keep=True)
            rendered = start_go(processes, programs, Variant(RENDERED, library))
            kinds = every if library == libraries[-1] else ("cold",)
            readers += [Reader(kept, "", kinds, _Posts(kept.url).change)]
            readers += [Reader(rendered, "", ("warm",), _Posts(rendered.url).change)]
        for reader in readers[2:]:
            check_posts(reader.peer)
        say("readers, filling ...")
        for keys, hour in HOURS.items():
            _fill(keys, hour, to_view, [_Posts(reader.peer.url) for reader in readers[2:]])
            _compare(keys, hour, readers)
        for number in range(rounds):
            say(f"readers: round {number + 1} of {rounds} ...")
            for keys, hour in HOURS.items():
                for reader in turned(readers, number):
                    for kind in reader.kinds:
                        if kind == "cold":
                            cold.append(_cold(reader, keys, hour, number))
                        else:
                            served.append(_served(reader, keys, hour, kind, number, seconds))
    return Readers(served, cold)


def flow(number: int, hour: int) -> Flow:
    """One flow of an hour, of a flow key of its own."""
    return Flow(f"application-{number}", f"svc-{number % 50}", f"vpc-{number % 10}", hour, number * 17, number * 31)


class _Posts:
    """A service that takes flows and shows them at once."""

    def __init__(self, url: str) -> None:
        self._client = Client(url)

    def post(self, flows: list[Flow]) -> str:
        """POST flows; their position."""
        answer = self._client.ask("POST", "/flows", msgspec.json.encode(flows), JSON)
        assert answer.status == 200, answer
        position: str = json.loads(answer.body)["position"]
        return position

    def change(self, hour: int) -> None:
        """POST one flow of the hour."""
        self.post([flow(0, hour)])


class _View:
    """Our writer and reader: what is posted is in the view a little later."""

    def __init__(self, writer: Client, reader: Client) -> None:
        self._writer, self._reader = writer, reader

    def post(self, flows: list[Flow]) -> None:
        """POST flows, and wait until the view holds them."""
        answer = self._writer.ask("POST", "/flows", msgspec.json.encode(flows), JSON)
        assert answer.status == 200, answer
        after = json.loads(answer.body)["position"]
        target = f"/flows?hour={flows[0].hour}&consistency=strict&after={after}"
        deadline = time.monotonic() + _APPLIED_SECONDS
        while (status := self._reader.ask("HEAD", target).status) != 200:  # HEAD renders nothing
            assert status == 503, status
            assert time.monotonic() < deadline, "the view does not get on"
            time.sleep(0.02)

    def change(self, hour: int) -> None:
        """POST one flow of the hour, and wait until the view holds it."""
        self.post([flow(0, hour)])


def _fill(keys: int, hour: int, view: _View, others: Sequence[_Posts]) -> None:
    for start in range(0, keys, _FILL):
        flows = [flow(number, hour) for number in range(start, min(start + _FILL, keys))]
        view.post(flows)
        for other in others:
            other.post(flows)


def _compare(keys: int, hour: int, readers: Sequence[Reader]) -> None:
    """All must answer the same rows, and 304 to their tags. Raises Unlike."""
    expected: list[dict[str, Any]] = sorted(
        (msgspec.to_builtins(flow(number, hour)) for number in range(keys)),
        key=lambda row: (row["src_app"], row["dest_app"], row["vpc_id"]),
    )
    for reader in readers:
        check_reads(reader.peer, reader.target(hour), expected)


def _served(reader: Reader, keys: int, hour: int, kind: str, number: int, seconds: int) -> Served:
    target, peer = reader.target(hour), reader.peer
    whole = Client(peer.url).ask("GET", target)
    headers = {} if kind == "warm" else {"If-None-Match": whole.headers["etag"]}
    connections = _WARM_CONNECTIONS[keys] if kind == "warm" else _UNCHANGED_CONNECTIONS
    before = cpu_seconds(peer.pid)
    seen = run_wrk(peer.url + target, seconds, connections, headers=headers)
    cpu = cpu_seconds(peer.pid) - before
    each = seen.bytes / max(1, seen.requests)
    if each < len(whole.body) if kind == "warm" else each > _UNCHANGED_BYTES:
        raise Unlike(f"{peer.variant.name} answers {each:.0f} bytes to {target}, {kind}")
    return Served(
        peer.variant,
        keys,
        kind,
        number,
        seen.requests / seen.seconds,
        seen.requests / cpu,
        seen.bytes / 1e6 / cpu,
        seen.errors,
    )


def _cold(reader: Reader, keys: int, hour: int, number: int) -> Cold:
    client, took, size = Client(reader.peer.url), [], 0
    client.ask("GET", reader.target(hour))
    for _ in range(_COLD[keys]):
        reader.change(hour)
        began = time.perf_counter()
        answer = client.ask("GET", reader.target(hour))
        took.append((time.perf_counter() - began) * 1000)
        assert answer.status == 200, answer.status
        size = len(answer.body)
    client.close()
    return Cold(reader.peer.variant, keys, number, len(took), percentile(took, 50), max(took), size)
