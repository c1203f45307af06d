"""The pure core of the exactly-once path, on a Redis that is a dictionary."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from flowagg.flow import encode_key, encode_value
from flowagg.view import Meta
from flowagg_consumer.partition import Batch, Fenced, Partition, Refetch, Stop, StopReason
from flowagg_consumer.records import Records
from hypothesis import given
from hypothesis import strategies as st

START = Meta(position=0, topic_id="t", leader_epoch=-1, start=0, incomplete=False, incarnation="i")
KEY = encode_key("foo", "bar", "vpc-0", 1)
FIELD = b'["foo","bar","vpc-0"]'


class Stored:
    """What Redis would hold of one partition."""

    def __init__(self) -> None:
        self.position = 0
        self.epoch = -1
        self.totals: dict[tuple[int, bytes], bytes] = {}
        self.hours: dict[int, int] = {}

    def partition(self) -> Partition:
        return Partition(3, Meta(self.position, "t", self.epoch, 0, False, "i"))

    def fill(self, partition: Partition, batch: Batch) -> None:
        values = [self.totals.get((entry.hour, entry.field)) for entry in batch.missing]
        partition.fill(batch, self.position, "i", values)

    def apply(self, partition: Partition, batch: Batch) -> None:
        if batch.expected != self.position:
            raise Fenced
        for hour in partition.totals(batch):
            self.totals |= {(hour.hour, f): v for f, v in zip(hour.pairs[::2], hour.pairs[1::2], strict=True)}
            self.hours[hour.hour] = hour.last_position
        self.position, self.epoch = batch.position, batch.leader_epoch
        partition.applied(batch)

    def carry(self, partition: Partition, records: Records) -> None:
        rest: Records | None = records
        while rest is not None:
            batch = partition.fold(rest)
            if batch is None:
                return
            self.fill(partition, batch)
            self.apply(partition, batch)
            rest = batch.rest

    @property
    def state(self) -> tuple[object, ...]:
        return self.position, self.epoch, self.totals, self.hours


def records(first: int, *flows: tuple[bytes | None, int, int], epoch: int = 0) -> Records:
    return Records(
        range(first, first + len(flows)),
        [key for key, _, _ in flows],
        [encode_value(tx, rx) for _, tx, rx in flows],
        epoch,
    )


def test_totals_are_absolute_and_the_position_follows() -> None:
    stored = Stored()
    partition = stored.partition()
    stored.carry(partition, records(0, (KEY, 100, 300), (KEY, 200, 600)))
    stored.carry(partition, records(2, (KEY, 1, 1)))
    assert stored.state == (3, 0, {(1, FIELD): b"301 901"}, {1: 3})


def test_a_new_owner_reads_back_what_it_does_not_hold() -> None:
    stored = Stored()
    stored.carry(stored.partition(), records(0, (KEY, 100, 300)))
    other = stored.partition()
    batch = other.fold(records(1, (KEY, 1, 2)))
    assert batch is not None
    assert [entry.field for entry in batch.missing] == [FIELD]
    stored.fill(other, batch)
    stored.apply(other, batch)
    assert stored.totals == {(1, FIELD): b"101 302"}


def test_totals_are_filled_only_from_the_position_that_the_fold_starts_from() -> None:
    stored = Stored()
    stored.carry(stored.partition(), records(0, (KEY, 100, 300)))
    owner, zombie = stored.partition(), stored.partition()
    batch = zombie.fold(records(1, (KEY, 1, 2)))
    assert batch is not None
    stored.carry(owner, records(1, (KEY, 1, 2)))
    with pytest.raises(Fenced):
        stored.fill(zombie, batch)


def test_totals_of_another_incarnation_are_never_taken() -> None:
    partition = Partition(0, Meta(5, "t", 0, 0, False, "i"))
    batch = partition.fold(records(5, (KEY, 1, 2)))
    assert batch is not None
    with pytest.raises(Fenced):
        partition.fill(batch, 5, "another", [b"1 1"])


def test_the_fence_lets_a_batch_in_once() -> None:
    stored = Stored()
    one, other = stored.partition(), stored.partition()
    batches = [partition.fold(records(0, (KEY, 1, 1))) for partition in (one, other)]
    assert batches[0] is not None
    assert batches[1] is not None
    stored.apply(one, batches[0])
    with pytest.raises(Fenced):
        stored.apply(other, batches[1])
    assert stored.totals == {(1, FIELD): b"1 1"}


def test_sums_grow_past_int64() -> None:
    stored = Stored()
    partition = stored.partition()
    largest = 2**53 - 1
    for first in range(0, 5000, 1000):
        stored.carry(partition, records(first, *[(KEY, largest, largest)] * 1000))
    assert stored.totals == {(1, FIELD): b"%d %d" % (5000 * largest, 5000 * largest)}
    assert 5000 * largest > 2**63


def test_records_below_the_position_are_discarded() -> None:
    stored = Stored()
    partition = stored.partition()
    stored.carry(partition, records(0, (KEY, 1, 1), (KEY, 2, 2)))
    assert partition.fold(records(0, (KEY, 1, 1), (KEY, 2, 2))) is None
    stored.carry(partition, records(1, (KEY, 2, 2), (KEY, 4, 4)))
    assert stored.totals == {(1, FIELD): b"7 7"}


def test_a_gap_goes_on_only_when_a_second_fetch_shows_the_same() -> None:
    stored = Stored()
    partition = stored.partition()
    stored.carry(partition, records(0, (KEY, 1, 1)))
    for first in (3, 2):
        with pytest.raises(Refetch):
            partition.fold(records(first, (KEY, 1, 1)))
    stored.carry(partition, records(2, (KEY, 1, 1)))
    assert stored.state == (3, 0, {(1, FIELD): b"2 2"}, {1: 3})


def test_a_batch_ends_before_a_gap_inside() -> None:
    stored = Stored()
    partition = stored.partition()
    gappy = Records([0, 1, 4, 5], [KEY] * 4, [encode_value(1, 1)] * 4, 0)
    with pytest.raises(Refetch):
        stored.carry(partition, gappy)
    assert stored.position == 2
    stored.carry(partition, gappy.after(1))
    assert stored.state == (6, 0, {(1, FIELD): b"4 4"}, {1: 6})


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"no flow key", encode_value(1, 1)), (None, encode_value(1, 1)), (KEY, b"no counts"), (KEY, None)],
)
def test_a_record_that_is_no_flow_stops_the_partition_after_all_before_it(
    key: bytes | None, value: bytes | None
) -> None:
    stored = Stored()
    partition = stored.partition()
    bad = Records(range(4), [KEY, KEY, key, KEY], [encode_value(1, 1)] * 2 + [value, encode_value(1, 1)], 0)
    with pytest.raises(Stop) as caught:
        stored.carry(partition, bad)
    assert caught.value.reason is StopReason.INVALID_RECORD
    assert "offset 2" in caught.value.detail
    assert stored.state == (2, 0, {(1, FIELD): b"2 2"}, {1: 2})


def test_foreign_spellings_of_a_key_add_to_one_total() -> None:
    stored = Stored()
    partition = stored.partition()
    foreign = b'[ "foo", "b\\u0061r","vpc-0" , 1]'
    stored.carry(partition, records(0, (foreign, 1, 1), (KEY, 2, 2), (foreign, 4, 4)))
    other = stored.partition()
    stored.carry(other, records(3, (KEY, 8, 8), (foreign, 16, 16)))
    assert stored.totals == {(1, FIELD): b"31 31"}


def test_forgotten_totals_are_read_back() -> None:
    stored = Stored()
    partition = stored.partition()
    stored.carry(partition, records(0, (KEY, 1, 1)))
    assert partition.cached_bytes > 0
    partition.forget_totals()
    assert (partition.cached_bytes, partition.cached_entries) == (0, 0)
    stored.carry(partition, records(1, (KEY, 2, 2)))
    assert stored.totals == {(1, FIELD): b"3 3"}


flow_keys = st.sampled_from([encode_key(f"a{n % 3}", "b", "c", n % 2) for n in range(6)])
logs = st.lists(st.tuples(flow_keys, st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40)


@given(logs, st.data())
def test_what_is_stored_at_a_position_is_a_pure_function_of_the_log(
    log: list[tuple[bytes, int, int]], data: st.DataObject
) -> None:
    """However batches are cut, whoever writes them and whatever is forgotten in between."""
    cuts = sorted({0, len(log), *data.draw(st.lists(st.integers(0, len(log)), max_size=6))})
    stored = Stored()
    partition = stored.partition()
    for start, stop in pairwise(cuts):
        change: Callable[[], None] | None = data.draw(
            st.sampled_from([None, partition.forget_totals, partition.forget_totals])
        )
        if change is not None:
            change()
        if data.draw(st.booleans()):
            partition = stored.partition()
        stored.carry(partition, records(start, *log[start:stop]))
    at_once = Stored()
    at_once.carry(at_once.partition(), records(0, *log))
    assert stored.state == at_once.state
