"""Mutated requests: whatever is sent, the answer is a documented one and comes in time, and the process lives on."""

import gzip
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest
from flowagg_stack.services import Service

from tests.contract.flows import FIELDS, MAX, array, assert_problem, flow, lines, new_hour, post, rows
from tests.contract.memory import bounded_growth
from tests.contract.oracle import Unsure, accepted_flows
from tests.contract.wire import Closed, Connection, Reset, request

BODIES = 400
QUERIES = 300
HEADS = 1000
SECONDS = 8.0
"""For an answer or a close; the time-outs of the writer and the reader are far below or do not apply."""
GROWTH_MIB = 50
DOCUMENTED = {200, 400, 404, 405, 408, 410, 413, 414, 415, 417, 422, 431, 501, 503, 505}

TOKENS = [
    b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"null", b"true", b"-0", b"-1", b"1e9",
    b"1.5", b"9007199254740991", b"9007199254740992", b"18446744073709551616", b"NaN", b" ", b"\n", b"\r\n", b"\t",
    b"\0", b"\xff", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xe2\x80\xa8",
    b"[" * 2000, b"0" * 500, *(f'"{name}"'.encode() for name in FIELDS),
]  # fmt: skip
HEAD_TOKENS = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b":", b" ", b"\t", b"\0", b"\x7f", b"\xff", b",", b";", b"/", b"//", b"?",
    b"#", b"%", b"%00", b"%2f", b"*", b"GET", b"POST", b"PUT", b"CONNECT", b"HTTP/1.0", b"HTTP/1.1",
    b"HTTP/2.0", b"Host: a\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: 99999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: Upgrade\r\n", b"Upgrade: h2c\r\n",
    b"Upgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: br\r\n", b"Content-Type: text/plain\r\n", b"Content-Type: application/x-ndjson\r\n",
    b"Idempotency-Key: \r\n", b"Idempotency-Key: k\r\n", b"If-None-Match: *\r\n", b"If-None-Match: W/\r\n",
    b"X-Request-Id: \xff\r\n", b"Authorization: Bearer x\r\n", b"Range: bytes=0-\r\n", b"0\r\n\r\n", b"5\r\n",
    b"a" * 70_000, b"X: a\r\n" * 120,
]  # fmt: skip
QUERY_TOKENS = [
    "hour", "=", "&", "1", "0", "-", "+", "%00", "%20", "%ff", "%", "%2", ";", "after", "consistency", "strict",
    "eventual", "fresh", "eyJ0IjoiQSIsInAiOnt9fQ", "e30", "[]", "*", "9" * 400, f"{MAX}", f"{MAX + 1}", "hour=1",
    "&hour=2", "a" * 9000,
]  # fmt: skip


def mutated(choices: random.Random, sent: bytes, tokens: Sequence[bytes]) -> bytes:
    """The bytes after some changes."""
    for _ in range(choices.choice([1, 1, 1, 2, 4])):
        start = choices.randint(0, len(sent))
        end = min(len(sent), start + choices.choice([0, 1, 1, 2, 8, 40]))
        token = choices.choice(tokens)
        match choices.randrange(6):
            case 0:
                sent = sent[:start] + token + sent[start:]
            case 1:
                sent = sent[:start] + token + sent[end:]
            case 2:
                sent = sent[:start] + sent[end:]
            case 3:
                sent = sent[:end] + sent[start:end] * choices.choice([1, 2, 50]) + sent[end:]
            case 4 if start < len(sent):
                sent = sent[:start] + bytes([sent[start] ^ 1 << choices.randrange(8)]) + sent[start + 1 :]
            case _:
                sent = sent[:start] if choices.random() < 0.2 else sent
    return sent


def a_body(choices: random.Random) -> tuple[dict[str, str], bytes]:
    """Headers and a mutated body of a POST."""
    flows = [flow(new_hour(), tx=choices.choice([0, 1, MAX])) for _ in range(choices.randint(1, 3))]
    ndjson, packed, late = (choices.random() < part for part in (0.4, 0.4, 0.5))
    raw = lines(*flows, escaped=False) if ndjson else array(*flows, escaped=False)
    headers = {"Content-Type": "application/x-ndjson" if ndjson else "application/json"}
    if not packed:
        return headers, mutated(choices, raw, TOKENS)
    headers["Content-Encoding"] = "gzip"
    if late:  # the gzip itself is broken, not what is in it
        return headers, mutated(choices, gzip.compress(raw, mtime=0), [bytes([n]) for n in range(0, 256, 5)])
    return headers, gzip.compress(mutated(choices, raw, TOKENS), mtime=0)


