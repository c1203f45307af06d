"""What the reader answers to queries over HTTP, with a log and a store that only say what they are told."""

import asyncio
import gzip
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import httpx
import msgspec
import pytest
from flowagg.kafka import KafkaUnavailable
from flowagg.view import HourMark, Meta
from flowagg_reader.access import EVERYTHING, Access
from flowagg_reader.app import create_app
from flowagg_reader.bodies import PartitionTotals
from flowagg_reader.endpoint import is_plain
from flowagg_reader.hour import Seen
from flowagg_reader.log import Log
from flowagg_reader.many import SeenHours
from flowagg_reader.query import Hours
from flowagg_reader.settings import ReaderSettings
from flowagg_reader.store import Store
from starlette.types import ASGIApp, Message

from tests.unit.reader_tools import FakeLog

META = Meta(10, "t", 0, 0, False, "i")
Totals = Mapping[tuple[str, str, str], tuple[int, int]]


class FakeStore:
    """One partition. hours: what it keeps. later: what it is once a look has been answered, by look."""

    def __init__(self, hours: Mapping[int, Totals], meta: Meta | None = META) -> None:
        self.hours = dict(hours)
        self.meta = meta
        self.positions = dict.fromkeys(hours, 5)
        self.reads: list[int] = []
        self.looks = 0
        self.after_look: Callable[[], None] = lambda: None
        self.let_go = asyncio.Event()
        self.let_go.set()

    def of(self, _: str) -> "FakeStore":
        return FakeStore({}, None)

    async def look_hours(self, _: Iterable[int], hours: Hours) -> Mapping[int, SeenHours]:
        self.looks += 1
        kept = {hour: (HourMark(self.positions[hour]), len(rows)) for hour, rows in self.hours.items() if hour in hours}
        found = {0: SeenHours(self.meta, kept if self.meta is not None else {})}
        self.after_look()
        return found

    async def read_hour(self, _: Iterable[int], hour: int) -> Mapping[int, PartitionTotals]:
        self.reads.append(hour)
        await self.let_go.wait()
        rows = self.hours.get(hour, {})
        flat = [part for key, (tx, rx) in rows.items() for part in (msgspec.json.encode(key), b"%d %d" % (tx, rx))]
        mark = HourMark(self.positions[hour]) if rows else None
        return {0: (Seen(self.meta, mark, len(rows)), flat)}


def store_of() -> FakeStore:
    return FakeStore(
        {
            1: {("foo", "bar", "vpc-0"): (300, 900), ("baz", "qux", "vpc-0"): (100, 500)},
            2: {("baz", "qux", "vpc-0"): (100, 500), ("baz", "qux", "vpc-1"): (7, 2**70)},
        }
    )


def app_of(store: FakeStore, log: FakeLog | None = None, access: Access = EVERYTHING, **settings: Any) -> ASGIApp:
    given = ReaderSettings(fresh_wait_seconds=0, **settings)
    return create_app(given, cast(Store, store), cast(Log, log or FakeLog()), lambda _: access)


def run(app: ASGIApp, scenario: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://reader") as client:
            await scenario(client)

    asyncio.run(whole())


def get(app: ASGIApp, target: str, method: str = "GET", **headers: str) -> httpx.Response:
    found: list[httpx.Response] = []

    async def scenario(client: httpx.AsyncClient) -> None:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        found.append(await client.request(method, target, headers=fields))

    run(app, scenario)
    return found[0]


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("hour=1&dest_app=bar", [("foo", "bar", "vpc-0", 1, 300, 900)]),
        (
            "hour=1-2&src_app=ba*&vpc_id=vpc-0",
            [("baz", "qux", "vpc-0", 1, 100, 500), ("baz", "qux", "vpc-0", 2, 100, 500)],
        ),
        (
            "hour=0-&top=1&order_by=bytes_rx",
            [("baz", "qux", "vpc-1", 2, 7, 2**70), (None, None, None, None, 500, 1900)],
        ),
        ("hour=3-9", []),
        ("hour=1,2&limit=1&src_app=f*", [("foo", "bar", "vpc-0", 1, 300, 900)]),
    ],
)
def test_a_query_is_answered(query: str, rows: list[tuple[Any, ...]]) -> None:
    reply = get(app_of(store_of()), f"/flows?{query}")
    assert reply.status_code == 200
    names = ("src_app", "dest_app", "vpc_id", "hour", "bytes_tx", "bytes_rx")
    assert reply.json() == [dict(zip(names, row, strict=True)) for row in rows]
    assert reply.headers["flowagg-fresh"] == "true"
    assert reply.headers["content-length"] == str(len(reply.content))
    assert "link" not in reply.headers


