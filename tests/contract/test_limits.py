"""Limits on connections and waiting requests: past them a refusal at once, and those within are not harmed."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
from flowagg_stack.processes import wait_until
from flowagg_stack.services import Service

from tests.contract.flows import accepted, array, assert_problem, flow, rows
from tests.contract.flows import post as post_flows
from tests.contract.wire import Closed, Connection, Reply, Reset, request

CONNECTIONS = 10
WAITING = 4
AT_ONCE_SECONDS = 5.0
"""Far below the time that a POST may take."""
LIVEZ = request("GET", "/livez")


def post(body: bytes = b"[]") -> bytes:
    return request("POST", "/flows", ["Content-Type: application/json"], body)


@pytest.fixture(scope="module")
def limited(start_writer: Callable[..., Service]) -> Service:
    return start_writer(FLOWAGG_MAX_CONNECTIONS=str(CONNECTIONS), FLOWAGG_MAX_WAITING_REQUESTS=str(WAITING))


def _in_hand(writer: Service) -> int:
    found = re.search(r"^flowagg_writer_waiting_requests (\d+)", httpx.get(f"{writer.url}/metrics").text, re.M)
    assert found is not None
    return int(found[1])


@pytest.fixture
def full(limited: Service) -> Iterator[list[Connection]]:
    """As many connections as the writer takes, each in use."""
    with ExitStack() as stack:
        deadline = time.monotonic() + 10
        while True:  # connections of the test before may not be gone yet
            opened = [stack.enter_context(Connection(limited.url)) for _ in range(CONNECTIONS)]
            if [_ask(connection) for connection in opened] == [200] * CONNECTIONS:
                break
            assert time.monotonic() < deadline, f"the writer does not take {CONNECTIONS} connections"
            stack.close()
            time.sleep(0.1)
        yield opened


def _ask(connection: Connection) -> int | None:
    try:
        return connection.ask(post(), AT_ONCE_SECONDS).status_code
    except (Closed, Reset):
        return None


def _refused(connection: Connection) -> Reply:
    began = time.monotonic()
    reply = connection.ask(post(), AT_ONCE_SECONDS)
    assert_problem(reply, 503)
    assert time.monotonic() - began < AT_ONCE_SECONDS
    return reply


def test_a_connection_too_many_is_refused_at_once(limited: Service, full: list[Connection]) -> None:
    for _ in range(3):
        with Connection(limited.url) as further:
            reply = _refused(further)
            assert reply.closes
            further.wait_closed(AT_ONCE_SECONDS)


def test_connections_within_the_limit_go_on_unharmed(
    limited: Service, full: list[Connection], client: httpx.Client, hour: int
) -> None:
    with Connection(limited.url) as further:
        _refused(further)
        for connection in full:
            accepted(connection.ask(post(array(flow(hour)))), 1)
    assert rows(client, hour) == [flow(hour, tx=CONNECTIONS, rx=2 * CONNECTIONS)]


def test_a_writer_with_all_connections_in_use_still_says_that_it_lives(
    limited: Service, full: list[Connection]
) -> None:
    for _ in range(3):
        with Connection(limited.url) as further:
            assert further.ask(LIVEZ, AT_ONCE_SECONDS).status_code == 200


def test_a_connection_that_ends_makes_room(limited: Service, full: list[Connection]) -> None:
    full[0].half_close()
    full[0].wait_closed()
    deadline = time.monotonic() + 5
    while True:
        with Connection(limited.url) as further:
            if _ask(further) == 200:
                return
        assert time.monotonic() < deadline


def test_clients_that_do_not_read_their_rows_keep_nobody_waiting(
    reader: Service, client: httpx.Client, hour: int
) -> None:
    name = "\U0001f600" * 250
    post_flows(client, *(flow(hour, f"{number:04}", name, name) for number in range(2000)))  # 4 MB of rows
    with ExitStack() as stack:
        for _ in range(10):
            slow = stack.enter_context(Connection(reader.url, receive_buffer=4096))
            slow.send(request("GET", f"/flows?hour={hour}"))
        assert len(httpx.get(f"{reader.url}/flows", params={"hour": hour}, timeout=10).json()) == 2000
        assert httpx.get(f"{reader.url}/livez", timeout=AT_ONCE_SECONDS).status_code == 200


def test_a_request_too_many_is_refused_at_once_and_those_in_hand_are_answered(
    limited: Service, client: httpx.Client, hour: int
) -> None:
    sent = post(array(flow(hour)))
    with ExitStack() as stack:
        waiting = [stack.enter_context(Connection(limited.url)) for _ in range(WAITING)]
        further = stack.enter_context(Connection(limited.url))
        for connection in waiting:
            connection.send(sent[:-5])
        # Before that a further one could be among those in hand, and one of these be refused in its place.
        wait_until(lambda: _in_hand(limited) == WAITING, "the writer has them in hand", 5, [limited.child])
        assert_problem(further.ask(post(), AT_ONCE_SECONDS), 503)
        assert further.ask(LIVEZ, AT_ONCE_SECONDS).status_code == 200
        for connection in waiting:
            accepted(connection.ask(sent[-5:]), 1)
        accepted(further.ask(post(), AT_ONCE_SECONDS), 0)
    assert rows(client, hour) == [flow(hour, tx=WAITING, rx=2 * WAITING)]
