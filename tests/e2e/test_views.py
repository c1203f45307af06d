"""Several views of one release: built from the log and as a clone, read by name, changed over to, and removed."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import httpx
import pytest
from flowagg_load.generator import Ledger

from tests.e2e.release import Release
from tests.e2e.target import Target
from tests.e2e.traffic import Traffic

FIRST, SECOND = "default", "second"
LIVE_SECONDS = 180.0
GONE_SECONDS = 240.0
_RETRIED = frozenset({502, 503, 504})


def views(release: Release, *further: dict[str, Any]) -> None:
    """Have the release keep the first view and further ones."""
    first = next(view for view in release.custom_resource()["spec"]["views"] if view["name"] == FIRST)
    release.patch({"views": [first, *further]})


def states(release: Release) -> dict[str, str]:
    """View -> its state in status, once the operator has seen the spec."""
    resource = release.custom_resource()
    if resource["status"].get("observedGeneration") != resource["metadata"]["generation"]:
        return {}
    return {view["name"]: view["state"] for view in resource["status"].get("views") or []}


def wait_states(release: Release, wanted: dict[str, str], seconds: float = LIVE_SECONDS) -> float:
    """Wait until exactly these views are there, in these states; how long it took."""

    def why() -> str:
        status = release.custom_resource()["status"]
        said = [one for one in status["conditions"] if one["type"] in ("Ready", "ViewReady")]
        return f"{status.get('views')}, {said}"

    return release.wait(lambda: states(release) == wanted, f"views {wanted}", seconds, why)


def read(client: httpx.Client, hour: int, view: str, seconds: float = 90.0) -> Any:
    """A view's fresh rows of an hour, asked for until there is an answer."""
    deadline = time.monotonic() + seconds
    while True:
        reply = client.get("/flows", params={"hour": hour, "view": view, "consistency": "strict"})
        if reply.status_code == 200:
            return reply.json()
        assert reply.status_code in _RETRIED, f"{reply.status_code}: {reply.text[:300]}"
        assert time.monotonic() < deadline, f"no fresh answer of {view} within {seconds:g} s: {reply.text[:300]}"
        time.sleep(0.2)


def verify_view(target: Target, ledger: Ledger, view: str) -> None:
    """Every hour's totals in a view equal the ledger."""
    with target.client() as client:
        for hour in ledger.hours():
            assert read(client, hour, view) == ledger.rows(hour), f"hour {hour} of view {view}"


