"""What the reader answers over HTTP, with a log and a store that only say what they are told."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import httpx
import msgspec
import pytest
import redis
from flowagg.kafka import KafkaUnavailable
from flowagg.position import Position, encode_token
from flowagg.view import HourMark, Meta
from flowagg_reader.access import EVERYTHING, Access
from flowagg_reader.app import create_app
from flowagg_reader.bodies import PartitionTotals
from flowagg_reader.cache import Entry
from flowagg_reader.core import Answer, Found
from flowagg_reader.endpoint import AccessOf, Flows, asked_by
from flowagg_reader.freshness import Freshness
from flowagg_reader.hour import Hour, Seen
from flowagg_reader.log import Log
from flowagg_reader.response import EntryResponse
from flowagg_reader.settings import ReaderSettings
from flowagg_reader.store import Store
from flowagg_reader.union import Body
from flowagg_reader.views import Views
from starlette.types import ASGIApp, Message

from tests.exchanges import TRANSPORTS
from tests.unit.reader_tools import FakeLog


class FakeStore:
    """One partition; every hour holds the same flow keys, but for hour 9."""

    def __init__(self, rows: int = 3, exists: bool = True, **meta: Any) -> None:
        self.exists = exists
        self.others: dict[str, FakeStore] = {}
        self.asked: list[str] = []
        fields = {"leader_epoch": 0, "start": 0, "incomplete": False, "incarnation": "i"}
        self.meta = Meta(**{"position": 10, "topic_id": "t", **fields, **meta})
        self.rows = rows
        self.reads = 0
        self.error: Exception | None = None
        self.let_go = asyncio.Event()
        self.let_go.set()

    def of(self, view: str) -> "FakeStore":
        self.asked.append(view)
        return self.others.get(view, FakeStore(exists=False))

    def _seen(self, hour: int) -> Seen:
        if self.error is not None:
            raise self.error
        if not self.exists:
            return Seen(None)
        return Seen(self.meta, HourMark(5), self.rows) if hour != 9 else Seen(self.meta)

    async def look(self, partitions: Iterable[int], hour: int) -> Mapping[int, Seen]:
        return {0: self._seen(hour)}

    async def read_hour(self, partitions: Iterable[int], hour: int) -> Mapping[int, PartitionTotals]:
        self.reads += 1
        await self.let_go.wait()
        flat = [part for n in range(self.rows) for part in (b'["a%06d","b","v%d"]' % (n, n % 3), b"%d 0" % n)]
        return {0: (self._seen(hour), flat)}


Scenario = Callable[[httpx.AsyncClient], Awaitable[None]]

WAY = "by ASGI"


@pytest.fixture(autouse=True, params=list(TRANSPORTS))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test goes both ways."""
    monkeypatch.setitem(globals(), "WAY", request.param)


def app_of(store: FakeStore, log: FakeLog, access: AccessOf = lambda _: EVERYTHING, **settings: Any) -> ASGIApp:
    return create_app(ReaderSettings(fresh_wait_seconds=0.05, **settings), cast(Store, store), cast(Log, log), access)


def play(
    scenario: Scenario, store: FakeStore, log: FakeLog, access: AccessOf = lambda _: EVERYTHING, **settings: Any
) -> None:
    async def run() -> None:
        transport = TRANSPORTS[WAY](app_of(store, log, access, **settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://reader") as client:
            await scenario(client)

    asyncio.run(run())


def test_get_then_not_modified_then_from_the_cache() -> None:
    store = FakeStore()

    async def scenario(client: httpx.AsyncClient) -> None:
        first = await client.get("/flows?hour=1")
        assert [row["src_app"] for row in first.json()] == ["a000000", "a000001", "a000002"]
        assert first.headers["content-type"] == "application/json"
        assert first.headers["content-length"] == str(len(first.content))
        tag = first.headers["etag"]
        for reply in (
            await client.get("/flows?hour=1", headers={"If-None-Match": tag}),
            await client.head("/flows?hour=1", headers={"If-None-Match": "*"}),
        ):
            assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", tag)
            assert reply.headers["cache-control"] == "no-cache"
            assert reply.headers["flowagg-fresh"] == "true"
            assert reply.headers["flowagg-lag-records"] == "0"
            assert "content-length" not in reply.headers
        again = await client.get("/flows?hour=1", headers={"If-None-Match": '"other"'})
        assert (again.status_code, again.content) == (200, first.content)
        assert store.reads == 1

    play(scenario, store, FakeLog())


def test_head_has_a_length_where_the_body_is_known_and_never_reads_totals() -> None:
    store = FakeStore()

    async def scenario(client: httpx.AsyncClient) -> None:
        assert "content-length" not in (await client.head("/flows?hour=1")).headers
        assert (await client.head("/flows?hour=9")).headers["content-length"] == "2"
        assert store.reads == 0
        got = await client.get("/flows?hour=1")
        head = await client.head("/flows?hour=1")
        assert (head.content, head.headers["content-length"]) == (b"", got.headers["content-length"])
        assert store.reads == 1

    play(scenario, store, FakeLog())


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        ({}, set()),
        ({"incomplete": True}, {"flowagg-incomplete"}),
        ({"floor": 3}, {"flowagg-expired"}),
        ({"floor": 3, "incomplete": True}, {"flowagg-expired", "flowagg-incomplete"}),
    ],
)
def test_what_is_known_to_be_missing_is_said(meta: dict[str, Any], names: set[str]) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        reply = await client.get("/flows?hour=2")
        same = await client.get("/flows?hour=2", headers={"If-None-Match": reply.headers["etag"]})
        assert (reply.json() == []) == ("flowagg-expired" in names)
        assert (reply.status_code, same.status_code) == (200, 304)
        for headers in (reply.headers, same.headers):
            assert {name for name in headers if name in ("flowagg-expired", "flowagg-incomplete")} == names

    play(scenario, FakeStore(**meta), FakeLog())


