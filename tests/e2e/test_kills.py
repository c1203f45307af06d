"""Kafka, Redis, consumers, the operator and the gateway lose a pod: all goes on by itself, and totals stay exact."""

import signal
import time
from base64 import b64decode
from collections.abc import Callable

from tests.e2e.release import Release
from tests.e2e.target import Node
from tests.e2e.traffic import Traffic

SENTINEL_PORT = "26379"
BACK_SECONDS = 90.0


def test_a_consumer_is_killed(release: Release, node: Node, load: Callable[..., Traffic]) -> None:
    with load() as traffic:
        traffic.wait_flowing()
        pod = min(release.pods.names("consumer"))
        release.pods.signal(node, pod, signal.SIGKILL)
        traffic.watch(15)
        release.kube.delete("pod", pod)
        release.wait_healthy()
    assert traffic.record.failures() == []


def test_the_redis_master_is_killed(release: Release, node: Node, load: Callable[..., Traffic]) -> None:
    with load() as traffic:
        traffic.wait_flowing()
        master = redis_master(release)
        began = time.monotonic()
        release.pods.signal(node, master, signal.SIGKILL, container="redis")
        traffic.watch(20)
        release.wait_healthy()
        print(f"GET: longest time without a 200: {traffic.record.gap('GET', began, began + 20):.2f} s")
    assert [one for one in traffic.record.failures() if one.method == "POST"] == []


def test_a_broker_is_killed(release: Release, node: Node, load: Callable[..., Traffic]) -> None:
    broker = f"{release.fullname}-kafka-0"
    with load() as traffic:
        traffic.wait_flowing()
        began = time.monotonic()
        release.pods.signal(node, broker, signal.SIGKILL)
        back = traffic.wait_flowing(BACK_SECONDS)
        release.wait_healthy()
    print(f"200 again after {back - began:.1f} s; {traffic.record.summary()}")
    assert [one for one in traffic.record.failures() if one.method == "GET"] == []


def test_the_acting_operator_is_killed(release: Release, node: Node, load: Callable[..., Traffic]) -> None:
    lease = f"{release.fullname}-operator"

    def holder() -> str:
        return str(release.kube.get("lease", lease)["spec"].get("holderIdentity", ""))

    pods = release.kube.names("pods", {"app.kubernetes.io/component": "operator"} | release.chart_labels)
    [acting] = [pod for pod in pods if holder().startswith(pod)]
    with load() as traffic:
        traffic.wait_flowing()
        release.pods.signal(node, acting, signal.SIGKILL)
        release.kube.delete("pod", acting, at_once=True)
        release.wait(lambda: not holder().startswith(acting), "another operator acts", 60)
        release.kube.delete("deployment", f"{release.fullname}-consumer", wait=True)
        release.wait(lambda: bool(release.pods.of("consumer")), "the other one repairs", 60)
        release.wait_healthy()
    assert [one for one in traffic.record.failures() if one.method == "POST"] == []


def test_a_gateway_pod_goes(release: Release, load: Callable[..., Traffic]) -> None:
    pods = sorted(release.kube.names("pods", {"app.kubernetes.io/component": "gateway"} | release.chart_labels))
    assert len(pods) == 2
    with load() as traffic:
        traffic.wait_flowing()
        release.kube.delete("pod", pods[0])
        release.wait_healthy()
        traffic.watch(3)
    print(traffic.record.summary())
    assert traffic.record.uncured() == []


def redis_master(release: Release) -> str:
    """Name of the pod that the sentinels call the master."""
    secret = release.kube.get("secret", f"{release.fullname}-redis-auth")["data"]["password"]
    password = f"REDISCLI_AUTH={b64decode(secret).decode()}"
    command = ("env", password, "redis-cli", "-p", SENTINEL_PORT, "sentinel", "get-master-addr-by-name", "main")
    said = release.kube.exec(f"{release.fullname}-redis-0", *command, container="sentinel")
    return said.split()[0].split(".")[0]
