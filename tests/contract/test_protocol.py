"""HTTP/1.1 to the letter: what a service takes, what it refuses, and that it closes in an orderly way.

Aimed at writer and reader themselves: a gateway in front frames requests anew.
"""

from contextlib import suppress

import httpx
import pytest
from flowagg_stack.services import Service

from tests.contract.flows import accepted, array, assert_problem, flow, rows
from tests.contract.memory import bounded_growth
from tests.contract.wire import Closed, Connection, Malformed, Reset, Silence, head, request

JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
CHUNK = b"2\r\n[]\r\n0\r\n\r\n"
LIVEZ = request("GET", "/livez")
KIB = 1024
MAX_HEAD = 64 * KIB
MAX_HEADERS = 100
AT_ONCE_SECONDS = 5.0
"""Far below the time-outs of heads and bodies."""


def post(*headers: str | bytes, body: bytes = b"", line: str = "POST /flows HTTP/1.1") -> bytes:
    """A POST whose framing is left to the headers given."""
    return head(line, "Host: x", JSON, *headers) + body


def get(*headers: str | bytes, line: str | bytes = "GET /livez HTTP/1.1") -> bytes:
    return head(line, "Host: x", *headers)


def assert_orderly_after(connection: Connection, closes: bool) -> None:
    """After an answer that says so the connection ends without a reset, after another it serves the next request."""
    if closes:
        connection.wait_closed(AT_ONCE_SECONDS)
    else:
        assert connection.ask(LIVEZ, AT_ONCE_SECONDS).status_code == 200


TAKEN = {
    "a length": post("Content-Length: 2", body=b"[]"),
    "a chunk": post(CHUNKED, body=CHUNK),
    "two chunks": post(CHUNKED, body=b"1\r\n[\r\n1\r\n]\r\n0\r\n\r\n"),
    "a chunk size with zeros and in capitals": post(CHUNKED, body=b"000A\r\n[        ]\r\n0\r\n\r\n"),
    "a chunk extension": post(CHUNKED, body=b'2;a="b"\r\n[]\r\n0\r\n\r\n'),
    "a trailer": post(CHUNKED, body=b"2\r\n[]\r\n0\r\nX-Sum: 1\r\n\r\n"),
    "100,000 chunks": post(CHUNKED, body=b"1\r\n[\r\n" + b"1\r\n \r\n" * 100_000 + b"1\r\n]\r\n0\r\n\r\n"),
    "chunked in capitals": post("TRANSFER-ENCODING: Chunked", body=CHUNK),
    "no space after the colon": head("POST /flows HTTP/1.1", "Host:x", "content-type:application/json",
                                     "CONTENT-LENGTH:2") + b"[]",
    "space around values": head("POST /flows HTTP/1.1", "Host: x", "Content-Type: \t application/json \t",
                                "Content-Length:   2  ") + b"[]",
    "an absolute target": post("Content-Length: 2", body=b"[]", line="POST http://x/flows HTTP/1.1"),
    "empty lines before": b"\r\n\r\n" + post("Content-Length: 2", body=b"[]"),
    "Connection: close": post("Connection: close", "Content-Length: 2", body=b"[]"),
    "HTTP/1.0": post("Content-Length: 2", body=b"[]", line="POST /flows HTTP/1.0"),
    "HTTP/1.0 without Host": head("POST /flows HTTP/1.0", JSON, "Content-Length: 2") + b"[]",
    "HTTP/1.0 that keeps alive": post("Connection: keep-alive", "Content-Length: 2", body=b"[]",
                                      line="POST /flows HTTP/1.0"),
    "an Upgrade to h2c": post("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAM",
                              "Content-Length: 2", body=b"[]"),
    "an Upgrade to h2c in chunks": post("Connection: Upgrade", "Upgrade: h2c", CHUNKED, body=CHUNK),
    "an Upgrade to websocket": post("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Content-Length: 2", body=b"[]"),
    "as many header lines as allowed": post("Content-Length: 2", *[f"X-{n}: a" for n in range(MAX_HEADERS - 3)],
                                            body=b"[]"),
    "a header line of 60 KiB": post("Content-Length: 2", "X: " + "a" * (60 * KIB), body=b"[]"),
    "an empty header value": post("Content-Length: 2", "X:", body=b"[]"),
    "a header value in Latin-1": post("Content-Length: 2", b"X: caf\xe9", body=b"[]"),
}  # fmt: skip