def test_every_refusal_says_that_it_is_not_fresh() -> None:
    store, log = FakeStore(position=9), FakeLog()

    async def scenario(client: httpx.AsyncClient) -> None:
        gone = await client.get(f"/flows?hour=1&after={encode_token(Position('old', {0: 1}))}")
        assert (gone.status_code, gone.headers["flowagg-fresh"]) == (410, "false")
        replies = [await client.get("/flows?hour=1&consistency=strict")]
        log.error = KafkaUnavailable("away")
        replies.append(await client.get("/flows?hour=1&consistency=strict"))
        assert (await client.get("/flows?hour=1")).headers["flowagg-fresh"] == "false"
        store.error = redis.ConnectionError("away")
        replies += [await client.get("/flows?hour=1"), await client.head("/flows?hour=1&consistency=eventual")]
        for reply in replies:
            assert (reply.status_code, reply.headers["flowagg-fresh"], reply.headers["retry-after"]) == (
                503,
                "false",
                "1",
            )

    play(scenario, store, log)


def test_requests_that_wait_for_a_reading_are_bounded_in_number_and_in_time() -> None:
    store = FakeStore()

    async def scenario(client: httpx.AsyncClient) -> None:
        store.let_go.clear()
        tasks = [asyncio.create_task(client.get("/flows?hour=1&consistency=eventual")) for _ in range(3)]
        while not store.reads:
            await asyncio.sleep(0)
        refused = await client.get("/flows?hour=1")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "as many requests in hand" in refused.json()["detail"]
        for reply in await asyncio.gather(*tasks):
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
            assert "took too long" in reply.json()["detail"]
        store.let_go.set()
        assert (await client.get("/flows?hour=1")).status_code == 200

    play(scenario, store, FakeLog(), max_waiting_requests=3, get_timeout_seconds=1)


def test_a_caller_sees_its_own_vpcs_alone_under_tags_of_its_own() -> None:
    def access(authorizations: Sequence[str]) -> Access:
        name = authorizations[0] if authorizations else None
        return EVERYTHING if name is None else Access(lambda vpc_id: vpc_id == name, name)

    async def scenario(client: httpx.AsyncClient) -> None:
        replies = {
            name: await client.get("/flows?hour=1", headers={"Authorization": name}) for name in ("v0", "v1", "none")
        }
        whole = await client.get("/flows?hour=1")
        assert {name: [row["vpc_id"] for row in reply.json()] for name, reply in replies.items()} == {
            "v0": ["v0", "v0"],
            "v1": ["v1"],
            "none": [],
        }
        assert len(whole.json()) == 4
        tags = {reply.headers["etag"] for reply in (*replies.values(), whole)}
        assert len(tags) == 4
        headers = {"Authorization": "v0", "If-None-Match": whole.headers["etag"]}
        assert (await client.get("/flows?hour=1", headers=headers)).json() == replies["v0"].json()

    play(scenario, FakeStore(rows=4), FakeLog(), access)


def test_a_large_hour_leaves_the_event_loop_to_others_and_is_sent_in_chunks() -> None:
    store = FakeStore(rows=30_000)

    async def scenario(client: httpx.AsyncClient) -> None:
        task = asyncio.create_task(client.get("/flows?hour=1&consistency=eventual"))
        turns = 0
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        reply = task.result()
        assert len(reply.json()) == 30_000
        assert turns > 20
        assert reply.content == msgspec.json.encode(reply.json())

    play(scenario, store, FakeLog())


def test_a_client_that_takes_nothing_is_given_up_and_its_body_released() -> None:
    async def scenario() -> None:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)
            if len(sent) == 3:
                await asyncio.Event().wait()

        async def receive() -> Message:
            raise AssertionError

        entry = Entry("tag", Body((b"a", b"b", b"c"), 3, 3)).hold()
        await EntryResponse(entry, {}, 0.01)({"type": "http"}, receive, send)
        assert [message.get("body") for message in sent] == [None, b"a", b"b"]
        assert entry.users == 0

    asyncio.run(scenario())


