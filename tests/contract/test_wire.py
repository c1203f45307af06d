"""The strict client itself: what it takes for a reply and what not."""

import pytest

from tests.contract.wire import Malformed, Reply, parse_reply

OK = b"HTTP/1.1 200 OK\r\n"

WHOLE = {
    "a length": (OK + b"Content-Length: 2\r\n\r\n[]", b"[]"),
    "a length of nothing": (OK + b"content-length:0\r\n\r\n", b""),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n", b"[]"),
    "no phrase": (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", b""),
    "not modified with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", b""),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n", b""),
    "an empty header value": (OK + b"A:\r\nContent-Length: 0\r\n\r\n", b""),
}
MALFORMED = {
    "no HTTP": b"garbage\r\n\r\n",
    "another version": b"HTTP/2 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "lines ended by LF alone": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "a space before the colon": OK + b"Content-Length : 0\r\n\r\n",
    "a folded line": OK + b"A: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "NUL in a header": OK + b"A: \0\r\nContent-Length: 0\r\n\r\n",
    "LF in a header": OK + b"A: a\nContent-Length: 0\r\n\r\n",
    "neither a length nor a close": OK + b"\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n[]",
    "a length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length that is none": OK + b"Content-Length: +2\r\n\r\n[]",
    "an unknown transfer coding": OK + b"Transfer-Encoding: gzip\r\n\r\n",
    "a chunk size that is none": OK + b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
    "a chunk longer than its size": OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n[]\r\n0\r\n\r\n",
    "a length with no content": b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    "a length with continue": b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
}


def reply(raw: bytes, to_head: bool = False, ended: bool = False) -> Reply:
    found = parse_reply(raw, ended, to_head)
    assert found is not None
    assert found[1] == len(raw)
    return found[0]


@pytest.mark.parametrize(("raw", "body"), WHOLE.values(), ids=WHOLE.keys())
def test_a_whole_reply_is_taken_and_a_part_of_it_is_not(raw: bytes, body: bytes) -> None:
    assert reply(raw).content == body
    for length in range(len(raw)):
        assert parse_reply(raw[:length], ended=False, to_head=False) is None
    more = parse_reply(raw + OK, ended=False, to_head=False)
    assert more is not None
    assert more[1] == len(raw)


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_reply_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse_reply(raw, ended=False, to_head=False)


def test_a_reply_to_head_has_no_body() -> None:
    assert reply(OK + b"Content-Length: 2\r\n\r\n", to_head=True).content == b""


def test_a_reply_that_closes_may_end_with_the_connection() -> None:
    raw = OK + b"Connection: close\r\n\r\n[]"
    assert parse_reply(raw, ended=False, to_head=False) is None
    assert reply(raw, ended=True).content == b"[]"
    assert reply(raw, ended=True).closes


def test_a_header_given_twice_is_seen_twice() -> None:
    found = reply(OK + b"A: 1\r\na: 2\r\nContent-Length: 0\r\n\r\n")
    assert found.headers.get_list("a") == ["1", "2"]
