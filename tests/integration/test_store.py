"""The scripts and the transaction, on a real Redis."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import redis
from flowagg.flow import encode_key, encode_value
from flowagg.view import DamagedView, HourMark, Meta, hours_key, marks_key, meta_key, totals_key
from flowagg_consumer import effects as fx
from flowagg_consumer import store as store_module
from flowagg_consumer.marks import Window
from flowagg_consumer.native import NativeRecords, native_totals
from flowagg_consumer.partition import Batch, Fenced, Partition
from flowagg_consumer.records import Records
from flowagg_consumer.retention import Expiry
from flowagg_consumer.settings import ConsumerSettings
from flowagg_consumer.store import Store
from flowagg_consumer.totals import PythonTotals
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


class Kind:
    """What totals are kept in."""

    native: ClassVar[bool] = False


@pytest.fixture(params=["script", "transaction", "script-native", "transaction-native"])
def store(own_redis: Server, request: pytest.FixtureRequest) -> Iterator[Store]:
    Kind.native = request.param.endswith("-native")
    script_writes = 10**9 if request.param.startswith("script") else -1
    opened = Store(ConsumerSettings(redis_url=f"redis://{own_redis.address}/0", view="v"), script_writes)
    yield opened
    opened.close()


WINDOW = Window(86_400_000)


def ask(store: Store, command: fx.Command) -> Any:
    store.send(command)
    return store.receive()


def begin(store: Store, number: int = 0, position: int = 0, topic_id: str = "t", incarnation: str = "i") -> Meta:
    meta: Meta = ask(store, fx.Begin(number, position, topic_id, incarnation))
    return meta


def partition_of(meta: Meta) -> Partition:
    return Partition(0, meta, WINDOW, None, native_totals(7) if Kind.native else PythonTotals)


def encode_field(number: int) -> bytes:
    """The field of fold()'s flow with a number."""
    return b'["app-%d","b","c"]' % number


def fold(partition: Partition, keys: int, first: int = 0, hours: int = 1) -> Batch:
    records = Records(
        range(first, first + keys),
        [encode_key(f"app-{n}", "b", "c", n % hours) for n in range(keys)],
        [encode_value(2**53 - 1, n) for n in range(keys)],
        4,
        [0] * keys,
    )
    examined = partition.examine(NativeRecords.of(records) if Kind.native else records)
    assert examined is not None
    return partition.fold(examined)


def script(partition: Partition, batch: Batch, **changes: Any) -> fx.Apply:
    meta = partition.meta
    fields: dict[str, Any] = {
        "partition": 0,
        "expected": batch.expected,
        "topic_id": meta.topic_id,
        "incarnation": meta.incarnation,
        "position": batch.position,
        "leader_epoch": batch.leader_epoch,
        "time": batch.time,
        "writer": "me",
        "hours": partition.totals(batch),
        "marks": {},
        "expired": [],
        "lost": None,
    }
    return fx.Apply(**(fields | changes))


def test_begin_writes_the_meta_once(store: Store) -> None:
    assert ask(store, fx.Load([3])) == {3: None}
    first = begin(store, 3, 0, "topic-id", "one")
    assert first == Meta(0, "topic-id", -1, 0, incomplete=False, incarnation="one")
    assert begin(store, 3, 7, "other-id", "two") == first
    assert ask(store, fx.Load([3, 4])) == {3: first, 4: None}


def test_a_view_that_begins_above_zero_says_that_it_is_incomplete(store: Store) -> None:
    assert begin(store, position=17) == Meta(17, "t", -1, 17, incomplete=True, incarnation="i")


def test_a_batch_is_applied_whole_whatever_its_size(store: Store, raw: redis.Redis) -> None:
    partition = partition_of(begin(store))
    batch = fold(partition, 20_000, hours=3)
    assert ask(store, script(partition, batch)) is True
    assert ask(store, fx.Load([0])) == {0: Meta(20_000, "t", 4, 0, incomplete=False, incarnation="i", writer="me")}
    assert sum(raw.hlen(totals_key("v", 0, "i", hour)) for hour in range(3)) == 20_000
    assert raw.hget(totals_key("v", 0, "i", 1), '["app-19999","b","c"]') == b"9007199254740991 19999"
    last_offsets = {hour: max(n for n in range(20_000) if n % 3 == hour) for hour in range(3)}
    assert raw.hgetall(hours_key("v", 0, "i")) == {b"%d" % h: b"%d" % (n + 1) for h, n in last_offsets.items()}


