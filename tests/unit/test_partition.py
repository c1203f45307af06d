"""The pure core of the exactly-once path, on a Redis that is a dictionary."""

from itertools import pairwise
from typing import ClassVar

import pytest
from flowagg.flow import encode_key, encode_value
from flowagg.idempotency import Mark
from flowagg.view import Meta, decode_hour
from flowagg_consumer.marks import Window
from flowagg_consumer.native import NativeRecords, native_totals
from flowagg_consumer.partition import Batch, DeadLetterReason, Fenced, Partition, Refetch
from flowagg_consumer.records import Records
from flowagg_consumer.totals import PythonTotals
from hypothesis import given
from hypothesis import strategies as st

START = Meta(position=0, topic_id="t", leader_epoch=-1, start=0, incomplete=False, incarnation="i")
KEY = encode_key("foo", "bar", "vpc-0", 1)
FIELD = b'["foo","bar","vpc-0"]'


WINDOW = Window(86_400_000)


@pytest.fixture(autouse=True, scope="module", params=["python", "native"])
def kind(request: pytest.FixtureRequest) -> None:
    """What totals are kept in."""
    Stored.native = request.param == "native"


def fold(partition: Partition, records: Records) -> Batch:
    examined = partition.examine(NativeRecords.of(records) if Stored.native else records)
    assert examined is not None
    assert not examined.unknown_marks
    return partition.fold(examined)


class Stored:
    """What Redis would hold of one partition."""

    native: ClassVar[bool]

    def __init__(self) -> None:
        self.position = 0
        self.epoch = -1
        self.time = -1
        self.totals: dict[tuple[int, bytes], bytes] = {}
        self.hours: dict[int, int] = {}
        self.marks: dict[int, dict[str, bytes]] = {}
        self.dead: list[tuple[int, str]] = []

    def partition(self) -> Partition:
        return partition_of(Meta(self.position, "t", self.epoch, 0, False, "i", self.time))

    def fill(self, partition: Partition, batch: Batch) -> None:
        values = [self.totals.get((hour, field)) for hour, fields in partition.missing_fields() for field in fields]
        partition.fill(batch, self.position, "i", values)

    def apply(self, partition: Partition, batch: Batch) -> None:
        if batch.expected != self.position:
            raise Fenced
        for hour in partition.totals(batch):
            self.totals |= {(hour.hour, f): v for f, v in zip(hour.pairs[::2], hour.pairs[1::2], strict=True)}
            self.hours[hour.hour] = decode_hour(hour.mark).position
        for key, entry in batch.marks.items():
            self.marks.setdefault(entry.bucket, {})[key] = entry.encode()
        for bucket in batch.expired:
            self.marks.pop(bucket, None)
        self.position, self.epoch, self.time = batch.position, batch.leader_epoch, batch.time
        partition.sent(batch)
        partition.acknowledged(batch)

    def carry(self, partition: Partition, records: Records) -> None:
        rest: Records | None = NativeRecords.of(records) if self.native else records
        while rest is not None:
            examined = partition.examine(rest)
            if examined is None:
                return
            if examined.unknown_marks:
                found = [
                    {b: self.marks[b][key] for b in partition.live_buckets() if key in self.marks.get(b, {})}
                    for key in examined.unknown_marks
                ]
                partition.learn_marks(examined, self.position, "i", found)
            batch = partition.fold(examined)
            self.fill(partition, batch)
            self.apply(partition, batch)
            self.dead += [(letter.offset, letter.reason) for letter in batch.dead]
            rest = examined.rest

    @property
    def state(self) -> tuple[object, ...]:
        return self.position, self.epoch, self.totals, self.hours

    @property
    def whole_state(self) -> tuple[object, ...]:
        return *self.state, self.time, self.marks, self.dead


def partition_of(meta: Meta) -> Partition:
    return Partition(3, meta, WINDOW, None, native_totals(7) if Stored.native else PythonTotals)


def keyed(first: int, *flows: tuple[str, str, int, int], epoch: int = 0) -> Records:
    """Records of KEY, one byte each, with marks: (idempotency key, digest letter, index, time)."""
    count = len(flows)
    values = [encode_value(1, 1, Mark(key, digest * 32, index) if key else None) for key, digest, index, _ in flows]
    times = [time for *_, time in flows]
    return Records(range(first, first + count), [KEY] * count, values, epoch, times)


