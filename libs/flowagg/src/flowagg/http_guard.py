"""A guard around uvicorn's HTTP protocol: bounds and answers for what never becomes a request.

uvicorn hands whole heads to the application and leaves the rest to a proxy in front: heads without
end, connections on which nothing is said, errors in the middle of a pipeline. Here each of these has
a bound and, where the client can still read one, a problem document. The classes below override
uvicorn's own, which are not public: its version is pinned, and tests/contract holds them to it.
"""

import asyncio
import itertools
import logging
import os
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httptools
from prometheus_client import Counter, Gauge
from starlette.responses import Response
from typing_extensions import override
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import is_ssl
from uvicorn.server import ServerState

from flowagg.exchange import EXCHANGE_BODY_BYTES, Endpoint, Exchange, Headers
from flowagg.known_heads import KnownHeads, end_of_head
from flowagg.problem import Problem, fault

_log = logging.getLogger(__name__)

OPERATIONAL_PATHS: Final = frozenset({b"/livez", b"/readyz", b"/metrics"})
"""What is answered on connections past the limit too: a full service must not look like a dead one."""
SPARE_CONNECTIONS: Final = 256
"""Connections past the limit that are let in for the operational paths, or to be told that it is reached."""
_LINGER_SECONDS: Final = 5.0
_LINGER_BYTES: Final = 64 * 2**20
_FRAMING_FACTOR: Final = 16
_SLICE_BYTES: Final = 8192
_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_WITHOUT_UPGRADE: Final = frozenset({b"upgrade", b"connection", b"http2-settings"})

REFUSED = Counter(
    "flowagg_http_refused", "Requests refused before they reached the service's own code, by status.", ["status"]
)
CONNECTIONS = Gauge("flowagg_http_connections", "Open HTTP connections.")


@dataclass(frozen=True, slots=True)
class Limits:
    """connections: at a time. head_bytes, head_fields: of a request's line and headers. head_seconds: for
    them to arrive; as long may a body dribble after it was answered. stall_seconds: for a client to
    take any byte of an answer.
    """

    connections: int = 8192
    head_bytes: int = 64 * 1024
    head_fields: int = 100
    head_seconds: float = 10.0
    stall_seconds: float = 15.0


@dataclass(slots=True)
class Phase:
    """Shared by a server's connections.

    draining: the service ends. standby: clients are to come to another replica. By either, answers close their
    connections from now on.
    """

    draining: bool = False
    standby: bool = False


class _Refused(Exception):
    """Stops the parser; what is to be answered stands in the protocol."""


_id_prefix = os.urandom(6).hex().encode("ascii")
_id_numbers = itertools.count(1)


def new_request_id() -> bytes:
    """An id that no other request has: drawn once a process, then counted."""
    return b"%b-%x" % (_id_prefix, next(_id_numbers))


