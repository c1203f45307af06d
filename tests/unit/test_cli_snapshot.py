"""The taking of one partition, against a model of Redis that moves on between any two questions."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from flowagg.view import Meta
from flowagg_cli.errors import Unsettled
from flowagg_cli.snapshot import FindBuckets, Limits, Look, LookAt, Measure, Take, Taken, first_group, steps
from hypothesis import given
from hypothesis import strategies as st

WINDOW_MS = 60_000
BUCKET_MS = WINDOW_MS // 4


@dataclass
class Stored:
    """A partition as Redis holds it."""

    meta: Meta
    hours: dict[int, bytes] = field(default_factory=dict)
    totals: dict[int, dict[bytes, bytes]] = field(default_factory=dict)
    marks: dict[int, dict[bytes, bytes]] = field(default_factory=dict)

    def copy(self) -> "Stored":
        return Stored(
            self.meta,
            dict(self.hours),
            {hour: dict(pairs) for hour, pairs in self.totals.items()},
            {bucket: dict(pairs) for bucket, pairs in self.marks.items()},
        )

    def apply(self, hour: int, key: bytes, mark: bytes | None, elapsed_ms: int) -> None:
        """One record, as a consumer's script would write it: totals, the hour's mark, a keyed POST's mark."""
        position = self.meta.position + 1
        time = self.meta.time
        if hour >= self.meta.floor:
            totals = self.totals.setdefault(hour, {})
            totals[key] = b"%d %d" % (int(totals.get(key, b"0 0").split()[0]) + 1, position)
            self.hours[hour] = b"%d" % position
        if mark is not None:
            time = max(time, 0) + elapsed_ms
            newest = time // BUCKET_MS
            for bucket in [old for old in self.marks if old < newest - 4]:
                del self.marks[bucket]
            bucket = next((old for old, entries in self.marks.items() if mark in entries), newest)
            self.marks.setdefault(bucket, {})[mark] = b"digest 0-%d" % position
        self.meta = replace(self.meta, position=position, time=time)

    def expire(self, floor: int) -> None:
        """The floor moves, as a tick of retention does it."""
        for hour in [old for old in self.hours if old < floor]:
            del self.hours[hour], self.totals[hour]
        self.meta = replace(self.meta, floor=max(floor, self.meta.floor), position=self.meta.position + 1)


class Sink:
    """What was handed on: a later value replaces an earlier one."""

    def __init__(self) -> None:
        self.totals: dict[int, dict[bytes, bytes]] = {}
        self.marks: dict[int, dict[bytes, bytes]] = {}

    def kept(self, taken: Taken) -> tuple[dict[int, dict[bytes, bytes]], dict[int, dict[bytes, bytes]]]:
        totals = {hour: self.totals[hour] for hour in taken.hours}
        marks = {bucket: self.marks[bucket] for bucket in taken.buckets if self.marks.get(bucket)}
        return totals, marks


def answer(ask: Any, stored: Stored, sink: Sink) -> Any:
    look = Look(stored.meta, dict(stored.hours))
    match ask:
        case LookAt():
            return look
        case Measure(hours=hours):
            return [len(stored.totals.get(hour, {})) for hour in hours]
        case FindBuckets():
            return frozenset(stored.marks)
        case Take(hours=hours, buckets=buckets):
            for hour in hours:
                sink.totals.setdefault(hour, {}).update(stored.totals.get(hour, {}))
            for bucket in buckets:
                sink.marks.setdefault(bucket, {}).update(stored.marks.get(bucket, {}))
            return look
    raise AssertionError(ask)


def meta(position: int = 0, **fields: Any) -> Meta:
    return Meta(position, "topic", 0, 0, incomplete=False, incarnation="a", **fields)


def grown(rng: random.Random, hours: int, records: int, keyed: bool) -> Stored:
    stored = Stored(meta())
    for _ in range(records):
        step(stored, rng, hours, keyed)
    return stored


def step(stored: Stored, rng: random.Random, hours: int, keyed: bool) -> None:
    mark = b"POST %d" % rng.randrange(30) if keyed and rng.random() < 0.5 else None
    stored.apply(rng.randrange(hours), b"key %d" % rng.randrange(5), mark, rng.randrange(2_000))