def records(first: int, *flows: tuple[bytes | None, int, int], epoch: int = 0) -> Records:
    return Records(
        range(first, first + len(flows)),
        [key for key, _, _ in flows],
        [encode_value(tx, rx) for _, tx, rx in flows],
        epoch,
        [0] * len(flows),
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
    batch = fold(other, records(1, (KEY, 1, 2)))
    assert batch.missing == 1
    assert [(hour, list(fields)) for hour, fields in other.missing_fields()] == [(1, [FIELD])]
    stored.fill(other, batch)
    stored.apply(other, batch)
    assert stored.totals == {(1, FIELD): b"101 302"}


def test_totals_are_filled_only_from_the_position_that_the_fold_starts_from() -> None:
    stored = Stored()
    stored.carry(stored.partition(), records(0, (KEY, 100, 300)))
    owner, zombie = stored.partition(), stored.partition()
    batch = fold(zombie, records(1, (KEY, 1, 2)))
    stored.carry(owner, records(1, (KEY, 1, 2)))
    with pytest.raises(Fenced):
        stored.fill(zombie, batch)


def test_totals_of_another_incarnation_are_never_taken() -> None:
    partition = partition_of(Meta(5, "t", 0, 0, False, "i"))
    batch = fold(partition, records(5, (KEY, 1, 2)))
    with pytest.raises(Fenced):
        partition.fill(batch, 5, "another", [b"1 1"])


def test_the_fence_lets_a_batch_in_once() -> None:
    stored = Stored()
    one, other = stored.partition(), stored.partition()
    batches = [fold(partition, records(0, (KEY, 1, 1))) for partition in (one, other)]
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
    assert partition.examine(records(0, (KEY, 1, 1), (KEY, 2, 2))) is None
    stored.carry(partition, records(1, (KEY, 2, 2), (KEY, 4, 4)))
    assert stored.totals == {(1, FIELD): b"7 7"}


def test_a_gap_goes_on_only_when_a_second_fetch_shows_the_same() -> None:
    stored = Stored()
    partition = stored.partition()
    stored.carry(partition, records(0, (KEY, 1, 1)))
    for first in (3, 2):
        with pytest.raises(Refetch):
            partition.examine(records(first, (KEY, 1, 1)))
    stored.carry(partition, records(2, (KEY, 1, 1)))
    assert stored.state == (3, 0, {(1, FIELD): b"2 2"}, {1: 3})


def test_a_batch_ends_before_a_gap_inside() -> None:
    stored = Stored()
    partition = stored.partition()
    gappy = Records([0, 1, 4, 5], [KEY] * 4, [encode_value(1, 1)] * 4, 0, [0] * 4)
    with pytest.raises(Refetch):
        stored.carry(partition, gappy)
    assert stored.position == 2
    stored.carry(partition, gappy.after(1))
    assert stored.state == (6, 0, {(1, FIELD): b"4 4"}, {1: 6})


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"no flow key", encode_value(1, 1), DeadLetterReason.INVALID_KEY),
        (None, encode_value(1, 1), DeadLetterReason.INVALID_KEY),
        (KEY, b"no counts", DeadLetterReason.INVALID_VALUE),
        (KEY, None, DeadLetterReason.INVALID_VALUE),
    ],
)
def test_a_record_that_is_no_flow_becomes_a_dead_letter_and_counts_nothing(
    key: bytes | None, value: bytes | None, reason: DeadLetterReason
) -> None:
    stored = Stored()
    partition = stored.partition()
    bad = Records(range(4), [KEY, KEY, key, KEY], [encode_value(1, 1)] * 2 + [value, encode_value(1, 1)], 0, [0] * 4)
    stored.carry(partition, bad)
    assert stored.dead == [(2, reason)]
    assert stored.state == (4, 0, {(1, FIELD): b"3 3"}, {1: 4})


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
    partition.forget(0)
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
        left = data.draw(st.sampled_from([None, 0, 800]))
        if left is not None:
            partition.forget(left)
        if data.draw(st.booleans()):
            partition = stored.partition()
        stored.carry(partition, records(start, *log[start:stop]))
    at_once = Stored()
    at_once.carry(at_once.partition(), records(0, *log))
    assert stored.state == at_once.state


HOUR = 3_600_000