def a_head(choices: random.Random, base: Sequence[bytes]) -> bytes:
    """A whole request whose head, and perhaps body, is mutated."""
    return mutated(choices, choices.choice(base), HEAD_TOKENS)


def a_query(choices: random.Random) -> str:
    if choices.random() < 0.5:
        return "".join(choices.choice(QUERY_TOKENS) for _ in range(choices.randint(1, 5)))
    query = f"hour={choices.randint(0, 5)}&consistency=fresh"
    start = choices.randint(0, len(query))
    return query[:start] + choices.choice(QUERY_TOKENS) + query[start + choices.randint(0, 3) :]


@pytest.mark.parametrize("seed", range(4))
def test_a_mutated_body_is_taken_or_refused_by_the_rules(client: httpx.Client, seed: int) -> None:
    choices = random.Random(seed)
    for _ in range(BODIES // 4):
        headers, body = a_body(choices)
        reply = client.post("/flows", content=body, headers=headers)
        taken = reply.json()["accepted"] if reply.status_code == 200 else None
        try:
            expected = accepted_flows(body, "x-ndjson" in headers["Content-Type"], "Content-Encoding" in headers)
        except Unsure:
            expected = taken
        assert taken == expected, (reply.text, headers, body)
        if taken is None:
            assert_problem(reply, 400, 413)


@pytest.mark.parametrize("seed", range(3))
def test_a_mutated_query_is_answered_or_refused(client: httpx.Client, seed: int) -> None:
    choices = random.Random(seed)
    for _ in range(QUERIES // 3):
        query = a_query(choices)
        reply = client.get(f"/flows?{query}")
        assert reply.status_code in {200, 400, 410, 414, 431}, query
        if reply.status_code != 200:
            assert_problem(reply, reply.status_code)


def _converse(url: str, sent: bytes) -> str | None:
    """What was wrong about the answers to what was sent, None where nothing was."""
    with Connection(url) as connection:
        connection.send(sent, SECONDS)
        connection.half_close()  # so that a request which became longer than what is sent waits for nothing
        answers = 0
        try:
            while True:
                reply = connection.reply(SECONDS)
                answers += 1
                if reply.status_code not in {100, 200, 304}:
                    assert_problem(reply, *DOCUMENTED)
        except Closed:
            return None
        except Reset:
            return None if answers or len(sent) > 60_000 else "reset without an answer"
        except Exception as error:
            return repr(error)


REQUESTS: dict[str, list[bytes]] = {
    "writer": [
        request("POST", "/flows", ["Content-Type: application/json"], b"[]"),
        request("POST", "/flows", ["Content-Type: application/json", "Idempotency-Key: k", "Accept: */*"], b"[1]"),
        request("POST", "/flows", ["Content-Type: application/x-ndjson", "Content-Encoding: gzip"], gzip.compress(b"")),
        b"POST /flows HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\n[\r\n1\r\n]\r\n0\r\n\r\n",
        request("POST", "/flows", ["Content-Type: application/json"], b"[]") * 3,
        request("GET", "/livez"),
    ],
    "reader": [
        request("GET", "/flows?hour=1"),
        request("GET", "/flows?hour=1&consistency=eventual", ["If-None-Match: *", "Accept: */*", "X-Request-Id: a"]),
        request("GET", "/flows?hour=1") * 3,
        request("GET", "/readyz"),
    ],
}


def test_a_mutated_request_is_answered_or_the_connection_closed(service: Service) -> None:
    choices = random.Random(service.name)
    sent = [a_head(choices, REQUESTS[service.name]) for _ in range(HEADS // 2)]
    converse = partial(_converse, service.url)
    with bounded_growth(service.child.process.pid, GROWTH_MIB), ThreadPoolExecutor(8) as pool:
        wrong = [
            (what, one[:300]) for what, one in zip(pool.map(converse, sent), sent, strict=True) if what is not None
        ]
    assert not wrong
    assert not service.child.ended
    assert not service.checks()


def test_flows_are_exact_while_nonsense_arrives(client: httpx.Client, writer_url: str, hour: int) -> None:
    choices = random.Random(0)
    for number in range(1, 11):
        for _ in range(3):
            assert _converse(writer_url, a_head(choices, REQUESTS["writer"])) is None
        post(client, flow(hour))
        assert rows(client, hour) == [flow(hour, tx=number, rx=2 * number)]
