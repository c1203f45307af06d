"""Lag, in records and in seconds."""

from collections.abc import Iterable, Mapping

import pytest
from flowagg_operator.lag import History, Snapshot


def snapshot(
    at: float, committed: Mapping[int, int], high: Mapping[int, int], low: Mapping[int, int] | None = None
) -> Snapshot:
    return Snapshot(at, committed, low or dict.fromkeys(high, 0), high)


def history_of(snapshots: Iterable[Snapshot], seconds: float = 60.0) -> History:
    history = History(seconds)
    for each in snapshots:
        history = history.after(each)
    return history


def steps(*positions: int, high: int = 1_000, every: float = 5.0) -> History:
    """One partition, its positions at looks that are five seconds apart, from 0 on."""
    return history_of(snapshot(number * every, {0: at}, {0: high}) for number, at in enumerate(positions))


@pytest.mark.parametrize(
    ("committed", "low", "high", "lags"),
    [
        ({0: 5}, {0: 0}, {0: 8}, {0: 3}),
        ({0: 9}, {0: 0}, {0: 8}, {0: 0}),  # a commit between the two look-ups
        ({}, {0: 100}, {0: 108}, {0: 8}),  # nobody commits: from the log's start, not from 0
        ({0: 5}, {0: 100}, {0: 108}, {0: 8}),  # retention has passed the position
        ({0: 5}, {0: 108}, {0: 108}, {0: 0}),  # all is gone from the log
        ({0: 5}, {0: 0, 1: 0}, {0: 8, 1: 4}, {0: 3, 1: 4}),
        ({}, {}, {}, {}),
    ],
)
def test_lag_is_the_end_less_the_larger_of_position_and_start(
    committed: dict[int, int], low: dict[int, int], high: dict[int, int], lags: dict[int, int]
) -> None:
    found = Snapshot(0.0, committed, low, high)
    assert found.lags == lags
    assert found.total == sum(lags.values())


def test_a_history_without_snapshots_says_nothing() -> None:
    history = History()
    assert history.last is None
    assert history.lag_seconds is None
    assert history.arrival_rate is None
    assert history.processing_rate is None
    assert history.arrivals() == {}
    assert history.standing() == {}
    assert history.stalled() == {}
    assert history.applied(0, 0.0) is None


def test_a_new_snapshot_makes_a_new_history_and_leaves_the_old_one_as_it_was() -> None:
    first = History().after(snapshot(0.0, {0: 0}, {0: 100}))
    second = first.after(snapshot(10.0, {0: 100}, {0: 300}))
    assert first == History().after(snapshot(0.0, {0: 0}, {0: 100}))
    assert [len(first.snapshots), len(second.snapshots)] == [1, 2]
    assert [first.moves[0].position, second.moves[0].position] == [0, 100]
    assert first.after(snapshot(10.0, {0: 100}, {0: 300})) == second


@pytest.mark.parametrize(("pace", "kept"), [(5, 13), (10, 7), (7, 10), (60, 2), (90, 2), (300, 2)])
def test_snapshots_are_kept_until_the_next_one_is_old_enough_for_rates(pace: int, kept: int) -> None:
    history = history_of(snapshot(float(at), {0: at}, {0: at}) for at in range(0, 3_000, pace))
    assert len(history.snapshots) == kept
    oldest, second = history.snapshots[:2]
    assert history.last is not None
    assert history.last.at - oldest.at >= 60
    assert history.last.at - second.at < 60


def test_lag_seconds_are_judged_by_the_rate_of_arrival() -> None:
    history = History().after(snapshot(0.0, {0: 0}, {0: 100}))
    assert history.lag_seconds is None  # no rate yet
    history = history.after(snapshot(10.0, {0: 100}, {0: 300}))
    assert history.arrival_rate == 20.0
    assert history.lag_seconds == 10.0


def test_without_arrivals_lag_seconds_are_judged_by_the_rate_of_processing() -> None:
    history = history_of([snapshot(0.0, {0: 0}, {0: 100}), snapshot(10.0, {0: 50}, {0: 100})])
    assert history.arrival_rate == 0.0
    assert history.processing_rate == 5.0
    assert history.lag_seconds == 10.0


