"""The topic grows with the FlowAggregator, and never shrinks."""

from collections.abc import Callable

import pytest

from tests.e2e.kube import KubectlFailed
from tests.e2e.release import Release
from tests.e2e.traffic import Traffic

MORE = 8


def test_partitions_grow_under_load(release: Release, load: Callable[..., Traffic]) -> None:
    before = release.custom_resource()["spec"]["kafka"]["topic"]["partitions"]
    assert before < MORE
    with load() as traffic:
        traffic.wait_flowing()
        release.upgrade({"flowAggregator": {"topic": {"partitions": MORE}}}, keep=True)
        release.wait(lambda: release.custom_resource()["status"].get("partitions") == MORE, "more partitions", 90)
        release.wait_healthy()
        traffic.watch(10)
    assert [one for one in traffic.record.failures() if one.method == "POST"] == []


def test_fewer_partitions_are_refused(release: Release) -> None:
    now = release.custom_resource()["spec"]["kafka"]["topic"]["partitions"]
    with pytest.raises(KubectlFailed, match="partition"):
        release.patch({"kafka": {"topic": {"partitions": now - 1}}})
