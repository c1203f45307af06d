"""A small whole request and its answer, without ASGI's task, scope and messages.

A POST of one flow, or a GET that is answered 304, is all overhead: of its CPU time most went to the
task, the scope and the messages by which ASGI has a request answered. An endpoint that takes
exchanges gets such requests whole, in the loop's turn in which their last byte arrives, and answers at
once or later, from wherever it learns the answer. Everything else goes by ASGI.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from starlette.responses import Response
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.protocols.utils import is_ssl
from uvicorn.server import ServerState

_log = logging.getLogger(__name__)

EXCHANGE_BODY_BYTES: Final = 240 * 2**10
"""Largest body of an exchange, some 2,000 flows: uvloop reads 256,000 bytes in one piece, the head among them. A longer
one does not arrive with its head, and its flows outweigh the overhead."""

_LEAST_TAKEN_BYTES: Final = 256 * 2**10

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""


class Endpoint(Protocol):
    """Answers exchanges. Both methods are called in the event loop's thread."""

    def read_head(self, method: bytes, target: bytes, headers: Headers) -> object | None:
        """What it wants to know of such a head, for Exchange.head; None where it takes no such request.

        target: path and query as sent. It depends on these three alone: what was read once is given to later requests
        with the same head, too.
        """

    def begin(self, exchange: "Exchange") -> None:
        """Answer it now or later; raises nothing."""


class Connection(Protocol):
    """What an exchange uses of the connection that it came by."""

    transport: asyncio.Transport
    flow: FlowControl
    server_state: ServerState
    loop: asyncio.AbstractEventLoop

    def default_head(self) -> bytes:
        """Header lines of every answer."""

    def close_answered(self) -> None:
        """Close after an answer."""

    def on_response_complete(self) -> None:
        """The answer is out: go on with the next request."""


class _NobodyWaits:
    """The event of a request that nobody reads any more."""

    def set(self) -> None:
        """Nothing."""


_NOBODY_WAITS: Final = _NobodyWaits()


class Exchange:
    """One request, whole, and its answer. To a connection it is what uvicorn's RequestResponseCycle is.

    head: what the endpoint has read of the head. keep_alive: the connection stays open after the answer. on_cancel:
    what the end of the server's patience calls, to have it answered now. disconnected: the client has gone, so an
    answer goes nowhere.
    """

    __slots__ = (
        "_connection",
        "_request_id",
        "body",
        "disconnected",
        "head",
        "keep_alive",
        "message_event",
        "more_body",
        "on_cancel",
        "response_complete",
        "response_started",
        "target",
    )

    def __init__(
        self,
        connection: Connection,
        target: bytes,
        body: bytes,
        request_id: bytes,
        head: object,
        *,
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self._request_id = request_id
        self.target = target
        self.head = head
        self.body = body
        self.keep_alive = keep_alive
        self.on_cancel: Callable[[], object] | None = None
        self.more_body = self.disconnected = False
        self.response_started = self.response_complete = False
        self.message_event = _NOBODY_WAITS
        connection.server_state.tasks.add(self)  # type: ignore[arg-type] # what a server's end waits for

    @property
    def request_id(self) -> str:
        """Of the X-Request-Id that the answer gets."""
        return self._request_id.decode("ascii")

    def answer(self, status: int, fields: bytes, body: bytes = b"") -> None:
        """Answer, unless it was answered before. fields: header lines, each with its end, the length's among them."""
        if self.response_started:
            return
        self._start(status, fields, body)
        self._complete()

    def respond(self, response: Response) -> None:
        """Answer by a whole response, unless it was answered before."""
        if not self.response_started:
            self.answer(response.status_code, self._fields(response.raw_headers), bytes(response.body))

    async def send(self, message: Any) -> None:
        """As ASGI's send, for an answer that takes time: waits while the client takes nothing."""
        connection = self._connection
        if connection.flow.write_paused and not self.disconnected:
            await connection.flow.drain()
        if not self.response_started:
            self._start(message["status"], self._fields(message["headers"]))
            return
        body = message.get("body", b"")
        if body and not self._is_over():
            connection.transport.write(body)
        if not message.get("more_body", False):
            self._complete()

    def send_long(
        self, status: int, fields: bytes, chunks: Sequence[bytes], stall_seconds: float, sent: Callable[[], object]
    ) -> Awaitable[None] | None:
        """Answer with a long body, unless it was answered before: all of it is handed over now.

        What is still to be waited for, by run() or in the task that answers; None: nothing.

        In the clear that copies nothing, and whatever the system's buffers take is gone with this call; over TLS it
        would be encrypted as a whole, which is for ASGI's way. sent: called once the client has taken nearly all, or
        will take no more. A client that takes less than 256 KiB in stall_seconds is let go.
        """
        if self.response_started:
            sent()
            return None
        self._start(status, fields)
        if not self._is_over():
            self._connection.transport.writelines(chunks)
        if self._connection.flow.write_paused:
            return self._until_taken(stall_seconds, sent)
        self._complete()
        sent()
        return None

    async def _until_taken(self, stall_seconds: float, sent: Callable[[], object]) -> None:
        flow, transport = self._connection.flow, self._connection.transport
        try:
            while flow.write_paused and not self._is_over():
                before = transport.get_write_buffer_size()
                try:
                    async with asyncio.timeout(stall_seconds):
                        await flow.drain()
                except TimeoutError:
                    if before - transport.get_write_buffer_size() < _LEAST_TAKEN_BYTES:
                        _log.warning("a client takes its answer too slowly", extra={"stall_seconds": stall_seconds})
                        transport.abort()
                        return
            self._complete()
        finally:
            sent()

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection is TLS."""
        return is_ssl(self._connection.transport)

    def cancel(self, msg: str | None = None) -> None:  # noqa: ARG002 - a task's signature
        """As of a task: the server ends and waits no longer."""
        if self.on_cancel is not None:
            self._connection.loop.call_soon(self.on_cancel)

    def run(self, answering: Awaitable[None]) -> None:
        """Have a coroutine answer; a server's end cancels it. Where it ends without, the connection is closed."""

        async def whole() -> None:
            try:
                await answering
            finally:
                if not self.response_complete:
                    self.response_started, self.keep_alive = True, False
                    self._complete()

        task = self._connection.loop.create_task(whole())
        self.on_cancel = task.cancel

    def _fields(self, headers: Headers) -> bytes:
        lines = []
        for name, value in headers:
            if name == b"connection" and value.lower() == b"close":
                self.keep_alive = False  # which says so itself
            else:
                lines.append(b"%b: %b\r\n" % (name, value))
        return b"".join(lines)

    def _start(self, status: int, fields: bytes, body: bytes = b"") -> None:
        self.response_started = True
        if self._is_over():
            return
        self._connection.transport.write(
            b"%b%bx-request-id: %b\r\n%b%b\r\n%b"
            % (
                STATUS_LINE[status],
                self._connection.default_head(),
                self._request_id,
                fields,
                b"" if self.keep_alive else b"connection: close\r\n",
                body,
            )
        )

    def _is_over(self) -> bool:
        return self.disconnected or self._connection.transport.is_closing()

    def _complete(self) -> None:
        connection = self._connection
        self.response_complete = True
        self.body = b""  # the connection holds this until its next request
        self.on_cancel = None  # it may hold this: no cycle of references is left
        connection.server_state.tasks.discard(self)
        if self.disconnected:
            return
        if not self.keep_alive:
            connection.close_answered()
        connection.on_response_complete()
