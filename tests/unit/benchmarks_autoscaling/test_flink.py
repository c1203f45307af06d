"""Flink's autoscaler, by examples worked out by hand from its published rules."""

import math

import pytest

from benchmarks.autoscaling.flink import Evaluated, Flink, Sample, average, evaluate, is_outside, needed, parallelism
from benchmarks.autoscaling.policy import Seen
from benchmarks.autoscaling.shapes import Shape
from benchmarks.autoscaling.timeline import run


def found(arriving: float, capacity: float, lag: float = 0.0, *, backlog: bool = False) -> Evaluated:
    return Evaluated(arriving, capacity, lag, backlog)


@pytest.mark.parametrize(
    ("arriving", "lag", "utilisation", "restart", "expected"),
    [
        (36_000, 0, 0.7, True, 57_429),  # 36,000 / 0.7 + 36,000 * 300 / 1,800
        (36_000, 0, 0.7, False, 51_429),
        (36_000, 18_000_000, 0.7, True, 67_429),  # 10,000 a second more: the lag within 1,800 s
        (36_000, 0, 1.0, False, 36_000),
        (36_000, 0, 0.0, True, math.inf),
    ],
)
def test_the_capacity_that_is_needed(
    arriving: float, lag: float, utilisation: float, restart: bool, expected: float
) -> None:
    assert needed(found(arriving, 1.0, lag), utilisation, restart=restart) == expected


@pytest.mark.parametrize(
    ("capacity", "lag", "backlog", "outside"),
    [
        (35_999, 0, False, True),  # below 36,000 / (0.7 + 0.3)
        (36_001, 0, False, False),
        (95_999, 0, False, False),  # 36,000 / (0.7 - 0.3) + 6,000
        (96_001, 0, False, True),
        (96_001, 20_000_000, True, False),  # never down while a backlog is worked off
        (40_000, 20_000_000, True, True),  # 36,000 + 20,000,000 / 1,800
    ],
)
def test_nothing_happens_within_the_bounds(capacity: float, lag: float, backlog: bool, outside: bool) -> None:
    assert is_outside(found(36_000, capacity, lag, backlog=backlog)) is outside


@pytest.mark.parametrize(
    ("current", "factor", "partitions", "expected", "why"),
    [
        (1, 1.5, 6, 2, "2 divides 6"),
        (1, 2.5, 6, 3, "3 divides 6"),
        (1, 3.4, 6, 6, "neither 4 nor 5 divides 6 or takes fewer partitions each"),
        (3, 2.7, 6, 6, "bounded by the partitions"),
        (6, 0.4, 6, 3, "ceil(2.4)"),
        (6, 0.6, 6, 6, "4 and 5 do not align: back at 6"),
        (1, 4.6, 12, 6, "5 does not divide 12"),
        (1, 6.5, 12, 12, "7 to 11 leave one partition each to some"),
        (10, 2.9, 100, 34, "34 takes two each where 29 takes three"),
        (4, 1.0, 12, 4, "no change is not aligned"),
    ],
)
def test_the_parallelism_is_aligned_with_the_partitions(
    current: int, factor: float, partitions: int, expected: int, why: str
) -> None:
    assert parallelism(current, factor, partitions) == expected, why


@pytest.mark.parametrize(
    ("values", "least", "expected"),
    [
        ([None, None], 1, None),
        ([math.inf, None], 2, math.inf),
        ([math.inf, 10.0, 20.0], 2, 15.0),
        ([10.0, None], 2, None),
    ],
)
def test_an_average_leaves_out_what_is_not_measured(
    values: list[float | None], least: int, expected: float | None
) -> None:
    assert average(values, least) == expected


def window(observed: list[float | None], lag: float = 0.0) -> list[Sample]:
    """Ten thousand records a second at half load, from 0 s to 900 s."""
    return [Sample(number * 450, lag, number * 4_500_000.0, 0.5, seen) for number, seen in enumerate(observed)]


@pytest.mark.parametrize(
    ("observed", "capacity"),
    [
        ([None, None, None], 20_000),  # 10,000 / 0.5
        ([15_000.0, 15_000.0, 15_000.0], 15_000),  # 20,000 is more than 15 % above it
        ([18_000.0, 18_000.0, 18_000.0], 20_000),
        ([None, None, 15_000.0], 20_000),  # two observations at least
    ],
)
def test_the_true_processing_rate(observed: list[float | None], capacity: float) -> None:
    assert evaluate(window(observed)).capacity == capacity


def test_what_arrives_is_what_is_taken_in_and_what_the_lag_grows_by() -> None:
    samples = [Sample(0, 0.0, 0.0, 1.0, None), Sample(900, 9_000_000.0, 18_000_000.0, 1.0, None)]
    assert evaluate(samples) == Evaluated(arriving=30_000.0, capacity=20_000.0, lag=9_000_000.0, backlog=True)


def test_nothing_that_comes_is_endless_capacity() -> None:
    samples = [Sample(at, 0.0, 0.0, 0.0, math.inf) for at in (0, 900)]
    assert evaluate(samples) == Evaluated(0.0, math.inf, 0.0, backlog=False)


def test_the_first_decision_waits_for_stabilisation_and_window_and_the_next_one_again() -> None:
    line = run(Shape("much", 7_200, ((0, 70_000.0), (3_000, 70_000.0), (3_000, 1_000.0))), Flink(), 1)
    up, down = line.changes
    # running from about second 15: stable at 315, the first sample after it at 360, the window full 900 s later
    assert (up.at, up.after) == (1_260, 6)
    assert down.at >= 3_000 + 3_600


def test_a_scale_down_waits_for_an_hour_and_is_by_60_percent_at_most() -> None:
    flink = Flink()
    names = [f"c{number}" for number in range(6)]
    changed = None
    for at in range(0, 7_200, 60):
        busy = dict.fromkeys(names, at * 0.05)
        applied = dict.fromkeys(names, at * 1_000.0)
        offsets = (at * 1_000,) * 6
        seen = Seen(at, False, 6, 6, 6, 6, offsets, (0,) * 6, offsets, "Stable", 6, {}, busy, applied, 0.0)
        assert flink.looks(at)
        wanted = flink.step(seen)
        if wanted != 6:
            changed = (at, wanted)
            break
    # running at 0, stable at 300, full at 1,200: that is when the hour begins; 6 * 0.4 = 2.4
    assert changed == (4_800, 3)


def test_it_looks_each_minute_once_the_job_runs() -> None:
    flink = Flink()
    assert flink.looks(7)
    flink.step(Seen(7, False, 1, 1, 1, 1, (0,), (0,), (0,), "Stable", 1, {}, {"c": 0.0}, {"c": 0.0}, 0.0))
    assert [at for at in range(8, 200) if flink.looks(at)] == [60, 120, 180]
