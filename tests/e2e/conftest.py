"""One release for the whole session: installed first, healthy before and after each test, removed at the end."""

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.e2e import evidence
from tests.e2e.kube import Kube
from tests.e2e.release import HEALTHY_SECONDS, Release
from tests.e2e.target import Node, Target, node_of
from tests.e2e.traffic import Manners, Traffic

NAMESPACE: Final = os.environ.get("E2E_NAMESPACE", "flow-aggregator-e2e")
RELEASE: Final = "e2e"
KEEP: Final = "E2E_KEEP" in os.environ
"""Leave the release there at the end, and take the one that an earlier session has left."""
INSTALL_SECONDS: Final = 240.0
"""How long the first answers may take before the session gives up; the bar is in test_install."""
_TEST_SECONDS: Final = 600
_SICK_SECONDS: Final = 30.0
_FIRST, _LAST = "test_install", "test_uninstall"
_KUBE = pytest.StashKey[Kube]()


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.addinivalue_line("markers", "e2e: needs a cluster; make e2e runs these")
    here = Path(__file__).parent
    mine = [item for item in items if item.path.is_relative_to(here)]
    for item in mine:
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.timeout(_TEST_SECONDS))
    # The rest of the session stays where it is.
    mine.sort(key=lambda item: (item.path.stem == _LAST, item.path.stem != _FIRST))
    places = iter(mine)
    items[:] = [next(places) if item.path.is_relative_to(here) else item for item in items]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None]:  # the hook's result passes through
    report = yield
    kube = item.session.stash.get(_KUBE, None)
    if kube is not None and report.failed:  # type: ignore[attr-defined]
        name = re.sub(r"\W+", "-", f"{item.name}-{call.when}").strip("-")
        folder = item.config._tmp_path_factory.getbasetemp() / "evidence" / name  # type: ignore[attr-defined]
        report.sections.append(("the cluster then", evidence.collect(kube, folder)))  # type: ignore[attr-defined]
    return report


@pytest.fixture(scope="session")
def target() -> Target:
    """The cluster: KUBECONFIG's, else dev/cluster's."""
    return Target.read(os.environ)


@pytest.fixture(scope="session")
def kube(target: Target, request: pytest.FixtureRequest) -> Iterator[Kube]:
    """A namespace of the session's own, under the restricted Pod Security Standard."""
    kube = Kube(target.program("kubectl"), target.kubeconfig, NAMESPACE)
    if not KEEP:
        kube.delete("namespace", NAMESPACE, wait=True)  # of a session that was killed
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
    request.session.stash[_KUBE] = kube
    try:
        yield kube
    finally:
        del request.session.stash[_KUBE]
        if not KEEP:
            kube.delete("namespace", NAMESPACE, wait=True)


@dataclass(slots=True)
class Installed:
    """The session's release and how long its first answers took from the start of helm install, in seconds.

    seconds: None where an earlier session has installed it. well: whether the last test left it healthy.
    """

    release: Release
    seconds: float | None
    well: bool = True


@pytest.fixture(scope="session")
def installed(target: Target, kube: Kube) -> Iterator[Installed]:
    """helm install, then the first POST and GET that are right."""
    release = Release(target, kube, RELEASE)
    began = time.monotonic()
    seconds: float | None = None
    try:
        if KEEP and release.is_installed():
            release.upgrade()
        else:
            release.install()
            first_answers(target, began + INSTALL_SECONDS)
            seconds = time.monotonic() - began
        release.wait_healthy()
        yield Installed(release, seconds)
    finally:
        if not KEEP:
            release.uninstall()


@pytest.fixture
def release(installed: Installed) -> Iterator[Release]:
    """The release, healthy; and healthy again after the test."""
    # What was sick at the end of one test is not waited for at length by each of the others.
    installed.release.wait_healthy(HEALTHY_SECONDS if installed.well else _SICK_SECONDS)
    installed.well = False
    yield installed.release
    installed.release.wait_healthy()
    installed.well = True


@pytest.fixture
def node(target: Target) -> Node:
    """The node's processes; skips on a cluster of somebody else."""
    return node_of(target)


@pytest.fixture
def load(target: Target, release: Release) -> Callable[..., Traffic]:
    """Makes a load; keyword arguments are Manners."""

    def make(**manners: float) -> Traffic:
        return Traffic(target, Manners(**manners))  # type: ignore[arg-type]

    return make


def first_answers(target: Target, deadline: float) -> None:
    """POST a flow and read its totals back, again and again until it works. Raises AssertionError past the deadline."""
    hour = time.time_ns() // 1000
    flow = {"src_app": "foo", "dest_app": "bar", "vpc_id": "vpc-0", "hour": hour, "bytes_tx": 100, "bytes_rx": 300}
    said = ""
    with target.client(seconds=5) as client:
        while time.monotonic() < deadline:
            try:
                posted = client.post("/flows", json=[flow], headers={"Idempotency-Key": f"first-{hour}"})
                said = f"POST {posted.status_code}"
                if posted.status_code == 200:
                    read = client.get("/flows", params={"hour": hour})
                    said = f"GET {read.status_code} {read.text[:200]}"
                    if read.status_code == 200 and read.json() == [flow]:
                        return
            except httpx.TransportError as error:
                said = repr(error)
            time.sleep(0.2)
    raise AssertionError(f"no right answer yet, at last: {said}")
