"""The HTTP contract of Idempotency-Key, against any base URL (--base-url) or a stack of its own."""

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from confluent_kafka import Producer
from flowagg.flow import encode_key, encode_value
from flowagg.idempotency import Mark, body_digest
from flowagg_stack.services import Service
from flowagg_writer.murmur2 import partition_of

from tests.conftest import PARTITIONS
from tests.contract.conftest import Own
from tests.contract.flows import NDJSON, accepted, array, assert_problem, flow, lines, rows
from tests.contract.wire import Connection, request

NAME = "Idempotency-Key"


@pytest.fixture
def key() -> str:
    """A key that nobody else uses."""
    return str(uuid.uuid4())


def batch(hour: int, count: int = 1) -> bytes:
    flows = [
        {"src_app": f"app-{n % 40}", "dest_app": "b", "vpc_id": "v", "hour": hour, "bytes_tx": n, "bytes_rx": 1}
        for n in range(1, count + 1)
    ]
    return json.dumps(flows).encode()


def post(client: httpx.Client, raw: bytes, *keys: str) -> httpx.Response:
    headers = [("Content-Type", "application/json"), *((NAME, key) for key in keys)]
    return client.post("/flows", content=raw, headers=headers)


def sums(client: httpx.Client, hour: int) -> tuple[int, int]:
    found = rows(client, hour)
    return sum(row["bytes_tx"] for row in found), sum(row["bytes_rx"] for row in found)


@pytest.mark.parametrize(
    "bad",
    ["", "k" * 129, "tab\tinside", b"caf\xc3\xa9", b"caf\xe9"],
    ids=["empty", "too long", "a tab", "UTF-8", "Latin-1"],
)
def test_a_key_that_is_not_1_to_128_printable_ascii_characters(
    client: httpx.Client, hour: int, bad: str | bytes
) -> None:
    headers = [("Content-Type", "application/json"), (NAME, bad)]
    assert_problem(client.post("/flows", content=batch(hour), headers=headers), 400)  # type: ignore[arg-type]
    assert rows(client, hour) == []


@pytest.mark.parametrize("character", "\x01\x1b\x7f", ids=repr)
def test_a_key_with_a_control_character(writer_url: str, character: str) -> None:
    with Connection(writer_url) as connection:
        headers = ["Content-Type: application/json", f"{NAME}: a{character}b"]
        assert_problem(connection.ask(request("POST", "/flows", headers, b"[]")), 400)


def test_the_problem_of_a_bad_key_says_what_a_key_is(client: httpx.Client, hour: int) -> None:
    problem = assert_problem(post(client, batch(hour), "k" * 129), 400)
    assert "1 to 128 printable ASCII" in problem["detail"]


def test_a_key_given_twice(client: httpx.Client, hour: int, key: str) -> None:
    for keys in [(key, key), (key, key + "x")]:
        assert_problem(post(client, batch(hour), *keys), 400)
    assert rows(client, hour) == []


@pytest.mark.parametrize("template", ["{}", '"{}"', "{} a, b; c:d", "{:~<128}"])
def test_any_printable_key_is_taken(client: httpx.Client, hour: int, key: str, template: str) -> None:
    reply = post(client, batch(hour, 3), template.format(key))
    assert (reply.status_code, reply.json()["accepted"]) == (200, 3)
    assert sums(client, hour) == (6, 3)


def test_spaces_around_a_key_are_not_part_of_it(writer_url: str, client: httpx.Client, hour: int, key: str) -> None:
    with Connection(writer_url) as connection:
        for spelling in (key, f" {key} ", f"\t {key}\t"):
            sent = request("POST", "/flows", ["Content-Type: application/json", f"{NAME}: {spelling}"], batch(hour))
            accepted(connection.ask(sent), 1)
    assert sums(client, hour) == (1, 1)


def test_a_key_counts_for_ndjson_too(client: httpx.Client, hour: int, key: str) -> None:
    for _ in range(2):
        reply = client.post("/flows", content=lines(flow(hour), flow(hour)), headers=NDJSON | {NAME: key})
        accepted(reply, 2)
    assert_problem(post(client, array(flow(hour)), key), 422)
    assert rows(client, hour) == [flow(hour, tx=2, rx=4)]


