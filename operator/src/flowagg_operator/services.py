"""Services. Pure."""

from typing import Any

from flowagg_operator.pods import PORT, PORT_NAME
from flowagg_operator.spec import Owner


def service_name(owner: Owner, component: str) -> str:
    """Name of the Service that clients use."""
    return f"{owner.name}-{component}"


def service(owner: Owner, component: str, *, selects: bool) -> dict[str, Any]:
    """The Service that clients use. selects: whether it leads to all ready pods, else to where the slice says."""
    spec: dict[str, Any] = {
        "type": "ClusterIP",
        "ports": [{"name": PORT_NAME, "port": 80, "targetPort": PORT, "protocol": "TCP"}],
    }
    if selects:
        spec["selector"] = owner.selector(component)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(service_name(owner, component), component),
        "spec": spec,
    }


def pods_service(owner: Owner, component: str) -> dict[str, Any]:
    """The headless Service of all pods, ready or not: for metrics."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(f"{service_name(owner, component)}-pods", component),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": owner.selector(component),
            "ports": [{"name": PORT_NAME, "port": PORT, "targetPort": PORT_NAME, "protocol": "TCP"}],
        },
    }