@given(
    seed=st.integers(0, 2**32),
    hours=st.integers(1, 12),
    before=st.integers(1, 80),
    pace=st.floats(0, 3),
    keyed=st.booleans(),
    expires=st.booleans(),
    group=st.integers(1, 8),
    last=st.integers(0, 8),
)
def test_what_was_handed_on_is_the_partition_as_of_the_last_call(
    seed: int, hours: int, before: int, pace: float, keyed: bool, expires: bool, group: int, last: int
) -> None:
    rng = random.Random(seed)
    stored, sink = grown(rng, hours, before, keyed), Sink()
    history: dict[int, Stored] = {}
    course = steps(Limits(group, last, attempts=60))
    reply: Any = None
    taken: Taken | None = None
    while taken is None:
        try:
            ask = course.send(reply)
        except StopIteration as stop:
            taken = stop.value
            continue
        except Unsettled:  # too much changes each time: said, never taken for whole
            assert pace > 0.5
            return
        history[stored.meta.position] = stored.copy()
        reply = answer(ask, stored, sink)
        for _ in range(rng.randrange(4) if rng.random() * 3 < pace else 0):
            step(stored, rng, hours, keyed)
        if expires and rng.random() < 0.1:
            stored.expire(rng.randrange(hours))
    then = history[taken.meta.position]
    assert taken.meta == then.meta
    assert dict(taken.hours) == then.hours
    assert sink.kept(taken) == (then.totals, {bucket: entries for bucket, entries in then.marks.items() if entries})


def drive(stored: Stored, between: Mapping[int, Any], limits: Limits | None = None) -> tuple[Taken, list[Any]]:
    """Run to the end; between: number of a question -> what happens to the partition after its answer."""
    course, sink, asked = steps(limits or Limits(1, 0)), Sink(), list[Any]()
    reply: Any = None
    while True:
        try:
            ask = course.send(reply)
        except StopIteration as stop:
            return stop.value, asked
        asked.append(ask)
        reply = answer(ask, stored, sink)
        if (happens := between.get(len(asked))) is not None:
            happens()


def test_a_partition_without_meta_is_not_taken() -> None:
    course = steps(Limits())
    next(course)
    with pytest.raises(StopIteration) as end:
        course.send(None)
    assert end.value.value is None


def test_hours_that_rest_are_read_once_and_the_one_that_moves_in_the_last_call_alone() -> None:
    stored = Stored(meta())
    for hour in range(5):
        stored.apply(hour, b"key", None, 0)
    moves = {number: lambda: stored.apply(4, b"key", None, 0) for number in range(1, 40)}
    _, asked = drive(stored, moves, Limits(1, 2))
    read = [ask.hours for ask in asked if isinstance(ask, Take)]
    assert read[:-1] == [(0,), (1,), (2,), (3,)]
    assert read[-1] == (4,)


def test_a_small_view_is_read_in_one_call() -> None:
    stored = grown(random.Random(1), 5, 30, keyed=False)
    _, asked = drive(stored, {}, Limits())
    assert [type(ask) for ask in asked] == [LookAt, Measure, LookAt, Take]


def test_a_position_that_went_back_is_noticed() -> None:
    stored = grown(random.Random(1), 5, 30, keyed=False)
    with pytest.raises(Unsettled, match="went back from 30 to 7"):
        drive(stored, {2: lambda: setattr(stored, "meta", replace(stored.meta, position=7))})


def test_another_incarnation_is_noticed() -> None:
    stored = grown(random.Random(1), 5, 30, keyed=False)
    with pytest.raises(Unsettled, match="begun anew"):
        drive(stored, {2: lambda: setattr(stored, "meta", replace(stored.meta, incarnation="b"))})


def test_a_bucket_of_marks_that_appears_before_the_last_call_is_read_in_another_one() -> None:
    stored = grown(random.Random(2), 3, 20, keyed=True)
    _, asked = drive(stored, {3: lambda: stored.apply(0, b"key", b"new POST", BUCKET_MS)}, Limits())
    assert isinstance(asked[2], FindBuckets)
    takes = [ask for ask in asked if isinstance(ask, Take)]
    assert len(takes) == 2
    assert set(takes[1].buckets) - set(takes[0].buckets)


def test_groups_are_bounded_and_never_empty() -> None:
    assert first_group({1: 5, 2: 5, 3: 1}, 10) == (1, 2)
    assert first_group({1: 50, 2: 5}, 10) == (1,)
    assert first_group({1: 0, 2: 0, 3: 11}, 10) == (1, 2)