def test_the_same_key_with_another_body_is_refused_and_counts_nothing(
    client: httpx.Client, hour: int, key: str
) -> None:
    assert post(client, batch(hour, 2), key).status_code == 200
    for other in (batch(hour, 3), batch(hour, 2) + b" ", b"[]"):
        assert "Nothing was kept" in assert_problem(post(client, other, key), 422)["detail"]
    assert sums(client, hour) == (3, 2)


def test_a_refused_body_does_not_use_its_key_up(client: httpx.Client, hour: int, key: str) -> None:
    assert post(client, b"[1]", key).status_code == 400
    assert post(client, batch(hour), key).status_code == 200
    assert sums(client, hour) == (1, 1)


def test_an_empty_array_with_a_key(client: httpx.Client, key: str) -> None:
    for _ in range(2):
        reply = post(client, b"[]", key)
        assert (reply.status_code, reply.json()["accepted"]) == (200, 0)


def test_a_repeat_is_answered_as_the_first_time(client: httpx.Client, hour: int, key: str) -> None:
    replies = [post(client, batch(hour, 5), key) for _ in range(2)]
    assert [(reply.status_code, reply.json()["accepted"]) for reply in replies] == [(200, 5)] * 2
    assert all(reply.json()["position"] for reply in replies)


def test_the_same_body_with_another_key_counts_again(client: httpx.Client, hour: int, key: str) -> None:
    for number in range(2):
        assert post(client, batch(hour, 2), f"{key}-{number}").status_code == 200
    assert post(client, batch(hour, 2)).status_code == 200
    assert sums(client, hour) == (9, 6)


def test_a_topic_with_too_few_partitions_takes_no_key_and_the_problem_names_the_setting(
    start_writer: Callable[..., Service], client: httpx.Client, hour: int, key: str
) -> None:
    service = start_writer(FLOWAGG_KEYED_PARTITIONS=str(PARTITIONS + 1))
    with httpx.Client(base_url=service.url, timeout=30) as writer:
        reply = post(writer, batch(hour, 2), key)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert "Nothing was kept" in reply.json()["detail"]
        assert "FLOWAGG_KEYED_PARTITIONS=7" in reply.json()["detail"]
        assert writer.get("/readyz").status_code == 200
        assert post(writer, batch(hour)).status_code == 200
    assert sums(client, hour) == (1, 1)


@pytest.mark.parametrize("count", [1, 100, 5000])
def test_a_repeat_counts_once(client: httpx.Client, hour: int, key: str, count: int) -> None:
    expected = (count * (count + 1) // 2, count)
    for _ in range(3):
        assert post(client, batch(hour, count), key).status_code == 200
        assert sums(client, hour) == expected


def test_a_repeat_counts_once_while_the_first_is_still_under_way(client: httpx.Client, hour: int, key: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: post(client, batch(hour, 5000), key), range(8)))
    assert [reply.status_code for reply in replies] == [200] * 8
    assert sums(client, hour) == (5000 * 5001 // 2, 5000)


@pytest.mark.parametrize("kept", [range(40), range(60, 100), range(0, 100, 3), [99], [0]], ids=str)
def test_a_repeat_counts_once_after_a_part_of_the_batch(
    own: Own, client: httpx.Client, hour: int, key: str, kept: range | list[int]
) -> None:
    place = own.place
    raw = batch(hour, 100)
    flows = json.loads(raw)
    producer = Producer(
        {"bootstrap.servers": place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"], "partitioner": "murmur2_random"}
    )
    assert PARTITIONS == 6  # so that the partitioner's choice is the writer's for keyed records
    counts = [0] * PARTITIONS
    for index, one in enumerate(flows):
        log_key = encode_key(one["src_app"], one["dest_app"], one["vpc_id"], one["hour"])
        partition = partition_of(log_key, PARTITIONS)
        mark = Mark(key, body_digest(raw), counts[partition])
        counts[partition] += 1
        if index in kept:
            value = encode_value(one["bytes_tx"], one["bytes_rx"], mark)
            producer.produce(place.topic, value, log_key)
    assert producer.flush(30) == 0
    for _ in range(2):
        assert post(client, raw, key).status_code == 200
        assert sums(client, hour) == (5050, 100)
