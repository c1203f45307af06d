"""helm uninstall takes all away but the data, and the data serves the next install."""

import time

from tests.e2e.conftest import INSTALL_SECONDS, Installed, first_answers
from tests.e2e.traffic import Traffic, verify

IGNORED = ("events", "events.events.k8s.io", "pods.metrics.k8s.io")
GIVEN = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
"""What each namespace has anyway."""
GONE_SECONDS = 90.0


def leftovers(installed: Installed) -> set[str]:
    """What is in the namespace beside volumes and what each namespace has."""
    found = installed.release.kube.everything(IGNORED) - GIVEN
    return {one for one in found if not one.startswith("persistentvolumeclaim/")}


def test_uninstall_leaves_the_volumes_alone_and_nothing_else(installed: Installed) -> None:
    release = installed.release
    release.wait_healthy()
    with Traffic(release.target) as traffic:
        traffic.wait_flowing()
        traffic.watch(3)
    volumes = release.kube.names("pvc")
    assert volumes, "nothing to keep: persistence is off"
    release.uninstall()
    release.wait(lambda: not leftovers(installed), "nothing is left", GONE_SECONDS, lambda: str(leftovers(installed)))
    assert release.kube.names("pvc") == volumes
    cluster_wide = ("clusterroles", "clusterrolebindings", "validatingwebhookconfigurations", "ingressclasses")
    for kind in cluster_wide:
        assert release.kube.list(kind, release.chart_labels) == []

    release.install()
    first_answers(release.target, time.monotonic() + INSTALL_SECONDS)
    release.wait_healthy()
    verify(release.target, traffic.ledger)
