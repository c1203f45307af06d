"""Kubernetes' own API is away: clients of FlowAggregator notice nothing."""

from collections.abc import Callable

from tests.e2e.release import Release
from tests.e2e.target import Node
from tests.e2e.traffic import Traffic

AWAY_SECONDS = 20.0
AFTER_SECONDS = 10.0


def test_no_request_fails_for_an_api_server_that_is_away(
    release: Release, node: Node, load: Callable[..., Traffic]
) -> None:
    with load(posts=20, gets=20, pooled=False) as traffic:
        traffic.wait_flowing()
        with node.api_server_stopped() as since:
            traffic.watch(AWAY_SECONDS)
        traffic.watch(AFTER_SECONDS)
        release.wait_healthy()
    print(traffic.record.summary())
    assert traffic.record.failures(since) == []
