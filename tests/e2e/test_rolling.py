"""A rolling update of each service: no failure that one retry does not cure."""

from collections.abc import Callable

import pytest

from tests.e2e.pods import SERVICES
from tests.e2e.release import Release
from tests.e2e.traffic import Traffic

CHANGE = {"env": [{"name": "FLOWAGG_LOG_LEVEL", "value": "warning"}]}


@pytest.mark.parametrize("service", SERVICES)
def test_a_rolling_update_costs_at_most_one_retry(release: Release, load: Callable[..., Traffic], service: str) -> None:
    before = release.pods.names(service)
    with load(posts=20, gets=20) as traffic:
        traffic.wait_flowing()
        release.patch({service: CHANGE})
        release.wait(lambda: not before & release.pods.names(service), "new pods", 120)
        release.wait_healthy()
        traffic.watch(3)
        release.patch({service: {"env": None}})
        release.wait_healthy()
    print(traffic.record.summary())
    assert traffic.record.uncured() == []
