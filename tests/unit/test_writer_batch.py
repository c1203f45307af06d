"""The pure core of a POST, with a producer that is a list."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from flowagg.flow import Flow, InvalidFlow, encode_key, encode_value
from flowagg.idempotency import Mark, body_digest
from flowagg_writer.batch import FLOWS_A_STEP, Acknowledgements, Batch, KeyReused, KnownKeys, plan
from flowagg_writer.murmur2 import partition_of

KEY = "order-1"


def flows(count: int) -> list[Flow]:
    return [Flow(f"app-{number % 50}", "é", "vpc-0", 7, number, 2 * number) for number in range(count)]


def body(count: int) -> bytes:
    return msgspec.json.encode(flows(count))


@dataclass(frozen=True)
class Report:
    of_partition: int | None
    at: int | None

    def partition(self) -> int | None:
        return self.of_partition

    def offset(self) -> int | None:
        return self.at


class Failure:
    def __init__(self, reason: str) -> None:
        self.reason = reason

    def str(self) -> str:
        return self.reason


class Full(Exception):
    pass


class Producer:
    """Keeps what it is given, and refuses from the record at place `full_at` on."""

    def __init__(self, full_at: int | None = None) -> None:
        self.full_at = full_at
        self.produced: list[tuple[Any, ...]] = []

    def produce(self, *arguments: Any) -> None:
        if len(self.produced) == self.full_at:
            raise Full("queue full")
        self.produced.append(arguments)


class Course:
    """A batch handed over to a producer as far as it goes."""

    def __init__(self, batch: Batch, full_at: int | None = None, known: KnownKeys | None = None) -> None:
        self.producer = Producer(full_at)
        self.known = KnownKeys(10) if known is None else known
        self.completions = 0
        self.acknowledgements = Acknowledgements(len(batch.flows), self._complete)
        self.pauses = 0
        self.refused = False
        try:
            for _ in batch.hand_over(self.producer.produce, "flows", self.acknowledgements, self.known):
                self.pauses += 1
        except Full:
            self.refused = True

    def _complete(self) -> None:
        self.completions += 1


def test_without_a_key_a_record_is_a_flow_and_nothing_else() -> None:
    course = Course(plan(body(3), None, 6))
    report = course.acknowledgements.delivered
    assert course.producer.produced == [
        ("flows", encode_value(n, 2 * n), encode_key(f"app-{n}", "é", "vpc-0", 7), -1, report) for n in range(3)
    ]
    assert len(course.known) == 0


@pytest.mark.parametrize("partitions", [1, 3, 6, 7])
def test_with_a_key_each_record_has_its_mark_and_its_partition_of_the_fixed_number(partitions: int) -> None:
    raw = body(100)
    course = Course(plan(raw, KEY, partitions))
    assert len(course.producer.produced) == 100
    indexes = [0] * partitions
    for flow, record in zip(flows(100), course.producer.produced, strict=True):
        topic, value, log_key, partition, report = record
        assert log_key == encode_key(flow.src_app, flow.dest_app, flow.vpc_id, flow.hour)
        assert partition == partition_of(log_key, partitions)
        mark = Mark(KEY, body_digest(raw), indexes[partition])
        assert (topic, value) == ("flows", encode_value(flow.bytes_tx, flow.bytes_rx, mark))
        assert report == course.acknowledgements.delivered
        indexes[partition] += 1


def test_a_repeat_makes_the_same_records() -> None:
    known = KnownKeys(10)
    first, second = (Course(plan(body(100), KEY, 6), known=known) for _ in range(2))
    plain = [[record[:4] for record in course.producer.produced] for course in (first, second)]
    assert plain[0] == plain[1]
    assert len(plain[0]) == 100


@pytest.mark.parametrize("key", [None, KEY])
def test_one_bad_flow_refuses_the_whole_body(key: str | None) -> None:
    raw = msgspec.json.encode([*msgspec.json.decode(body(2)), {"src_app": ""}])
    with pytest.raises(InvalidFlow) as caught:
        plan(raw, key, 6)
    assert caught.value.index == 2


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize(
    ("count", "pauses"),
    [(0, 0), (1, 0), (FLOWS_A_STEP, 0), (FLOWS_A_STEP + 1, 1), (3 * FLOWS_A_STEP, 2)],
)
def test_others_get_their_turn_after_every_step(key: str | None, count: int, pauses: int) -> None:
    course = Course(plan(body(count), key, 6))
    assert (len(course.producer.produced), course.pauses) == (count, pauses)


@pytest.mark.parametrize(("key", "needed"), [(None, 1), (KEY, 6)])
def test_a_batch_knows_how_many_partitions_it_needs(key: str | None, needed: int) -> None:
    assert plan(body(1), key, 6).partitions_needed == needed


def test_the_size_covers_the_marks() -> None:
    raw = body(200)
    assert plan(raw, None, 6).size_bytes == len(raw)
    batch = plan(raw, "k" * 128, 6)
    records = Course(batch).producer.produced
    held = sum(len(value) + len(log_key) for _, value, log_key, *_ in records)
    assert held <= batch.size_bytes <= 2 * held


# Acknowledgements


def test_a_batch_is_complete_with_its_last_report_and_not_before() -> None:
    course = Course(plan(body(3), None, 6))
    acknowledgements = course.acknowledgements
    for partition, offset in [(0, 10), (4, 7), (0, 11)]:
        assert (acknowledgements.complete, course.completions) == (False, 0)
        acknowledgements.delivered(None, Report(partition, offset))
    assert (acknowledgements.complete, course.completions) == (True, 1)
    assert (acknowledgements.error, acknowledgements.next_offsets) == (None, {0: 12, 4: 8})


def test_the_first_error_is_kept_and_later_acknowledgements_still_count() -> None:
    course = Course(plan(body(3), None, 6))
    acknowledgements = course.acknowledgements
    acknowledgements.delivered(Failure("timed out"), Report(1, None))
    acknowledgements.delivered(Failure("broker away"), Report(1, None))
    acknowledgements.delivered(None, Report(2, 5))
    assert (acknowledgements.error, acknowledgements.next_offsets) == ("timed out", {2: 6})
    assert course.completions == 1


def test_an_acknowledgement_without_an_offset_makes_no_position() -> None:
    course = Course(plan(body(2), None, 6))
    course.acknowledgements.delivered(None, Report(0, 3))
    course.acknowledgements.delivered(None, Report(0, None))
    assert course.acknowledgements.error == "a record's offset is unknown"


def test_a_later_offset_of_the_partition_covers_an_unknown_one() -> None:
    course = Course(plan(body(2), None, 6))
    course.acknowledgements.delivered(None, Report(0, None))
    course.acknowledgements.delivered(None, Report(0, 4))
    assert (course.acknowledgements.error, course.acknowledgements.next_offsets) == (None, {0: 5})


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("full_at", [0, 1, 49, FLOWS_A_STEP, FLOWS_A_STEP + 1])
def test_a_producer_that_refuses_leaves_only_what_it_took_to_wait_for(key: str | None, full_at: int) -> None:
    course = Course(plan(body(FLOWS_A_STEP + 10), key, 6), full_at)
    acknowledgements = course.acknowledgements
    assert course.refused
    assert acknowledgements.expected == len(course.producer.produced) == full_at
    for offset in range(full_at):
        assert course.completions == 0
        acknowledgements.delivered(None, Report(0, offset))
    assert (acknowledgements.complete, course.completions) == (True, 1)
    assert acknowledgements.error == "queue full"


def test_a_refusal_after_every_earlier_report_completes_at_once() -> None:
    done: list[bool] = []
    acknowledgements = Acknowledgements(3, lambda: done.append(True))
    acknowledgements.delivered(None, Report(0, 0))
    acknowledgements.stopped(1, "queue full")
    assert (done, acknowledgements.error) == ([True], "queue full")


def test_a_hand_over_that_is_given_up_between_two_steps_waits_for_the_steps_before() -> None:
    batch = plan(body(3 * FLOWS_A_STEP), KEY, 6)
    acknowledgements = Acknowledgements(len(batch.flows), lambda: None)
    steps = batch.hand_over(Producer().produce, "flows", acknowledgements, KnownKeys(1))
    next(steps)
    del steps
    assert acknowledgements.expected == FLOWS_A_STEP


# Known keys


def test_a_key_is_known_once_its_first_record_is_handed_over() -> None:
    known = KnownKeys(10)
    other = plan(body(3), KEY, 6)
    for full_at, length in [(0, 0), (1, 1)]:
        Course(plan(body(2), KEY, 6), full_at, known)
        assert len(known) == length
    plan(body(2), KEY, 6).check(known)
    with pytest.raises(KeyReused, match="send that body again"):
        other.check(known)


def test_a_batch_without_a_key_meets_no_known_one() -> None:
    known = KnownKeys(10)
    Course(plan(body(2), KEY, 6), known=known)
    plan(body(3), None, 6).check(known)


def forgotten(known: KnownKeys, key: str) -> bool:
    try:
        known.check(key, "another")
    except KeyReused:
        return False
    return True


@pytest.mark.parametrize(
    ("capacity", "kept", "kept_when_a_is_used"),
    [(0, "", ""), (1, "c", "c"), (2, "bc", "ac"), (3, "abc", "abc")],
)
@pytest.mark.parametrize("use", [None, KnownKeys.check, KnownKeys.remember])
def test_the_least_recently_used_key_is_forgotten_first(
    capacity: int, kept: str, kept_when_a_is_used: str, use: Callable[[KnownKeys, str, str], None] | None
) -> None:
    known = KnownKeys(capacity)
    known.remember("a", "digest of a")
    known.remember("b", "digest of b")
    if use is not None and capacity > 1:
        use(known, "a", "digest of a")
    known.remember("c", "digest of c")
    expected = kept if use is None else kept_when_a_is_used
    assert len(known) == len(expected)
    assert [key for key in "abc" if not forgotten(known, key)] == list(expected)