class _DefaultHead:
    """The header lines of every answer of a server, which changes them once a second."""

    def __init__(self) -> None:
        self._headers: list[tuple[bytes, bytes]] | None = None
        self._lines = b""

    def lines(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The lines of these headers."""
        if headers is not self._headers:
            self._headers = headers
            self._lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._lines


class Guard(HttpToolsProtocol):
    """One connection. guard() sets what all of a server's have in common. endpoint: None: all goes by ASGI."""

    limits: Limits
    phase: Phase
    endpoint: Endpoint | None = None
    head: _DefaultHead
    known_heads: KnownHeads

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._in_head = True
        self._silent = True  # nothing of the next request has come
        self._since = self.loop.time()  # when the head began, or the body
        self._fed = 0  # bytes of the head; of the body with its framing
        self._delivered = 0  # bytes of the body without
        self._expected = 0  # bytes of the body that are still to come, where its head has told
        self._past_limit = False
        self._upgrading = False
        self._refusal: Problem | None = None  # why the parser was stopped
        self._last_words: bytes | None = None  # to be said once the answers before are out
        self._unparsed = b""  # what came behind a request that waits
        self._half_closed = False
        self._lingering = False  # nothing is taken from this client any more
        self._lingered = 0
        self._running: RequestResponseCycle | Exchange | None = None
        self._chunked = False  # the request's body
        self._gathering = False  # a request for the endpoint, of which the rest may be in the data in hand
        self._gathered = b""  # its body
        self._said: object | None = None  # what the endpoint has read of its head
        self._idle_since: float | None = None  # when the last answer was out, while nothing of a next request has come
        self._whole: Exchange | None = None  # for the endpoint, once the parser has returned
        self._closing_transport: _ClosingTransport | None = None
        self._buffered = (0, 0.0)  # bytes of answers that the client has not taken, since when

    # asyncio.Protocol --------------------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()
        self._closing_transport = _ClosingTransport(self)
        spare = len(self.connections) - self.limits.connections
        self._past_limit = spare > 0
        if spare > SPARE_CONNECTIONS:
            REFUSED.labels(503).inc()
            transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._running is not None:  # it may be another one than the last of a pipeline
            self._running.disconnected = True
            self._running.message_event.set()
        # No cycle of references is left of a connection that may have been there for days.
        self._closing_transport = None
        self._gathered = self._unparsed = b""
        self.pipeline.clear()
        self.cycle = self._running = self._whole = None  # type: ignore[assignment]

    @override
    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._lingered += len(data)
            if self._lingered > _LINGER_BYTES:
                self.transport.pause_reading()
            return
        if self._silent and self._begin_known(data):
            return
        self._unset_keepalive_if_required()
        if self._unparsed:
            self._unparsed += data
        else:
            self._parse(data)

    def _begin_known(self, data: bytes) -> bool:
        """Begin the request that data are, where its head is one that the parser has read before; whether they are."""
        size = end_of_head(data)
        known = self.known_heads.get(data[:size])
        if known is None or len(data) - size != known.body_bytes or self._past_limit or self._unparsed:
            return False
        if not self._is_free() or self.endpoint is None:
            return False
        self._idle_since = None
        self._since = self.loop.time()
        self._fed = 0
        self._running = self.cycle = exchange = Exchange(  # type: ignore[assignment]
            self, known.target, data[size:], new_request_id(), known.said, keep_alive=self._stays()
        )
        self.endpoint.begin(exchange)
        return True

    def _parse(self, data: bytes) -> None:
        """Parse as long as no request waits for the answer to another: a pipeline costs memory per request."""
        start = 0
        first = self._silent  # data begin where a request does
        while start < len(data):
            if self._lingering or self.transport.is_closing():
                return
            if self.pipeline:
                self._unparsed += data[start:]
                self.flow.pause_reading()
                return
            # A slice is what heads are counted by. A body of known length needs none.
            end = start + max(_SLICE_BYTES, self._expected)
            self._feed(data[start:end])
            start = end
            if self._whole is not None and self.endpoint is not None:
                exchange, self._whole = self._whole, None
                if first and self._silent and start >= len(data):
                    self._keep_head(data, exchange)
                self.endpoint.begin(exchange)
        if self._gathering:
            # The rest may take long to come: ASGI's way has the bounds for that.
            self._gathering = False
            self._begin()
            body, self._gathered = self._gathered, b""
            if body:
                super().on_body(body)

    def _keep_head(self, data: bytes, exchange: Exchange) -> None:
        """Keep the head of an exchange that the parser has made of data, if its requests are all alike."""
        if exchange.keep_alive and _sane_id(self.headers) is None:
            self.known_heads.keep(data, exchange.target, len(exchange.body), exchange.head)

    def _feed(self, data: bytes) -> None:
        self._fed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            refusal, self._refusal = self._refusal, None
            self._refuse(refusal or Problem(400, "This is not a request of HTTP/1.1 (RFC 9112)."))
            return
        # The parser keeps an unfinished header field to itself: only the bytes that went in can be counted.
        if self._in_head:
            if self._fed > self.limits.head_bytes:
                self._refuse(self._head_too_large())
        elif self._fed - self._delivered > self.limits.head_bytes + _FRAMING_FACTOR * self._delivered:
            self._refuse(Problem(431, "Chunk extensions and trailers are too long."))

    @override
    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A client that has sent all may close its side and still gets its answer."""
        cycle = self.cycle
        if cycle is None or self._lingering or is_ssl(self.transport):
            return None
        if self._unparsed:
            self._half_closed = True
            return True
        if cycle.response_complete or cycle.more_body:
            return None
        cycle.keep_alive = False
        return True

    # The parser's callbacks --------------------------------------------------------------------

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()  # an exchange may be answered with the next request's bytes in hand
        self._in_head, self._silent, self._upgrading = True, False, False
        self._since = self.loop.time()
        self._fed = self._delivered = self._expected = 0
        self._chunked = False

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        # As uvicorn's, which costs a call more for each field.
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value.rstrip(b" \t")))  # RFC 9110, 5.5: white space around is no part of it

    @override
    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            self._upgrading = True
            return
        self._refusal = self._judge_head()
        if self._refusal is not None:
            raise _Refused
        self._in_head = False
        self._fed = 0
        self._gathering = self._is_for_endpoint()
        self._gathered = b""
        if not self._gathering:
            self._begin()

    def _is_for_endpoint(self) -> bool:
        if (
            self.endpoint is None
            or self._expected > EXCHANGE_BODY_BYTES
            or self._chunked
            or self.expect_100_continue
            or not self._is_free()
        ):
            return False
        self._said = self.endpoint.read_head(self.parser.get_method(), self.url, self.headers)
        return self._said is not None

    def _is_free(self) -> bool:
        """Whether a request could be answered at once."""
        cycle = self.cycle
        return (
            (cycle is None or cycle.response_complete)
            and not self.flow.write_paused  # ASGI's way waits for a client that does not take its answers
            and not self.transport.is_closing()
        )

    def _begin(self) -> None:
        """Hand the request over by ASGI, its body still to come."""
        super().on_headers_complete()
        cycle = self.cycle
        request_id = self._request_id()
        self.scope["state"]["request_id"] = request_id.decode("ascii")
        cycle.default_headers = [*cycle.default_headers, (b"x-request-id", request_id)]
        cycle.transport = self._closing_transport  # type: ignore[assignment]
        cycle.__class__ = _Cycle
        if not self._stays():
            cycle.keep_alive = False

    def _request_id(self) -> bytes:
        return _sane_id(self.headers) or new_request_id()

    def _stays(self) -> bool:
        """Whether connections stay open after an answer."""
        return not (self.phase.draining or self.phase.standby or self._past_limit)

    @override
    def on_body(self, body: bytes) -> None:
        self._delivered += len(body)
        self._expected -= len(body)
        if self._gathering:
            self._gathered += body
        else:
            super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._in_head = self._silent = True
        self._since = self.loop.time()
        self._fed = 0
        if self._gathering:
            self._gathering = False
            parser = self.parser
            keep_alive = self._stays() and parser.get_http_version() != "1.0" and parser.should_keep_alive()
            # Not begun here: an answer may have the parser go on, which is in the middle of this call.
            body, self._gathered = self._gathered, b""  # the exchange lets it go
            self._whole = self._running = self.cycle = Exchange(  # type: ignore[assignment]
                self, self.url, body, self._request_id(), self._said, keep_alive=keep_alive
            )
            return
        super().on_message_complete()
        # An answer that came before the end of its body found no reason yet to wait for a next request.
        if self.cycle.response_complete and self._idle_since is None:
            self._idle_since = self.loop.time()

    @override
    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None  # uvicorn has a timer for each answer: check() looks at all connections anyway

    @override
    def on_response_complete(self) -> None:
        # As uvicorn's, but for its timer.
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
            elif self._silent:  # else the next request has begun: check() has its time
                self._idle_since = self.loop.time()
        if self._unparsed and not self.pipeline:
            data, self._unparsed = self._unparsed, b""
            self._parse(data)
        elif self.pipeline:
            self.flow.pause_reading()
        if self.pipeline or self._running is None or not self._running.response_complete:
            return
        if self._last_words is not None:
            self._say(self._last_words)
        elif self._half_closed and not self._unparsed:
            self.transport.close()

    @override
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # Each second -------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """End what takes too long. now: the loop's time."""
        waiting = self.transport.get_write_buffer_size()
        if waiting:
            if waiting != self._buffered[0]:
                self._buffered = (waiting, now)
            elif now - self._buffered[1] > self.limits.stall_seconds:
                self.transport.abort()
            return
        self._buffered = (0, now)
        if self._idle_since is not None:
            if now - self._idle_since > self.timeout_keep_alive:
                self.transport.close()
            return
        if self._lingering or now - self._since <= self.limits.head_seconds:
            return
        cycle = self.cycle
        if not self._in_head:
            if cycle.response_complete:
                self.transport.abort()  # answered long ago, and the body still dribbles
        elif cycle is None or cycle.response_complete:
            if self._silent:
                self.transport.close()
            else:
                self._refuse(
                    Problem(408, f"The request's head did not arrive within {self.limits.head_seconds:g} seconds.")
                )

    def send_away(self) -> None:
        """Have the client come back on a new connection, which may lead it elsewhere: close where nothing is in hand.

        A connection that never had a request is left to its first one: its client has just made it.
        """
        cycle = self.cycle
        if cycle is None or self._lingering:
            return
        if not cycle.response_complete:
            cycle.keep_alive = False
        elif self._silent and not self._unparsed and not self.transport.is_closing():
            self.transport.close()

    # Refusals ----------------------------------------------------------------------------------

    def _judge_head(self) -> Problem | None:  # noqa: PLR0911 - one a rule
        headers = self.headers
        if len(headers) > self.limits.head_fields:
            return self._head_too_large()
        if self._past_limit and self.url.partition(b"?")[0] not in OPERATIONAL_PATHS:
            return Problem(
                503,
                "As many connections are open as this service takes: try again later.",
                headers={"Retry-After": "1"},
            )
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            return Problem(505, "This server speaks HTTP/1.1.")
        hosts = 0
        size = len(self.url)
        for name, value in headers:
            size += len(name) + len(value)
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                self._expected = int(value)  # the parser has refused what is no number
            elif name == b"transfer-encoding":
                if value.strip().lower() != b"chunked":
                    return Problem(501, "The only Transfer-Encoding taken is chunked.")
                self._chunked = True
        if size > self.limits.head_bytes:
            return self._head_too_large()
        if hosts != 1 and (hosts or version == "1.1"):
            return Problem(400, f"A request has one Host header, not {hosts}.")
        return None

    def _head_too_large(self) -> Problem:
        return Problem(
            431,
            f"The request's line and headers may have {self.limits.head_bytes} bytes "
            f"and {self.limits.head_fields} fields at most.",
        )

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Parse the request again as if it had not offered another protocol (RFC 9110, 7.8: it may be ignored)."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(Problem(405, "CONNECT is not allowed here.", headers={"Allow": "GET, HEAD, POST"}))
            return
        kept = [b"%b: %b\r\n" % field for field in self.headers if field[0] not in _WITHOUT_UPGRADE]
        if not self.parser.should_keep_alive():
            kept.append(b"connection: close\r\n")
        version = self.parser.get_http_version().encode("ascii")
        head = b"".join([method, b" ", self.url, b" HTTP/", version, b"\r\n", *kept, b"\r\n"])
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(head + rest)

    def _refuse(self, problem: Problem) -> None:
        """Answer a problem behind the answers still to come, and take nothing more from this client."""
        REFUSED.labels(problem.status).inc()
        words = _document(problem)
        running, cycle = self._running, self.cycle
        if running is None or running.response_complete:
            self._say(words)
        elif running is cycle and running.more_body and not running.response_started:
            # The service waits for the rest of this very body, which will not come.
            running.disconnected = True
            running.message_event.set()
            self._say(words)
        else:
            if cycle.more_body:
                self.pipeline = deque(queued for queued in self.pipeline if queued[0] is not cycle)
            self._last_words = words
            self._lingering = True
            self.flow.pause_reading()

    def default_head(self) -> bytes:
        """Header lines of every answer."""
        return self.head.lines(self.server_state.default_headers)

    def close_answered(self) -> None:
        """Close after an answer. A client in the middle of its body gets time to read the answer."""
        if self.cycle is not None and self.cycle.more_body and not self._lingering:
            self._say(b"")
        else:
            self.transport.close()

    def _say(self, words: bytes) -> None:
        """Write the last words; close once the client had time to read them.

        Bytes that it sent meanwhile are read and dropped: a close with unread bytes is a reset, and
        that may overtake the answer.
        """
        self._lingering = True
        if self.transport.is_closing():
            return
        if words:
            self.transport.write(words)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)


