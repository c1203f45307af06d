"""Messages of Kafka's client become columns of records."""

from typing import Any

from confluent_kafka import KafkaError, Message
from flowagg_consumer.gathered import Gathered
from flowagg_consumer.partition import StopReason
from hypothesis import given
from hypothesis import strategies as st


def message(number: int, at: int, epoch: int | None = 0, error: KafkaError | None = None) -> Message:
    told: dict[str, Any] = {} if epoch is None else {"leader_epoch": epoch}
    return Message(
        topic="flows",
        partition=number,
        offset=at,
        key=b"key %d" % at,
        value=b"value %d" % at,
        timestamp=(2, 1_000 + at),
        error=error,
        **told,
    )


def runs(found: Gathered, number: int = 0) -> list[tuple[int, list[int]]]:
    return [(run.leader_epoch, list(run.offsets)) for run in found.by_partition[number]]


log = st.lists(
    st.tuples(st.integers(0, 1), st.integers(1, 3), st.sampled_from([0, 0, 0, 1])),  # partition, step, change of epoch
    max_size=40,
)


@given(log)
def test_columns_hold_what_the_messages_do(steps: list[tuple[int, int, int]]) -> None:
    at, epoch = [0, 0], [0, 0]
    messages = []
    for number, step, change in steps:
        at[number] += step
        epoch[number] += change
        messages.append(message(number, at[number], epoch[number]))
    found = Gathered(messages)
    assert found.messages == found.count == len(messages)
    for number in {number for number, *_ in steps}:
        rows = [
            (run.leader_epoch, *row)
            for run in found.by_partition[number]
            for row in zip(run.offsets, run.keys, run.values, run.timestamps, strict=True)
        ]
        expected = [
            (m.leader_epoch(), m.offset(), m.key(), m.value(), m.timestamp()[1])
            for m in messages
            if m.partition() == number
        ]
        assert rows == expected


def test_offsets_without_a_gap_are_a_range() -> None:
    found = Gathered([message(0, 5), message(0, 6), message(1, 1), message(0, 7), message(0, 8)])
    assert [run.offsets for run in found.by_partition[0]] == [range(5, 7), range(7, 9)]
    assert [run.offsets for run in found.by_partition[1]] == [range(1, 2)]


def test_a_gap_stays_one_run() -> None:
    assert runs(Gathered([message(0, 5), message(0, 7), message(0, 8)])) == [(0, [5, 7, 8])]


def test_an_epoch_that_is_not_told_is_none_that_changes() -> None:
    assert runs(Gathered([message(0, 1, None), message(0, 2, None)])) == [(-1, [1, 2])]


def test_timestamps_are_a_sequence() -> None:
    (run,) = Gathered([message(0, 1), message(0, 2), message(0, 3)]).by_partition[0]
    assert (len(run.timestamps), run.timestamps[0], max(run.timestamps)) == (3, 1_001, 1_003)
    assert list(run.after(1).timestamps) == [1_002, 1_003]
    assert run.between(1, 2).timestamps[0] == 1_002


def test_what_is_no_record_is_told_apart() -> None:
    end = KafkaError(KafkaError._PARTITION_EOF)
    beyond = KafkaError(KafkaError._AUTO_OFFSET_RESET, "no such offset")
    fatal = KafkaError(KafkaError._FATAL, "the group id does not exist")
    away = KafkaError(KafkaError._ALL_BROKERS_DOWN)
    found = Gathered(
        [
            message(0, 1),
            message(0, 2, error=end),
            message(1, 9, error=beyond),
            Message(error=fatal),
            Message(error=away),
            message(0, 2),
        ]
    )
    assert (found.messages, found.count, found.fatal) == (6, 2, "the group id does not exist")
    assert runs(found) == [(0, [1, 2])]
    assert found.ends == {0: 2}
    assert found.stops == {1: (StopReason.POSITION_BEYOND_LOG, "no such offset")}
    assert ["_FATAL" in found.errors[0], "_ALL_BROKERS_DOWN" in found.errors[1]] == [True, True]
