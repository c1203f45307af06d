"""The active writer and the active reader end, die or hang: the next takes over before clients give up."""

import signal
from collections.abc import Callable

import pytest

from tests.e2e.faults import FAULTS, WATCH_SECONDS, gaps, recover, strike
from tests.e2e.pods import ELECTED
from tests.e2e.release import Release
from tests.e2e.target import Node
from tests.e2e.traffic import Traffic


@pytest.mark.parametrize("name", FAULTS)
def test_an_active_pod_is_replaced(
    release: Release, load: Callable[..., Traffic], request: pytest.FixtureRequest, name: str
) -> None:
    fault = FAULTS[name]
    node: Node | None = None if fault.number is signal.SIGTERM else request.getfixturevalue("node")
    pods = {component: release.pods.active(component) for component in ELECTED}
    with load(posts=20, gets=20, pooled=False) as traffic:
        traffic.wait_flowing()
        began, struck = strike(release, node, fault.number)
        traffic.watch(WATCH_SECONDS + 1)
        longest = gaps(traffic.record, began)
        if struck:
            recover(release, node, struck, pods)
        release.wait_healthy()
    print(f"{name}: longest time without a 200: {longest}; {traffic.record.summary()}")
    # The bars are for tests.e2e.rounds, which takes many: one round on a busy machine says little about time.
    assert {component: gap for component, gap in longest.items() if gap > WATCH_SECONDS / 2} == {}
    if fault.number is signal.SIGTERM:
        assert traffic.record.uncured() == []