class Steps:
    """A client that counts one flow up, and reads it again and again: a fresh answer may never show less than any
    answer before it, and none may fail. A context manager; its end raises AssertionError."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._hour = time.time_ns() // 1000
        self._ends = threading.Event()
        self._wrong: list[str] = []
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._post, self._get)]
        self.reads = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(60)
        assert self.reads > 20, f"only {self.reads} reads"
        assert not self._wrong, "; ".join(self._wrong[:5])

    def _post(self) -> None:
        flow = {"src_app": "s", "dest_app": "d", "vpc_id": "v", "hour": self._hour, "bytes_tx": 1, "bytes_rx": 0}
        with self._target.client() as client:
            while not self._ends.wait(0.05):
                try:
                    client.post("/flows", json=[flow])
                except httpx.TransportError as error:
                    self._wrong.append(f"POST: {error!r}")

    def _get(self) -> None:
        most = 0
        with self._target.client() as client:
            while not self._ends.is_set():
                try:
                    reply = client.get("/flows", params={"hour": self._hour})
                except httpx.TransportError as error:
                    self._wrong.append(f"GET: {error!r}")
                    continue
                if reply.status_code != 200:
                    self._wrong.append(f"GET {reply.status_code}: {reply.text[:200]}")
                    continue
                self.reads += 1
                total = sum(row["bytes_tx"] for row in reply.json())
                if reply.headers["flowagg-fresh"] == "true" and total < most:
                    self._wrong.append(f"a step back from {most} to {total}")
                most = max(most, total)


@pytest.fixture
def several(release: Release) -> Iterator[Release]:
    """The release; at the end it keeps its first view alone again, and nothing of others."""
    yield release
    spec = release.custom_resource()["spec"]
    release.patch({"reader": {"view": FIRST}})
    release.wait(lambda: release.custom_resource()["status"].get("readView") == FIRST, "the first view", LIVE_SECONDS)
    others = [view | {"deletionPolicy": "Delete"} for view in spec["views"] if view["name"] != FIRST]
    views(release, *others)  # so that the operator notes the policy
    wait_states(release, {view["name"]: "Live" for view in spec["views"]})
    views(release)
    wait_states(release, {FIRST: "Live"}, GONE_SECONDS)


def test_a_second_view_from_the_log_reaches_the_same_totals(several: Release, load: Callable[..., Traffic]) -> None:
    with load() as traffic:
        traffic.wait_flowing()
        views(several, {"name": SECOND, "source": "Log"})
        took = wait_states(several, {FIRST: "Live", SECOND: "Live"})
        traffic.wait_flowing()
        traffic.watch(5)
    print(f"a view from the log is live after {took:.1f} s; {traffic.record.summary()}")
    target = several.target
    verify_view(target, traffic.ledger, SECOND)
    verify_view(target, traffic.ledger, FIRST)
    deployment = several.kube.get("deployment", f"{several.fullname}-consumer-{SECOND}")
    assert deployment["spec"]["replicas"] == several.custom_resource()["spec"]["consumer"]["replicas"]
    several.kube.get("poddisruptionbudget", f"{several.fullname}-consumer-{SECOND}")
    with target.client() as client:
        hour = traffic.ledger.hours()[0]
        tags = {client.get("/flows", params={"hour": hour, "view": view}).headers["etag"] for view in (FIRST, SECOND)}
        assert len(tags) == 2
        unknown = client.get("/flows", params={"hour": hour, "view": "nobody"})
        assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
        assert client.get("/flows", params={"hour": hour, "view": "No_Name"}).status_code == 400
    assert SECOND in several.kube.run("describe", f"fa/{several.fullname}")
    heading = several.kube.run("get", "fa").splitlines()[0]
    assert heading.split() == ["NAME", "READY", "REASON", "DESIRED", "CONSUMERS", "LAG", "AGE"]


def test_readers_change_over_under_load_without_a_failure_or_a_step_back(
    several: Release, load: Callable[..., Traffic]
) -> None:
    def reads(view: str) -> bool:
        reader = several.kube.get("deployment", f"{several.fullname}-reader")
        env = reader["spec"]["template"]["spec"]["containers"][0]["env"]
        return {"name": "FLOWAGG_VIEW", "value": view} in env

    with load() as traffic, Steps(several.target) as steps:
        traffic.wait_flowing()
        # Both at once: readers must wait for the view to be built.
        first = several.custom_resource()["spec"]["views"][0]
        several.patch({"views": [first, {"name": SECOND}], "reader": {"view": SECOND}})
        wait_states(several, {FIRST: "Live", SECOND: "Live"})
        several.wait_condition("ViewReady", LIVE_SECONDS, status="True", reason="Serving")
        several.wait(lambda: several.custom_resource()["status"]["readView"] == SECOND, "the second view", 60)
        assert reads(SECOND)
        several.wait_healthy()
        traffic.wait_flowing()
        traffic.watch(3)
        several.patch({"reader": {"view": FIRST}})
        several.wait(lambda: several.custom_resource()["status"]["readView"] == FIRST, "the first view", 60)
        assert reads(FIRST)
        several.wait_healthy()
        traffic.wait_flowing()
        traffic.watch(3)
    print(f"{steps.reads} reads, none a step back; {traffic.record.summary()}")
    assert [one for one in traffic.record.failures() if one.method == "GET"] == []
    verify_view(several.target, traffic.ledger, SECOND)


def test_a_clone_goes_on_from_where_it_was_copied(several: Release, load: Callable[..., Traffic]) -> None:
    name = f"{several.fullname}-clone-copy"
    with load() as traffic:
        traffic.wait_flowing()
        traffic.watch(3)
        views(several, {"name": "copy", "source": "Clone", "cloneFrom": FIRST})
        took = wait_states(several, {FIRST: "Live", "copy": "Live"})
        traffic.wait_flowing()
        traffic.watch(3)
    print(f"a clone is live after {took:.1f} s; {traffic.record.summary()}")
    verify_view(several.target, traffic.ledger, "copy")
    several.wait(lambda: several.kube.find("job", name) is None, "its Job has gone", 60)


def test_with_retain_the_data_stay_and_with_delete_they_go(several: Release, load: Callable[..., Traffic]) -> None:
    deployment = f"{several.fullname}-consumer-{SECOND}"
    with load() as traffic:
        traffic.wait_flowing()
        views(several, {"name": SECOND})
        wait_states(several, {FIRST: "Live", SECOND: "Live"})
        traffic.wait_flowing()
    hour = traffic.ledger.hours()[0]
    verify_view(several.target, traffic.ledger, SECOND)
    views(several)
    wait_states(several, {FIRST: "Live"}, GONE_SECONDS)
    assert several.kube.find("deployment", deployment) is None
    assert several.kube.find("poddisruptionbudget", deployment) is None
    with several.target.client() as client:
        kept = client.get("/flows", params={"hour": hour, "view": SECOND, "consistency": "eventual"})
        assert (kept.status_code, kept.json()) == (200, traffic.ledger.rows(hour))
        # It is taken up where it stands, and removed with its data.
        views(several, {"name": SECOND, "source": "Clone", "deletionPolicy": "Delete"})
        wait_states(several, {FIRST: "Live", SECOND: "Live"})
        assert several.kube.find("job", f"{several.fullname}-clone-{SECOND}") is None
        assert read(client, hour, SECOND) == traffic.ledger.rows(hour)
        views(several)
        took = wait_states(several, {FIRST: "Live"}, GONE_SECONDS)
        gone = client.get("/flows", params={"hour": hour, "view": SECOND})
        assert gone.status_code == 404, gone.text
    print(f"a view and its data are gone after {took:.1f} s")
    assert several.kube.find("job", f"{several.fullname}-remove-{SECOND}") is None
