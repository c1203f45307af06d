"""SIGTERM: what is in hand is answered, connections end in an orderly way, the exit status is 0."""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest
from flowagg_stack.ports import answers
from flowagg_stack.processes import wait_until
from flowagg_stack.services import Service

from tests.contract.flows import accepted, array, flow, rows
from tests.contract.wire import Connection, request

LINGER_MS = 1000
"""Time that this writer's records wait before they go to Kafka: so their POSTs are surely in hand."""
EXIT_SECONDS = 15.0
LIVEZ = request("GET", "/livez")


def post(hour: int) -> bytes:
    return request("POST", "/flows", ["Content-Type: application/json"], array(flow(hour)))


@pytest.fixture
def slow_writer(start_writer: Callable[..., Service]) -> Service:
    return start_writer(FLOWAGG_LINGER_MS=str(LINGER_MS))


@pytest.fixture
def connections(slow_writer: Service) -> Iterator[Callable[[], Connection]]:
    """Opens connections that the writer has taken."""
    with ExitStack() as stack:

        def opened() -> Connection:
            connection = stack.enter_context(Connection(slow_writer.url))
            assert connection.ask(LIVEZ).status_code == 200
            return connection

        yield opened


def _in_hand(writer: Service) -> int:
    """How many POSTs the writer has in hand."""
    match = re.search(r"^flowagg_writer_waiting_requests (\d+)", httpx.get(f"{writer.url}/metrics").text, re.M)
    assert match is not None
    return int(match[1])


def _terminate(writer: Service) -> None:
    """SIGTERM, and wait until it takes no further connection."""
    writer.child.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not answers(urlsplit(writer.url).port or 0), "the writer stops listening", EXIT_SECONDS)


def test_sigterm_answers_what_is_in_hand(
    slow_writer: Service, connections: Callable[[], Connection], client: httpx.Client, hour: int
) -> None:
    in_flight = [connections() for _ in range(3)]
    half_body, no_body, idle = connections(), connections(), connections()
    half_body.send(post(hour)[:-5])
    no_body.send(post(hour)[: -len(array(flow(hour)))])
    for connection in in_flight:
        connection.send(post(hour))
    wait_until(lambda: _in_hand(slow_writer) >= 3, "POSTs are in hand", EXIT_SECONDS)
    _terminate(slow_writer)

    half_body.send(post(hour)[-5:])
    no_body.send(array(flow(hour)))
    for connection in (*in_flight, half_body, no_body):
        accepted(connection.reply(), 1)
        connection.wait_closed()
    idle.wait_closed()
    assert slow_writer.child.process.wait(EXIT_SECONDS) == 0
    assert rows(client, hour) == [flow(hour, tx=5, rx=10)]


def test_answers_after_sigterm_say_that_the_connection_ends(
    slow_writer: Service, connections: Callable[[], Connection], hour: int
) -> None:
    half_body = connections()
    half_body.send(post(hour)[:-5])
    wait_until(lambda: _in_hand(slow_writer) == 1, "the POST is in hand", EXIT_SECONDS)
    _terminate(slow_writer)
    reply = half_body.ask(post(hour)[-5:])
    accepted(reply, 1)
    assert reply.closes
    half_body.wait_closed()
    assert slow_writer.child.process.wait(EXIT_SECONDS) == 0


def test_a_writer_that_drains_goes_on_and_says_that_connections_end(
    start_writer: Callable[..., Service], client: httpx.Client, hour: int
) -> None:
    writer = start_writer(FLOWAGG_DRAIN_SECONDS="2")
    with Connection(writer.url) as idle, Connection(writer.url) as new:
        assert idle.ask(LIVEZ).status_code == 200
        writer.child.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "close" in httpx.head(f"{writer.url}/livez").headers.get("connection", ""), "it drains", 5)
        for connection in (idle, new):
            reply = connection.ask(post(hour))
            accepted(reply, 1)
            assert reply.closes
            connection.wait_closed()
    assert writer.child.process.wait(EXIT_SECONDS) == 0
    assert rows(client, hour) == [flow(hour, tx=2, rx=4)]


def test_sigterm_ends_an_idle_writer_at_once(slow_writer: Service, connections: Callable[[], Connection]) -> None:
    idle = [connections() for _ in range(5)]
    slow_writer.child.process.send_signal(signal.SIGTERM)
    for connection in idle:
        connection.wait_closed()
    assert slow_writer.child.process.wait(EXIT_SECONDS) == 0