def test_the_fence_compares_position_topic_and_incarnation(store: Store, raw: redis.Redis) -> None:
    meta = begin(store)
    for stale in (
        Meta(5, "t", -1, 0, False, "i"),
        Meta(0, "another", -1, 0, False, "i"),
        Meta(0, "t", -1, 0, False, "another"),
    ):
        partition = partition_of(stale)
        batch = fold(partition, 1, first=stale.position)
        assert ask(store, script(partition, batch)) is False
        diverge = fx.Diverge(0, stale.position, stale.topic_id, stale.incarnation, "another history")
        assert ask(store, diverge) is False
    assert ask(store, fx.Load([0])) == {0: meta}
    assert raw.keys("*hour*") == []


def test_another_history_of_the_log_is_kept_in_the_meta(store: Store) -> None:
    meta = begin(store)
    assert ask(store, fx.Diverge(0, meta.position, meta.topic_id, meta.incarnation, "it ends at 3: café")) is True
    assert ask(store, fx.Load([0])) == {0: replace(meta, diverged="it ends at 3: café")}


def test_the_same_batch_is_let_in_once(store: Store) -> None:
    meta = begin(store)
    one, other = partition_of(meta), partition_of(meta)
    batch, again = fold(one, 10), fold(other, 10)
    assert ask(store, script(one, batch)) is True
    assert ask(store, script(other, again)) is False


def test_a_partition_without_a_meta_takes_no_batch(store: Store) -> None:
    partition = Partition(0, Meta(0, "t", -1, 0, False, "i"), WINDOW)
    batch = fold(partition, 1)
    assert ask(store, script(partition, batch)) is False


def test_totals_are_read_back_with_the_position(store: Store) -> None:
    partition = partition_of(begin(store))
    batch = fold(partition, 100, hours=7)
    assert ask(store, script(partition, batch)) is True
    (meta,) = ask(store, fx.Load([0])).values()
    assert meta is not None
    other = partition_of(meta)
    batch = fold(other, 120, first=100, hours=7)
    fields = other.missing_fields()
    position, incarnation, values = ask(store, fx.ReadTotals(0, "i", fields))
    assert (position, incarnation) == (100, "i")
    asked = [(hour, field) for hour, fields_of in fields for field in fields_of]
    stored = {(n % 7, encode_field(n)): b"9007199254740991 %d" % n for n in range(100)}
    assert len(asked) == 120
    assert values == [stored.get(one) for one in asked]


def test_totals_read_at_another_position_never_reach_the_view(store: Store, raw: redis.Redis) -> None:
    """A zombie reads while Redis has gone back, another owner brings it on again, and the zombie writes."""
    meta = begin(store)
    earlier = {key: raw.dump(key) or b"" for key in raw.keys("flowagg:*")}
    first = partition_of(meta)
    assert ask(store, script(first, fold(first, 3))) is True
    (at_three,) = ask(store, fx.Load([0])).values()
    zombie = partition_of(at_three)
    batch = fold(zombie, 3, first=3)
    raw.flushall()
    for key, dump in earlier.items():
        raw.restore(key, 0, dump)
    read = ask(store, fx.ReadTotals(0, "i", zombie.missing_fields()))
    again = partition_of(meta)
    assert ask(store, script(again, fold(again, 3))) is True
    with suppress(Fenced):
        zombie.fill(batch, *read)
        ask(store, script(zombie, batch))
    (now,) = ask(store, fx.Load([0])).values()
    times = 2 if now.position == 6 else 1
    totals = raw.hgetall(totals_key("v", 0, "i", 0))
    assert totals == {b'["app-%d","b","c"]' % n: b"%d %d" % (times * (2**53 - 1), times * n) for n in range(3)}