def test_no_lag_is_zero_seconds_and_no_progress_is_no_number() -> None:
    assert history_of([snapshot(0.0, {0: 100}, {0: 100})]).lag_seconds == 0.0
    stuck = history_of([snapshot(0.0, {0: 50}, {0: 100}), snapshot(10.0, {0: 50}, {0: 100})])
    assert stuck.lag_seconds is None


def test_positions_that_went_back_are_no_negative_rate_of_processing() -> None:
    history = history_of([snapshot(0.0, {0: 50}, {0: 100}), snapshot(10.0, {}, {0: 100})])
    assert history.processing_rate == 0.0


# --- Arrivals --------------------------------------------------------------------------------------------------------


def test_rates_are_those_of_the_last_minute() -> None:
    ends = {second: 1000 if second <= 200 else 1000 + (second - 200) * 10 for second in range(0, 301, 5)}
    history = history_of(snapshot(float(second), {0: 0}, {0: end}) for second, end in ends.items())
    assert history.arrival_rate == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("seconds", "rates"),
    [
        (5.0, {0: 300.0, 1: 0.0}),
        (6.0, {0: 200.0, 1: 0.0}),  # the newest of those that are old enough
        (10.0, {0: 200.0, 1: 0.0}),
        (20.0, {0: 100.0, 1: 5.0}),
        (600.0, {0: 100.0, 1: 5.0}),  # the oldest, where none is
        (0.0, {0: 300.0, 1: 0.0}),
        (None, {0: 100.0, 1: 5.0}),
    ],
)
def test_arrivals_are_those_of_so_many_seconds(seconds: float | None, rates: dict[int, float]) -> None:
    ends = [(0, 0), (0, 50), (0, 100), (500, 100), (2_000, 100)]
    history = history_of(snapshot(number * 5.0, {}, {0: a, 1: b}) for number, (a, b) in enumerate(ends))
    assert history.arrivals(seconds) == rates


def test_a_new_partition_counts_from_its_start() -> None:
    history = history_of([snapshot(0.0, {0: 0}, {0: 100}), snapshot(10.0, {0: 0}, {0: 100, 1: 50})])
    assert history.arrival_rate == 5.0
    assert history.arrivals() == {0: 0.0, 1: 5.0}


def test_a_partition_that_is_gone_has_no_arrivals() -> None:
    history = history_of([snapshot(0.0, {}, {0: 100, 1: 50}), snapshot(10.0, {}, {0: 200})])
    assert history.arrivals() == {0: 10.0}
    assert history.standing() == {0: 0}


def test_there_is_no_rate_of_a_time_in_which_none_passed() -> None:
    history = history_of([snapshot(7.0, {0: 0}, {0: 100}), snapshot(7.0, {0: 50}, {0: 200})])
    assert (history.arrivals(), history.arrival_rate, history.processing_rate) == ({}, None, None)
    assert history.lag_seconds is None


def test_a_log_that_was_made_again_begins_a_new_history() -> None:
    history = history_of([snapshot(0.0, {0: 900}, {0: 1000}), snapshot(10.0, {}, {0: 3})])
    assert history.arrival_rate is None
    assert history.last is not None
    assert history.last.total == 3
    assert history.standing() == {0: 0}


# --- Stalled ---------------------------------------------------------------------------------------------------------


def test_a_partition_with_lag_that_does_not_move_for_a_minute_is_stalled() -> None:
    history = History()
    for at in (0.0, 30.0, 59.0):
        history = history.after(snapshot(at, {0: 5, 1: int(at)}, {0: 10, 1: 100}))
        assert history.stalled() == {}
    history = history.after(snapshot(60.0, {0: 5, 1: 60}, {0: 10, 1: 100}))
    assert history.stalled() == {0: 60.0}
    history = history.after(snapshot(65.0, {0: 6, 1: 61}, {0: 10, 1: 100}))
    assert history.stalled() == {}


