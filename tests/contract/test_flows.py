"""The HTTP contract, against any base URL (--base-url) or a stack of its own."""

import itertools
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

_hours = itertools.count(int(time.time() * 1000))
JSON = {"Content-Type": "application/json"}
MAX = 2**53 - 1


@pytest.fixture
def hour() -> int:
    """An hour that nobody else uses."""
    return next(_hours)


def flow(
    hour: int, src: str = "foo", dest: str = "bar", vpc: str = "vpc-0", tx: int = 1, rx: int = 2
) -> dict[str, Any]:
    return {"src_app": src, "dest_app": dest, "vpc_id": vpc, "hour": hour, "bytes_tx": tx, "bytes_rx": rx}


def get(client: httpx.Client, hour: int) -> Any:
    reply = client.get("/flows", params={"hour": hour})
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["flowagg-fresh"] == "true"
    assert reply.headers["flowagg-lag-records"] == "0"
    return reply.json()


def post(client: httpx.Client, *flows: dict[str, Any]) -> str:
    reply = client.post("/flows", json=list(flows))
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["accepted"] == len(flows)
    position: str = reply.json()["position"]
    return position


def test_the_example_of_the_contract(client: httpx.Client, hour: int) -> None:
    later = next(_hours)
    post(
        client,
        flow(hour, tx=100, rx=300),
        flow(hour, tx=200, rx=600),
        flow(hour, "baz", "qux", tx=100, rx=500),
        flow(later, "baz", "qux", tx=100, rx=500),
        flow(later, "baz", "qux", "vpc-1", tx=100, rx=500),
    )
    assert get(client, hour) == [flow(hour, "baz", "qux", tx=100, rx=500), flow(hour, tx=300, rx=900)]
    assert get(client, later) == [
        flow(later, "baz", "qux", tx=100, rx=500),
        flow(later, "baz", "qux", "vpc-1", tx=100, rx=500),
    ]
    assert get(client, next(_hours)) == []


def test_curl_tests_hold(base_url: str) -> None:
    script = Path(__file__).parents[2] / "examples" / "curl_tests.sh"
    done = subprocess.run([script, base_url], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all hold\n")


def test_a_get_reflects_every_post_acknowledged_before_it(client: httpx.Client, hour: int) -> None:
    for number in range(1, 51):
        post(client, flow(hour))
        assert get(client, hour) == [flow(hour, tx=number, rx=2 * number)]


def test_after_waits_for_one_post(client: httpx.Client, hour: int) -> None:
    position = post(client, flow(hour))
    reply = client.get("/flows", params={"hour": hour, "after": position})
    assert (reply.status_code, reply.json()) == (200, [flow(hour)])
    assert reply.headers["flowagg-fresh"] == "true"


def test_strict_answers_when_fresh_and_eventual_never_says_fresh(client: httpx.Client, hour: int) -> None:
    post(client, flow(hour))
    strict = client.get("/flows", params={"hour": hour, "consistency": "strict"})
    assert (strict.status_code, strict.json()) == (200, [flow(hour)])
    eventual = client.get("/flows", params={"hour": hour, "consistency": "eventual"})
    assert (eventual.status_code, eventual.headers["flowagg-fresh"]) == (200, "false")
    assert eventual.json() == [flow(hour)]


def test_names_may_hold_any_printable_text(client: httpx.Client, hour: int) -> None:
    names = [
        "a,b",
        'q"uote',
        "co:lon",
        "back\\slash",
        "\U0001f600" * 256,
        "مرحبا",
        " ",
        "/",
        "{}",
        "[1]",
        "null",
        "\u2028",
    ]
    post(client, *(flow(hour, src=name) for name in names))
    assert get(client, hour) == [flow(hour, src=name) for name in sorted(names)]


def test_totals_are_exact_past_int64(client: httpx.Client, hour: int) -> None:
    post(client, *([flow(hour, tx=MAX, rx=MAX)] * 2000))
    assert get(client, hour) == [flow(hour, tx=2000 * MAX, rx=2000 * MAX)]
    assert 2000 * MAX > 2**63


def test_the_largest_hour_is_an_hour(client: httpx.Client) -> None:
    post(client, flow(MAX, src=f"only-{next(_hours)}"))
    assert get(client, MAX)


def test_rows_are_sorted_by_code_point(client: httpx.Client, hour: int) -> None:
    keys = [(a, b, c) for a in ("b", "a", "é", "Z", "\U0001f600", "\uffff") for b in ("y", "x") for c in ("2", "10")]
    post(client, *(flow(hour, *key) for key in keys))
    assert [(row["src_app"], row["dest_app"], row["vpc_id"]) for row in get(client, hour)] == sorted(keys)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"src_app": ""}, "src_app"),
        ({"dest_app": "x" * 257}, "dest_app"),
        ({"vpc_id": "tab\t"}, "vpc_id"),
        ({"hour": -1}, "hour"),
        ({"hour": MAX + 1}, "hour"),
        ({"hour": "1"}, "hour"),
        ({"bytes_tx": 1.5}, "bytes_tx"),
        ({"bytes_tx": True}, "bytes_tx"),
        ({"bytes_rx": None}, "bytes_rx"),
        ({"bytes_rx": 2**64}, "bytes_rx"),
    ],
)
def test_one_bad_flow_refuses_the_batch_and_is_named(
    client: httpx.Client, hour: int, change: dict[str, object], field: str
) -> None:
    reply = client.post("/flows", json=[flow(hour), flow(hour) | change, flow(hour)])
    problem = reply.json()
    assert (reply.status_code, reply.headers["content-type"]) == (400, "application/problem+json")
    assert (problem["status"], problem["title"]) == (400, "Bad Request")
    assert (problem["index"], problem["field"]) == (1, field)
    assert problem["rule"]
    assert get(client, hour) == []


