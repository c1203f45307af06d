"""GET /flows with filters, groups, an order, a top, pages and formats; and GET /hours. On the whole system."""

import csv
import gzip
import io
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import httpx
import pytest

from tests.contract.flows import FIELDS, assert_problem, flow, new_hour, post

KEY: Final = FIELDS[:4]
ODD: Final = ('quo"te', "back\\slash", "st*r", "comma, and ; more", "né\U0001f600", "x" * 256)
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url, timeout=30) as opened:
        yield opened


@pytest.fixture(scope="module")
def hours() -> tuple[int, int, int]:
    """Three hours in a row, of which the second has nothing."""
    first = new_hour() * 4
    return first, first + 1, first + 2


@pytest.fixture(scope="module")
def rows(client: httpx.Client, hours: tuple[int, int, int]) -> Rows:
    """What the view holds of them, posted in two parts."""
    rng = random.Random(7)
    names = [f"app-{number}" for number in range(30)]
    sent = [
        flow(
            rng.choice((hours[0], hours[2])), rng.choice(names), rng.choice((*names[:5], *ODD)),
            f"vpc-{rng.randrange(3)}", rng.randrange(2**40), rng.choice((0, 2**53 - 1)),
        )
        for _ in range(1200)
    ]  # fmt: skip
    post(client, *sent[:700])
    post(client, *sent[700:])
    return summed(sent, KEY)


def summed(flows: Sequence[dict[str, Any]], fields: Sequence[str]) -> Rows:
    """One row for each combination of the fields, in the order of the flow key."""
    tx: Counter[tuple[Any, ...]] = Counter()
    rx: Counter[tuple[Any, ...]] = Counter()
    for one in flows:
        key = tuple(one[name] for name in fields)
        tx[key] += one["bytes_tx"]
        rx[key] += one["bytes_rx"]
    return [{**dict(zip(fields, key, strict=True)), "bytes_tx": tx[key], "bytes_rx": rx[key]} for key in sorted(tx)]


def ask(client: httpx.Client, **parameters: Any) -> Rows:
    """The rows of a query, which must be fresh."""
    reply = client.get("/flows", params=parameters)
    assert reply.status_code == 200, reply.text
    assert reply.headers["flowagg-fresh"] == "true"
    found: Rows = reply.json()
    return found


def every(hours: tuple[int, int, int]) -> str:
    return f"{hours[0]}-{hours[2]}"


def test_several_hours_come_in_the_order_of_the_flow_key(
    client: httpx.Client, hours: tuple[int, int, int], rows: Rows
) -> None:
    assert ask(client, hour=every(hours)) == rows
    assert ask(client, hour=f"{hours[2]},{hours[0]}") == rows
    assert ask(client, hour=hours[0], limit=100_000) == [row for row in rows if row["hour"] == hours[0]]
    assert ask(client, hour=f"{hours[1]},{hours[1]}") == []


@pytest.mark.parametrize("name", ODD)
def test_a_filter_finds_any_name(client: httpx.Client, hours: tuple[int, int, int], rows: Rows, name: str) -> None:
    escaped = name.replace("\\", "\\\\").replace("*", "\\*")
    found = ask(client, hour=every(hours), dest_app=escaped)
    assert found == [row for row in rows if row["dest_app"] == name] != []


def test_filters_are_patterns_any_of_a_field_and_all_of_the_fields(
    client: httpx.Client, hours: tuple[int, int, int], rows: Rows
) -> None:
    found = ask(client, hour=every(hours), src_app=["app-1?", "app-2"], vpc_id="*-1")
    assert found == [
        row
        for row in rows
        if ((row["src_app"].startswith("app-1") and len(row["src_app"]) == 6) or row["src_app"] == "app-2")
        and row["vpc_id"] == "vpc-1"
    ]
    assert found


@pytest.mark.parametrize("fields", [("src_app",), ("vpc_id", "hour"), ("hour",), ("src_app", "dest_app")])
def test_groups_add_up(client: httpx.Client, hours: tuple[int, int, int], rows: Rows, fields: tuple[str, ...]) -> None:
    assert ask(client, hour=every(hours), group_by=",".join(fields)) == summed(rows, fields)


