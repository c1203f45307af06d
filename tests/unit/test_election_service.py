"""What a role means for a server's connections, and what a hand-over means for its end."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import cast

import pytest
import uvicorn
from flowagg.election_thread import Elector
from flowagg.service import http_server
from flowagg.settings import HttpSettings
from flowagg_stack.processes import wait_until
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

GET = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"


class Script:
    """An elector whose events the test says."""

    ended = False
    told_to_end = False
    on_role: Callable[[bool], None]
    on_fault: Callable[[], None]

    def start(self, on_role: Callable[[bool], None], on_fault: Callable[[], None]) -> None:
        self.on_role, self.on_fault = on_role, on_fault

    def end(self) -> None:
        self.told_to_end = True


class Running:
    """A server in a thread of its own."""

    def __init__(self) -> None:
        self.script = Script()
        self.go_on = threading.Event()

        async def quick(_: Request) -> PlainTextResponse:
            return PlainTextResponse("quick")

        async def slow(_: Request) -> PlainTextResponse:
            await asyncio.to_thread(self.go_on.wait, 10)
            return PlainTextResponse("slow")

        app = Starlette(routes=[Route("/quick", quick), Route("/slow", slow)])
        settings = HttpSettings(host="127.0.0.1", port=0)
        self.server: uvicorn.Server = http_server(app, settings, cast("Elector", self.script))
        self.thread = threading.Thread(target=asyncio.run, args=(self.server.serve(),))
        self.thread.start()
        wait_until(lambda: hasattr(self.script, "on_role"), "the server has started", 10)

    def connect(self) -> socket.socket:
        port: int = self.server.servers[0].sockets[0].getsockname()[1]
        return socket.create_connection(("127.0.0.1", port), timeout=10)

    def end(self) -> None:
        self.script.ended = self.server.should_exit = True
        self.go_on.set()
        self.thread.join()


@pytest.fixture
def running() -> Iterator[Running]:
    one = Running()
    yield one
    one.end()


def ask(connection: socket.socket, what: bytes = b"quick") -> bytes:
    connection.sendall(GET % what)
    return answer(connection)


def answer(connection: socket.socket) -> bytes:
    found = b""
    while b"\r\n\r\nquick" not in found and b"\r\n\r\nslow" not in found:
        part = connection.recv(65536)
        assert part, found
        found += part
    return found.lower()


def test_a_standby_answers_and_closes(running: Running) -> None:
    with running.connect() as connection:
        assert b"connection: close" in ask(connection)
        assert connection.recv(1) == b""


def test_the_active_keeps_connections(running: Running) -> None:
    running.script.on_role(True)
    with running.connect() as connection:
        assert b"connection: close" not in ask(connection)
        assert b"connection: close" not in ask(connection)


def test_who_stands_by_closes_idle_connections_and_answers_what_is_in_hand(running: Running) -> None:
    running.script.on_role(True)
    with running.connect() as idle, running.connect() as busy, running.connect() as fresh:
        ask(idle)
        ask(busy)
        busy.sendall(GET % b"slow")
        with running.connect() as later:
            ask(later)  # so the server has read what was sent before
            running.script.on_role(False)
            assert idle.recv(1) == b""
            running.go_on.set()
            assert b"connection: close" in answer(busy)
            assert b"connection: close" in ask(fresh), (
                "its client has just made it: it is not closed before its request"
            )


def test_an_ending_replica_serves_until_the_hand_over_is_over(running: Running) -> None:
    running.script.on_role(True)
    running.server.handle_exit(signal.SIGTERM, None)
    assert running.script.told_to_end
    for _ in range(3):
        with running.connect() as connection:
            assert b"connection: close" in ask(connection)
    assert running.thread.is_alive()
    running.script.ended = True
    running.thread.join(10)
    assert not running.thread.is_alive()


def test_an_election_that_cannot_go_on_ends_the_replica(running: Running) -> None:
    running.script.ended = True
    running.script.on_fault()
    running.thread.join(10)
    assert not running.thread.is_alive()