@pytest.mark.parametrize(("seconds", "stalled"), [(30.0, {0: 45.0}), (45.0, {0: 45.0}), (46.0, {}), (600.0, {})])
def test_a_partition_is_stalled_after_as_many_seconds_as_are_asked_for(
    seconds: float, stalled: dict[int, float]
) -> None:
    assert steps(*[5] * 10).stalled(seconds) == stalled


def test_a_partition_is_still_stalled_when_its_last_step_is_forgotten() -> None:
    assert steps(1, *[5] * 200).stalled() == {0: 995.0}


def test_a_partition_that_nobody_commits_and_that_has_records_is_stalled_too() -> None:
    assert history_of(snapshot(at, {}, {0: 9}) for at in (0.0, 60.0)).stalled() == {0: 60.0}


def test_an_idle_partition_is_not_stalled_and_gets_its_minute_when_records_come() -> None:
    history = history_of(snapshot(at, {0: 5}, {0: 5}) for at in (0.0, 100.0, 200.0))
    history = history.after(snapshot(210.0, {0: 5}, {0: 9}))
    assert history.stalled() == {}
    history = history.after(snapshot(259.0, {0: 5}, {0: 9}))
    assert history.stalled() == {}
    history = history.after(snapshot(261.0, {0: 5}, {0: 9}))
    assert history.stalled() == {0: 61.0}


# --- Standing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("looks", "left"),
    [
        ([(0, 100)], 0),  # what the first look finds may be nobody's work
        ([(10, 60), (50, 100), (50, 200), (50, 300)], 50),  # what comes between two commits is not standing
        ([(50, 100), (50, 200), (180, 300)], 120),  # what a commit leaves is
        ([(50, 100), (100, 100)], 0),
        ([(100, 100), (100, 150)], 0),
    ],
)
def test_the_lag_that_stands_is_what_was_left_at_the_last_step(looks: list[tuple[int, int]], left: int) -> None:
    history = history_of(snapshot(number * 5.0, {0: at}, {0: end}) for number, (at, end) in enumerate(looks))
    assert history.standing() == {0: left}


def test_partitions_that_are_set_aside_do_not_stand() -> None:
    high = {0: 11, 1: 21, 2: 31}
    history = history_of([snapshot(0.0, {}, high), snapshot(5.0, dict.fromkeys(high, 1), high)])
    assert history.standing([1]) == {0: 10, 2: 30}
    assert history.standing({0, 1, 2, 7}) == {}


# --- Applied ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("positions", "since", "applied"),
    [
        ([0, 0, 0, 0], 0.0, None),  # no step
        ([0, 0, 50, 50], 0.0, None),  # one step
        ([0, 50, 100, 150], 0.0, (10.0, 10.0)),  # from the first step, at 5, to the last
        ([0, 0, 50, 50, 50, 150, 150], 0.0, (100 / 15, 15.0)),  # commits that are 15 s apart
        ([0, 50, 100, 150, 350], 10.0, (25.0, 10.0)),
        ([0, 50, 100, 150, 350], 11.0, (40.0, 5.0)),
        ([0, 50, 100, 150, 350], 16.0, None),  # one step since then
        ([0, 50, 100, 150, 350], 100.0, None),
        ([100, 0, 50], 0.0, (10.0, 5.0)),
    ],
)
def test_what_was_applied_is_taken_from_step_to_step(
    positions: list[int], since: float, applied: tuple[float, float] | None
) -> None:
    assert steps(*positions).applied(0, since) == applied


def test_nothing_is_known_of_what_is_applied_of_another_partition() -> None:
    assert steps(0, 50, 100).applied(1, 0.0) is None


@pytest.mark.parametrize("interval", [5, 10, 15, 30])
def test_what_is_applied_does_not_depend_on_the_interval_of_commits(interval: int) -> None:
    history = history_of(
        snapshot(float(at), {0: at // interval * interval * 20}, {0: 100_000}) for at in range(0, 301, 5)
    )
    found = history.applied(0, 0.0)
    assert found is not None
    assert found[0] == 20.0
    assert found[1] >= 30.0


def test_one_step_to_the_end_of_the_log_is_no_rate() -> None:
    assert steps(0, 1_000, 1_000, 1_000).applied(0, 0.0) is None