def test_a_top_has_the_largest_and_all_others(client: httpx.Client, hours: tuple[int, int, int], rows: Rows) -> None:
    by_source = summed(rows, ("src_app",))
    by_source.sort(key=lambda row: -row["bytes_tx"])
    others = {"src_app": None, **{name: sum(row[name] for row in by_source[5:]) for name in ("bytes_tx", "bytes_rx")}}
    found = ask(client, hour=every(hours), group_by="src_app", order_by="bytes_tx", top=5)
    assert found == [*by_source[:5], others]
    assert others["bytes_rx"] > 2**53
    assert len(ask(client, hour=every(hours), group_by="src_app", top=10_000)) == len(by_source)


def test_pages_follow_each_other_by_their_links(client: httpx.Client, hours: tuple[int, int, int], rows: Rows) -> None:
    reply = client.get("/flows", params={"hour": every(hours), "limit": 250, "vpc_id": "vpc-?"})
    found = reply.json()
    while "next" in reply.links:
        reply = client.get(httpx.URL(str(reply.url)).join(reply.links["next"]["url"]))
        assert 1 <= len(reply.json()) <= 250
        found += reply.json()
    assert found == rows


def test_formats_and_compression(client: httpx.Client, hours: tuple[int, int, int], rows: Rows) -> None:
    target = f"/flows?hour={every(hours)}"
    lines = client.get(target, headers={"Accept": "application/x-ndjson"})
    assert [json.loads(line) for line in lines.text.split("\n") if line] == rows
    text = client.get(target + "&format=csv").text
    found = list(csv.reader(io.StringIO(text, newline="")))
    assert found == [list(FIELDS), *([str(value) for value in row.values()] for row in rows)]
    with client.stream("GET", target, headers={"Accept-Encoding": "gzip"}) as reply:
        assert reply.headers["content-encoding"] == "gzip"
        raw = b"".join(reply.iter_raw())
    assert json.loads(gzip.decompress(raw)) == rows


def test_a_tag_stays_while_the_hours_do(client: httpx.Client, hours: tuple[int, int, int], rows: Rows) -> None:
    target = f"/flows?hour={every(hours)}&top=3"
    tag = client.get(target).headers["etag"]
    post(client, flow(hours[2] + 1))
    held = client.get(target, headers={"If-None-Match": tag})
    assert (held.status_code, held.content) == (304, b"")
    post(client, flow(hours[1], "late"))
    changed = client.get(target, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert ask(client, hour=hours[1], src_app="late") == [flow(hours[1], "late")]


def test_head_has_no_body(client: httpx.Client, hours: tuple[int, int, int], rows: Rows) -> None:
    reply = client.head("/flows", params={"hour": every(hours), "top": 3})
    assert (reply.status_code, reply.content) == (200, b"")
    assert reply.headers["flowagg-fresh"] == "true"


def test_hours_lists_what_there_is(client: httpx.Client) -> None:
    hour = new_hour() * 4
    post(client, flow(hour), flow(hour, "other"), flow(hour + 2))
    reply = client.get("/hours")
    assert reply.status_code == 200
    found = {row["hour"]: row["flow_keys"] for row in reply.json()}
    assert list(found) == sorted(found)
    assert (found[hour], found.get(hour + 1), found[hour + 2]) == (2, None, 1)
    assert reply.headers["flowagg-fresh"] == "true"
    assert client.get("/hours", headers={"If-None-Match": reply.headers["etag"]}).status_code == 304
    assert_problem(client.get("/hours?hour=1"), 400)


def test_each_post_is_in_the_next_query(client: httpx.Client) -> None:
    hour = new_hour() * 4
    for number in range(1, 30):
        post(client, flow(hour + number % 3, f"app-{number}", tx=number))
        found = ask(client, hour=f"{hour}-{hour + 2}", group_by="hour")
        assert sum(row["bytes_tx"] for row in found) == number * (number + 1) // 2


@pytest.mark.parametrize(
    "query",
    [
        "hour=1-2&top=0", "hour=1&top=1&limit=1", "hour=1&limit=1&order_by=bytes", "hour=1&group_by=x",
        "hour=1&order_by=x", "hour=1&format=xml", "hour=1&cursor=x", "hour=1&limit=1&cursor=x", "hour=1&src_app=",
        "hour=1-2&x=1", "src_app=a",
    ],
)  # fmt: skip
def test_a_bad_query_is_refused(client: httpx.Client, query: str) -> None:
    assert_problem(client.get(f"/flows?{query}"), 400)