def test_a_repeat_of_a_keyed_record_counts_nothing_more() -> None:
    stored = Stored()
    partition = stored.partition()
    stored.carry(partition, keyed(0, ("k", "a", 0, 5), ("k", "a", 1, 5), ("k", "a", 0, 6), ("j", "a", 0, 6)))
    stored.carry(stored.partition(), keyed(4, ("k", "a", 1, 7), ("k", "a", 2, 7), ("", "", 0, 0)))
    assert stored.totals == {(1, FIELD): b"5 5"}
    assert stored.position == 7
    assert stored.dead == []


def test_a_key_that_comes_back_with_another_body_goes_to_the_dead_letters() -> None:
    stored = Stored()
    stored.carry(stored.partition(), keyed(0, ("k", "a", 0, 5), ("k", "b", 0, 5), ("k", "b", 1, 5)))
    stored.carry(stored.partition(), keyed(3, ("k", "b", 2, 5)))
    assert stored.totals == {(1, FIELD): b"1 1"}
    assert stored.dead == [(offset, DeadLetterReason.KEY_REUSED) for offset in (1, 2, 3)]


def test_a_mark_is_found_again_for_the_window_and_is_gone_after_five_quarters_of_it() -> None:
    for later, counted in ((23 * HOUR, 1), (24 * HOUR, 1), (31 * HOUR, 2)):
        stored = Stored()
        stored.carry(stored.partition(), keyed(0, ("k", "a", 0, 5)))
        stored.carry(stored.partition(), keyed(1, ("other", "a", 0, later), ("k", "a", 0, 6)))
        assert stored.totals == {(1, FIELD): b"%d %d" % (counted + 1, counted + 1)}
        assert len(stored.marks) == (2 if later < 31 * HOUR else 1)


@pytest.mark.parametrize(
    "mark", [Mark("k", "short", 0), Mark("k", "A" * 32, 0), Mark("", "a" * 32, 0), Mark("é", "a" * 32, 0)]
)
def test_a_mark_that_is_not_the_writers_makes_a_dead_letter(mark: Mark) -> None:
    stored = Stored()
    broken = Records(range(2), [KEY] * 2, [encode_value(1, 1, mark), encode_value(1, 1)], 0, [5, 5])
    stored.carry(stored.partition(), broken)
    assert stored.dead == [(0, DeadLetterReason.INVALID_MARK)]
    assert stored.totals == {(1, FIELD): b"1 1"}


@pytest.mark.parametrize("mark", [b"[]", b'["k"]', b'["k","d",-1]', b'["k","d",10000001]', b'["k","d","0"]', b"1"])
def test_a_mark_of_another_shape_makes_the_value_invalid(mark: bytes) -> None:
    stored = Stored()
    value = b'{"bytes_tx":1,"bytes_rx":1,"mark":' + mark + b"}"
    stored.carry(stored.partition(), Records(range(2), [KEY] * 2, [value, encode_value(1, 1)], 0, [5, 5]))
    assert stored.dead == [(0, DeadLetterReason.INVALID_VALUE)]
    assert stored.totals == {(1, FIELD): b"1 1"}


keyed_logs = st.lists(
    st.tuples(
        st.sampled_from(["", "k", "j", "l"]),
        st.sampled_from(["a", "a", "a", "b"]),
        st.integers(0, 4),
        st.integers(0, 60).map(lambda hours: hours * HOUR),
    ),
    min_size=1,
    max_size=30,
)


@given(keyed_logs, st.data())
def test_marks_too_are_a_pure_function_of_the_log(log: list[tuple[str, str, int, int]], data: st.DataObject) -> None:
    cuts = sorted({0, len(log), *data.draw(st.lists(st.integers(0, len(log)), max_size=6))})
    stored = Stored()
    partition = stored.partition()
    for start, stop in pairwise(cuts):
        if data.draw(st.booleans()):
            partition.forget(0)
        if data.draw(st.booleans()):
            partition = stored.partition()
        stored.carry(partition, keyed(start, *log[start:stop]))
    at_once = Stored()
    at_once.carry(at_once.partition(), keyed(0, *log))
    assert stored.whole_state == at_once.whole_state


def test_a_move_over_what_holds_no_records_is_seen_twice_too() -> None:
    stored = Stored()
    partition = stored.partition()
    stored.carry(partition, records(0, (KEY, 1, 1)))
    assert not partition.confirms(1)
    with pytest.raises(Refetch):
        partition.confirms(3)
    assert partition.confirms(3)
    stored.apply(partition, partition.move(3, 7))
    assert stored.state == (3, 7, {(1, FIELD): b"1 1"}, {1: 1})
