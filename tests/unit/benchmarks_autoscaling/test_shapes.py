"""The shapes are data, and the same for all from a seed."""

import pytest

from benchmarks.autoscaling.flink import Flink
from benchmarks.autoscaling.keda import Keda
from benchmarks.autoscaling.shapes import RATE, Shape, arrivals, failures, shapes, spread
from benchmarks.autoscaling.timeline import run


def named(name: str, seed: int = 1) -> Shape:
    return next(shape for shape in shapes(seed) if shape.name == name)


def test_a_shape_replays_exactly_from_its_seed() -> None:
    assert shapes(4) == shapes(4) != shapes(5)
    shape = named("bursts on a base", 4)
    assert arrivals(shape, 4) == arrivals(shape, 4) != arrivals(shape, 5)
    assert spread(shape, 4, 6) == spread(shape, 4, 6)
    assert run(shape, Keda(), 4) == run(shape, Keda(), 4)


def test_all_policies_get_the_same_arrivals() -> None:
    shape = named("step 0.3 to 0.6")
    assert run(shape, Keda(), 1).arrived == run(shape, Flink(), 1).arrived


def test_names_are_unique() -> None:
    names = [shape.name for shape in shapes(1)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("shape", [shape for shape in shapes(1) if shape.constant or shape.steps])
def test_where_a_bar_counts_the_partitions_can_hold_the_load(shape: Shape) -> None:
    assert max(rate for _, rate in shape.rates) <= 0.9 * shape.partitions * RATE + 1e-6


@pytest.mark.parametrize(("second", "rate"), [(0, 1_000.0), (50, 1_500.0), (99, 1_990.0), (100, 500.0), (150, 500.0)])
def test_rates_are_straight_lines_and_steps(second: int, rate: float) -> None:
    shape = Shape("lines", 200, ((0, 1_000.0), (100, 2_000.0), (100, 500.0), (200, 500.0)))
    assert arrivals(shape, 1)[second] == pytest.approx(rate, rel=0.05)


def test_weights_are_kept_but_for_some_unevenness() -> None:
    weights = spread(named("skewed, one has 40 %"), 1, 6)
    assert sum(weights) == pytest.approx(1)
    assert weights[0] == pytest.approx(0.4, rel=0.1)


def test_an_outage_fails_every_look_up_and_a_share_about_as_many() -> None:
    assert all(failures(Shape("out", 300, ((0, 0.0),), outages=((100, 200),)), 1)[100:200])
    assert sum(failures(Shape("some", 10_000, ((0, 0.0),), failing=0.2), 1)) == pytest.approx(2_000, rel=0.1)
