"""Bodies: the cache's bounds, and readings that concurrent requests share."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

import pytest
from flowagg.view import HourMark, Meta
from flowagg_reader import metrics
from flowagg_reader.access import EVERYTHING, Access
from flowagg_reader.bodies import Bodies, Counts, PartitionTotals, Turns
from flowagg_reader.cache import Cache
from flowagg_reader.core import HourRead, ReadHour
from flowagg_reader.hour import Seen, hour_of
from flowagg_reader.union import Body, render

HOUR = 7
KIB = 1024


def body(size: int) -> Body:
    return Body((b"x" * size,), size, 1)


def never() -> None:
    raise AssertionError


def test_the_least_recently_used_go_and_bytes_are_bounded() -> None:
    cache = Cache[Body](20 * KIB)
    for number in range(100):
        cache.add(f"{number}", body(4 * KIB), never)
        assert cache.bytes <= 20 * KIB
        assert cache.find("0") is not None  # used again and again
    assert [tag for tag in map(str, range(100)) if cache.find(tag)] == ["0", "97", "98", "99"]


def test_many_small_bodies_are_bounded_too() -> None:
    cache = Cache[Body](20 * KIB)
    for number in range(1000):
        cache.add(f"{number}", body(2), never)
    assert sum(cache.find(str(number)) is not None for number in range(1000)) == 19


def test_a_body_in_use_stays_and_one_without_room_is_outside_until_it_is_released() -> None:
    cache, gone = Cache[Body](20 * KIB), list[str]()
    held = cache.add("held", body(15 * KIB), never)[0].hold()
    outside, is_outside = cache.add("other", body(15 * KIB), lambda: gone.append("other"))
    assert is_outside
    outside.hold()
    again, new = cache.add("other", body(15 * KIB), never)
    assert (again, new) == (outside, False)
    assert cache.find("other") is outside
    again.hold().release()
    assert not gone
    outside.release()
    assert gone == ["other"]
    assert cache.find("other") is None
    assert cache.find("held") is held
    held.release()
    assert cache.add("other", body(15 * KIB), never)[1] is False
    assert cache.find("held") is None


def test_a_body_larger_than_the_cache_pushes_nothing_out() -> None:
    cache = Cache[Body](20 * KIB)
    cache.add("small", body(KIB), never)
    assert cache.add("large", body(30 * KIB), lambda: None)[1]
    assert cache.find("small") is not None


class FakeStore:
    """Keeps hours of one partition; each read waits until it is let go."""

    def __init__(self, rows: int = 3, view: str = "default") -> None:
        self.view = view
        self.position = 10
        self.rows = rows
        self.reads: list[asyncio.Event] = []
        self.error: Exception | None = None

    def seen(self) -> Seen:
        meta = Meta(self.position, "t", 0, 0, False, "i")
        return Seen(meta, HourMark(self.position) if self.rows else None, self.rows)

    def tag(self, hour: int = HOUR, scope: str = "") -> str:
        return hour_of(hour, scope, {0: self.seen()}, self.view).tag

    async def read_hour(self, partitions: Iterable[int], hour: int) -> Mapping[int, PartitionTotals]:
        let_go = asyncio.Event()
        self.reads.append(let_go)
        await let_go.wait()
        if self.error is not None:
            raise self.error
        flat = [part for n in range(self.rows) for part in (b'["a%d","b","v%d"]' % (n, n), b"%d 0" % self.position)]
        return {0: (self.seen(), flat)}

    async def started(self, count: int) -> None:
        while len(self.reads) < count:
            await asyncio.sleep(0)


Read = Coroutine[Any, Any, HourRead]


def read(bodies: Bodies[Body], store: FakeStore, hour: int = HOUR, rows: int = 3, access: Access = EVERYTHING) -> Read:
    wanted = ReadHour(frozenset({0}), hour, store.tag(hour, access.scope), rows)
    return bodies.read(store, store.view, wanted, access)


def bodies_of(cache_bytes: int = 2**20, turns: int = 1, large: int = 100) -> Bodies[Body]:
    counts = Counts(metrics.BODIES, metrics.CACHE_BYTES, metrics.RENDER_SECONDS)
    return Bodies(render, cache_bytes, Turns(turns, large), counts)


async def turn_of_the_loop() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_requests_for_the_same_body_share_one_reading() -> None:
    async def scenario() -> None:
        store = FakeStore()
        bodies = bodies_of()
        tasks = [asyncio.create_task(read(bodies, store)) for _ in range(5)]
        await store.started(1)
        tasks += [asyncio.create_task(read(bodies, store)) for _ in range(5)]
        await turn_of_the_loop()
        store.reads[0].set()
        results = await asyncio.gather(*tasks)
        assert len(store.reads) == 1
        entry = results[0].body
        assert all(result.body is entry for result in results)
        assert entry.users == 10
        assert bodies.find(store.tag()) is entry

    asyncio.run(scenario())


def test_a_request_for_a_later_body_joins_the_next_reading_never_the_one_under_way() -> None:
    async def scenario() -> None:
        store = FakeStore()
        bodies = bodies_of()
        first = asyncio.create_task(read(bodies, store))
        await store.started(1)
        store.position = 20  # the hour moves
        later = [asyncio.create_task(read(bodies, store)) for _ in range(5)]
        await turn_of_the_loop()
        assert len(store.reads) == 1  # one at a time
        store.position = 10
        store.reads[0].set()
        assert b'"bytes_tx":10' in (await first).body.body.chunks[0]
        store.position = 20
        await store.started(2)
        store.reads[1].set()
        for result in await asyncio.gather(*later):
            assert b'"bytes_tx":20' in result.body.body.chunks[0]
        assert len(store.reads) == 2

    asyncio.run(scenario())


def test_one_scope_never_gets_the_body_of_another() -> None:
    async def scenario() -> None:
        store = FakeStore()
        bodies = bodies_of()
        mine = Access(lambda vpc_id: vpc_id == "v1", "mine")
        tasks = [asyncio.create_task(read(bodies, store, access=access)) for access in (mine, EVERYTHING)]
        await store.started(2)
        for let_go in store.reads:
            let_go.set()
        part, whole = await asyncio.gather(*tasks)
        assert (part.body.body.rows, whole.body.body.rows) == (1, 3)
        assert bodies.find(store.tag(scope="mine")) is part.body
        assert bodies.find(store.tag()) is whole.body

    asyncio.run(scenario())


def test_large_reads_wait_for_their_turn_and_small_ones_never() -> None:
    async def scenario() -> None:
        store = FakeStore()
        bodies = bodies_of()
        large = [asyncio.create_task(read(bodies, store, hour, rows=1000)) for hour in (1, 2)]
        await store.started(1)
        small = asyncio.create_task(read(bodies, store, 3, rows=100))
        await store.started(2)
        store.reads[1].set()
        await small
        assert len(store.reads) == 2
        store.reads[0].set()
        await large[0]
        await store.started(3)  # the cache has room for the body, so its sending needs no turn
        store.reads[2].set()
        await large[1]

    asyncio.run(scenario())


def test_the_turn_of_a_large_body_that_finds_no_room_lasts_until_it_is_sent() -> None:
    async def scenario() -> None:
        store = FakeStore()
        bodies = bodies_of(cache_bytes=0)
        first = asyncio.create_task(read(bodies, store, 1, rows=1000))
        second = asyncio.create_task(read(bodies, store, 2, rows=1000))
        await store.started(1)
        store.reads[0].set()
        entry = (await first).body
        await turn_of_the_loop()
        assert len(store.reads) == 1
        shared = bodies.find(store.tag(1))  # it is there for others as long as it is being sent
        assert shared is not None
        assert shared is entry
        entry.release()
        await turn_of_the_loop()
        assert len(store.reads) == 1
        shared.release()
        await store.started(2)
        assert bodies.find(store.tag(1)) is None
        store.reads[1].set()
        await second

    asyncio.run(scenario())


def test_a_reading_that_nobody_waits_for_any_more_ends_and_gives_its_turn_back() -> None:
    async def scenario() -> None:
        store = FakeStore()
        bodies = bodies_of()
        given_up = [asyncio.create_task(read(bodies, store, 1, rows=1000)) for _ in range(3)]
        await store.started(1)
        for task in given_up[:2]:
            task.cancel()
        await turn_of_the_loop()
        other = asyncio.create_task(read(bodies, store, 2, rows=1000))
        await turn_of_the_loop()
        assert len(store.reads) == 1
        given_up[2].cancel()
        again = asyncio.create_task(read(bodies, store, 1, rows=1000))  # does not join what is ending
        await store.started(2)
        store.reads[1].set()
        await other
        await store.started(3)
        store.reads[2].set()
        assert (await again).body is not None
        assert all(task.cancelled() for task in given_up)

    asyncio.run(scenario())


def test_a_reading_that_fails_fails_its_requests_and_neither_the_next_nor_its_turn() -> None:
    async def scenario() -> None:
        store = FakeStore()
        bodies = bodies_of()
        store.error = OSError("away")
        tasks = [asyncio.create_task(read(bodies, store, rows=1000)) for _ in range(3)]
        await store.started(1)
        store.reads[0].set()
        for task in tasks:
            with pytest.raises(OSError, match="away"):
                await task
        store.error = None
        again = asyncio.create_task(read(bodies, store, rows=1000))
        await store.started(2)
        store.reads[1].set()
        assert (await again).body is not None

    asyncio.run(scenario())


def test_an_hour_that_has_no_rows_any_more_has_no_body() -> None:
    async def scenario() -> None:
        store = FakeStore()
        bodies = bodies_of()
        task = asyncio.create_task(read(bodies, store))
        await store.started(1)
        store.rows = 0
        store.reads[0].set()
        assert (await task).body is None

    asyncio.run(scenario())


def test_views_share_the_cache_and_never_a_reading_or_a_tag() -> None:
    async def scenario() -> None:
        bodies, stores = bodies_of(), [FakeStore(view=view) for view in ("one", "two")]
        tasks = [asyncio.create_task(read(bodies, store)) for store in stores]
        for store in stores:
            await store.started(1)
            store.reads[0].set()
        one, two = [(await task).body for task in tasks]
        assert one is not two
        assert one.tag != two.tag
        for entry in (one, two):
            entry.release()
            found = bodies.find(entry.tag)
            assert found is entry
            found.release()

    asyncio.run(scenario())
