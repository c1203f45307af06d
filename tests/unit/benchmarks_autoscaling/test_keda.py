"""KEDA and the HPA, by examples worked out by hand from their published rules."""

from dataclasses import replace

import pytest

from benchmarks.autoscaling.keda import Keda, lags, metric
from benchmarks.autoscaling.policy import Seen

SYNC, POLL = 1, 0
SEEN = Seen(0, False, 1, 1, 1, 6, (0,) * 6, (0,) * 6, (0,) * 6, "Stable", 1, {}, {}, {}, 0.0)


def with_lag(lag: int, at: int, replicas: int) -> Seen:
    return replace(SEEN, at=at, replicas=replicas, updated=replicas, high=(lag, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("committed", "high", "expected"),
    [
        ((5, 0), (9, 3), [4, 3]),
        ((-1, -1), (1_000, 0), [1, 1]),  # never committed, offsetResetPolicy latest: 1 a partition
        ((-1, 10), (50, 10), [1, 0]),
    ],
)
def test_the_lag_of_a_partition(committed: tuple[int, ...], high: tuple[int, ...], expected: list[int]) -> None:
    assert lags(replace(SEEN, partitions=2, committed=committed, high=high)) == expected


@pytest.mark.parametrize(("lag", "expected"), [(0, 0), (59, 59), (60, 60), (69, 69), (70, 60), (1_000_000, 60)])
def test_the_metric_is_bounded_by_the_partitions_by_integer_division(lag: int, expected: int) -> None:
    assert metric(with_lag(lag, SYNC, 1), 10) == expected


@pytest.mark.parametrize(
    ("lag", "replicas", "expected", "why"),
    [
        (10, 1, 1, "as wanted"),
        (21, 2, 2, "within the tolerance of 0.1"),
        (12, 1, 2, "ceil(12 / 10)"),
        (35, 2, 4, "ceil(35 / 10)"),
        (1_000_000, 1, 5, "4 pods a sync at most"),
        (1_000_000, 5, 6, "never above the partitions"),
        (65, 6, 6, "within the tolerance: 65 / 60"),
        (67, 6, 7, "one above the partitions: the bound divides by integers"),
        (45, 6, 6, "fewer only after 300 s"),
    ],
)
def test_the_hpa_goes_by_the_average_value(lag: int, replicas: int, expected: int, why: str) -> None:
    assert Keda().step(with_lag(lag, SYNC, replicas)) == expected, why


def test_the_hpa_doubles_where_that_is_more_than_four() -> None:
    many = replace(with_lag(10**9, SYNC, 10), partitions=100, committed=(0,) * 100, high=(10**7,) * 100)
    assert Keda().step(many) == 20


def test_the_hpa_never_goes_above_100() -> None:
    many = replace(with_lag(0, SYNC, 80), partitions=500, committed=(0,) * 500, high=(10**7,) * 500)
    assert Keda().step(many) == 100


def test_the_hpa_goes_down_to_the_most_it_recommended_within_300_s() -> None:
    keda = Keda()
    assert keda.step(with_lag(60, 1, 6)) == 6
    assert keda.step(with_lag(35, 16, 6)) == 6
    found = {at: keda.step(with_lag(5, at, 6)) for at in range(31, 361, 15)}
    assert found[301] == 6
    assert found[316] == 4  # what second 1 said is older than 300 s; second 16 said 4
    assert found[331] == 1


def test_a_failed_metric_changes_nothing() -> None:
    keda = Keda()
    for at in range(1, 1_000, 15):
        assert keda.step(replace(SEEN, at=at, failed=True, replicas=4, partitions=0, committed=(), high=())) == 4


def test_the_hpa_leaves_zero_alone() -> None:
    assert Keda().step(with_lag(1_000, SYNC, 0)) == 0


def test_keda_starts_the_first_pod_and_leaves_more_to_the_hpa() -> None:
    assert Keda().step(with_lag(1, POLL, 0)) == 1
    assert Keda().step(with_lag(1_000_000, POLL, 3)) == 3
    assert Keda().step(with_lag(0, POLL, 0)) == 0


def test_keda_ends_the_last_pod_after_the_cooldown() -> None:
    keda = Keda()
    assert keda.step(with_lag(100, 0, 1)) == 1
    found = {at: keda.step(with_lag(0, at, 1)) for at in range(30, 361, 30)}
    assert found[300] == 1  # not before the 300 s are over
    assert found[330] == 0


def test_an_error_neither_starts_nor_ends_a_pod() -> None:
    keda = Keda()
    keda.step(with_lag(100, 0, 1))
    for at in range(30, 1_200, 30):
        failed = replace(SEEN, at=at, failed=True, replicas=1, partitions=0, committed=(), high=())
        assert keda.step(failed) == 1
        assert keda.step(replace(failed, replicas=0)) == 0


def test_it_looks_each_30_s_and_each_15_s() -> None:
    keda = Keda()
    assert [at for at in range(61) if keda.looks(at)] == [0, 1, 16, 30, 31, 46, 60]
