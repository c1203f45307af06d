"""The table, the bars and the last line."""

from dataclasses import replace

import pytest

from tests.faults.clients import Totals
from tests.soak.backlog import Level
from tests.soak.latencies import Slice
from tests.soak.proc import Reading
from tests.soak.report import Outcome, Seen, bars, figures, last_line, long_lives, table
from tests.soak.sampler import Life, Sample

PLANNED = 1000
WELL = Outcome(Totals(900, 0, 0, 0), false_fresh=0, wrong=0, dead_letters=0, ended=(), calm_tries=1000, calm_failures=5)
MINUTES = 30


def life(name: str, since: float = 0, until: float = MINUTES, mib_a_minute: float = 0.0) -> Life:
    samples = [
        Sample(number, number % 60 < 40, Reading(80 + mib_a_minute * number / 60, 40, 9, {"established": 20}))
        for number in range(int(since * 60), int(until * 60), 2)
    ]
    return Life(name, 1, samples)


def seen(*lives: Life) -> Seen:
    slices = [Slice(at, 500, 5.0, 20.0) for at in range(30, MINUTES * 60, 60)]
    levels = [Level(at, True, 3.0) for at in range(0, MINUTES * 60, 2)]
    return Seen(0, MINUTES * 60, 450, 400, lives, {"POST": slices, "GET": slices}, levels, levels)


STEADY = (life("writer-2"), life("consumer-3"), life("reader-2"))


def test_a_run_that_keeps_all_bars_says_so() -> None:
    found = bars(figures(seen(*STEADY, life("broker-1", mib_a_minute=5))), WELL, PLANNED)
    assert last_line(found) == "29 of 29 bars hold"


def test_a_leak_is_named() -> None:
    courses = figures(seen(life("writer-2", mib_a_minute=1), *STEADY[1:]))
    assert last_line(bars(courses, WELL, PLANNED)) == "28 of 29 bars hold; missed: writer-2 memory, MiB"
    line = next(line for line in table(courses).splitlines() if "writer-2 memory" in line)
    assert line == "| writer-2 memory, MiB | 87.6 | 109.5 | 4.4 | +60.0 | missed |"


def test_what_is_inexact_or_ends_is_missed() -> None:
    ended = ("broker-1, status 1: x", "reader-1, status -6: y")
    outcome = replace(WELL, totals=Totals(900, 7, 0, 1), false_fresh=2, ended=ended)
    assert last_line(bars(figures(seen(*STEADY)), outcome, PLANNED)) == (
        "26 of 29 bars hold; missed: lost bytes (7), false fresh answers (2), services that ended by themselves (1)"
    )


def test_a_machine_that_does_not_carry_the_load_tells_so() -> None:
    found = bars(figures(seen(*STEADY)), WELL, PLANNED + 1)
    assert last_line(found) == "28 of 29 bars hold; missed: the load kept its pace (90%)"


def test_few_requests_may_fail_in_calm_moments() -> None:
    found = bars(figures(seen(*STEADY)), replace(WELL, calm_failures=6), PLANNED)
    assert last_line(found) == "28 of 29 bars hold; missed: requests that failed in calm moments (6 of 1,000)"


def test_what_was_not_seen_for_long_enough_does_not_hold() -> None:
    found = bars(figures(seen(life("writer-2"), life("consumer-3", since=20), life("reader-2"))), WELL, PLANNED)
    assert last_line(found) == "24 of 25 bars hold; not told: consumer-3 was seen for long enough"
    unread = bars(figures(seen(*STEADY)), replace(WELL, totals=None, dead_letters=None), PLANNED)
    assert (
        last_line(unread)
        == "25 of 29 bars hold; not told: lost bytes, doubled bytes, dead letters, the load kept its pace"
    )


@pytest.mark.parametrize(
    ("since", "until", "counts"), [(0, 30, True), (10, 30, True), (12, 30, False), (0, 19, True), (0, 18, False)]
)
def test_a_process_counts_that_lived_for_half_of_the_run_after_its_own_warm_up(
    since: float, until: float, counts: bool
) -> None:
    one = life("consumer-1", since, until)
    assert (one in long_lives(seen(*STEADY, one))) is counts


def test_brokers_and_redis_are_shown_and_not_judged() -> None:
    courses = figures(seen(*STEADY, life("redis-0", 0, 4), life("redis-0", 4, 25, mib_a_minute=3)))
    shown = [one for one in courses if one.name.startswith("redis")]
    assert [one.verdict for one in shown] == ["for reference"] * 3
    assert "redis-0 memory, MiB" in table(courses)