def test_a_missing_field_is_named(client: httpx.Client, hour: int) -> None:
    broken = {name: value for name, value in flow(hour).items() if name != "vpc_id"}
    problem = client.post("/flows", json=[broken]).json()
    assert (problem["index"], problem["field"], problem["rule"]) == (0, "vpc_id", "is missing")


@pytest.mark.parametrize("raw", [b"", b"{", b"{}", b"null", b"3", b"[1]", b"\xff", b"[" * 100_000, b"[]]"])
def test_a_body_that_is_no_array_of_flows(client: httpx.Client, raw: bytes) -> None:
    reply = client.post("/flows", content=raw, headers=JSON)
    assert (reply.status_code, reply.headers["content-type"]) == (400, "application/problem+json")


def test_an_empty_array_is_accepted(client: httpx.Client) -> None:
    post(client)


def test_extra_fields_are_ignored(client: httpx.Client, hour: int) -> None:
    post(client, flow(hour) | {"agent": {"version": [1, 2]}})
    assert get(client, hour) == [flow(hour)]


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON", "application/json; charset=utf-8"])
def test_json_in_any_spelling(client: httpx.Client, media_type: str) -> None:
    assert client.post("/flows", content=b"[]", headers={"Content-Type": media_type}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/jsonx"},
        JSON | {"Content-Encoding": "br"},
        JSON | {"Content-Encoding": "gzip, gzip"},
    ],
)
def test_another_media_type_or_encoding(client: httpx.Client, headers: dict[str, str]) -> None:
    assert client.post("/flows", content=b"[]", headers=headers).status_code == 415


def test_a_body_past_the_limit(client: httpx.Client) -> None:
    assert client.post("/flows", content=b" " * (8 * 2**20 + 1), headers=JSON).status_code == 413
    chunks = (b" " * 2**20 for _ in range(9))
    assert client.post("/flows", content=chunks, headers=JSON).status_code == 413


def test_more_flows_than_allowed(client: httpx.Client, hour: int) -> None:
    small = json.dumps(flow(hour, "a", "b", "c", 1, 1), separators=(",", ":"))
    many = "[" + ",".join([small] * 100_001) + "]"
    if len(many) <= 8 * 2**20:
        assert client.post("/flows", content=many, headers=JSON).status_code == 413
    assert get(client, hour) == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_another_method(client: httpx.Client, method: str) -> None:
    reply = client.request(method, "/flows")
    assert reply.status_code == 405
    assert set(reply.headers["allow"].replace(" ", "").split(",")) >= {"GET", "POST"}


def test_head_has_the_headers_of_get(client: httpx.Client, hour: int) -> None:
    post(client, flow(hour))
    reply = client.head("/flows", params={"hour": hour})
    assert (reply.status_code, reply.content) == (200, b"")
    assert reply.headers["flowagg-fresh"] == "true"


@pytest.mark.parametrize(
    "query",
    ["", "hour=", "hour=x", "hour=-1", "hour=1.0", "hour=01", "hour=9007199254740992", "hour=1&hour=2", "hour=1&x=2",
     "hour=1&consistency=x", "hour=1&after=x", "hour=%00", "hour=1%20"],
)  # fmt: skip
def test_a_bad_query(client: httpx.Client, query: str) -> None:
    reply = client.get(f"/flows?{query}")
    assert (reply.status_code, reply.headers["content-type"]) == (400, "application/problem+json")
    assert reply.json()["detail"]


def test_another_path(client: httpx.Client) -> None:
    assert client.get("/flow").status_code == 404