def test_hours_expire_in_the_script_that_moves_the_floor(store: Store, raw: redis.Redis) -> None:
    partition = partition_of(begin(store))
    assert ask(store, script(partition, fold(partition, 30, hours=3))) is True
    assert ask(store, fx.ReadHours(0, "i")) == (30, "i", {0: HourMark(28), 1: HourMark(29), 2: HourMark(30)})
    (meta,) = ask(store, fx.Load([0])).values()
    partition = partition_of(meta)
    expiry = Expiry(tick=500, floor=2, gone=[0, 1], adopted={2: HourMark(30, 500), 7: HourMark(3, 500)})
    moved = script(partition, partition.move(40, 4), expiry=expiry)
    assert ask(store, moved) is True
    (meta,) = ask(store, fx.Load([0])).values()
    assert (meta.position, meta.floor, meta.tick) == (40, 2, 500)
    assert ask(store, fx.ReadHours(0, "i")) == (40, "i", {2: HourMark(30, 500), 7: HourMark(3, 500)})
    assert not raw.exists(totals_key("v", 0, "i", 0), totals_key("v", 0, "i", 1))
    assert raw.hlen(totals_key("v", 0, "i", 2)) == 10
    assert ask(store, moved) is False


def test_a_foreign_key_in_the_way_is_found_before_the_first_write(store: Store, raw: redis.Redis) -> None:
    partition = partition_of(begin(store))
    raw.set(totals_key("v", 0, "i", 1), "foreign")
    batch = fold(partition, 4, hours=2)
    with pytest.raises(DamagedView, match="is a string"):
        ask(store, script(partition, batch))
    assert raw.hget(meta_key("v", 0), "position") == b"0"
    assert not raw.exists(totals_key("v", 0, "i", 0), hours_key("v", 0, "i"))


def test_a_full_redis_refuses_before_the_first_write(store: Store, raw: redis.Redis) -> None:
    partition = partition_of(begin(store))
    raw.config_set("maxmemory", "1mb")
    batch = fold(partition, 1000)
    with pytest.raises(fx.StoreAway, match="RedisFull"):
        ask(store, script(partition, batch))
    raw.config_set("maxmemory", "0")
    assert raw.hget(meta_key("v", 0), "position") == b"0"
    assert raw.keys("*hour*") == []
    assert ask(store, script(partition, batch)) is True


def test_marks_and_lost_ranges_are_written_and_expired_buckets_go(store: Store, raw: redis.Redis) -> None:
    partition = partition_of(begin(store))
    raw.hset(marks_key("v", 0, "i", 3), "old", "x")
    batch = fold(partition, 2)
    marks = {7: ["k", b"d 0-1"], 8: ["j", b"d 0-2"]}
    assert ask(store, script(partition, batch, marks=marks, expired=[3, 4], lost="5-9", time=77)) is True
    read = fx.ReadMarks(0, "i", ["j", "k", "none"], [6, 7, 8])
    assert ask(store, read) == (2, "i", [{8: b"d 0-2"}, {7: b"d 0-1"}, {}])
    assert not raw.exists(marks_key("v", 0, "i", 3))
    (meta,) = ask(store, fx.Load([0])).values()
    assert (meta.lost, meta.incomplete, meta.time) == ("5-9", True, 77)


def test_commands_are_answered_in_their_order(store: Store) -> None:
    partition = partition_of(begin(store))
    first = fold(partition, 3)
    store.send(script(partition, first))
    partition.sent(first)
    store.send(fx.ReadTotals(0, "i", [(0, [encode_field(n) for n in range(3)])]))
    assert store.receive() is True
    assert store.receive() == (3, "i", [b"9007199254740991 %d" % n for n in range(3)])


def test_one_damaged_meta_is_not_the_others(store: Store, raw: redis.Redis) -> None:
    meta = begin(store, 1)
    raw.set(meta_key("v", 0), "foreign")
    raw.hset(meta_key("v", 2), mapping={"position": "x", "incarnation": "i"})
    loaded = ask(store, fx.Load([0, 1, 2]))
    assert loaded[1] == meta
    assert isinstance(loaded[0], DamagedView)
    assert isinstance(loaded[2], DamagedView)
    positions = ask(store, fx.ReadPositions([0, 1, 2]))
    assert positions[1] == (0, "i")
    assert isinstance(positions[0], DamagedView)
    assert isinstance(positions[2], DamagedView)