class _ClosingTransport:
    """What uvicorn's cycle uses of a transport, with a close that leaves the client time to read."""

    def __init__(self, protocol: Guard) -> None:
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing
        self.close = protocol.close_answered


def guard(limits: Limits, phase: Phase, endpoint: Endpoint | None = None) -> type[Guard]:
    """The protocol class of one server. endpoint: what answers small whole requests without ASGI."""
    shared = {
        "limits": limits,
        "phase": phase,
        "endpoint": endpoint,
        "head": _DefaultHead(),
        "known_heads": KnownHeads(),
    }
    return type("Guard", (Guard,), shared)


def _sane_id(headers: Headers) -> bytes | None:
    """The X-Request-Id of a request; None where it has none that may be repeated."""
    for name, value in headers:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            return value
    return None


def _document(problem: Problem) -> bytes:
    response = problem.response()
    fields: Mapping[str, str] = {
        **response.headers,
        "connection": "close",
        "x-request-id": new_request_id().decode("ascii"),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    line = f"HTTP/1.1 {problem.status} {problem.phrase}\r\n"
    return f"{line}{head}\r\n".encode("latin-1") + bytes(response.body)


class _Cycle(RequestResponseCycle):
    """uvicorn's, but for its text/plain 500."""

    async def send_500_response(self) -> None:
        """Answer the problem document of a fault."""
        await send_response(fault().response(), self.send)


async def send_response(response: Response, send: Any) -> None:
    """Send a starlette response by ASGI without a request; its connection is closed after it."""
    headers = [*response.raw_headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(response.body), "more_body": False})
