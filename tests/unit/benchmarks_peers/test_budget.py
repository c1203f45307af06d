"""The budget of the hot loops: its arithmetic and its table."""

import pytest

from benchmarks.peers.budget import Budget, table

BUDGET = Budget("writer", "a flow", [("decode", 0.2), ("produce", 0.8)], [("decode", 0.2), ("rest", 2.3)], (1.0, 0.5))


def test_the_ratio_is_of_all_steps_to_the_whole_floor() -> None:
    assert BUDGET.ratio == pytest.approx(2.5)


def test_the_table_shows_each_step_with_its_share_and_the_floor_with_what_it_is_made_of() -> None:
    lines = table(BUDGET).splitlines()
    assert lines[0] == "writer: us of CPU a flow"
    assert [line.split() for line in lines[1:4]] == [
        ["decode", "0.200", "8%"],
        ["rest", "2.300", "92%"],
        ["in", "all", "2.500"],
    ]
    assert " ".join(lines[4].split()) == "floor: decode + produce 1.000 2.50 times the floor"
    assert lines[5].strip() == "Redis meanwhile 1.000, at the floor 0.500"
