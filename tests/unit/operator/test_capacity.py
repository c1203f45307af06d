"""What a number of consumers can apply."""

import pytest
from flowagg_operator.capacity import busiest, needed, share, totals, useful_above, useful_below, useful_counts


@pytest.mark.parametrize(
    ("partitions", "replicas", "of_busiest"),
    [(1, 1, 1), (6, 1, 6), (6, 2, 3), (6, 3, 2), (6, 4, 2), (6, 5, 2), (6, 6, 1), (6, 9, 1), (7, 2, 4), (100, 33, 4)],
)
def test_the_busiest_consumer_has_its_share_rounded_up(partitions: int, replicas: int, of_busiest: int) -> None:
    assert share(partitions, replicas) == of_busiest


def test_without_consumers_a_share_is_that_of_one() -> None:
    assert share(6, 0) == 6


@pytest.mark.parametrize(
    ("partitions", "counts"),
    [
        (0, []),
        (1, [1]),
        (2, [1, 2]),
        (6, [1, 2, 3, 6]),
        (7, [1, 2, 3, 4, 7]),
        (12, [1, 2, 3, 4, 6, 12]),
        (100, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 15, 17, 20, 25, 34, 50, 100]),
    ],
)
def test_useful_counts_are_those_that_take_a_partition_off_the_busiest(partitions: int, counts: list[int]) -> None:
    assert [count for count in useful_counts(partitions) if count <= partitions] == useful_counts(partitions)
    smaller = [n for n in range(1, partitions + 1) if n == 1 or share(partitions, n) < share(partitions, n - 1)]
    assert useful_counts(partitions) == smaller
    assert smaller == counts


@pytest.mark.parametrize("partitions", [1, 6, 7, 100, 1_000])
def test_the_last_useful_count_is_one_consumer_a_partition(partitions: int) -> None:
    assert useful_counts(partitions)[-1] == partitions


@pytest.mark.parametrize(
    ("partitions", "replicas", "at_least", "count"),
    [
        (1, 1, 0, 1),
        (6, 1, 0, 2),
        (6, 3, 0, 6),
        (6, 4, 0, 6),
        (6, 6, 0, 6),
        (6, 1, 4, 6),
        (7, 3, 0, 4),
        (7, 1, 2, 2),
        (100, 10, 20, 20),
        (100, 10, 21, 25),
        (100, 50, 100, 100),
        (100, 60, 120, 100),  # no more than there are partitions
    ],
)
def test_the_next_useful_count_above(partitions: int, replicas: int, at_least: int, count: int) -> None:
    assert useful_above(partitions, replicas, at_least) == count


@pytest.mark.parametrize(
    ("partitions", "replicas", "count"),
    [(1, 1, 1), (6, 6, 3), (6, 5, 3), (6, 3, 2), (6, 2, 1), (6, 1, 1), (6, 9, 6), (7, 7, 4), (100, 100, 50)],
)
def test_the_next_useful_count_below(partitions: int, replicas: int, count: int) -> None:
    assert useful_below(partitions, replicas) == count


@pytest.mark.parametrize(
    ("loads", "rate", "count"),
    [
        ([50.0], 100.0, 1),
        ([100.0], 100.0, 1),  # as much as it can is not too much
        ([101.0], 100.0, None),
        ([10.0] * 6, 100.0, 1),
        ([20.0] * 6, 100.0, 2),
        ([40.0] * 6, 100.0, 3),
        ([60.0] * 6, 100.0, 6),
        ([101.0] * 6, 100.0, None),
        ([20.0] * 7, 100.0, 2),
        ([30.0] * 7, 100.0, 3),
        ([50.0] * 7, 100.0, 4),
        ([60.0] * 7, 100.0, 7),
        ([1.0] * 100, 100.0, 1),
        ([1.0] * 100, 33.0, 4),
        ([1.0] * 100, 34.0, 3),
        ([0.0] * 6, 100.0, 1),
        ([0.0] * 6, 0.0, 1),
        ([1.0] * 6, 0.0, None),
        ([], 100.0, None),
    ],
)
def test_needed_is_the_smallest_useful_count_with_which_nobody_has_too_much(
    loads: list[float], rate: float, count: int | None
) -> None:
    assert needed(loads, rate) == count


@pytest.mark.parametrize(
    ("loads", "rate", "count"),
    [
        ([90.0, 10.0, 10.0, 10.0, 10.0, 10.0], 100.0, 3),  # 90 + 10 are one consumer's
        ([90.0, 20.0, 10.0, 10.0, 10.0, 10.0], 100.0, 6),  # 90 + 20 may be
        ([10.0, 10.0, 10.0, 10.0, 20.0, 90.0], 100.0, 6),  # whichever they are
        ([110.0, 1.0, 1.0, 1.0, 1.0, 1.0], 100.0, None),  # one is too much for any number of consumers
        ([70.0, 30.0, 0.0, 0.0, 0.0, 0.0, 0.0], 100.0, 1),
        ([50.0, *[0.5] * 99], 100.0, 1),
        ([50.0, *[1.0] * 99], 100.0, 2),
        ([99.0, *[1.0] * 99], 100.0, 50),
    ],
)
def test_needed_counts_with_the_heaviest_partitions_on_one_consumer(
    loads: list[float], rate: float, count: int | None
) -> None:
    assert needed(loads, rate) == count


@pytest.mark.parametrize(
    ("rates", "replicas", "of_busiest"),
    [
        ({0: 5.0}, 1, 5.0),
        (dict.fromkeys(range(6), 5.0), 2, 15.0),
        (dict.fromkeys(range(6), 5.0), 4, 10.0),
        (dict.fromkeys(range(7), 5.0), 2, 20.0),
        (dict.fromkeys(range(100), 5.0), 33, 20.0),
        ({0: 40.0, 1: 10.0, 2: 30.0, 3: 20.0}, 2, 70.0),
        ({0: 40.0, 1: 10.0}, 0, 50.0),
        ({}, 3, 0.0),
    ],
)
def test_without_owners_the_busiest_has_the_heaviest_of_its_share(
    rates: dict[int, float], replicas: int, of_busiest: float
) -> None:
    assert busiest(rates, replicas, None) == of_busiest


def test_with_owners_the_busiest_is_who_has_most() -> None:
    rates = {0: 40.0, 1: 10.0, 2: 30.0, 3: 20.0}
    assert busiest(rates, 2, {0: "a", 1: "a", 2: "b", 3: "b"}) == 50.0
    assert busiest(rates, 2, {0: "a", 1: "b", 2: "a", 3: "b"}) == 70.0


def test_owners_of_partitions_that_do_not_count_do_not_matter() -> None:
    assert busiest({0: 40.0}, 2, {0: "a", 1: "b"}) == 40.0


def test_where_a_partition_has_no_owner_the_worst_spread_counts() -> None:
    assert busiest({0: 40.0, 1: 10.0, 2: 30.0}, 2, {0: "a", 1: "b"}) == 70.0
    assert busiest({0: 40.0, 1: 10.0, 2: 30.0}, 2, {}) == 70.0


def test_totals_are_sums_by_name() -> None:
    assert totals([("a", 1.0), ("b", 2.0), ("a", 3.0)]) == {"a": 4.0, "b": 2.0}
    assert totals([]) == {}
