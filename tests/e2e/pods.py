"""Pods of a release: which is active, and how they end."""

import signal
from dataclasses import dataclass
from typing import Any

from tests.e2e.kube import Kube, Object
from tests.e2e.target import Node, container_id

SERVICES = ("writer", "reader", "consumer")
"""The components that the operator runs."""
ELECTED = ("writer", "reader")


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods of one FlowAggregator. name: the object's name."""

    kube: Kube
    name: str

    def labels(self, component: str) -> dict[str, str]:
        """The labels that select a component's pods."""
        return {
            "app.kubernetes.io/name": "flow-aggregator",
            "app.kubernetes.io/instance": self.name,
            "app.kubernetes.io/component": component,
        }

    def of(self, component: str) -> list[Object]:
        """A component's pods that are not on their way out."""
        found = self.kube.list("pods", self.labels(component))
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def names(self, component: str) -> set[str]:
        """Their names."""
        return {pod["metadata"]["name"] for pod in self.of(component)}

    def active(self, component: str) -> str:
        """Name of the pod that the Service leads to. Raises AssertionError unless it is exactly one."""
        endpoints = self.kube.get("endpointslices", f"{self.name}-{component}").get("endpoints") or []
        names: set[str] = {endpoint["targetRef"]["name"] for endpoint in endpoints}
        assert len(names) == 1, f"the slice of {component} leads to {names or 'nobody'}"
        return names.pop()

    def holder(self, component: str) -> str:
        """Who holds the component's Lease."""
        return str(self.kube.get("leases", f"{self.name}-{component}")["spec"].get("holderIdentity", ""))

    def transitions(self, component: str) -> int:
        """How often the component's Lease has changed hands."""
        return int(self.kube.get("leases", f"{self.name}-{component}")["spec"].get("leaseTransitions", 0))

    def signal(self, node: Node, pod: str, number: signal.Signals, container: str | None = None) -> None:
        """Signal a container's processes; container: None where the pod has one."""
        node.signal(self.container(pod, container), number)

    def container(self, pod: str, container: str | None = None) -> str:
        """containerd's id of a pod's container."""
        statuses = self.kube.get("pod", pod)["status"]["containerStatuses"]
        ids = [one["containerID"] for one in statuses if container is None or one["name"] == container]
        assert len(ids) == 1, f"{pod} has {len(statuses)} containers: say which"
        return container_id(ids[0])


def is_ready(pod: Object) -> bool:
    """Whether a pod is Ready and not on its way out."""
    return "deletionTimestamp" not in pod["metadata"] and condition(pod, "Ready").get("status") == "True"


def condition(thing: Object, kind: str) -> dict[str, Any]:
    """A condition of an object's status, empty where it is not there."""
    for one in thing.get("status", {}).get("conditions") or []:
        if one["type"] == kind:
            return dict(one)
    return {}
