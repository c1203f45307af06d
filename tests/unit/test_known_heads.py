"""Heads that are known are answered as the parser would have them answered; all others are the parser's."""

import asyncio
import gc
import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import uvicorn
from flowagg import known_heads
from flowagg.exchange import Exchange, Headers
from flowagg.http_guard import Guard, Limits, Phase, guard
from flowagg.known_heads import KNOWN_HEAD_BYTES, KNOWN_HEADS, KnownHeads
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from tests.exchanges import Transport

POST = b"POST /flows HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n"
GENERATED = re.compile(rb"[0-9a-f]{12}-[0-9a-f]+")


class Seen:
    """An endpoint that answers at once, or when it is told to; keeps what it was asked. reads: of heads."""

    def __init__(self, *, later: bool = False) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.waiting: list[Exchange] = []
        self.reads = 0
        self._later = later

    def read_head(self, method: bytes, target: bytes, headers: Headers) -> object | None:
        self.reads += 1
        return (method, tuple(headers)) if target.startswith(b"/flows") else None

    def begin(self, exchange: Exchange) -> None:
        self.asked.append((exchange.target, exchange.body, exchange.head, exchange.keep_alive))
        if self._later:
            self.waiting.append(exchange)
        else:
            exchange.answer(200, b"content-length: %d\r\n" % len(exchange.body), exchange.body)


class Forgetful(KnownHeads):
    """Keeps none."""

    def keep(self, data: bytes, target: bytes, body_bytes: int, said: object) -> None:
        """Nothing."""


