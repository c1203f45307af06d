"""kubectl scale: the operator follows, and no flow is lost or counted twice while partitions move."""

from collections.abc import Callable

from tests.e2e.release import Release
from tests.e2e.traffic import Traffic

CONSUMERS = 3


def test_kubectl_scale_moves_the_consumers(release: Release, load: Callable[..., Traffic]) -> None:
    deployment = f"{release.fullname}-consumer"

    def ready() -> int:
        return int(release.custom_resource()["status"].get("readyReplicas", 0))

    before = ready()
    with load() as traffic:
        traffic.wait_flowing()
        for count in (CONSUMERS, before):
            release.kube.run("scale", f"fa/{release.fullname}", f"--replicas={count}")
            release.wait(lambda count=count: ready() == count, f"{count} consumers", 90)  # type: ignore[misc]
            assert release.kube.get("deployment", deployment)["spec"]["replicas"] == count
            traffic.wait_flowing()
    print(traffic.record.summary())
    assert [one for one in traffic.record.failures() if one.method == "POST"] == []
