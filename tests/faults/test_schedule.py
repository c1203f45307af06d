"""A run is told by its seed alone."""

import pytest

from tests.faults.kinds import KINDS, NEEDS_DISKS
from tests.faults.schedule import Kind, cards, draw

ALL = [kind for kind, _ in KINDS.values()]
FEW = [Kind("a", ("x", "y"), (1, 2)), Kind("b", ("z",), (3, 4), weight=3)]


def test_a_seed_draws_the_same_faults_each_time() -> None:
    assert draw(7, 100, ALL) == draw(7, 100, ALL)
    assert draw(7, 100, ALL) != draw(8, 100, ALL)


@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_a_shorter_run_is_the_beginning_of_a_longer_one(count: int) -> None:
    assert draw(1, count, ALL) == draw(1, 100, ALL)[:count]


def test_each_deck_holds_every_kind_as_often_as_it_weighs() -> None:
    drawn = [fault.kind for fault in draw(3, 8, FEW)]
    assert sorted(drawn[:4]) == sorted(drawn[4:]) == ["a", "b", "b", "b"]
    assert {fault.kind for fault in draw(1, cards(ALL), ALL)} == KINDS.keys()


def test_faults_keep_to_the_victims_and_times_of_their_kind() -> None:
    for fault in draw(1, 500, ALL):
        kind, _ = KINDS[fault.kind]
        assert fault.victim in kind.victims
        assert kind.seconds[0] <= fault.seconds <= kind.seconds[1] < 10
        assert 1 <= fault.pause_seconds <= 3
        assert 0 <= fault.force < 1


def test_faults_are_numbered_from_one() -> None:
    assert [fault.number for fault in draw(1, 5, FEW)] == [1, 2, 3, 4, 5]


def test_there_are_at_least_twelve_kinds_without_a_mount_too() -> None:
    assert len(KINDS.keys() - NEEDS_DISKS) >= 12
    assert KINDS.keys() > NEEDS_DISKS