def test_a_closed_connection_is_opened_again_by_the_next_command(store: Store) -> None:
    meta = begin(store)
    store.disconnect()
    assert ask(store, fx.Load([0])) == {0: meta}


def test_a_replica_refuses_and_takes_it_once_it_is_the_master(store: Store, raw: redis.Redis) -> None:
    partition = partition_of(begin(store))
    batch = fold(partition, 3)
    raw.replicaof("127.0.0.1", 1)
    with pytest.raises(fx.StoreAway, match=r"READONLY|read only"):
        ask(store, script(partition, batch))
    raw.replicaof("NO", "ONE")
    store.disconnect()
    assert ask(store, script(partition, batch)) is True


@pytest.mark.parametrize("writes", [0, 1])
def test_much_is_written_by_a_transaction(own_redis: Server, raw: redis.Redis, writes: int) -> None:
    store = Store(ConsumerSettings(redis_url=f"redis://{own_redis.address}/0", view="v"), script_writes=1)
    partition = partition_of(begin(store))
    raw.config_resetstat()
    assert ask(store, script(partition, fold(partition, 1 + writes))) is True
    calls = raw.info("commandstats")
    assert ("cmdstat_exec" in calls, "cmdstat_evalsha" in calls) == (writes == 1, writes == 0)
    store.close()


@pytest.mark.parametrize("changed", ["meta", "hours", "totals"])
def test_whatever_changes_after_the_look_undoes_the_transaction(
    own_redis: Server, raw: redis.Redis, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(ConsumerSettings(redis_url=f"redis://{own_redis.address}/0", view="v"), script_writes=0)
    partition = partition_of(begin(store))
    key = {"meta": meta_key("v", 0), "hours": hours_key("v", 0, "i"), "totals": totals_key("v", 0, "i", 0)}[changed]
    judge = store_module._judge

    def judge_then_change(*given: Any) -> Any:
        verdict = judge(*given)
        raw.hset(key, "position", "0")  # as it was: what counts is that somebody wrote
        return verdict

    monkeypatch.setattr(store_module, "_judge", judge_then_change)
    assert ask(store, script(partition, fold(partition, 3))) is False
    monkeypatch.undo()
    assert raw.hget(meta_key("v", 0), "writer") == b""
    assert not raw.hexists(totals_key("v", 0, "i", 0), '["app-0","b","c"]')
    again = Partition(0, ask(store, fx.Load([0]))[0], WINDOW)
    assert ask(store, script(again, fold(again, 3))) is True
    store.close()


def test_a_look_that_shows_another_position_leaves_nothing_watched(own_redis: Server, raw: redis.Redis) -> None:
    store = Store(ConsumerSettings(redis_url=f"redis://{own_redis.address}/0", view="v"), script_writes=0)
    meta, other = begin(store), begin(store, 1)
    stale = Partition(0, replace(meta, position=5), WINDOW)
    assert ask(store, script(stale, fold(stale, 2, first=5))) is False
    raw.hset(meta_key("v", 0), "foreign", "1")
    partition = Partition(1, other, WINDOW)
    assert ask(store, replace(script(partition, fold(partition, 2)), partition=1)) is True
    store.close()


def test_answers_that_were_under_way_come_before_that_of_a_transaction(own_redis: Server) -> None:
    store = Store(ConsumerSettings(redis_url=f"redis://{own_redis.address}/0", view="v"), script_writes=0)
    partition = partition_of(begin(store))
    first = fold(partition, 3)
    store.send(fx.ReadPositions([0]))
    store.send(script(partition, first))
    partition.sent(first)
    store.send(fx.ReadPositions([0]))
    store.send(script(partition, fold(partition, 3, first=3)))
    assert [store.receive() for _ in range(4)] == [{0: (0, "i")}, True, {0: (3, "i")}, True]
    store.close()
