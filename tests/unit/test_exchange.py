"""Exchanges: answers without ASGI, and what becomes of them where a client or the server goes."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import pytest
from flowagg.exchange import Exchange
from flowagg.position import Position
from flowagg.problem import Problem
from flowagg_reader.access import EVERYTHING
from flowagg_reader.app import create_app as reader_app
from flowagg_reader.settings import ReaderSettings
from flowagg_writer.app import create_app as writer_app
from flowagg_writer.log import Log
from flowagg_writer.settings import WriterSettings

from tests.exchanges import DEFAULT_HEAD, Connection, answer_in

POST = [(b"host", b"h"), (b"content-type", b"application/json")]
FLOW = b'[{"src_app":"a","dest_app":"b","vpc_id":"c","hour":1,"bytes_tx":1,"bytes_rx":2}]'


class SilentLog:
    """Never says what became of a batch; nor where the log ends."""

    def __init__(self) -> None:
        self.ended: list[Callable[[Any], None]] = []
        self.batches: list[Any] = []

    def begin(self, batch: Any, ended: Callable[[Any], None]) -> None:
        self.batches.append(batch)
        self.ended.append(ended)

    async def end(self) -> Position:
        await asyncio.Event().wait()
        raise AssertionError("it never ends")


class SilentStore:
    """Does not answer."""

    async def look(self, partitions: Any, hour: int) -> Mapping[int, Any]:
        await asyncio.Event().wait()
        raise AssertionError("it never ends")


class Appended:
    """As Appending."""

    def answer(self) -> bytes:
        return b"{}"


def writer(log: SilentLog) -> Any:
    return cast(Any, writer_app(WriterSettings(), cast(Log, log))).exchanges


def reader(**settings: Any) -> Any:
    app = reader_app(ReaderSettings(**settings), cast(Any, SilentStore()), cast(Any, SilentLog()), lambda _: EVERYTHING)
    return cast(Any, app).exchanges


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(cast(Any, scenario()))


def begun(endpoint: Any, target: bytes, headers: Any = (), body: bytes = b"") -> tuple[Connection, Exchange]:
    connection = Connection()
    method = b"POST" if body else b"GET"
    head = endpoint.read_head(method, target, headers)
    exchange = Exchange(connection, target, body, b"the-id", head, keep_alive=True)
    endpoint.begin(exchange)
    return connection, exchange


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("method", "target", "headers", "taken"),
    [
        (b"POST", b"/flows", POST, True),
        (b"POST", b"/flows", [], False),  # refused, by ASGI
        (b"POST", b"/flows", [*POST, (b"content-encoding", b"gzip")], False),
        (b"POST", b"/flows?a=b", POST, False),
        (b"POST", b"/flows/", POST, False),
        (b"POST", b"/flow%73", POST, False),
        (b"PUT", b"/flows", POST, False),
        (b"GET", b"/flows", POST, False),
    ],
)
def test_the_writer_takes_plain_posts(method: bytes, target: bytes, headers: Any, taken: bool) -> None:
    assert (writer(SilentLog()).read_head(method, target, headers) is not None) == taken


@pytest.mark.parametrize(
    ("method", "target", "taken"),
    [
        (b"GET", b"/flows", True),
        (b"GET", b"/flows?hour=1", True),
        (b"GET", b"/flows?hour=1#part", False),
        (b"GET", b"/flowsx?hour=1", False),
        (b"GET", b"http://host/flows?hour=1", False),
        (b"GET", b"/readyz", False),
        (b"HEAD", b"/flows?hour=1", False),
        (b"POST", b"/flows", False),
    ],
)
def test_the_reader_takes_gets(method: bytes, target: bytes, taken: bool) -> None:
    assert (reader().read_head(method, target, []) is not None) == taken


def test_an_answer_is_written_once_with_the_heads_lines_first() -> None:
    async def scenario() -> None:
        connection = Connection()
        exchange = Exchange(connection, b"/", b"", b"an-id", None, keep_alive=True)
        assert len(connection.server_state.tasks) == 1
        exchange.answer(200, b"content-length: 2\r\n", b"ok")
        exchange.answer(200, b"content-length: 5\r\n", b"again")
        exchange.respond(Problem(503, "again").response())
        head = b"HTTP/1.1 200 OK\r\n" + DEFAULT_HEAD + b"x-request-id: an-id\r\ncontent-length: 2\r\n\r\n"
        assert connection.kept.written == [head + b"ok"]
        assert connection.complete.is_set()
        assert not connection.server_state.tasks
        assert not connection.kept.closed

    run(scenario)


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_connection_is_closed_where_the_answer_or_the_request_says_so(keep_alive: bool) -> None:
    async def scenario() -> None:
        connection = Connection()
        exchange = Exchange(connection, b"/", b"", b"an-id", None, keep_alive=keep_alive)
        exchange.respond(Problem(413, "too much", headers={"Connection": "close"} if keep_alive else None).response())
        written = b"".join(connection.kept.written)
        assert written.lower().count(b"connection: close\r\n") == 1
        assert answer_in(written).json()["detail"] == "too much"
        assert connection.kept.closed

    run(scenario)


def test_a_client_that_has_gone_gets_nothing_and_holds_nothing() -> None:
    async def scenario() -> None:
        log = SilentLog()
        connection, exchange = begun(writer(log), b"/flows", POST, FLOW)
        exchange.disconnected = True  # as the connection says
        log.ended[0](Appended())
        assert connection.kept.written == []
        assert exchange.response_complete
        assert not connection.complete.is_set()
        assert not connection.server_state.tasks

    run(scenario)


def test_the_servers_end_answers_what_kafka_has_not_and_a_late_acknowledgement_is_borne() -> None:
    async def scenario() -> None:
        log = SilentLog()
        connection, exchange = begun(writer(log), b"/flows", POST, FLOW)
        assert exchange.body == b""  # the batch has it
        exchange.cancel()
        assert not connection.complete.is_set()  # tasks are cancelled while their set is gone through
        await turns()
        answer = answer_in(b"".join(connection.kept.written))
        assert (answer.status_code, answer.headers["connection"]) == (503, "close")
        assert "Some may have been kept" in answer.json()["detail"]
        log.ended[0](Appended())
        assert len(connection.kept.written) == 1

    run(scenario)


@pytest.mark.parametrize("target", [b"/flows?hour=1", b"/flows?hour=1&consistency=eventual"])
def test_a_get_that_waits_for_kafka_or_redis_ends_with_the_server(target: bytes) -> None:
    async def scenario() -> None:
        connection, exchange = begun(reader(), target)
        await turns()
        exchange.cancel()
        await turns()
        answer = answer_in(b"".join(connection.kept.written))
        assert (answer.status_code, answer.headers["connection"]) == (503, "close")
        assert answer.json()["detail"] == "This reader ends: ask again."

    run(scenario)


@pytest.mark.parametrize("target", [b"/flows?hour=1", b"/flows?hour=1&consistency=eventual"])
def test_a_get_takes_no_longer_than_it_may(target: bytes) -> None:
    async def scenario() -> None:
        connection, _ = begun(reader(get_timeout_seconds=1), target)
        await asyncio.wait_for(connection.complete.wait(), 10)
        answer = answer_in(b"".join(connection.kept.written))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "took too long" in answer.json()["detail"]

    run(scenario)


@pytest.mark.parametrize("paused", [False, True])
def test_a_long_body_is_handed_over_at_once_and_given_back_when_it_is_taken(paused: bool) -> None:
    async def scenario() -> None:
        connection, given_back = Connection(), asyncio.Event()
        exchange = Exchange(connection, b"/", b"", b"an-id", None, keep_alive=True)
        if paused:
            connection.flow.pause_writing()
        waiting = exchange.send_long(200, b"content-length: 4\r\n", [b"lo", b"ng"], 30, given_back.set)
        assert (waiting is not None) == paused
        if waiting is not None:
            exchange.run(waiting)
        assert b"".join(connection.kept.written).endswith(b"\r\n\r\nlong")
        await turns()
        assert given_back.is_set() == connection.complete.is_set() == (not paused)
        connection.flow.resume_writing()
        await asyncio.wait_for(connection.complete.wait(), 10)
        assert given_back.is_set()
        assert not connection.kept.closed

    run(scenario)


@pytest.mark.parametrize("end", ["stall", "server", "client"])
def test_a_long_body_that_nobody_takes_is_given_back(end: str) -> None:
    async def scenario() -> None:
        connection, given_back = Connection(), asyncio.Event()
        exchange = Exchange(connection, b"/", b"", b"an-id", None, keep_alive=True)
        connection.flow.pause_writing()
        waiting = exchange.send_long(200, b"", [b"lo", b"ng"], 0.01 if end == "stall" else 30, given_back.set)
        assert waiting is not None
        exchange.run(waiting)
        await turns()
        if end == "server":
            exchange.cancel()
        elif end == "client":
            exchange.disconnected = True
            connection.flow.resume_writing()
        await asyncio.wait_for(given_back.wait(), 10)
        await turns()
        assert exchange.response_complete
        assert connection.kept.closed == (end != "client")

    run(scenario)


def test_a_long_body_that_a_task_sends_leaves_the_connection_open() -> None:
    async def scenario() -> None:
        connection, given_back = Connection(), asyncio.Event()
        exchange = Exchange(connection, b"/", b"", b"an-id", None, keep_alive=True)
        connection.flow.pause_writing()

        async def answer() -> None:
            await asyncio.sleep(0)
            waiting = exchange.send_long(200, b"content-length: 4\r\n", [b"lo", b"ng"], 30, given_back.set)
            assert waiting is not None
            await waiting

        exchange.run(answer())
        await turns()
        assert not given_back.is_set()
        connection.flow.resume_writing()
        await asyncio.wait_for(connection.complete.wait(), 10)
        await turns()
        assert given_back.is_set()
        assert not connection.kept.closed

    run(scenario)


def test_where_a_task_ends_without_an_answer_the_connection_is_closed() -> None:
    async def scenario() -> None:
        connection = Connection()
        exchange = Exchange(connection, b"/", b"", b"an-id", None, keep_alive=True)

        async def half() -> None:
            await exchange.send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
            await exchange.send({"type": "http.response.body", "body": b"half", "more_body": True})

        exchange.run(half())
        await asyncio.wait_for(connection.complete.wait(), 10)
        assert b"".join(connection.kept.written).endswith(b"\r\n\r\nhalf")
        assert connection.kept.closed
        assert not connection.server_state.tasks

    run(scenario)


def test_what_is_answered_leaves_no_cycles_of_references() -> None:
    """Garbage in cycles stays until a collection, which services have seldom."""

    async def scenario() -> None:
        log = SilentLog()
        connection, exchange = begun(writer(log), b"/flows", POST, FLOW)
        log.ended[0](Appended())
        log.ended.clear()
        gone = weakref.ref(connection)
        assert exchange.response_complete
        del connection, exchange
        assert gone() is None

    gc.collect()
    gc.disable()
    try:
        run(scenario)
    finally:
        gc.enable()