@pytest.mark.parametrize("sent", TAKEN.values(), ids=TAKEN.keys())
def test_a_post_is_taken(writer_url: str, sent: bytes) -> None:
    with Connection(writer_url) as connection:
        reply = connection.ask(sent)
        accepted(reply, 0)
        assert_orderly_after(connection, reply.closes)


@pytest.mark.parametrize("name", [name for name, sent in TAKEN.items() if len(sent) < 8 * KIB])
def test_a_post_is_taken_byte_by_byte(writer_url: str, name: str) -> None:
    with Connection(writer_url) as connection:
        connection.dribble(TAKEN[name], 0)
        reply = connection.reply()
        accepted(reply, 0)
        assert_orderly_after(connection, reply.closes)


CLOSING = ["Connection: close", "HTTP/1.0", "HTTP/1.0 without Host"]


@pytest.mark.parametrize("name", CLOSING)
def test_a_connection_that_need_not_stay_is_closed_after_the_answer(writer_url: str, name: str) -> None:
    with Connection(writer_url) as connection:
        accepted(connection.ask(TAKEN[name]), 0)
        connection.wait_closed(AT_ONCE_SECONDS)


REFUSED: dict[str, tuple[bytes, set[int]]] = {
    "garbage": (b"garbage\r\n\r\n", {400}),
    "garbage without a line end": (b"\x00\x01\x02garbage\xff", {400}),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)), {400}),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", {400}),
    "a Redis command": (b"*1\r\n$4\r\nPING\r\n", {400}),
    "an HTTP reply": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", {400}),
    "an HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", {400, 505}),
    "HTTP/0.9": (b"GET /livez\r\n\r\n", {400, 505}),
    "HTTP/1.2": (get(line="GET /livez HTTP/1.2"), {400, 505}),
    "HTTP/2.0": (get(line="GET /livez HTTP/2.0"), {400, 505}),
    "HTTP/3.0": (get(line="GET /livez HTTP/3.0"), {400, 505}),
    "a version in small letters": (get(line="GET /livez http/1.1"), {400, 505}),
    "a version that is none": (get(line="GET /livez HTTP/x"), {400, 505}),
    "no target": (get(line="GET HTTP/1.1"), {400}),
    "a target without a slash": (get(line="GET livez HTTP/1.1"), {400}),
    "a space in the target": (get(line="GET /li vez HTTP/1.1"), {400}),
    "UTF-8 in the target": (get(line="GET /é HTTP/1.1".encode()), {400}),
    "NUL in the target": (get(line=b"GET /\0 HTTP/1.1"), {400}),
    "no Host": (head("GET /livez HTTP/1.1"), {400}),
    "no Host on a POST": (head("POST /flows HTTP/1.1", JSON, "Content-Length: 2") + b"[]", {400}),
    "two Hosts": (get("Host: y"), {400}),
    "two Hosts alike": (get("Host: x"), {400}),
    "a folded line": (get("A: a", " b"), {400}),
    "a folded line by a tab": (get("A: a", "\tb"), {400}),
    "a space before the colon": (get("A : b"), {400}),
    "a header without a colon": (get("nonsense"), {400}),
    "a header without a name": (get(": b"), {400}),
    "a space in a header's name": (get("A B: c"), {400}),
    "UTF-8 in a header's name": (get("Ä: b".encode()), {400}),
    "NUL in a header": (get(b"A: a\0b"), {400}),
    "NUL in a header's name": (get(b"A\0: b"), {400}),
    "CR in a header": (get(b"A: a\rb"), {400}),
    "a length and chunks": (post("Content-Length: 2", CHUNKED, body=CHUNK), {400}),
    "chunks and a length": (post(CHUNKED, "Content-Length: 2", body=CHUNK), {400}),
    "two lengths": (post("Content-Length: 2", "Content-Length: 3", body=b"[] "), {400}),
    "two lengths in one": (post("Content-Length: 2, 3", body=b"[] "), {400}),
    "a negative length": (post("Content-Length: -1"), {400}),
    "a length with a plus": (post("Content-Length: +2", body=b"[]"), {400}),
    "a length with an exponent": (post("Content-Length: 1e3"), {400}),
    "a hexadecimal length": (post("Content-Length: 0x2", body=b"[]"), {400}),
    "an empty length": (post("Content-Length:", body=b"[]"), {400}),
    "a length in words": (post("Content-Length: two", body=b"[]"), {400}),
    "a length of 23 digits": (post("Content-Length: " + "9" * 23), {400, 413}),
    "a transfer coding after chunked": (post("Transfer-Encoding: chunked, gzip", body=CHUNK), {400, 501}),
    "a transfer coding before chunked": (post("Transfer-Encoding: gzip, chunked", body=CHUNK), {400, 501}),
    "an unknown transfer coding": (post("Transfer-Encoding: x", body=b"[]"), {400, 501}),
    "chunked twice": (post("Transfer-Encoding: chunked, chunked", body=CHUNK), {400, 501}),
    "a chunk size of no number": (post(CHUNKED, body=b"zz\r\n"), {400}),
    "a negative chunk size": (post(CHUNKED, body=b"-2\r\n[]\r\n0\r\n\r\n"), {400}),
    "a chunk size with 0x": (post(CHUNKED, body=b"0x2\r\n[]\r\n0\r\n\r\n"), {400}),
    "an empty chunk size": (post(CHUNKED, body=b"\r\n[]\r\n0\r\n\r\n"), {400}),
    "a chunk size past 64 bits": (post(CHUNKED, body=b"f" * 17 + b"\r\n[]\r\n"), {400, 413}),
    "a chunk longer than its size": (post(CHUNKED, body=b"2\r\n[]]\r\n0\r\n\r\n"), {400}),
    "a head of 64 KiB and a little": (post("Content-Length: 2", "X: " + "a" * MAX_HEAD, body=b"[]"), {431}),
    "a head of many lines past 64 KiB": (post("Content-Length: 2", *[f"X-{n}: " + "a" * KIB for n in range(70)],
                                              body=b"[]"), {431}),
    "a header name of 64 KiB": (get("X" * MAX_HEAD + ": a"), {400, 431}),
    "a header line too many": (get(*[f"X-{n}: a" for n in range(MAX_HEADERS)]), {431}),
    "10,000 header lines": (get(*["X: a"] * 10_000), {431}),
    "a path too long": (get(line=f"GET /{'a' * MAX_HEAD} HTTP/1.1"), {414, 431}),
    "a query too long": (get(line=f"GET /flows?hour=1&a={'a' * MAX_HEAD} HTTP/1.1"), {414, 431}),
    "a method too long": (get(line=f"{'A' * MAX_HEAD} /livez HTTP/1.1"), {400, 405, 431, 501}),
    "a head of 1 MiB": (get("X: " + "a" * 2**20), {431}),
    "a trailer of 1 MiB": (post(CHUNKED, body=b"2\r\n[]\r\n0\r\nX: " + b"a" * 2**20 + b"\r\n\r\n"), {431}),
    "a chunk extension of 1 MiB": (post(CHUNKED, body=b"2;" + b"a" * 2**20 + b"\r\n[]\r\n0\r\n\r\n"), {400, 413, 431}),
    "CONNECT": (head("CONNECT a:1 HTTP/1.1", "Host: a:1"), {400, 405, 501}),
    "OPTIONS *": (head("OPTIONS * HTTP/1.1", "Host: x"), {400, 404, 405}),
}  # fmt: skip
PUSHED_ON = {name for name, (sent, _) in REFUSED.items() if len(sent) > 100 * KIB}
"""Refused while much is still on its way: the answer must come, the end may be a reset."""


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_http_is_refused_with_a_problem_document(service: Service, name: str) -> None:
    sent, statuses = REFUSED[name]
    if service.name == "reader" and sent.startswith(b"POST"):
        statuses = statuses | {405}  # it may look at the method first
    with Connection(service.url) as connection:
        reply = connection.ask(sent, AT_ONCE_SECONDS)
        assert_problem(reply, *statuses)
        if name not in PUSHED_ON:
            assert_orderly_after(connection, reply.closes)
    assert httpx.get(f"{service.url}/livez").status_code == 200


