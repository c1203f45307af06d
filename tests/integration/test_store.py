"""The scripts, on a real Redis."""

from collections.abc import Iterator

import pytest
import redis
from flowagg.flow import encode_key, encode_value
from flowagg.view import Meta, hours_key, meta_key, totals_key
from flowagg_consumer.partition import Batch, Fenced, Partition
from flowagg_consumer.records import Records
from flowagg_consumer.settings import ConsumerSettings
from flowagg_consumer.store import Store
from flowagg_stack import provision
from flowagg_stack.embedded import Server, start_redis_binary
from flowagg_stack.processes import Processes


@pytest.fixture
def own_redis(processes: Processes) -> Server:
    """A Redis of the test's own: it may be filled and damaged."""
    return start_redis_binary(processes, provision.redis_server())


@pytest.fixture
def raw(own_redis: Server) -> Iterator[redis.Redis]:
    host, port = own_redis.address.split(":")
    with redis.Redis(host, int(port)) as client:
        yield client


@pytest.fixture
def store(own_redis: Server) -> Iterator[Store]:
    opened = Store(ConsumerSettings(redis_url=f"redis://{own_redis.address}/0", view="v"))
    yield opened
    opened.close()


def fold(partition: Partition, keys: int, first: int = 0, hours: int = 1) -> Batch:
    records = Records(
        range(first, first + keys),
        [encode_key(f"app-{n}", "b", "c", n % hours) for n in range(keys)],
        [encode_value(2**53 - 1, n) for n in range(keys)],
        4,
    )
    batch = partition.fold(records)
    assert batch is not None
    return batch


def test_begin_writes_the_meta_once(store: Store) -> None:
    assert store.load([3]) == {3: None}
    first = store.begin(3, 0, "topic-id", "one")
    assert first == Meta(0, "topic-id", -1, 0, incomplete=False, incarnation="one")
    assert store.begin(3, 7, "other-id", "two") == first
    assert store.load([3, 4]) == {3: first, 4: None}


def test_a_view_that_begins_above_zero_says_that_it_is_incomplete(store: Store) -> None:
    assert store.begin(0, 17, "t", "i") == Meta(17, "t", -1, 17, incomplete=True, incarnation="i")


def test_a_batch_is_applied_whole_whatever_its_size(store: Store, raw: redis.Redis) -> None:
    partition = Partition(0, store.begin(0, 0, "t", "i"))
    batch = fold(partition, 20_000, hours=3)
    store.apply(partition, batch, partition.totals(batch))
    assert store.load([0]) == {0: Meta(20_000, "t", 4, 0, incomplete=False, incarnation="i")}
    assert sum(raw.hlen(totals_key("v", 0, "i", hour)) for hour in range(3)) == 20_000
    assert raw.hget(totals_key("v", 0, "i", 1), '["app-19999","b","c"]') == b"9007199254740991 19999"
    last_offsets = {hour: max(n for n in range(20_000) if n % 3 == hour) for hour in range(3)}
    assert raw.hgetall(hours_key("v", 0, "i")) == {b"%d" % h: b"%d" % (n + 1) for h, n in last_offsets.items()}


def test_the_fence_compares_position_topic_and_incarnation(store: Store, raw: redis.Redis) -> None:
    meta = store.begin(0, 0, "t", "i")
    for stale in (
        Meta(5, "t", -1, 0, False, "i"),
        Meta(0, "another", -1, 0, False, "i"),
        Meta(0, "t", -1, 0, False, "another"),
    ):
        partition = Partition(0, stale)
        batch = fold(partition, 1, first=stale.position)
        with pytest.raises(Fenced):
            store.apply(partition, batch, partition.totals(batch))
    assert store.load([0]) == {0: meta}
    assert raw.keys("*hour*") == []


def test_the_same_batch_is_let_in_once(store: Store) -> None:
    meta = store.begin(0, 0, "t", "i")
    one, other = Partition(0, meta), Partition(0, meta)
    batch, again = fold(one, 10), fold(other, 10)
    store.apply(one, batch, one.totals(batch))
    with pytest.raises(Fenced):
        store.apply(other, again, other.totals(again))


def test_a_partition_without_a_meta_takes_no_batch(store: Store) -> None:
    partition = Partition(0, Meta(0, "t", -1, 0, False, "i"))
    batch = fold(partition, 1)
    with pytest.raises(Fenced):
        store.apply(partition, batch, partition.totals(batch))


def test_totals_are_read_back_with_the_position(store: Store) -> None:
    partition = Partition(0, store.begin(0, 0, "t", "i"))
    batch = fold(partition, 100, hours=7)
    store.apply(partition, batch, partition.totals(batch))
    (meta,) = store.load([0]).values()
    assert meta is not None
    other = Partition(0, meta)
    batch = fold(other, 120, first=100, hours=7)
    position, incarnation, values = store.read_totals(other, batch)
    assert (position, incarnation) == (100, "i")
    assert values == [b"9007199254740991 %d" % n if n < 100 else None for n in range(120)]


def test_a_foreign_key_in_the_way_is_found_before_the_first_write(store: Store, raw: redis.Redis) -> None:
    partition = Partition(0, store.begin(0, 0, "t", "i"))
    raw.set(totals_key("v", 0, "i", 1), "foreign")
    batch = fold(partition, 4, hours=2)
    with pytest.raises(redis.ResponseError, match="DAMAGED"):
        store.apply(partition, batch, partition.totals(batch))
    assert raw.hget(meta_key("v", 0), "position") == b"0"
    assert not raw.exists(totals_key("v", 0, "i", 0), hours_key("v", 0, "i"))


def test_a_full_redis_refuses_before_the_first_write(store: Store, raw: redis.Redis) -> None:
    partition = Partition(0, store.begin(0, 0, "t", "i"))
    raw.config_set("maxmemory", "1mb")
    batch = fold(partition, 1000)
    with pytest.raises(redis.RedisError):
        store.apply(partition, batch, partition.totals(batch))
    raw.config_set("maxmemory", "0")
    assert raw.hget(meta_key("v", 0), "position") == b"0"
    assert raw.keys("*hour*") == []
    store.apply(partition, batch, partition.totals(batch))
