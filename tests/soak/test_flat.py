"""What is called level, and what is called growth."""

import math
import random
from collections.abc import Callable

import pytest

from tests.soak.flat import Allowed, Points, drift, medians, steps

MIB_80 = 80.0
ALLOWED = Allowed(share=0.05, least=4)
CALM_SECONDS = 22 * 60
"""Of a run of 30 minutes without its warm-up."""
COUNTED = Allowed(share=0.1, least=5)


def series(value: Callable[[float], float], seconds: float = CALM_SECONDS, every: float = 2.0) -> Points:
    return [(100 + number * every, value(number * every)) for number in range(int(seconds / every))]


def noisy(value: Callable[[float], float], seed: int, deviation: float = 1.5, seconds: float = CALM_SECONDS) -> Points:
    rng = random.Random(seed)
    return series(lambda at: value(at) + rng.gauss(0, deviation), seconds)


def holds(points: Points) -> bool | None:
    trend = drift(points, ALLOWED)
    assert trend is not None
    return trend.holds


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("mib_a_minute", [0.5, 1.0, 5.0])
def test_a_leak_over_noise_is_caught_in_a_run_of_half_an_hour(mib_a_minute: float, seed: int) -> None:
    points = noisy(lambda at: MIB_80 + mib_a_minute * at / 60, seed)
    trend = drift(points, ALLOWED)
    assert trend is not None
    assert trend.holds is False
    assert trend.slope == pytest.approx(60 * mib_a_minute, rel=0.1)
    assert trend.surely <= trend.slope
    assert trend.end - trend.start == pytest.approx(mib_a_minute * 22, rel=0.1)


@pytest.mark.parametrize("seed", range(100))
def test_noise_alone_is_no_leak(seed: int) -> None:
    assert holds(noisy(lambda _: MIB_80, seed, deviation=4)) is True


@pytest.mark.parametrize("seed", range(100))
def test_noise_that_lasts_is_no_leak(seed: int) -> None:
    rng, level, levels = random.Random(seed), 0.0, []
    for _ in range(CALM_SECONDS // 2):
        level = level * 0.97 + rng.gauss(0, 0.3)  # it forgets within a minute
        levels.append(level)
    assert holds([(2.0 * number, MIB_80 + one) for number, one in enumerate(levels)]) is True


@pytest.mark.parametrize("phase", [0, 0.2, 0.4, 0.6, 0.8])
@pytest.mark.parametrize("minutes", [0.7, 2, 5, 8, 10])
def test_a_saw_tooth_that_has_been_at_its_top_is_no_leak(minutes: float, phase: float) -> None:
    """A cache that fills up to its bound and is emptied."""
    assert holds(noisy(lambda at: MIB_80 + 20 * ((at / 60 / minutes + phase) % 1), 1, deviation=0.5)) is True


def test_a_cache_that_has_filled_is_no_leak() -> None:
    assert holds(noisy(lambda at: MIB_80 + 30 * (1 - math.exp(-at / 120)), 1)) is True


def test_a_cache_that_still_fills_is_not_told_from_a_leak() -> None:
    assert holds(noisy(lambda at: MIB_80 + 30 * (1 - math.exp(-at / 1800)), 1)) is False


def test_a_step_is_no_leak() -> None:
    for minute in (5, 12, 18):
        assert holds(noisy(lambda at, after=minute * 60: MIB_80 + 15 * (at > after), 1)) is True  # type: ignore[misc]


def test_a_leak_that_comes_in_steps_is_caught() -> None:
    assert holds(noisy(lambda at: MIB_80 + 5 * int(at / 200), 1)) is False


def test_a_leak_with_a_saw_tooth_on_it_is_caught() -> None:
    assert holds(noisy(lambda at: MIB_80 + at / 60 + 10 * ((at / 100) % 1), 1)) is False


def test_memory_that_is_given_back_is_no_leak() -> None:
    assert holds(noisy(lambda at: MIB_80 - at / 60, 1)) is True


def test_peaks_do_not_move_the_slope() -> None:
    rng = random.Random(1)
    assert holds(series(lambda at: MIB_80 + (200 * at / CALM_SECONDS if rng.random() < 0.2 else 0))) is True


def test_a_longer_run_tells_a_slower_leak() -> None:
    def slow(at: float) -> float:
        return MIB_80 + 5 * at / 3600

    assert holds(noisy(slow, 1)) is True
    assert holds(noisy(slow, 1, seconds=4 * 3600)) is False


def test_a_few_points_tell_nothing() -> None:
    assert holds(series(lambda at: at, seconds=20)) is None
    assert drift([], ALLOWED) is None
    assert steps([], COUNTED) is None
    alone = steps([(5, 3)], COUNTED)
    assert alone is not None
    assert (alone.start, alone.end, alone.slope, alone.holds) == (3, 3, 0, None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (lambda _: 40, True),
        (lambda at: 40 + at / 60, False),  # one more a minute
        (lambda at: 40 + (at / 10) % 5, True),
        (lambda at: 40 + (30 if int(at) % 20 == 0 else 0), True),
        (lambda at: 40 + 7 * (at > 1000), False),
        (lambda at: 40 - at / 60, True),
        (lambda at: 400 + at / 60, True),  # within a tenth
    ],
)
def test_files_are_told_by_the_first_and_the_last_third(value: Callable[[float], float], expected: bool) -> None:
    trend = steps(series(value), COUNTED)
    assert trend is not None
    assert trend.holds is expected


def test_calm_moments_may_lie_apart() -> None:
    points = [one for one in noisy(lambda at: MIB_80 + at / 60, 3) if one[0] % 60 < 25]
    assert holds(points) is False


def test_spans_without_a_point_are_left_out() -> None:
    assert medians([(0, 1), (1, 3), (2, 2), (10, 7)], 5) == [(0.5, 2), (2, 2), (10, 7)]
