"""Faults of the active writer and the active reader, and how long clients went without an answer."""

import signal
import time
from dataclasses import dataclass

from tests.e2e.pods import ELECTED
from tests.e2e.release import Release
from tests.e2e.target import Node
from tests.e2e.traffic import Record

METHODS = {"writer": "POST", "reader": "GET"}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to an active pod, and the longest time without a 200 on new connections after it, in seconds."""

    number: signal.Signals
    bar_seconds: float


FAULTS = {
    "SIGTERM": Fault(signal.SIGTERM, 1.0),
    "kill -9": Fault(signal.SIGKILL, 4.5),
    "SIGSTOP": Fault(signal.SIGSTOP, 6.0),
}
WATCH_SECONDS = 12.0
"""How long after the fault gaps are looked for: past the Lease's end and whatever follows."""


def strike(release: Release, node: Node | None, number: signal.Signals) -> tuple[float, dict[str, str]]:
    """Do it to the active writer and the active reader; when, and component -> container struck.

    SIGTERM comes as users cause it: the pod is deleted. node: None where it is not needed.
    """
    active = {component: release.pods.active(component) for component in ELECTED}
    if number is signal.SIGTERM:
        began = time.monotonic()
        release.kube.delete("pod", *active.values())
        return began, {}
    assert node is not None
    containers = {component: release.pods.container(pod) for component, pod in active.items()}
    began = time.monotonic()
    for container in containers.values():
        node.signal(container, number)
    return began, containers


def recover(release: Release, node: Node | None, struck: dict[str, str], pods: dict[str, str]) -> None:
    """Wake what was stopped and delete the pods: a container that is killed often waits longer each time."""
    for container in struck.values():
        if node is not None and node.processes(container):
            node.signal(container, signal.SIGCONT)
    release.kube.delete("pod", *pods.values())


def gaps(record: Record, began: float) -> dict[str, float]:
    """Component -> longest time without a 200."""
    return {name: record.gap(method, began, began + WATCH_SECONDS) for name, method in METHODS.items()}
