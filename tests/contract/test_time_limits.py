"""Slow clients: a head, a body and an idle connection each have their time, and nothing waits for ever."""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from flowagg_stack.services import Service

from tests.contract.flows import accepted, array, assert_problem, flow
from tests.contract.wire import Closed, Connection, Reset, head, request

LIMIT_SECONDS = 2
"""Of a head, of a POST, and of a client that takes nothing of its answers, in this module's writer."""
KEEP_ALIVE_SECONDS = 4
"""Of an idle connection."""
SLACK_SECONDS = 4.0
"""What a busy machine may add."""
JSON = ["Content-Type: application/json"]
UNREAD = 300
"""Answers, far more than the kernel holds for a client that does not read."""
LIVEZ = request("GET", "/livez")
BODY = array(flow(0))


def _promise(length: int = 1000, media_type: str = "application/json") -> bytes:
    return head("POST /flows HTTP/1.1", "Host: x", f"Content-Type: {media_type}", f"Content-Length: {length}")


def _assert_closed_in_time(connection: Connection) -> None:
    connection.wait_closed(LIMIT_SECONDS + SLACK_SECONDS)


def _assert_refused_in_time(connection: Connection, status: int) -> None:
    reply = connection.reply(LIMIT_SECONDS + SLACK_SECONDS)
    assert_problem(reply, status)
    assert reply.closes
    _assert_closed_in_time(connection)


def _answers_left(connection: Connection) -> int:
    """How many whole answers the kernel still holds of a connection that was cut off."""
    for number in itertools.count():
        try:
            connection.reply()
        except (Closed, Reset):
            return number
    raise AssertionError


def nothing_is_sent(connection: Connection) -> None:
    _assert_closed_in_time(connection)


def half_a_head(connection: Connection) -> None:
    connection.send(LIVEZ[:20])
    _assert_refused_in_time(connection, 408)


def half_a_request_line(connection: Connection) -> None:
    connection.send(b"GE")
    _assert_refused_in_time(connection, 408)


def a_head_byte_by_byte(connection: Connection) -> None:
    connection.dribble(request("GET", "/livez", ["X: " + "a" * 100]), pause=0.2)
    _assert_refused_in_time(connection, 408)


def a_head_line_by_line(connection: Connection) -> None:
    connection.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
    for number in range(8):
        connection.send(b"X-%d: a\r\n" % number)
        time.sleep(0.4)
    _assert_refused_in_time(connection, 408)


def half_a_head_after_a_request(connection: Connection) -> None:
    connection.send(LIVEZ + LIVEZ[:20])
    assert connection.reply().status_code == 200
    _assert_refused_in_time(connection, 408)


def half_a_head_after_a_post(connection: Connection) -> None:
    connection.send(request("POST", "/flows", JSON, b"[]") + b"P")
    accepted(connection.reply(), 0)
    _assert_refused_in_time(connection, 408)


def silence_after_a_request(connection: Connection) -> None:
    assert connection.ask(LIVEZ).status_code == 200
    connection.wait_closed(KEEP_ALIVE_SECONDS + SLACK_SECONDS)


def a_body_that_never_comes(connection: Connection) -> None:
    connection.send(_promise())
    _assert_refused_in_time(connection, 503)


def a_body_that_is_asked_for_and_never_comes(connection: Connection) -> None:
    connection.send(request("POST", "/flows", [*JSON, "Expect: 100-continue"], BODY)[: -len(BODY)])
    assert connection.reply().status_code == 100
    _assert_refused_in_time(connection, 503)


def a_body_byte_by_byte(connection: Connection) -> None:
    connection.send(_promise())
    connection.dribble(BODY, pause=0.2)
    _assert_refused_in_time(connection, 503)


def a_body_that_stops_before_its_last_byte(connection: Connection) -> None:
    connection.send(request("POST", "/flows", JSON, BODY)[:-1])
    _assert_refused_in_time(connection, 503)


def chunks_that_stop(connection: Connection) -> None:
    connection.send(head("POST /flows HTTP/1.1", "Host: x", *JSON, "Transfer-Encoding: chunked") + b"1\r\n[\r\n")
    _assert_refused_in_time(connection, 503)


def a_trailer_that_never_ends(connection: Connection) -> None:
    start = head("POST /flows HTTP/1.1", "Host: x", *JSON, "Transfer-Encoding: chunked") + b"2\r\n[]\r\n0\r\n"
    connection.send(start)
    connection.dribble(b"X: " + b"a" * 100, pause=0.2)
    reply = connection.reply(LIMIT_SECONDS + SLACK_SECONDS)
    if reply.status_code != 200:
        assert_problem(reply, 408, 503)
    _assert_closed_in_time(connection)


def a_refused_body_byte_by_byte(connection: Connection) -> None:
    connection.send(_promise(media_type="text/plain"))
    assert_problem(connection.reply(), 415)
    connection.dribble(b"x" * 20, pause=0.2)
    _assert_closed_in_time(connection)


def a_refused_body_that_never_comes(connection: Connection) -> None:
    connection.send(_promise(media_type="text/plain"))
    assert_problem(connection.reply(), 415)
    _assert_closed_in_time(connection)


def answers_that_are_not_taken(connection: Connection) -> None:
    connection.send_unread(request("GET", "/" + "a" * 30_000) * UNREAD, seconds=1)  # an answer names the path
    time.sleep(LIMIT_SECONDS + SLACK_SECONDS)
    assert _answers_left(connection) < UNREAD


def a_request_in_time_after_a_pause(connection: Connection) -> None:
    for _ in range(3):
        assert connection.ask(LIVEZ).status_code == 200
        time.sleep(LIMIT_SECONDS / 4)
    connection.dribble(LIVEZ, pause=LIMIT_SECONDS / 200)
    assert connection.reply().status_code == 200


CASES: list[Callable[[Connection], None]] = [
    nothing_is_sent,
    half_a_head,
    half_a_request_line,
    a_head_byte_by_byte,
    a_head_line_by_line,
    half_a_head_after_a_request,
    half_a_head_after_a_post,
    silence_after_a_request,
    a_body_that_never_comes,
    a_body_that_is_asked_for_and_never_comes,
    a_body_byte_by_byte,
    a_body_that_stops_before_its_last_byte,
    chunks_that_stop,
    a_trailer_that_never_ends,
    a_refused_body_byte_by_byte,
    a_refused_body_that_never_comes,
    answers_that_are_not_taken,
    a_request_in_time_after_a_pause,
]


@pytest.fixture(scope="module")
def conversations(start_writer: Callable[..., Service]) -> Iterator[dict[str, Future[None]]]:
    """All cases at the same time, since each of them is mostly waiting."""
    writer = start_writer(
        FLOWAGG_HEAD_TIMEOUT_SECONDS=str(LIMIT_SECONDS),
        FLOWAGG_POST_TIMEOUT_SECONDS=str(LIMIT_SECONDS),
        FLOWAGG_STALL_SECONDS=str(LIMIT_SECONDS),
        FLOWAGG_KEEP_ALIVE_SECONDS=str(KEEP_ALIVE_SECONDS),
    )

    def converse(case: Callable[[Connection], None]) -> None:
        buffer = 4096 if case is answers_that_are_not_taken else None
        with Connection(writer.url, buffer) as connection:
            case(connection)

    with ThreadPoolExecutor(len(CASES)) as pool:
        yield {case.__name__: pool.submit(converse, case) for case in CASES}


@pytest.mark.parametrize("case", [case.__name__ for case in CASES])
def test_a_slow_client(conversations: dict[str, Future[None]], case: str) -> None:
    conversations[case].result()
