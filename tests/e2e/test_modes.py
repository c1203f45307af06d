"""ActiveActive as a setting: to it and back under load."""

from collections.abc import Callable

import pytest

from tests.e2e.pods import ELECTED
from tests.e2e.release import Release
from tests.e2e.traffic import Traffic

SWITCH_SECONDS = 90.0


def addresses(release: Release, component: str) -> list[str]:
    """All addresses that the Service leads to, over all its slices."""
    labels = {"kubernetes.io/service-name": f"{release.fullname}-{component}"}
    slices = release.kube.list("endpointslices", labels)
    return sorted(
        address for one in slices for endpoint in one.get("endpoints") or [] for address in endpoint["addresses"]
    )


@pytest.mark.parametrize("component", ELECTED)
def test_active_active_and_back(release: Release, load: Callable[..., Traffic], component: str) -> None:
    def pod_addresses() -> list[str]:
        return sorted(pod["status"].get("podIP", "") for pod in release.pods.of(component))

    def leads_to_all() -> bool:
        return addresses(release, component) == pod_addresses()

    def leads_to_one() -> bool:
        return len(addresses(release, component)) == 1

    with load() as traffic:
        traffic.wait_flowing()
        with release.patched({component: {"mode": "ActiveActive"}}):
            release.wait(leads_to_all, f"{component}: every pod takes part", SWITCH_SECONDS)
            release.wait_healthy()
            traffic.watch(3)
        release.wait(leads_to_one, f"{component}: one pod takes part", SWITCH_SECONDS)
        release.wait_healthy()
        traffic.wait_flowing()
    print(traffic.record.summary())
    assert traffic.record.uncured() == []
