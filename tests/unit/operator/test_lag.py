"""Lag, in records and in seconds."""

import pytest
from flowagg_operator.lag import History, Snapshot


def snapshot(at: float, committed: dict[int, int], high: dict[int, int], low: dict[int, int] | None = None) -> Snapshot:
    return Snapshot(at, committed, low or dict.fromkeys(high, 0), high)


@pytest.mark.parametrize(
    ("committed", "low", "high", "lags"),
    [
        ({0: 5}, {0: 0}, {0: 8}, {0: 3}),
        ({0: 9}, {0: 0}, {0: 8}, {0: 0}),  # a commit between the two look-ups
        ({}, {0: 100}, {0: 108}, {0: 8}),  # nobody commits: from the log's start, not from 0
        ({0: 5}, {0: 100}, {0: 108}, {0: 8}),  # retention has passed the position
        ({0: 5}, {0: 0, 1: 0}, {0: 8, 1: 4}, {0: 3, 1: 4}),
    ],
)
def test_lag_is_the_end_less_the_larger_of_position_and_start(
    committed: dict[int, int], low: dict[int, int], high: dict[int, int], lags: dict[int, int]
) -> None:
    found = Snapshot(0.0, committed, low, high)
    assert found.lags == lags
    assert found.total == sum(lags.values())


def test_lag_seconds_are_judged_by_the_rate_of_arrival() -> None:
    history = History()
    history.add(snapshot(0.0, {0: 0}, {0: 100}))
    assert history.lag_seconds is None  # no rate yet
    history.add(snapshot(10.0, {0: 100}, {0: 300}))
    assert history.arrival_rate == 20.0
    assert history.lag_seconds == 10.0


def test_without_arrivals_lag_seconds_are_judged_by_the_rate_of_processing() -> None:
    history = History()
    history.add(snapshot(0.0, {0: 0}, {0: 100}))
    history.add(snapshot(10.0, {0: 50}, {0: 100}))
    assert history.arrival_rate == 0.0
    assert history.lag_seconds == 10.0


def test_no_lag_is_zero_seconds_and_no_progress_is_no_number() -> None:
    history = History()
    history.add(snapshot(0.0, {0: 100}, {0: 100}))
    assert history.lag_seconds == 0.0
    stuck = History()
    stuck.add(snapshot(0.0, {0: 50}, {0: 100}))
    stuck.add(snapshot(10.0, {0: 50}, {0: 100}))
    assert stuck.lag_seconds is None


def test_rates_are_those_of_the_last_minute() -> None:
    history = History()
    for second in range(0, 301, 5):
        history.add(snapshot(float(second), {0: 0}, {0: 1000 if second <= 200 else 1000 + (second - 200) * 10}))
    assert history.arrival_rate == pytest.approx(10.0)


def test_a_new_partition_counts_from_its_start() -> None:
    history = History()
    history.add(snapshot(0.0, {0: 0}, {0: 100}))
    history.add(snapshot(10.0, {0: 0}, {0: 100, 1: 50}))
    assert history.arrival_rate == 5.0


def test_a_log_that_was_made_again_begins_a_new_history() -> None:
    history = History()
    history.add(snapshot(0.0, {0: 900}, {0: 1000}))
    history.add(snapshot(10.0, {}, {0: 3}))
    assert history.arrival_rate is None
    assert history.last is not None
    assert history.last.total == 3


def test_a_partition_with_lag_that_does_not_move_for_a_minute_is_stalled() -> None:
    history = History()
    for at in (0.0, 30.0, 59.0):
        history.add(snapshot(at, {0: 5, 1: int(at)}, {0: 10, 1: 100}))
        assert history.stalled() == {}
    history.add(snapshot(60.0, {0: 5, 1: 60}, {0: 10, 1: 100}))
    assert history.stalled() == {0: 60.0}
    history.add(snapshot(65.0, {0: 6, 1: 61}, {0: 10, 1: 100}))
    assert history.stalled() == {}


def test_an_idle_partition_is_not_stalled_and_gets_its_minute_when_records_come() -> None:
    history = History()
    for at in (0.0, 100.0, 200.0):
        history.add(snapshot(at, {0: 5}, {0: 5}))
    history.add(snapshot(210.0, {0: 5}, {0: 9}))
    assert history.stalled() == {}
    history.add(snapshot(259.0, {0: 5}, {0: 9}))
    assert history.stalled() == {}
    history.add(snapshot(261.0, {0: 5}, {0: 9}))
    assert history.stalled() == {0: 61.0}
