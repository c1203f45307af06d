"""Two writers and the Lease between them, on a real Kubernetes API server: hand-overs, measured.

etcd and kube-apiserver run as plain processes; there is no node and no kube-proxy. A client here reads the
EndpointSlice for each request and goes where it leads, on a new connection as the gateway does.
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from flowagg.kubernetes import KubernetesError, Object, path
from flowagg_stack.processes import Processes
from flowagg_stack.services import Service, start_service

from tests.conftest import Place
from tests.integration.api_server import NEEDS_API_SERVER, ApiServer, running
from tests.integration.tools import wait_for

pytestmark = NEEDS_API_SERVER

NAMESPACE = "flows"
NAME = "main-writer"
LEASES = path("coordination.k8s.io/v1", "leases", NAMESPACE)
SLICES = path("discovery.k8s.io/v1", "endpointslices", NAMESPACE)
USER = f"system:serviceaccount:{NAMESPACE}:{NAME}"
FLOW = [{"src_app": "a", "dest_app": "b", "vpc_id": "v", "hour": 1, "bytes_tx": 1, "bytes_rx": 2}]


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    directory = tmp_path_factory.mktemp("kubernetes")
    with running(directory, f'pod,{USER},pod,"system:serviceaccounts"') as server:
        api = server.administrator
        (directory / "token").write_text("pod\n", encoding="utf-8")
        api.create(path("v1", "namespaces"), {"metadata": {"name": NAMESPACE}})
        rules = [
            {"apiGroups": [group], "resources": [kind], "resourceNames": [NAME], "verbs": ["get", "watch", "update"]}
            for group, kind in (("coordination.k8s.io", "leases"), ("discovery.k8s.io", "endpointslices"))
        ]
        rbac = "rbac.authorization.k8s.io"
        api.create(path(f"{rbac}/v1", "roles", NAMESPACE), {"metadata": {"name": NAME}, "rules": rules})
        subjects = [{"kind": "User", "apiGroup": rbac, "name": USER}]
        role = {"apiGroup": rbac, "kind": "Role", "name": NAME}
        bindings = path(f"{rbac}/v1", "rolebindings", NAMESPACE)
        api.create(bindings, {"metadata": {"name": NAME}, "subjects": subjects, "roleRef": role})
        yield server


class Pods:
    """Writers as if in pods of their own, and what the API server says of them."""

    def __init__(self, processes: Processes, place: Place, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api = server.administrator
        self._processes, self._place, self._server = processes, place, server
        self._services: dict[str, Service] = {}
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        self.api.create(LEASES, {"metadata": {"name": NAME}})
        self.api.create(
            SLICES,
            {
                "metadata": {"name": NAME, "labels": {"kubernetes.io/service-name": NAME}},
                "addressType": "IPv4",
                "endpoints": [],
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            },
        )

    def start(
        self,
        pod: str,
        address: str,
        api_port: int | None = None,
        service_account: Path | None = None,
        component: str = "writer",
    ) -> Service:
        self._monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api_port or self._server.port))
        election = {
            "FLOWAGG_ELECTION_LEASE": NAME,
            "FLOWAGG_ELECTION_ENDPOINT_SLICES": NAME,
            "FLOWAGG_ELECTION_NAMESPACE": NAMESPACE,
            "FLOWAGG_POD_NAME": pod,
            "FLOWAGG_POD_UID": f"uid-of-{pod}",
            "FLOWAGG_POD_IPS": address,
            "FLOWAGG_NODE_NAME": "node",
            "FLOWAGG_SERVICE_ACCOUNT_DIRECTORY": str(service_account or self._server.directory),
        }
        service = start_service(self._processes, component, self._place.environment | election, pod)
        service.wait_ready()
        self._services[address] = service
        return service

    def start_two(self) -> tuple[Service, Service]:
        """The active one first."""
        first = self.start("writer-a", "10.1.0.1")
        wait_for(lambda: self.active() == "writer-a", "writer-a is active")
        return first, self.start("writer-b", "10.1.0.2")

    def lease(self) -> Object:
        found: Object = self.api.get(f"{LEASES}/{NAME}")["spec"]
        return found

    def endpoints(self) -> list[Object]:
        return self.api.get(f"{SLICES}/{NAME}")["endpoints"] or []

    def active(self) -> str | None:
        """The pod that the slice leads to."""
        names = [endpoint["targetRef"]["name"] for endpoint in self.endpoints()]
        return names[0] if names else None

    def url(self) -> str:
        """Where the Service leads to."""
        (endpoint,) = self.endpoints()
        return self._services[endpoint["addresses"][0]].url


@pytest.fixture
def pods(processes: Processes, place: Place, api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pods]:
    yield Pods(processes, place, api_server, monkeypatch)
    for collection in (LEASES, SLICES):
        api_server.administrator.delete(f"{collection}/{NAME}")


class Traffic:
    """POSTs one after the other, each on a connection of its own to where the slice leads."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods
        self._stop = threading.Event()
        self.outcomes: list[tuple[float, bool]] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        wait_for(lambda: any(good for _, good in self.outcomes), "a POST is answered")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                good = httpx.post(f"{self._pods.url()}/flows", json=FLOW, timeout=0.5).status_code == 200
            except httpx.HTTPError:
                good = False
            self.outcomes.append((time.monotonic(), good))

    def gap_seconds(self, since: float) -> float:
        """The longest time between two good answers, from since on."""
        moments = [since, *(moment for moment, good in self.outcomes if good and moment >= since)]
        return max(later - earlier for earlier, later in pairwise(moments))

    def failures(self, since: float) -> int:
        return sum(not good for moment, good in self.outcomes if moment >= since)