async def by_asgi(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    text = f"{scope['method']} {scope['path']} {len(body + message.get('body', b''))}"
    await PlainTextResponse(text)(scope, receive, send)


class Server:
    """What connections share."""

    def __init__(self, endpoint: Seen, known: KnownHeads | None = None, **phase: bool) -> None:
        self.phase = Phase(**phase)
        self.protocol = guard(Limits(head_bytes=2000, head_fields=8), self.phase, endpoint)
        if known is not None:
            self.protocol.known_heads = known
        self.config = uvicorn.Config(by_asgi, http=self.protocol, ws="none", lifespan="off", log_config=None)
        self.config.load()
        self.state = ServerState()

    def connect(self) -> tuple[Guard, Transport]:
        protocol, transport = self.protocol(self.config, self.state, {}, asyncio.get_running_loop()), Transport()
        transport.get_extra_info = lambda *_: None  # type: ignore[method-assign]
        protocol.connection_made(cast(Any, transport))
        return protocol, transport


def know(protocol: Guard) -> None:
    """Have POST be known."""
    for _ in range(2):
        protocol.data_received(POST + b"12")
    assert len(protocol.known_heads) == 1


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def answers(server: Server, packets: Sequence[bytes]) -> tuple[bytes, bool]:
    """What a connection answers to packets, and whether it closes."""
    protocol, transport = server.connect()
    transport.write_eof = lambda: None  # type: ignore[attr-defined]
    transport.can_write_eof = lambda: True  # type: ignore[attr-defined]
    for packet in packets:
        if transport.closed:
            break
        protocol.data_received(packet)
        await turns()
    return GENERATED.sub(b"id", b"".join(transport.written)), transport.closed


def run(scenario: Callable[[], Any]) -> None:
    asyncio.run(scenario())


def test_a_head_that_came_twice_is_read_no_more_and_its_requests_differ_in_their_bodies_alone() -> None:
    async def scenario() -> None:
        seen = Seen()
        server = Server(seen)
        written = []
        for connection in range(2):
            protocol, transport = server.connect()
            for number in range(3):
                protocol.data_received(POST + b"%d%d" % (connection, number))
                assert transport.written[-1].endswith(b"\r\n\r\n%d%d" % (connection, number))
            written += transport.written
        assert [asked[1] for asked in seen.asked] == [b"00", b"01", b"02", b"10", b"11", b"12"]
        assert (seen.reads, len(server.protocol.known_heads)) == (2, 1)
        assert len(set(GENERATED.findall(b"".join(written)))) == 6
        assert server.state.total_requests == 6

    run(scenario)


def test_a_clients_own_id_stays() -> None:
    async def scenario() -> None:
        server = Server(Seen())
        protocol, transport = server.connect()
        for _ in range(3):
            protocol.data_received(POST.replace(b"Host", b"X-Request-Id: mine\r\nHost") + b"12")
        assert [b"x-request-id: mine\r\n" in written for written in transport.written] == [True] * 3
        assert len(server.protocol.known_heads) == 0  # clients that send one send another each time

    run(scenario)


def test_a_replica_that_gives_way_closes_after_known_heads_too() -> None:
    async def scenario() -> None:
        server = Server(Seen())
        protocol, transport = server.connect()
        know(protocol)
        assert not transport.closed
        server.phase.draining = True
        protocol.data_received(POST + b"12")
        assert b"connection: close\r\n" in transport.written[-1]
        assert transport.closed

    run(scenario)


def test_a_connection_past_the_limit_is_refused_with_a_known_head_too() -> None:
    async def scenario() -> None:
        server = Server(Seen())
        server.protocol.limits = Limits(connections=1)
        first, _ = server.connect()
        know(first)
        second, transport = server.connect()
        transport.write_eof = lambda: None  # type: ignore[attr-defined]
        transport.can_write_eof = lambda: True  # type: ignore[attr-defined]
        second.data_received(POST + b"12")
        assert b"503" in transport.written[0].split(b"\r\n")[0]

    run(scenario)


def test_a_request_behind_one_that_waits_is_not_begun_before_it() -> None:
    async def scenario() -> None:
        seen = Seen(later=True)
        server = Server(seen)
        protocol, transport = server.connect()
        for number in range(2):
            protocol.data_received(POST + b"00")
            seen.waiting[number].answer(200, b"content-length: 1\r\n", b"a")
        protocol.data_received(POST + b"01")
        protocol.data_received(POST + b"02")
        protocol.data_received(POST + b"03")
        assert len(seen.asked) == 3
        seen.waiting[2].answer(200, b"content-length: 1\r\n", b"b")
        await turns()
        bodies = [written.partition(b"\r\n\r\n")[2] for written in transport.written if written]
        assert b"".join(bodies).startswith(b"aab")
        assert server.state.total_requests == 5

    run(scenario)


def test_no_more_heads_are_kept_than_may_be_and_none_that_is_too_long() -> None:
    async def scenario() -> None:
        server = Server(Seen())
        protocol, _ = server.connect()
        for number in range(20 * KNOWN_HEADS):
            protocol.data_received(POST.replace(b"Host: h", b"Host: once%d" % number) + b"12")
        assert len(server.protocol.known_heads) == 0
        assert len(server.protocol.known_heads._once) <= 8 * KNOWN_HEADS
        for number in range(KNOWN_HEADS + 10):
            for _ in range(2):
                protocol.data_received(POST.replace(b"Host: h", b"Host: h%d" % number) + b"12")
        assert len(server.protocol.known_heads) == 10
        for _ in range(3):
            protocol.data_received(POST.replace(b"Host: h", b"Host: " + b"h" * KNOWN_HEAD_BYTES) + b"12")
        assert len(server.protocol.known_heads) == 10

    run(scenario)


def test_an_idle_connection_is_closed_after_a_known_head_too() -> None:
    async def scenario() -> None:
        server = Server(Seen())
        protocol, transport = server.connect()
        know(protocol)
        protocol.data_received(POST + b"12")
        now = protocol.loop.time()
        protocol.timeout_keep_alive = 100
        transport.written.clear()
        protocol.check(now + 99)
        assert not transport.closed
        protocol.check(now + 101)
        assert transport.closed

    run(scenario)


def test_line_ends_between_requests_are_no_head_that_grows() -> None:
    async def scenario() -> None:
        protocol, transport = Server(Seen()).connect()
        know(protocol)
        for _ in range(1100):  # of which each feeds the parser two bytes; a head may have 2,000
            protocol.data_received(POST + b"12")
            protocol.data_received(b"\r\n")
        assert not transport.closed
        assert {written.split(b"\r\n")[0] for written in transport.written} == {b"HTTP/1.1 200 OK"}

    run(scenario)


def gone_with(scenario: Callable[[Server, Seen, Guard], Any], *, later: bool) -> None:
    """Nothing holds a connection that was lost; a collection of old garbage may never come."""

    async def lose() -> None:
        seen = Seen(later=later)
        server = Server(seen)
        protocol, transport = server.connect()
        await scenario(server, seen, protocol)
        gone = weakref.ref(protocol)
        transport.closed = True
        protocol.connection_lost(None)
        server.state.connections.clear()
        del protocol
        while seen.waiting:
            seen.waiting.pop().answer(200, b"", b"nobody reads it")
        await turns()
        assert gone() is None

    gc.collect()
    gc.disable()
    try:
        asyncio.run(lose())
    finally:
        gc.enable()


async def answered(_: Server, __: Seen, protocol: Guard) -> None:
    protocol.data_received(POST.replace(b": 2", b": 9000") + b"y" * 9000)
    assert (cast(Exchange, protocol.cycle).body, protocol._gathered) == (b"", b"")


async def in_hand(_: Server, seen: Seen, protocol: Guard) -> None:
    protocol.data_received(POST + b"12")
    assert len(seen.waiting) == 1


async def in_a_pipeline(_: Server, seen: Seen, protocol: Guard) -> None:
    for number in range(3):
        protocol.data_received(POST + b"%02d" % number)
    await turns()
    assert (len(seen.waiting), len(protocol.pipeline)) == (1, 1)


async def answered_by_asgi(server: Server, _: Seen, protocol: Guard) -> None:
    protocol.data_received(POST.replace(b"/flows", b"/other") + b"12")
    await turns()
    assert server.state.total_requests == 1


async def in_hand_by_asgi(server: Server, _: Seen, protocol: Guard) -> None:
    protocol.data_received(POST.replace(b"/flows", b"/other") + b"1")
    await turns()
    assert (server.state.total_requests, len(server.state.tasks)) == (0, 1)


@pytest.mark.parametrize("scenario", [answered, in_hand, in_a_pipeline, answered_by_asgi, in_hand_by_asgi])
def test_neither_a_body_nor_a_connection_outlives_its_use(scenario: Any) -> None:
    gone_with(scenario, later=scenario is not answered)


heads = st.tuples(
    st.sampled_from([b"POST", b"POST", b"GET", b"HEAD", b"PUT", b"post", b"CONNECT"]),
    st.sampled_from([b"/flows", b"/flows", b"/flows?a=b", b"/other", b"*", b"/flows#x", b"/flows /", b""]),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2"]),
    st.lists(
        st.sampled_from(
            [
                b"Host: h",
                b"Host:h",
                b"host: other",
                b"X-What: a",
                b"X-What: b ",
                b"x-what:\tc",
                b"X-Request-Id: mine",
                b"Connection: close",
                b"Connection: keep-alive",
                b"Connection: upgrade",
                b"Upgrade: h2c",
                b"Expect: 100-continue",
                b"Transfer-Encoding: chunked",
                b"Transfer-Encoding: gzip",
                b"Content-Length: 1",
                b"Content-Length : 3",
                b"X: y\r\n folded",
                b"X: y\n\r\nZ: y",
                b"X y",
                b"X: \x00",
                b"X: " + b"y" * 1100,
            ]
        ),
        max_size=3,
    ),
    st.sampled_from([b"", b"", b"x", b"[]", b"\r\n\r\n", b"POST /flows HTTP/1.1\r\nHost: h\r\n\r\n", b"y" * 9000]),
    st.sampled_from([0, 0, 0, 0, 1, -1]),
    st.sampled_from([b"", b"", b"", b"\r\n", b"\n", b" "]),
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"]),
)


def message(given: tuple[Any, ...]) -> bytes:
    method, target, version, fields, body, more, before, end = given
    lines = [method + b" " + target + b" " + version, *fields]
    if not any(line.lower().startswith(b"host") for line in fields):
        lines.append(b"Host: h")
    if body or more:
        lines.append(b"Content-Length: %d" % max(0, len(body) + more))
    return bytes(before + end.join(lines) + end + end + body)


@given(st.lists(heads, min_size=1, max_size=3), st.lists(st.integers(0, 200), max_size=2), st.booleans())
@settings(max_examples=400, deadline=None)
def test_what_comes_again_is_answered_as_the_parser_would(
    made: list[tuple[Any, ...]], cuts: list[int], joined: bool
) -> None:
    messages = [message(each) for each in made]

    async def scenario() -> None:
        packets = [b"".join(messages)] if joined else messages
        for cut in cuts:
            packets = [*packets[:-1], packets[-1][:cut], packets[-1][cut:]]
        packets = [packet for packet in packets if packet]
        knows, parses = Seen(), Seen()
        knowing, parsing = Server(knows), Server(parses, Forgetful())
        for each in 2 * [*messages, *packets, b"".join(messages)]:  # what it may know
            await answers(knowing, [each])
        for again in (packets, packets, [*packets, *packets]):
            knows.asked.clear()
            parses.asked.clear()
            assert await answers(knowing, again) == await answers(parsing, again)
            assert knows.asked == parses.asked

    asyncio.run(scenario())


@pytest.mark.parametrize(("data", "size"), [(b"", 3), (b"a\r\n\r\n", 5), (b"a\r\n\r\nb\r\n\r\n", 5), (b"a\r\n\r", 3)])
def test_a_head_ends_with_its_first_empty_line(data: bytes, size: int) -> None:
    assert known_heads.end_of_head(data) == size
