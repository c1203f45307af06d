"""The bound on records a second."""

import pytest
from flowagg_consumer.pace import Pace

BURST = 0.25


@pytest.mark.parametrize("rate", [1.0, 7.0, 500.0, 200_000.0])
@pytest.mark.parametrize("turn_seconds", [0.001, 0.05, 0.1])
def test_what_is_taken_in_a_minute_is_the_rate_times_a_minute(rate: float, turn_seconds: float) -> None:
    now, taken = 0.0, 0
    pace = Pace(rate, now)
    while now < 60.0:
        now += min(0.1, pace.wait_seconds(now)) + turn_seconds
        room = pace.room(now)
        pace.took(room)
        taken += room
    assert taken <= rate * (now + BURST) + 1
    assert taken >= rate * now * 0.95 - 1


def test_what_was_not_taken_in_time_is_not_made_up_for() -> None:
    pace = Pace(1000.0, 0.0)
    assert pace.room(3600.0) == 1000 * BURST


def test_half_of_the_burst_is_waited_for() -> None:
    pace = Pace(1000.0, 0.0)
    pace.took(pace.room(0.0))
    assert pace.wait_seconds(0.0) == pytest.approx(BURST / 2)
    assert pace.wait_seconds(BURST / 2) == pytest.approx(0.0)
