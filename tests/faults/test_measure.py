"""Stand-stills are told from when things moved."""

from collections.abc import Sequence

import pytest

from tests.faults.measure import Stalls, Watch, longest


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([], 10.0),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], 1.0),
        ([0.5, 7.5, 8], 7.0),
        ([4], 6.0),
        ([-5, 12], 10.0),
        ([9, 1], 8.0),
    ],
)
def test_the_longest_stretch_counts_from_the_strike_and_up_to_the_end(times: Sequence[float], expected: float) -> None:
    assert longest(times, 0, 10) == expected


def test_a_record_is_applied_only_when_its_partition_passes_all_it_has_ever_been() -> None:
    watch = Watch(2)
    watch.applied([5, 5], 1.0)
    watch.applied([3, 6], 2.0)  # a failover took some back
    watch.applied([5, 6], 3.0)
    watch.applied([6, 7], 4.0)
    assert watch.moves == {0: [1.0, 4.0], 1: [1.0, 2.0, 4.0]}


def test_applies_stand_as_long_as_the_partition_that_stands_longest() -> None:
    watch = Watch(2, writes=[1, 2, 3], reads=[2])
    for moment, positions in enumerate([[0, 0], [1, 0], [2, 0], [3, 1]]):
        watch.applied(positions, float(moment))
    assert watch.stalls(0, 4) == Stalls(write=1, apply=3, read=2)


def test_what_has_not_moved_is_named() -> None:
    watch = Watch(1, writes=[5], reads=[])
    watch.applied([1], 2.0)
    assert watch.lacking(3) == ["no read is fresh", "partition 0 is not applied"]
    assert watch.lacking(1) == ["no read is fresh"]


def test_what_is_forgotten_leaves_the_last_and_the_later_ones() -> None:
    watch = Watch(1, writes=[1, 2, 8, 9], reads=[1, 2])
    watch.forget(5)
    assert (watch.writes, watch.reads) == ([8, 9], [2])
