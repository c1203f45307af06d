"""Retention of hours: what expires, and that it is a function of the log alone."""

from itertools import pairwise
from typing import ClassVar

import pytest
from flowagg.flow import encode_key, encode_value
from flowagg.view import HourMark, Meta, decode_hour
from flowagg_consumer.marks import Window
from flowagg_consumer.native import NativeRecords, native_totals
from flowagg_consumer.partition import DeadLetterReason, Fenced, Partition
from flowagg_consumer.records import Records
from flowagg_consumer.retention import Retention
from flowagg_consumer.totals import PythonTotals
from hypothesis import given
from hypothesis import strategies as st

KEEP = 1600  # ticks of 100
FAR = 2**53 - 1


def records(first: int, *flows: tuple[int, int]) -> Records:
    """Records of one byte each way: (hour, log time)."""
    keys = [encode_key("foo", "bar", "vpc-0", hour) for hour, _ in flows]
    offsets = range(first, first + len(flows))
    return Records(offsets, keys, [encode_value(1, 1)] * len(flows), 0, [time for _, time in flows])


@pytest.fixture(autouse=True, scope="module", params=["python", "native"])
def kind(request: pytest.FixtureRequest) -> None:
    """What totals are kept in."""
    Stored.native = request.param == "native"


class Stored:
    """What Redis would hold of one partition."""

    native: ClassVar[bool]

    def __init__(self, keep_ms: int | None = KEEP) -> None:
        self.retention = Retention(keep_ms)
        self.position, self.floor, self.tick = 0, 0, -1
        self.totals: dict[int, dict[bytes, bytes]] = {}
        self.hours: dict[int, HourMark] = {}
        self.dead: list[tuple[int, str]] = []

    def partition(self) -> Partition:
        meta = Meta(self.position, "t", 0, 0, False, "i", floor=self.floor, tick=self.tick)
        new_totals = native_totals(7) if self.native else PythonTotals
        return Partition(3, meta, Window(86_400_000), self.retention, new_totals)

    def carry(self, partition: Partition, given: Records) -> None:
        rest: Records | None = NativeRecords.of(given) if self.native else given
        while rest is not None:
            examined = partition.examine(rest)
            assert examined is not None
            expiry = None
            if examined.tick is not None:
                expiry = partition.expire(examined, self.position, "i", self.hours)
            batch = partition.fold(examined, expiry)
            missing = partition.missing_fields()
            values = [self.totals.get(hour, {}).get(field) for hour, fields in missing for field in fields]
            partition.fill(batch, self.position, "i", values)
            if expiry is not None:
                self.hours |= expiry.adopted
            for hour in partition.totals(batch):
                pairs = zip(hour.pairs[::2], hour.pairs[1::2], strict=True)
                self.totals.setdefault(hour.hour, {}).update(pairs)
                self.hours[hour.hour] = decode_hour(hour.mark)
            if expiry is not None:
                for gone in expiry.gone:
                    del self.hours[gone], self.totals[gone]
                self.floor, self.tick = expiry.floor, expiry.tick
            self.dead += [(letter.offset, letter.reason) for letter in batch.dead]
            self.position = batch.position
            partition.sent(batch)
            rest = examined.rest

    def at_once(self, *flows: tuple[int, int]) -> None:
        self.carry(self.partition(), records(self.position, *flows))

    @property
    def state(self) -> tuple[object, ...]:
        return self.position, self.floor, self.tick, self.totals, self.hours, self.dead


def test_an_hour_expires_once_it_had_no_record_for_the_time_to_keep() -> None:
    stored = Stored()
    stored.at_once((1, 0), (2, 50), (2, 1000), (3, 1600))
    assert sorted(stored.hours) == [1, 2, 3]
    stored.at_once((3, 1700))
    assert (sorted(stored.hours), stored.floor) == ([2, 3], 2)


