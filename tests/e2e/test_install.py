"""helm install on an empty namespace gives a working system."""

from collections.abc import Callable

import pytest

from tests.e2e.conftest import Installed
from tests.e2e.pods import ELECTED, SERVICES, is_ready
from tests.e2e.release import Release
from tests.e2e.traffic import Traffic

BAR_SECONDS = 90.0
"""From helm install to the first POST answered with 200 and the right totals read back, images present. It takes a
sixth of that on two cores."""


def test_the_first_right_answers_come(installed: Installed) -> None:
    if installed.seconds is None:
        pytest.skip("E2E_KEEP: an earlier session has installed it")
    print(f"helm install to the first 200 POST and right GET: {installed.seconds:.1f} s")
    assert installed.seconds <= BAR_SECONDS


def test_totals_are_exact_under_load(load: Callable[..., Traffic]) -> None:
    with load(posts=25, gets=25) as traffic:
        traffic.wait_flowing()
        traffic.watch(10)
    print(traffic.record.summary())
    assert traffic.record.failures() == []


def test_all_pods_are_ready_and_none_has_restarted(release: Release) -> None:
    pods = release.kube.list("pods")
    assert [pod["metadata"]["name"] for pod in pods if not is_ready(pod)] == []
    for component, count in {"writer": 2, "reader": 2, "consumer": 1}.items():
        assert len(release.pods.names(component)) == count
    for component in SERVICES:
        for pod in release.pods.of(component):
            assert [one["restartCount"] for one in pod["status"]["containerStatuses"]] == [0], pod["metadata"]["name"]


def test_each_slice_leads_to_the_pod_that_holds_the_lease(release: Release) -> None:
    for component in ELECTED:
        active = release.pods.active(component)
        assert active in release.pods.names(component)
        assert release.pods.holder(component).startswith(active)


def test_kubectl_get_fa_reads_well(release: Release) -> None:
    heading, line = release.kube.run("get", "fa").splitlines()
    assert heading.split() == ["NAME", "READY", "REASON", "DESIRED", "CONSUMERS", "LAG", "AGE"]
    name, ready, _, desired, consumers, lag, _ = line.split()
    assert (name, ready, desired, consumers) == (release.fullname, "True", "1", "1")
    assert lag.isdecimal()


def test_helm_test_passes(release: Release) -> None:
    print(release.test())