def metric(service: Service, name: str) -> float:
    lines = httpx.get(f"{service.url}/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(name + " ")), 0.0)


def hand_over(pods: Pods, number: signal.Signals, active: Service) -> tuple[float, float, int]:
    """Signal the active writer; seconds to the slice's change, the longest gap between good answers, failures."""
    with Traffic(pods) as traffic:
        since = time.monotonic()
        os.kill(active.child.process.pid, number)
        wait_for(lambda: pods.active() == "writer-b", "writer-b is active", 20)
        took = time.monotonic() - since
        wait_for(lambda: traffic.outcomes[-1][0] > since + took + 2.5 and traffic.outcomes[-1][1], "POSTs are answered")
    print(
        f"\n{number.name}: slice {took:.3f} s, gap {traffic.gap_seconds(since):.3f} s, {traffic.failures(since)} failed"
    )
    return took, traffic.gap_seconds(since), traffic.failures(since)


def test_one_writer_is_active_and_the_others_stand_by_ready(pods: Pods) -> None:
    first, second = pods.start_two()
    assert (metric(first, "flowagg_active"), metric(second, "flowagg_active")) == (1, 0)
    assert pods.lease()["holderIdentity"] == "writer-a"
    (endpoint,) = pods.endpoints()
    assert endpoint["addresses"] == ["10.1.0.1"]
    assert endpoint["conditions"] == {"ready": True, "serving": True, "terminating": False}
    assert endpoint["nodeName"] == "node"
    assert endpoint["targetRef"] == {
        "kind": "Pod",
        "namespace": NAMESPACE,
        "name": "writer-a",
        "uid": "uid-of-writer-a",
    }
    assert httpx.post(f"{first.url}/flows", json=FLOW).headers.get("connection") != "close"
    reply = httpx.post(f"{second.url}/flows", json=FLOW)
    assert (reply.status_code, reply.headers["connection"]) == (200, "close"), "a standby serves, and sends away"


def test_readers_take_part_as_writers_do(pods: Pods) -> None:
    reader = pods.start("reader-a", "10.1.0.1", component="reader")
    wait_for(lambda: pods.active() == "reader-a", "reader-a is active")
    assert metric(reader, "flowagg_active") == 1


def test_a_writer_that_may_not_elect_serves_and_says_why(pods: Pods, api_server: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("nobody's", encoding="utf-8")
    (tmp_path / "ca.crt").write_bytes((api_server.directory / "ca.crt").read_bytes())
    writer = pods.start("writer-a", "10.1.0.1", service_account=tmp_path)
    wait_for(lambda: metric(writer, 'flowagg_election_failures_total{reason="forbidden"}') > 0, "it is counted")
    assert "Unauthorized" in writer.child.log.read_text(encoding="utf-8")
    assert httpx.post(f"{writer.url}/flows", json=FLOW).status_code == 200
    assert metric(writer, "flowagg_active") == 0
    # As soon as it may, it does: a token is read again when its file changes.
    (tmp_path / "token").write_bytes((api_server.directory / "token").read_bytes())
    wait_for(lambda: pods.active() == "writer-a", "writer-a is active", 10)


def test_an_active_writer_that_is_told_to_end_hands_over_without_a_failed_request(pods: Pods) -> None:
    first, _ = pods.start_two()
    took, gap, failures = hand_over(pods, signal.SIGTERM, first)
    assert failures == 0
    assert took < 1
    assert gap < 1
    wait_for(lambda: first.child.ended, "writer-a has ended", 20)
    assert first.child.process.returncode == 0
    assert pods.lease()["leaseTransitions"] == 1


def test_a_killed_writer_is_replaced_within_the_lease_and_a_second_and_a_half(pods: Pods) -> None:
    first, _ = pods.start_two()
    took, gap, _ = hand_over(pods, signal.SIGKILL, first)
    assert took < 4.5
    assert gap < 4.5


def test_a_stopped_writer_is_replaced_and_stands_by_once_it_goes_on(pods: Pods) -> None:
    first, second = pods.start_two()
    with httpx.Client(base_url=first.url, timeout=20) as pooled:
        pooled.post("/flows", json=FLOW).raise_for_status()
        took, gap, _ = hand_over(pods, signal.SIGSTOP, first)
        assert took < 4.5
        assert gap < 6
        os.kill(first.child.process.pid, signal.SIGCONT)
        wait_for(lambda: metric(first, "flowagg_active") == 0, "writer-a stands by", 5)
        reply = pooled.post("/flows", json=FLOW)  # httpx opens a new connection where the old one was closed
        assert reply.headers["connection"] == "close"
    assert pods.active() == "writer-b"
    assert metric(second, "flowagg_active") == 1


def test_a_writer_without_a_successor_ends_in_bounded_time(pods: Pods) -> None:
    only = pods.start("writer-a", "10.1.0.1")
    wait_for(lambda: pods.active() == "writer-a", "writer-a is active")
    since = time.monotonic()
    os.kill(only.child.process.pid, signal.SIGTERM)
    only.child.process.wait(10)
    assert time.monotonic() - since < 6
    assert only.child.process.returncode == 0
    assert pods.lease().get("holderIdentity", "") == ""
    assert pods.active() == "writer-a", "the slice is never emptied"


def test_a_standby_that_is_told_to_end_does_so_at_once(pods: Pods) -> None:
    _, second = pods.start_two()
    since = time.monotonic()
    os.kill(second.child.process.pid, signal.SIGTERM)
    second.child.process.wait(10)
    assert time.monotonic() - since < 2
    assert second.child.process.returncode == 0
    assert pods.active() == "writer-a"


def test_a_slice_that_somebody_changed_is_written_again(pods: Pods) -> None:
    pods.start_two()
    stranger = {"addresses": ["10.1.0.9"], "conditions": {"ready": True}}
    since = time.monotonic()
    pods.api.merge(f"{SLICES}/{NAME}", {"endpoints": [stranger]})
    wait_for(lambda: pods.active() == "writer-a" if _is_pod(pods) else False, "the slice leads to writer-a again", 5)
    print(f"\ndrift: {time.monotonic() - since:.3f} s")


def _is_pod(pods: Pods) -> bool:
    return all("targetRef" in endpoint for endpoint in pods.endpoints())


def test_a_deleted_lease_changes_nobody_and_is_taken_up_again(pods: Pods) -> None:
    pods.start_two()
    pods.api.delete(f"{LEASES}/{NAME}")
    pods.api.create(LEASES, {"metadata": {"name": NAME}})
    wait_for(lambda: pods.lease().get("holderIdentity") == "writer-a", "writer-a holds the new lease", 10)
    assert pods.active() == "writer-a"


def test_an_api_server_that_is_stopped_for_longer_than_the_lease_changes_nobody(
    pods: Pods, api_server: ApiServer
) -> None:
    first, second = pods.start_two()
    os.kill(api_server.child.process.pid, signal.SIGSTOP)
    try:
        until = time.monotonic() + 6
        with httpx.Client(base_url=first.url) as client:
            while time.monotonic() < until:
                reply = client.post("/flows", json=FLOW)
                assert (reply.status_code, reply.headers.get("connection")) == (200, None), "it is active still"
    finally:
        os.kill(api_server.child.process.pid, signal.SIGCONT)
    before = wait_for(lambda: _renewed(pods), "the API server answers", 20)
    wait_for(lambda: _renewed(pods) not in (None, before), "writer-a renews again", 10)
    assert pods.lease()["leaseTransitions"] == 0
    assert (metric(first, "flowagg_active"), metric(second, "flowagg_active")) == (1, 0)


def _renewed(pods: Pods) -> str | None:
    try:
        renewed: str = pods.lease()["renewTime"]
    except KubernetesError:
        return None
    return renewed


class SlowWay:
    """A way to the API server by which every answer, that of a handshake too, takes so many seconds longer."""

    def __init__(self, port: int, seconds: float) -> None:
        self._to, self._seconds = port, seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> int:
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = server.result(5)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, far_writer, 0.0))
                tasks.create_task(self._pass(far_reader, writer, self._seconds))
        except* OSError:
            pass
        finally:
            writer.close()
            far_writer.close()

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, seconds: float) -> None:
        """What comes in leaves as many seconds later, the end too."""
        pending = asyncio.Queue[tuple[float, bytes]]()

        async def read() -> None:
            data = b"-"
            while data:
                data = await source.read(65536)
                pending.put_nowait((self._loop.time() + seconds, data))

        async def write() -> None:
            while True:
                moment, data = await pending.get()
                await asyncio.sleep(moment - self._loop.time())
                if not data:
                    target.close()
                    return
                target.write(data)
                await target.drain()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            tasks.create_task(write())


def test_an_api_server_that_takes_a_second_to_answer_changes_nobody(pods: Pods, api_server: ApiServer) -> None:
    with SlowWay(api_server.port, 1.0) as port:
        first = pods.start("writer-a", "10.1.0.1", port)
        wait_for(lambda: pods.active() == "writer-a", "writer-a is active", 30)
        second = pods.start("writer-b", "10.1.0.2", port)
        renewals = set[str]()

        def renewed_often() -> bool:
            renewals.add(pods.lease()["renewTime"])
            return len(renewals) > 8

        wait_for(renewed_often, "renewals", 40)
        assert pods.lease()["leaseTransitions"] == 0
        assert (metric(first, "flowagg_election_transitions_total"), metric(second, "flowagg_active")) == (1, 0)