def test_groups_have_their_fields_alone() -> None:
    reply = get(app_of(store_of()), "/flows?hour=0-&group_by=src_app&order_by=src_app:desc")
    assert reply.json() == [
        {"src_app": "foo", "bytes_tx": 300, "bytes_rx": 900},
        {"src_app": "baz", "bytes_tx": 207, "bytes_rx": 1000 + 2**70},
    ]


def test_a_link_leads_to_the_next_page() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        target, rows = "/flows?hour=1-2&limit=3&src_app=*&src_app=x", []
        for _ in range(2):
            reply = await client.get(target)
            rows += reply.json()
            link = re.fullmatch(r'<(\?[^>]+)>; rel="next"', reply.headers.get("link", ""))
            if link is None:
                break
            target = f"/flows{link[1]}"
        assert "src_app=x" in target
        assert [(row["src_app"], row["hour"]) for row in rows] == [("baz", 1), ("baz", 2), ("baz", 2), ("foo", 1)]

    run(app_of(store_of()), scenario)


def test_formats_are_by_parameter_or_accept() -> None:
    app = app_of(store_of())
    csv = get(app, "/flows?hour=1", accept="text/csv")
    assert csv.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert csv.text.splitlines()[1] == "baz,qux,vpc-0,1,100,500"
    lines = get(app, "/flows?hour=1&format=ndjson", accept="text/csv")
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert len(lines.text.splitlines()) == 2
    assert "Accept" in csv.headers["vary"]
    assert csv.headers["etag"] != lines.headers["etag"]
    assert get(app, "/flows?hour=1&format=csv", "HEAD").headers["content-type"].startswith("text/csv")


def test_many_rows_are_compressed_where_the_client_takes_it() -> None:
    store = FakeStore({1: {(f"app-{n:05}", "d", "v"): (n, n) for n in range(10_000)}})
    app = app_of(store)
    sent: list[Message] = []

    async def scenario() -> None:
        scope = {
            "type": "http", "method": "GET", "path": "/flows", "query_string": b"hour=1&limit=9000", "state": {},
            "headers": [(b"accept-encoding", b"gzip")],
        }  # fmt: skip
        never = asyncio.Event()

        async def receive() -> Message:
            await never.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        await app(scope, receive, send)

    asyncio.run(scenario())
    headers = dict(sent[0]["headers"])
    assert headers[b"content-encoding"] == b"gzip"
    assert len(json.loads(gzip.decompress(b"".join(message["body"] for message in sent[1:])))) == 9000
    assert "content-encoding" not in get(app, "/flows?hour=1&limit=9000", accept_encoding="identity").headers
    whole = get(app, "/flows?hour=1&limit=9000")  # httpx takes gzip
    assert len(whole.json()) == 9000