def test_what_comes_for_an_expired_hour_is_a_dead_letter_and_brings_nothing_back() -> None:
    stored = Stored()
    stored.at_once((1, 0), (2, 2000), (1, 2000))
    assert stored.dead == [(2, DeadLetterReason.EXPIRED_HOUR)]
    assert sorted(stored.totals) == [2]


def test_an_hour_far_ahead_expires_nothing_below_itself_that_is_in_use() -> None:
    stored = Stored()
    for time in range(0, 20_000, 500):
        stored.at_once((time // 1000, time), (FAR, time))
    assert stored.floor == 18
    assert sorted(stored.hours) == [18, 19, FAR]
    assert not stored.dead


def test_an_hour_far_ahead_does_not_move_the_floor_past_itself_after_a_long_silence() -> None:
    stored = Stored()
    stored.at_once((5, 0), (FAR, 0))
    stored.at_once((FAR, 10**9), (6, 10**9))
    assert (sorted(stored.hours), stored.floor) == ([6, FAR], 6)


def test_a_record_that_is_no_flow_moves_the_time_but_is_no_hour_in_use() -> None:
    stored = Stored()
    stored.at_once((5, 0))
    rest = records(1, (6, 9000))
    stored.carry(stored.partition(), Records(rest.offsets, [b"no key"], rest.values, 0, rest.timestamps))
    assert (sorted(stored.hours), stored.floor) == ([5], 0)
    stored.at_once((6, 9050))
    assert sorted(stored.hours) == [5, 6]
    stored.at_once((6, 9100))
    assert (sorted(stored.hours), stored.floor) == ([6], 6)


def test_entries_of_expired_hours_leave_the_memory() -> None:
    stored = Stored()
    partition = stored.partition()
    stored.carry(partition, records(0, (1, 0), (2, 0)))
    stored.carry(partition, records(2, (3, 5000)))
    assert partition.cached_entries == 1


def test_nothing_expires_without_a_setting_and_hours_from_then_are_adopted_later() -> None:
    stored = Stored(keep_ms=None)
    stored.at_once((1, 0), (2, 10**9))
    assert stored.hours == {1: HourMark(1), 2: HourMark(2)}
    stored.retention = Retention(KEEP)
    stored.at_once((3, 2 * 10**9))
    assert stored.hours == {1: HourMark(1, 2 * 10**9), 2: HourMark(2, 2 * 10**9), 3: HourMark(3, 2 * 10**9)}
    stored.at_once((3, 2 * 10**9 + 1700))
    assert sorted(stored.hours) == [3]


def test_the_floor_stays_when_the_setting_goes() -> None:
    stored = Stored()
    stored.at_once((1, 0), (2, 5000))
    stored.retention = Retention(None)
    stored.at_once((1, 5000), (2, 10**9))
    assert stored.dead == [(2, DeadLetterReason.EXPIRED_HOUR)]
    assert (sorted(stored.hours), stored.floor) == ([2], 2)


def test_hours_are_taken_only_from_the_position_that_the_fold_starts_from() -> None:
    stored = Stored()
    stored.at_once((1, 0))
    partition = stored.partition()
    examined = partition.examine(records(1, (2, 5000)))
    assert examined is not None
    with pytest.raises(Fenced):
        partition.expire(examined, 0, "i", stored.hours)


logs = st.lists(
    st.tuples(st.sampled_from([0, 1, 2, 3, 4, FAR]), st.integers(-1, 60).map(lambda n: n * 130)),
    min_size=1,
    max_size=30,
)


@given(logs, st.data())
def test_what_expires_is_a_function_of_the_log_alone(log: list[tuple[int, int]], data: st.DataObject) -> None:
    cuts = sorted({0, len(log), *data.draw(st.lists(st.integers(0, len(log)), max_size=6))})
    stored = Stored()
    partition = stored.partition()
    for start, stop in pairwise(cuts):
        if data.draw(st.booleans()):
            partition.forget(0)
        if data.draw(st.booleans()):
            partition = stored.partition()
        stored.carry(partition, records(start, *log[start:stop]))
    at_once = Stored()
    at_once.at_once(*log)
    assert stored.state == at_once.state
