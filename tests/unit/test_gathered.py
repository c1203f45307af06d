"""Messages of Kafka's client become columns of records, a chunk at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

from confluent_kafka import KafkaError, Message
from flowagg_consumer.gathered import Gathered
from flowagg_consumer.partition import StopReason
from hypothesis import given
from hypothesis import strategies as st


@dataclass(frozen=True)
class Record:
    """A message, as far as it is looked at."""

    number: int | None
    at: int
    epoch: int | None = 0
    failure: KafkaError | None = None

    def error(self) -> KafkaError | None:
        return self.failure

    def partition(self) -> int | None:
        return self.number

    def offset(self) -> int:
        return self.at

    def leader_epoch(self) -> int | None:
        return self.epoch

    def key(self) -> bytes:
        return b"key %d" % self.at

    def value(self) -> bytes:
        return b"value %d" % self.at

    def timestamp(self) -> tuple[int, int]:
        return 2, 1_000 + self.at


def gathered(*chunks: Sequence[Record]) -> Gathered:
    found = Gathered()
    for chunk in chunks:
        found.add(cast(list[Message], list(chunk)))
    return found


def runs(found: Gathered, number: int = 0) -> list[tuple[int, list[int]]]:
    return [(run.leader_epoch, list(run.offsets)) for run in found.fetched([], [], False).records[number]]


log = st.lists(
    st.tuples(st.integers(0, 1), st.integers(1, 3), st.sampled_from([0, 0, 0, 1])),  # partition, step, change of epoch
    max_size=40,
)


@given(log, st.lists(st.integers(0, 40), max_size=5))
def test_chunks_make_the_same_columns_as_one_fetch_of_all(steps: list[tuple[int, int, int]], cuts: list[int]) -> None:
    at, epoch = [0, 0], [0, 0]
    records = []
    for number, step, change in steps:
        at[number] += step
        epoch[number] += change
        records.append(Record(number, at[number], epoch[number]))
    ends = [0, *sorted(cuts), len(records)]
    parts = gathered(*(records[start:stop] for start, stop in pairwise(ends)))
    assert (parts.messages, parts.records) == (len(records), len(records))
    for number in {number for number, *_ in steps}:
        mine = [record for record in records if record.number == number]
        columns = parts.fetched([], [], False).records[number]
        rows = [
            (run.leader_epoch, *row)
            for run in columns
            for row in zip(run.offsets, run.keys, run.values, run.timestamps, strict=True)
        ]
        expected = [(r.epoch, r.at, r.key(), r.value(), r.timestamp()[1]) for r in mine]
        assert rows == expected
        assert len({run.leader_epoch for run in columns}) == len(columns)


def test_offsets_without_a_gap_are_a_range_over_chunks() -> None:
    found = gathered([Record(0, 5), Record(0, 6)], [Record(0, 7)], [Record(1, 1)], [Record(0, 8)])
    columns: Any = found.fetched([], [], False).records
    assert columns[0][0].offsets == range(5, 9)
    assert columns[1][0].offsets == range(1, 2)


def test_a_gap_stays_one_run() -> None:
    assert runs(gathered([Record(0, 5), Record(0, 7)], [Record(0, 8)], [Record(0, 11)])) == [(0, [5, 7, 8, 11])]


def test_an_epoch_that_is_not_told_is_none_that_changes() -> None:
    assert runs(gathered([Record(0, 1, None)], [Record(0, 2, None)])) == [(-1, [1, 2])]


def test_what_is_no_record_is_told_apart() -> None:
    end = KafkaError(KafkaError._PARTITION_EOF)
    beyond = KafkaError(KafkaError._AUTO_OFFSET_RESET, "no such offset")
    fatal = KafkaError(KafkaError._FATAL, "the group id does not exist")
    found = gathered(
        [Record(0, 1), Record(0, 2, failure=end)],
        [Record(1, 9, failure=beyond), Record(None, 0, failure=fatal)],
    )
    fetched = found.fetched([3], [4], True)
    assert (found.messages, found.records, found.fatal) == (4, 1, "the group id does not exist")
    assert fetched.ends == {0: 2}
    assert fetched.stops == {1: (StopReason.POSITION_BEYOND_LOG, "no such offset")}
    assert "the group id does not exist" in fetched.errors[0]
    assert (fetched.revoked, fetched.assigned, fetched.commit_failed) == ([3], [4], True)
