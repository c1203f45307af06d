"""helm upgrade: values change what runs, and the hook brings the CRD up to date, which Helm itself never does."""

import json
from collections.abc import Callable

from tests.e2e.release import Release
from tests.e2e.traffic import Traffic

CRD = "flowaggregators.flowaggregator.io"
COLUMNS = "/spec/versions/0/additionalPrinterColumns"


def test_an_upgrade_under_load_brings_values_and_the_crd(release: Release, load: Callable[..., Traffic]) -> None:
    columns = release.kube.get("crd", CRD)["spec"]["versions"][0]["additionalPrinterColumns"]
    old = json.dumps([{"op": "replace", "path": COLUMNS, "value": columns[:1]}])
    release.kube.run("patch", "crd", CRD, "--type=json", f"--patch={old}")  # as an older chart would have left it
    before = release.pods.names("writer")
    change = {"flowAggregator": {"writer": {"env": [{"name": "FLOWAGG_KNOWN_KEYS", "value": "99999"}]}}}
    with load(posts=20, gets=20) as traffic:
        traffic.wait_flowing()
        release.upgrade(change)
        assert release.kube.get("crd", CRD)["spec"]["versions"][0]["additionalPrinterColumns"] == columns
        release.wait(lambda: not before & release.pods.names("writer"), "new writers", 120)
        release.wait_healthy()
        release.upgrade()
        release.wait_healthy()
    print(traffic.record.summary())
    assert traffic.record.uncured() == []
    assert not release.custom_resource()["spec"]["writer"].get("env")


def test_an_upgrade_that_changes_nothing_restarts_nothing(release: Release) -> None:
    before = release.kube.names("pods")
    release.upgrade()
    release.wait_healthy()
    assert before <= release.kube.names("pods")
