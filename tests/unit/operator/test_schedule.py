"""When which FlowAggregator is looked at, who acts, and how many events go out."""

from datetime import UTC, datetime
from typing import Any

import pytest
from flowagg.election_lease import Lease
from flowagg_operator.events import Bound, event
from flowagg_operator.leader import Candidacy
from flowagg_operator.schedule import Pace, Schedule
from flowagg_operator.spec import Owner

PACE = Pace(settle=0.2, period=30.0, first_retry=1.0, last_retry=8.0)


def test_wishes_that_come_together_are_one_pass() -> None:
    schedule = Schedule(PACE)
    for now in (0.0, 0.1, 0.15):
        schedule.wish("a", now)
    assert schedule.take(0.19) is None
    assert schedule.take(0.2) == "a"
    assert schedule.take(0.2) is None
    schedule.done("a", 0.3, failed=False)
    assert schedule.next_due() == 30.3


def test_a_wish_during_a_pass_is_one_more_pass_and_never_two_at_a_time() -> None:
    schedule = Schedule(PACE)
    schedule.wish("a", 0.0)
    assert schedule.take(1.0) == "a"
    schedule.wish("a", 1.1)
    schedule.wish("a", 1.2)
    assert schedule.take(9.0) is None
    schedule.done("a", 9.0, failed=False)
    assert schedule.take(9.0) == "a"


def test_a_pass_may_ask_for_the_next_one_soon() -> None:
    schedule = Schedule(PACE)
    schedule.wish("a", 0.0)
    schedule.take(1.0)
    schedule.done("a", 1.0, failed=False, retry=2.0)
    assert schedule.next_due() == 3.0


def test_failures_wait_longer_each_time_within_bounds_and_a_success_forgets_them() -> None:
    schedule, now, waits = Schedule(PACE), 0.0, []
    schedule.wish("a", now)
    for _ in range(6):
        now = schedule.next_due() or 0.0
        assert schedule.take(now) == "a"
        schedule.done("a", now, failed=True)
        waits.append((schedule.next_due() or 0.0) - now)
    assert waits == pytest.approx([1, 2, 4, 8, 8, 8])
    now = schedule.next_due() or 0.0
    schedule.take(now)
    schedule.done("a", now, failed=False)
    now = schedule.next_due() or 0.0
    schedule.take(now)
    schedule.done("a", now, failed=True)
    assert (schedule.next_due() or 0.0) - now == 1.0


def test_events_do_not_make_failures_a_hot_loop() -> None:
    schedule = Schedule(PACE)
    schedule.wish("a", 0.0)
    schedule.take(1.0)
    schedule.wish("a", 1.0)
    schedule.done("a", 1.0, failed=True)
    assert (schedule.next_due() or 0.0) >= 2.0


def test_what_is_forgotten_is_not_done_again() -> None:
    schedule = Schedule(PACE)
    schedule.wish("a", 0.0)
    schedule.take(1.0)
    schedule.forget("a")
    schedule.done("a", 2.0, failed=False)
    assert schedule.next_due() is None
    assert schedule.names() == []


def test_the_one_that_has_been_due_for_longest_is_first() -> None:
    schedule = Schedule(PACE)
    schedule.wish("b", 0.0)
    schedule.wish("a", 0.1)
    assert [schedule.take(5.0), schedule.take(5.0), schedule.take(5.0)] == ["b", "a", None]


def lease(holder: str, renewed: str = "1") -> Lease:
    spec: dict[str, Any] = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed}
    return Lease.read({"metadata": {"resourceVersion": "1"}, "spec": spec if holder or renewed else {}}, 15)


@pytest.mark.parametrize(
    ("found", "at", "step"),
    [
        (lease("", ""), 0.0, "take"),  # the chart has just made it
        (lease(""), 0.0, "take"),  # given up
        (lease("me"), 0.0, "renew"),  # started again in its pod
        (lease("other"), 0.0, "wait"),
    ],
)
def test_who_may_take_the_lease(found: Lease, at: float, step: str) -> None:
    assert Candidacy("me", 15, 10).step(found, at) == step


def test_a_lease_is_taken_once_it_was_not_renewed_for_its_time_by_the_own_clock() -> None:
    candidacy = Candidacy("me", 15, 10)
    assert candidacy.step(lease("other", "1"), 100.0) == "wait"
    assert candidacy.step(lease("other", "1"), 114.9) == "wait"
    assert candidacy.step(lease("other", "2"), 114.9) == "wait"
    assert candidacy.step(lease("other", "2"), 129.8) == "wait"
    assert candidacy.step(lease("other", "2"), 129.9) == "take"


def test_who_cannot_renew_ends_before_another_can_take_the_lease() -> None:
    candidacy = Candidacy("me", 15, 10)
    candidacy.written(100.0)
    assert candidacy.lost(lease("me"), 109.9) == ""
    assert "10 s" in candidacy.lost(lease("me"), 110.0)


def test_who_sees_another_holder_ends() -> None:
    candidacy = Candidacy("me", 15, 10)
    candidacy.written(100.0)
    assert "other holds" in candidacy.lost(lease("other"), 100.5)
    assert candidacy.step(lease("other"), 200.0) == "wait"


def test_a_standby_has_nothing_to_lose() -> None:
    assert Candidacy("me", 15, 10).lost(lease("other"), 1e9) == ""


def test_events_are_bounded_and_the_room_comes_back() -> None:
    bound = Bound(6)
    assert [bound.lets((str(n),), 0.0) for n in range(8)] == [True] * 6 + [False] * 2
    assert not bound.lets(("x",), 9.9)
    assert bound.lets(("x",), 10.0)


def test_the_same_event_is_not_said_again_for_some_minutes() -> None:
    bound = Bound(60)
    assert [bound.lets(("a",), at) for at in (0.0, 1.0, 299.0, 300.0)] == [True, False, False, True]


def test_an_event_regards_the_flow_aggregator_and_is_not_too_long() -> None:
    made = event(
        Owner(name="main", namespace="ns", uid="u"),
        "Warning",
        "R",
        "n" * 5000,
        "pod",
        datetime(2026, 1, 1, tzinfo=UTC),
        "x",
    )
    assert made["regarding"]["kind"] == "FlowAggregator"
    assert made["eventTime"] == "2026-01-01T00:00:00.000000Z"
    assert len(made["note"]) <= 1024
