"""Requests of httpx to an application, by exchanges where it takes them, without a server."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import httpx
from flowagg.exchange import Exchange
from flowagg.service import Entrance
from starlette.types import ASGIApp
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

DEFAULT_HEAD: Final = b"date: today\r\n"


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written.append(data)

    def writelines(self, chunks: Sequence[bytes]) -> None:
        for chunk in chunks:
            self.write(chunk)

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.written))  # nothing is taken

    def get_extra_info(self, name: str) -> None:
        """Nothing is known: it is no TLS."""

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""


class Connection:
    """What an exchange uses of a connection. complete: set once the answer is out."""

    def __init__(self) -> None:
        self.kept = Transport()
        self.transport = cast(asyncio.Transport, self.kept)
        self.flow = FlowControl(self.transport)
        self.server_state = ServerState()
        self.loop = asyncio.get_running_loop()
        self.complete = asyncio.Event()

    def default_head(self) -> bytes:
        return DEFAULT_HEAD

    def close_answered(self) -> None:
        self.transport.close()

    def on_response_complete(self) -> None:
        assert not self.complete.is_set()
        self.complete.set()


def answer_in(written: bytes) -> httpx.Response:
    """The answer that was written."""
    head, _, body = written.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    headers = [(name, value.strip()) for name, _, value in (field.partition(b":") for field in fields)]
    return httpx.Response(int(line.split(b" ")[1]), headers=headers, content=body)


class ExchangeTransport(httpx.AsyncBaseTransport):
    """Sends requests to an application; those that its exchanges do not take go by ASGI. taken: how many they took."""

    def __init__(self, app: Any) -> None:
        assert isinstance(app, Entrance)
        self._app = app
        self.taken = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        endpoint = self._app.exchanges
        assert endpoint is not None
        method, target = request.method.encode(), request.url.raw_path
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        head = endpoint.read_head(method, target, headers)
        if head is None:
            return await httpx.ASGITransport(self._app).handle_async_request(request)
        self.taken += 1
        connection = Connection()
        exchange = Exchange(connection, target, body, b"the-id", head, keep_alive=True)
        endpoint.begin(exchange)
        try:
            await connection.complete.wait()
        except asyncio.CancelledError:
            exchange.disconnected = True  # the client has gone
            raise
        assert exchange.response_complete
        assert not connection.server_state.tasks
        found = answer_in(b"".join(connection.kept.written))
        assert connection.kept.closed == (found.headers.get("connection") == "close")
        assert found.headers["x-request-id"] == "the-id"
        assert found.headers["date"] == "today"
        return found


TRANSPORTS: Final[Mapping[str, Callable[[ASGIApp], httpx.AsyncBaseTransport]]] = {
    "by ASGI": httpx.ASGITransport,
    "by exchanges": ExchangeTransport,
}
"""Both ways to an application."""