def test_a_view_is_read_by_its_name_with_a_tag_and_a_freshness_of_its_own() -> None:
    store, other = FakeStore(), FakeStore(rows=2, position=9)
    store.others["other"] = other

    async def scenario(client: httpx.AsyncClient) -> None:
        own, named = await client.get("/flows?hour=1"), await client.get("/flows?hour=1&view=default")
        assert (named.content, named.headers["etag"]) == (own.content, own.headers["etag"])
        reply = await client.get("/flows?hour=1&view=other")
        assert [row["src_app"] for row in reply.json()] == ["a000000", "a000001"]
        assert (reply.headers["flowagg-fresh"], reply.headers["flowagg-lag-records"]) == ("false", "1")
        assert own.headers["flowagg-fresh"] == "true"
        # What a client holds of one view says nothing of the other.
        headers = {"If-None-Match": own.headers["etag"]}
        assert (await client.get("/flows?hour=1&view=other", headers=headers)).status_code == 200
        assert (await client.get("/flows?hour=1&view=default", headers=headers)).status_code == 304
        tag = {"If-None-Match": reply.headers["etag"]}
        assert (await client.get("/flows?hour=1&view=other", headers=tag)).status_code == 304
        assert (await client.get("/flows?hour=1&view=other&consistency=strict")).status_code == 503
        # An empty hour's tag is another one, too: it may have expired in one of them alone.
        empty = [await client.get(f"/flows?hour=9&view={view}") for view in ("default", "other")]
        assert empty[0].headers["etag"] != empty[1].headers["etag"]
        assert (store.reads, other.reads) == (1, 1)

    play(scenario, store, FakeLog())


def test_one_post_is_waited_for_in_the_view_that_is_asked_for() -> None:
    store = FakeStore(position=3)
    store.others["other"] = FakeStore(position=7)

    async def scenario(client: httpx.AsyncClient) -> None:
        after = encode_token(Position("t", {0: 7}))
        fresh = [
            (await client.get(f"/flows?hour=1&after={after}{view}")).headers["flowagg-fresh"]
            for view in ("", "&view=other")
        ]
        assert fresh == ["false", "true"]

    play(scenario, store, FakeLog())


def test_an_unknown_view_is_404_and_says_which_parameter_is_wrong() -> None:
    store = FakeStore()

    async def scenario(client: httpx.AsyncClient) -> None:
        for query in ("hour=1&view=other", "hour=1&view=other&consistency=strict", "view=other&hour=9"):
            reply = await client.get(f"/flows?{query}")
            assert (reply.status_code, reply.headers["content-type"]) == (404, "application/problem+json")
            assert reply.json()["detail"].startswith("view: there is no view 'other'")
            assert reply.headers["flowagg-fresh"] == "false"
        assert (await client.head("/flows?hour=1&view=other")).status_code == 404

    play(scenario, store, FakeLog())


def test_a_removed_view_is_404_and_forgotten() -> None:
    store = FakeStore()
    store.others["other"] = FakeStore()

    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.get("/flows?hour=1&view=other")).status_code == 200
        store.others["other"].exists = False
        assert (await client.get("/flows?hour=1&view=other")).status_code == 404
        store.others["other"] = FakeStore()  # made again
        assert (await client.get("/flows?hour=1&view=other")).status_code == 200

    play(scenario, store, FakeLog())


def test_views_are_remembered_within_a_bound_and_unknown_names_not_at_all() -> None:
    store = FakeStore()
    store.others = {f"v{number}": FakeStore() for number in range(20)}
    views = Views("default", cast(Store, store), 4)
    for name in ("v1", *(f"nobody{number}" for number in range(1000))):
        views.get(name)
    assert len(views) == 1
    for name in store.others:
        view = views.get(name)
        views.found(view)
        assert views.get(name) is view
        assert len(views) <= 5
    kept = [name for name in store.others if views.get(name) is views.get(name)]
    assert kept == ["v16", "v17", "v18", "v19"]
    views.gone(views.get("v17"))
    assert len(views) == 4
    own = views.get(None)
    views.gone(own)
    views.found(own)
    assert (views.get("default"), len(views)) == (own, 4)


def test_a_body_of_an_earlier_turn_is_not_sent_with_an_answer_that_has_none() -> None:
    """The hour had rows, the answer waited for more records, and then the hour had expired."""
    flows = Flows(ReaderSettings(), cast(Store, FakeStore()), cast(Log, FakeLog()), lambda _: EVERYTHING)
    get = flows.enter(asked_by(b"hour=1", []))
    entry = Entry("tag", Body((b"[{}]",), 4, 1)).hold()
    flows.take(get, entry)
    found = Found({}, Hour("other", 0, expired=True, incomplete=False), Freshness(fresh=True, lag_records=0), {})
    flows.settle(get, Answer(found))
    assert (get.entry, entry.users) == (None, 0)