def test_an_answer_that_is_held_is_not_made_again() -> None:
    store = store_of()
    app = app_of(store)
    target = "/flows?hour=1-2&top=1"

    async def scenario(client: httpx.AsyncClient) -> None:
        tag = (await client.get(target)).headers["etag"]
        assert store.reads == [1, 2]
        held = await client.get(target, headers={"If-None-Match": tag})
        assert (held.status_code, held.content, held.headers["etag"]) == (304, b"", tag)
        assert (await client.get("/flows?hour=1-2&top=2", headers={"If-None-Match": tag})).status_code == 200
        assert store.reads == [1, 2]  # the tables are kept
        store.positions[2] = 6
        changed = await client.get(target, headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert store.reads == [1, 2, 2]
        tag = changed.headers["etag"]
        store.hours[3], store.positions[3] = {("n", "n", "n"): (1, 1)}, 7
        assert (await client.get(target, headers={"If-None-Match": tag})).status_code == 304, "another hour"
        assert (await client.get("/flows?hour=1-3&top=1")).headers["etag"] != tag

    run(app, scenario)


def test_hours_tells_what_there_is() -> None:
    app = app_of(store_of())
    reply = get(app, "/hours")
    assert reply.json() == [{"hour": 1, "flow_keys": 2}, {"hour": 2, "flow_keys": 2}]
    assert reply.headers["flowagg-fresh"] == "true"
    assert get(app, "/hours", if_none_match=reply.headers["etag"]).status_code == 304
    assert get(app, "/hours?format=csv").text == "hour,flow_keys\r\n1,2\r\n2,2\r\n"
    assert get(app, "/hours", "HEAD").content == b""
    assert get(app, "/hours?hour=1").status_code == 400
    post = get(app, "/hours", "POST")
    assert (post.status_code, set(post.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})
    bound = app_of(store_of(), access=Access(lambda vpc_id: vpc_id == "vpc-1", "one"))
    assert get(bound, "/hours").json() == [{"hour": 1}, {"hour": 2}]


def test_a_token_sees_its_vpcs_alone() -> None:
    app = app_of(store_of(), access=Access(lambda vpc_id: vpc_id == "vpc-1", "one"))
    reply = get(app, "/flows?hour=0-&group_by=vpc_id")
    assert reply.json() == [{"vpc_id": "vpc-1", "bytes_tx": 7, "bytes_rx": 2**70}]


@pytest.mark.parametrize(
    ("meta", "query", "fresh", "lag"),
    [
        (replace(META, position=8), "hour=1-2&top=1", "false", "2"),
        (replace(META, position=8), "hour=1-2&top=1&consistency=eventual", "false", "unknown"),
        (META, "hour=1-2&top=1&consistency=strict", "true", "0"),
        (replace(META, topic_id="another"), "hour=1-2&top=1", "false", "unknown"),
    ],
)
def test_an_answer_says_how_fresh_it_is(meta: Meta, query: str, fresh: str, lag: str) -> None:
    store = store_of()
    store.meta = meta
    reply = get(app_of(store), f"/flows?{query}")
    assert (reply.headers["flowagg-fresh"], reply.headers["flowagg-lag-records"]) == (fresh, lag)


def test_strict_is_never_stale() -> None:
    store = store_of()
    store.meta = replace(META, position=8)
    reply = get(app_of(store), "/flows?hour=1-2&top=1&consistency=strict")
    assert (reply.status_code, reply.headers["retry-after"], reply.headers["flowagg-fresh"]) == (503, "1", "false")
    assert get(app_of(store), "/hours?consistency=strict").status_code == 503


def test_without_kafka_the_answer_is_marked() -> None:
    log = FakeLog()
    log.error = KafkaUnavailable("away")
    assert get(app_of(store_of(), log), "/flows?hour=1-2").headers["flowagg-fresh"] == "false"


def test_hours_that_were_read_from_an_older_state_make_the_answer_stale() -> None:
    """The look has seen position 10; then a master that lacks the tail answers the read."""
    store = store_of()

    def fail_over() -> None:
        if store.looks == 1:
            store.meta, store.positions[2] = replace(META, position=6), 4
            store.hours[2] = {("baz", "qux", "vpc-0"): (50, 50)}

    store.after_look = fail_over
    reply = get(app_of(store), "/flows?hour=1-2&group_by=hour")
    assert reply.headers["flowagg-fresh"] == "false"
    assert reply.headers["flowagg-lag-records"] == "4"
    assert reply.json()[1] == {"hour": 2, "bytes_tx": 50, "bytes_rx": 50}
    store.looks = 5
    again = get(app_of(store), "/flows?hour=1-2&group_by=hour")
    assert again.headers["etag"] == reply.headers["etag"], "the tag is of what was answered"


def test_an_hour_that_has_gone_before_it_was_read_is_none() -> None:
    store = store_of()

    def remove() -> None:
        store.hours.pop(2, None)

    store.after_look = remove
    reply = get(app_of(store), "/flows?hour=1-2&group_by=hour")
    assert [row["hour"] for row in reply.json()] == [1]
    assert reply.headers["flowagg-fresh"] == "true"


def test_expired_and_incomplete_hours_are_told() -> None:
    store = store_of()
    store.meta = replace(META, floor=2, incomplete=True)
    reply = get(app_of(store), "/flows?hour=1-2&group_by=hour")
    assert (reply.headers["flowagg-expired"], reply.headers["flowagg-incomplete"]) == ("true", "true")
    assert [row["hour"] for row in reply.json()] == [2]
    assert "flowagg-expired" not in get(app_of(store), "/flows?hour=2&top=3").headers


def test_bounds_are_told_with_what_to_do() -> None:
    many = FakeStore({hour: {("a", "b", "c"): (1, 1)} for hour in range(20)})
    reply = get(app_of(many, max_query_hours=10), "/flows?hour=0-&top=1")
    assert reply.status_code == 400
    assert "keeps 20 of these hours, and a query may cover 10" in reply.json()["detail"]
    rows = FakeStore({1: {(f"{n}", "b", "c"): (1, 1) for n in range(30)}})
    reply = get(app_of(rows, max_query_rows=20), "/flows?hour=1&top=1")
    assert reply.status_code == 400
    assert "hold 30 flow keys" in reply.json()["detail"]
    assert get(app_of(rows, max_query_rows=20), "/hours").status_code == 200
    assert len(get(app_of(many, max_query_hours=10), "/hours").json()) == 20


def test_a_view_that_nobody_keeps_is_not_there() -> None:
    app = app_of(store_of())
    assert get(app, "/flows?hour=1-2&view=other").status_code == 404
    assert get(app, "/hours?view=other").status_code == 404


def test_a_large_hour_is_evaluated_beside_others() -> None:
    store = FakeStore({1: {(f"app-{n}", f"d-{n % 7}", "v"): (n, n) for n in range(3000)}})
    reply = get(app_of(store, large_read_rows=1000), "/flows?hour=1&group_by=dest_app&top=2")
    assert [row["dest_app"] for row in reply.json()] == ["d-3", "d-2", None]


def test_many_large_hours_need_no_more_turns_than_there_are() -> None:
    store = FakeStore({hour: {(f"{n}", "b", "c"): (1, 1) for n in range(20)} for hour in range(9)})
    app = app_of(store, large_read_rows=10, table_cache_bytes=0, max_large_reads=2)

    async def scenario(client: httpx.AsyncClient) -> None:
        async with asyncio.timeout(20):
            replies = await asyncio.gather(*(client.get(f"/flows?hour=0-&group_by=hour&top={n + 1}") for n in range(6)))
        assert [reply.status_code for reply in replies] == [200] * 6
        assert len(replies[5].json()) == 7

    run(app, scenario)


def test_whoever_goes_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        store = store_of()
        store.let_go.clear()
        app = app_of(store)
        gone = asyncio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(_: Message) -> None:
            raise AssertionError("nobody is there")

        scope = {
            "type": "http", "method": "GET", "path": "/flows", "query_string": b"hour=1-2", "headers": [], "state": {}
        }  # fmt: skip
        task = asyncio.ensure_future(app(scope, receive, send))
        while not store.reads:
            await asyncio.sleep(0)
        gone.set()
        await task
        for _ in range(5):
            await asyncio.sleep(0)
        assert {one for one in asyncio.all_tasks() if one is not asyncio.current_task()} == set()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("query", "headers", "plain"),
    [
        (b"hour=1", [], True),
        (b"hour=1&consistency=eventual&view=a", [(b"accept", b"*/*")], True),
        (b"hour=1", [(b"accept", b"text/html,application/xhtml+xml,*/*;q=0.8")], True),
        (b"hour=1", [(b"accept", b"text/csv")], False),
        (b"hour=1-2", [], False),
        (b"hour=1&top=1", [], False),
        (b"hour=x", [], True),
        (b"", [], True),
    ],
)
def test_the_plain_rows_of_an_hour_go_the_short_way(
    query: bytes, headers: list[tuple[bytes, bytes]], plain: bool
) -> None:
    assert is_plain(query, headers) is plain
