"""The report counts right, on time lines made by hand."""

from dataclasses import replace

import pytest

from benchmarks.autoscaling.report import Results, Score, added, bars, score
from benchmarks.autoscaling.shapes import Shape
from benchmarks.autoscaling.timeline import Change, Timeline

HOUR = 3_600
SHAPE = Shape("made", 2 * HOUR, ((0, 1.0),), steps=(HOUR,))


def line(changes: list[Change], late: range = range(0), replicas: int = 2) -> Timeline:
    lag = [31.0 if second in late else 30.0 for second in range(2 * HOUR)]
    return Timeline(SHAPE, "made", 1, [replicas] * 2 * HOUR, lag, [1.0] * 2 * HOUR, [6] * 2 * HOUR, changes)


def change(at: int, before: int = 2, after: int = 3, lag_seconds: float = 0.0) -> Change:
    return Change(at, before, after, lag_seconds, 6)


def test_hours_replicas_and_late_seconds() -> None:
    found = score(line([], range(100, 150)))
    assert (found.hours, found.replica_hours, found.most_replicas, found.late_seconds) == (2.0, 4.0, 2, 50)


@pytest.mark.parametrize(
    ("moments", "busiest"), [([], 0), ([0, 3_599], 2), ([0, 3_600], 1), ([0, 3_599, 3_600, 3_700], 3)]
)
def test_the_busiest_hour_is_any_hour(moments: list[int], busiest: int) -> None:
    found = score(line([change(at) for at in moments]))
    assert (found.changes, found.busiest_hour, found.changes_an_hour) == (len(moments), busiest, len(moments) / 2)


@pytest.mark.parametrize(
    ("late", "seconds"),
    [(range(0), 0), (range(100, 200), 0), (range(HOUR + 40, HOUR + 100), 100), (range(HOUR - 5, HOUR + 1), 1)],
)
def test_the_recovery_counts_from_the_step_to_the_last_late_second(late: range, seconds: int) -> None:
    assert score(line([], late)).recovery_seconds == seconds


def test_no_step_is_no_recovery() -> None:
    made = line([])
    made.shape = replace(SHAPE, steps=())
    assert score(made).recovery_seconds is None


def test_violations() -> None:
    made = line([change(1, 2, 7), change(2, 2, 0), change(3, 3, 2, 31.0), change(4, 3, 2, 30.0), change(5, 2, 3, 99.0)])
    found = score(made)
    assert (found.above, found.below, found.late_downs, found.violations) == (1, 1, 1, 3)


def test_runs_add_up_but_the_worst_stays_the_worst() -> None:
    one, two = score(line([change(1)], range(HOUR, HOUR + 9))), score(line([change(1), change(2)]))
    found = added([one, two])
    assert (found.changes, found.busiest_hour, found.late_seconds) == (3, 2, 9)
    assert (found.hours, found.replica_hours, found.recovery_seconds) == (4.0, 8.0, 9)


def made(policy: str, changes: int, late: int, hours: float) -> Score:
    return Score("made", policy, 1.0, changes, changes, late, hours, 1, 10, 0, 0, 0, constant=True)


@pytest.mark.parametrize(
    ("ours", "failing"),
    [
        (made("ours", 2, 90, 11.0), []),
        (made("ours", 3, 90, 11.0), [4]),
        (made("ours", 4, 90, 11.0), [0, 4]),
        (made("ours", 2, 100, 11.0), [3]),
        (made("ours", 2, 90, 11.1), [5]),
        (replace(made("ours", 2, 90, 1.0), recovery_seconds=181), [1]),
        (replace(made("ours", 2, 90, 1.0), late_downs=1), [2]),
    ],
)
def test_each_measure_is_held_against_the_better_peer(ours: Score, failing: list[int]) -> None:
    keen, calm = made("keen", 9, 100, 10.0), made("calm", 3, 5_000, 1.0)
    found = bars(Results([ours, keen, calm]), "ours")
    assert [number for number, bar in enumerate(found) if not bar.holds] == failing


def test_the_tables_name_every_shape_and_policy() -> None:
    results = Results([made("ours", 2, 90, 11.0), made("keen", 9, 100, 10.0)])
    assert results.markdown().splitlines()[2:] == [
        "| made | 2 / 90 s / 11.0 | 9 / 100 s / 10.0 |",
        "| **all** | 2 / 90 s / 11.0 | 9 / 100 s / 10.0 |",
    ]
    assert len(results.table().splitlines()) == 5
