"""The operator's decisions keep their promises on every load of the comparison."""

import pytest
from flowagg_operator.lag import History

from benchmarks.autoscaling.ours import Ours
from benchmarks.autoscaling.report import BAR_CHANGES, BAR_RECOVERY_SECONDS, score
from benchmarks.autoscaling.shapes import Shape, shapes
from benchmarks.autoscaling.timeline import run

SEED = 7


@pytest.mark.parametrize("shape", shapes(SEED), ids=lambda shape: shape.name)
def test_promises_hold_on(shape: Shape) -> None:
    found = score(run(shape, Ours(), SEED))
    assert found.violations == 0, "more than partitions, fewer than the minimum, or fewer while late"
    if shape.constant:
        assert found.busiest_hour <= BAR_CHANGES
    if found.recovery_seconds is not None:
        assert found.recovery_seconds <= BAR_RECOVERY_SECONDS


def test_the_same_load_is_decided_alike() -> None:
    shape = next(shape for shape in shapes(SEED) if shape.name == "ramp up and down")
    assert run(shape, Ours(), SEED).changes == run(shape, Ours(), SEED).changes


def test_a_policy_starts_with_nothing_known() -> None:
    assert Ours().state.rate_per_consumer is None
    assert Ours()._history == History()
