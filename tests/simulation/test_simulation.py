"""A few seeds, the same seed twice, and every mutation, as tests; `make sim` runs more seeds."""

import subprocess
import sys

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.world import World, readable


@pytest.mark.parametrize("first", range(1, 61, 20))
def test_seeds_hold(first: int) -> None:
    for seed in range(first, first + 20):
        World(seed).run(400)


def test_a_seed_replays_exactly() -> None:
    traces = []
    for _ in range(2):
        world = World(7)
        world.run(400)
        traces.append(readable(world))
    assert traces[0] == traces[1]
    assert len(traces[0].splitlines()) > 100


@pytest.mark.parametrize("name", [mutation.name for mutation in MUTATIONS])
def test_a_guard_that_is_switched_off_is_noticed(name: str) -> None:
    command = [sys.executable, "-m", "tests.simulation.mutations", "--one", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