def test_lines_ended_by_lf_alone_are_taken_or_refused(writer_url: str) -> None:
    with Connection(writer_url) as connection:
        reply = connection.ask(b"GET /livez HTTP/1.1\nHost: x\n\n", AT_ONCE_SECONDS)
        assert reply.status_code in {200, 400}
        if reply.status_code == 400:
            assert_problem(reply, 400)


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue"], ids=["without Expect", "with Expect"])
def test_a_length_past_the_limit_is_refused_before_the_body(writer_url: str, expect: str) -> None:
    with Connection(writer_url) as connection:
        reply = connection.ask(post("Content-Length: 67108864", *filter(None, [expect])), AT_ONCE_SECONDS)
        assert_problem(reply, 413)
        assert reply.closes
        connection.wait_closed(AT_ONCE_SECONDS)


def test_the_refusal_of_a_body_reaches_a_client_that_goes_on_sending(writer_url: str) -> None:
    with Connection(writer_url) as connection:
        connection.send(post("Content-Length: 9437184", body=b" " * 2**20))
        connection.send(b" " * (8 * 2**20))
        assert_problem(connection.reply(), 413)


def test_a_body_is_asked_for_where_the_client_waits(writer_url: str, client: httpx.Client, hour: int) -> None:
    body = array(flow(hour))
    with Connection(writer_url) as connection:
        asked = connection.ask(post(f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert (asked.status_code, asked.content) == (100, b"")
        accepted(connection.ask(body), 1)
    assert rows(client, hour) == [flow(hour)]


def test_a_body_that_is_refused_anyway_is_not_asked_for(writer_url: str) -> None:
    with Connection(writer_url) as connection:
        sent = head("POST /flows HTTP/1.1", "Host: x", "Content-Type: text/plain", "Content-Length: 2",
                    "Expect: 100-continue")  # fmt: skip
        assert_problem(connection.ask(sent, AT_ONCE_SECONDS), 415)


def test_another_expectation_is_ignored_or_refused(writer_url: str) -> None:
    with Connection(writer_url) as connection:
        reply = connection.ask(post("Content-Length: 2", "Expect: 200-ok", body=b"[]"), AT_ONCE_SECONDS)
        assert reply.status_code in {200, 417}


@pytest.mark.parametrize("count", [2, 3, 50])
def test_pipelined_requests_are_answered_in_order(writer_url: str, client: httpx.Client, hour: int, count: int) -> None:
    bodies = [array(*[flow(hour)] * number) for number in range(count)]
    sent = b"".join(post(f"Content-Length: {len(body)}", body=body) + LIVEZ for body in bodies)
    with Connection(writer_url) as connection:
        connection.send(sent)
        for number in range(count):
            accepted(connection.reply(), number)
            assert "checks" in connection.reply().json()
    total = count * (count - 1) // 2
    assert rows(client, hour) == [flow(hour, tx=total, rx=2 * total)]


def test_pipelined_gets_are_answered_in_order(reader_url: str, client: httpx.Client, hour: int) -> None:
    client.post("/flows", json=[flow(hour)])
    with Connection(reader_url) as connection:
        connection.send(b"".join(request("GET", f"/flows?hour={hour + more}") for more in (0, 10**15, 0)))
        assert [connection.reply().json() for _ in range(3)] == [[flow(hour)], [], [flow(hour)]]


@pytest.mark.parametrize("garbage", [b"garbage\r\n\r\n", b"\0\0\0\0", b"[]"], ids=repr)
def test_a_post_before_garbage_is_answered_first(
    writer_url: str, client: httpx.Client, hour: int, garbage: bytes
) -> None:
    body = array(flow(hour))
    with Connection(writer_url) as connection:
        connection.send(post(f"Content-Length: {len(body)}", body=body) + garbage)
        accepted(connection.reply(), 1)
        assert_problem(connection.reply(), 400)
        connection.wait_closed(AT_ONCE_SECONDS)
    assert rows(client, hour) == [flow(hour)]


def test_a_refused_post_before_another_does_not_disturb_it(writer_url: str, client: httpx.Client, hour: int) -> None:
    body = array(flow(hour))
    with Connection(writer_url) as connection:
        connection.send(post("Content-Length: 3", body=b"[1]") + post(f"Content-Length: {len(body)}", body=body))
        assert_problem(connection.reply(), 400)
        accepted(connection.reply(), 1)
    assert rows(client, hour) == [flow(hour)]


def test_a_post_whose_client_sends_no_more_gets_its_answer(writer_url: str, client: httpx.Client, hour: int) -> None:
    body = array(flow(hour))
    with Connection(writer_url) as connection:
        connection.send(post(f"Content-Length: {len(body)}", body=body))
        connection.half_close()
        accepted(connection.reply(), 1)
        connection.wait_closed(AT_ONCE_SECONDS)
    assert rows(client, hour) == [flow(hour)]


def test_a_get_whose_client_sends_no_more_gets_its_answer(reader_url: str, client: httpx.Client, hour: int) -> None:
    client.post("/flows", json=[flow(hour)])
    with Connection(reader_url) as connection:
        connection.send(request("GET", f"/flows?hour={hour}"))
        connection.half_close()
        assert connection.reply().json() == [flow(hour)]
        connection.wait_closed(AT_ONCE_SECONDS)


def test_pipelined_posts_whose_client_sends_no_more_get_their_answers(
    writer_url: str, client: httpx.Client, hour: int
) -> None:
    body = array(flow(hour))
    with Connection(writer_url) as connection:
        connection.send(post(f"Content-Length: {len(body)}", body=body) * 3)
        connection.half_close()
        for _ in range(3):
            accepted(connection.reply(), 1)
        connection.wait_closed(AT_ONCE_SECONDS)
    assert rows(client, hour) == [flow(hour, tx=3, rx=6)]


@pytest.mark.parametrize("framing", ["Content-Length: 500", CHUNKED])
@pytest.mark.parametrize("part", [b"", b"1f4\r\n[", b"["], ids=repr)
def test_a_client_that_leaves_in_a_body_counts_nothing(
    writer_url: str, client: httpx.Client, hour: int, framing: str, part: bytes
) -> None:
    with Connection(writer_url) as connection:
        connection.send(post(framing, body=part + array(flow(hour))[1:]))
        connection.half_close()
        with suppress(Closed, Reset):
            assert_problem(connection.reply(AT_ONCE_SECONDS), 400)
    assert rows(client, hour) == []


@pytest.mark.parametrize("at", ["the body alone", "the middle of the head"])
def test_an_upgrade_keeps_a_body_that_comes_in_parts(writer_url: str, client: httpx.Client, hour: int, at: str) -> None:
    body = array(flow(hour))
    sent = post("Connection: Upgrade", "Upgrade: h2c", f"Content-Length: {len(body)}", body=body)
    cut = len(sent) - len(body) if at == "the body alone" else 40
    with Connection(writer_url) as connection:
        connection.send(sent[:cut])
        with pytest.raises(Silence):
            connection.reply(0.2)
        accepted(connection.ask(sent[cut:]), 1)
    assert rows(client, hour) == [flow(hour)]


def test_a_head_reply_has_no_body_and_the_next_request_is_answered(reader_url: str) -> None:
    with Connection(reader_url) as connection:
        for target, status in (("/flows?hour=1", 200), ("/flows?hour=x", 400), ("/livez", 200), ("/nothing", 404)):
            reply = connection.ask(request("HEAD", target), to_head=True)
            assert reply.status_code == status
            assert_orderly_after(connection, reply.closes)


def test_a_reply_not_modified_has_no_body_and_the_next_request_is_answered(
    reader_url: str, client: httpx.Client, hour: int
) -> None:
    client.post("/flows", json=[flow(hour)])
    assert rows(client, hour) == [flow(hour)]
    with Connection(reader_url) as connection:
        assert connection.ask(request("GET", f"/flows?hour={hour}", ["If-None-Match: *"])).status_code == 304
        assert_orderly_after(connection, closes=False)


def test_a_client_that_does_not_read_costs_little_and_disturbs_nobody(writer: Service) -> None:
    with bounded_growth(writer.child.process.pid, 50), Connection(writer.url, receive_buffer=4096) as connection:
        connection.send_unread(LIVEZ * 200_000, seconds=2)
        assert httpx.get(f"{writer.url}/livez", timeout=AT_ONCE_SECONDS).status_code == 200


def test_an_endless_head_costs_little(writer: Service) -> None:
    with bounded_growth(writer.child.process.pid, 20), Connection(writer.url) as connection:
        connection.send(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (32 * 2**20))
        try:
            assert_problem(connection.reply(AT_ONCE_SECONDS), 431)
        except (Reset, Malformed) as error:
            pytest.fail(f"no answer: {error!r}")
