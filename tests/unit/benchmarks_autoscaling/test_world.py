"""The modelled group: it loses and invents no record, and moves only what must move."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from benchmarks.autoscaling.shapes import RATE, Shape, shapes
from benchmarks.autoscaling.world import World

PLAIN = Shape("plain", 600, ((0, 30_000.0), (600, 30_000.0)))


def ticked(world: World, seconds: int) -> World:
    for _ in range(seconds):
        world.tick()
    return world


@pytest.mark.parametrize("restarts_all", [False, True])
@pytest.mark.parametrize("name", ["constant 0.5", "dead partition", "slow sink", "growth, 6 to 12 partitions"])
def test_records_are_neither_lost_nor_invented(name: str, restarts_all: bool) -> None:
    shape = next(shape for shape in shapes(3) if shape.name == name)
    world = World(shape, 3, 1, restarts_all=restarts_all)
    chance = random.Random(5)
    before = [0.0] * 12
    for second in range(shape.seconds):
        if chance.random() < 0.01:
            world.scale(chance.randrange(0, 9))
        world.tick()
        if second % 20 == 0:
            assert sum(world.produced) == pytest.approx(sum(world.arrivals[: second + 1]))
            assert all(a <= p + 1e-6 for a, p in zip(world.applied, world.produced, strict=True))
            assert all(c <= a + 1e-6 for c, a in zip(world.committed, world.applied, strict=True))
            assert all(now >= was for now, was in zip(world.applied, before, strict=False))
            before = list(world.applied)


def test_what_is_applied_is_what_the_consumers_say_they_applied() -> None:
    world = ticked(World(PLAIN, 1, 2), 300)
    assert sum(world.look().applied.values()) == pytest.approx(sum(world.applied))


@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 5, 6, 8])
def test_partitions_are_spread_evenly_and_each_has_one_owner(replicas: int) -> None:
    world = ticked(World(PLAIN, 1, replicas), 60)
    owners = world.look().owners
    assert sorted(owners) == list(range(6))
    counts = [list(owners.values()).count(name) for name in set(owners.values())]
    assert len(counts) == min(replicas, 6)
    assert max(counts) - min(counts) <= 1


def test_a_pod_counts_when_it_has_started_and_works_when_the_group_is_stable_again() -> None:
    world = World(PLAIN, 1, 1)
    seen = ticked(world, 5).look()
    assert (seen.replicas, seen.updated, seen.ready, seen.members, seen.state) == (1, 1, 0, 0, "Empty")
    while world.look().state == "Empty":
        world.tick()
    assert 8 <= world.at - 1 <= 12
    assert world.look().state == "PreparingRebalance"
    assert sum(world.applied) == 0
    seen = ticked(world, 3).look()
    assert (seen.state, seen.ready, seen.members) == ("Stable", 1, 1)
    assert sum(world.applied) == pytest.approx(RATE, rel=0.03)


def test_only_partitions_that_move_rest() -> None:
    world = ticked(World(replace(PLAIN, rebalance_seconds=20), 1, 2), 120)
    world.scale(1)
    before = list(world.applied)
    ticked(world, 5)
    moved = [p for p in range(6) if world.applied[p] == before[p]]
    assert len(moved) == 3
    assert sorted(world.look().owners) == sorted(set(range(6)) - set(moved))
    assert world.look().state == "PreparingRebalance"


def test_with_a_restart_of_all_everything_rests_but_not_before_the_new_pods_are_there() -> None:
    world = ticked(World(replace(PLAIN, rebalance_seconds=20), 1, 2, restarts_all=True), 120)
    world.scale(4)
    before = list(world.applied)
    ticked(world, 5)
    assert all(now > was for now, was in zip(world.applied, before, strict=True))
    assert world.look().members == 2
    ticked(world, 8)
    before = list(world.applied)
    ticked(world, 5)
    assert world.applied == before
    assert world.look().members == 4


def test_a_commit_is_seen_only_each_commit_interval() -> None:
    world = ticked(World(replace(PLAIN, commit_seconds=30), 1, 1), 60)
    committed = [ticked(world, 1).look().committed for _ in range(120)]
    assert sum(one != two for one, two in pairwise(committed)) == 4


def test_nothing_is_committed_before_the_first_commit() -> None:
    assert ticked(World(PLAIN, 1, 0), 30).look().committed == (-1,) * 6


def test_a_dead_partition_is_owned_but_stands_still_and_is_no_lag() -> None:
    world = ticked(World(replace(PLAIN, dead=(2, 100)), 1, 3), 100)
    before = world.applied[2]
    ticked(world, 100)
    assert world.applied[2] == before
    assert 2 in world.look().owners
    assert world.behind == pytest.approx(sum(world.produced) - sum(world.applied) - (world.produced[2] - before))


def test_a_slow_sink_bounds_all_together() -> None:
    world = ticked(World(replace(PLAIN, sink=(100, 200, 12_000.0)), 1, 6), 100)
    before = sum(world.applied)
    ticked(world, 50)
    assert sum(world.applied) - before <= 50 * 12_000.0 + 1e-6


def test_a_failed_look_up_tells_of_the_deployment_only() -> None:
    seen = ticked(World(replace(PLAIN, outages=((50, 60),)), 1, 2), 55).look()
    assert seen.failed
    assert (seen.replicas, seen.ready) == (2, 2)
    assert (seen.partitions, seen.committed, seen.high, seen.members) == (0, (), (), 0)


def test_a_run_replays_from_its_seed() -> None:
    one, two, other = (ticked(World(PLAIN, seed, 2), 300) for seed in (7, 7, 8))
    assert one.applied == two.applied
    assert one.applied != other.applied
