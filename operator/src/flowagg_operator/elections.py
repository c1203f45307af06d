"""What a component's pods elect the active one with: Lease, EndpointSlices and the right to write just these. Pure.

The operator makes Lease and slices, and never writes their holder or endpoints: those are the pods' own.
"""

from collections.abc import Sequence
from typing import Any, Final

from flowagg_operator.pods import PORT, PORT_NAME, account_name, lease_name
from flowagg_operator.services import service_name
from flowagg_operator.spec import Owner

SLICE_MANAGER: Final = "flow-aggregator"
SERVICE_LABEL: Final = "kubernetes.io/service-name"
MANAGER_LABEL: Final = "endpointslice.kubernetes.io/managed-by"


def slice_names(owner: Owner, component: str, families: Sequence[str]) -> list[str]:
    """Names of the EndpointSlices, one per IP family of the Service, its first family first."""
    name = service_name(owner, component)
    return [name if place == 0 else f"{name}-{family.lower()}" for place, family in enumerate(families)]


def lease(owner: Owner, component: str) -> dict[str, Any]:
    """The Lease that the active pod holds."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": owner.metadata(lease_name(owner, component), component),
    }


def endpoint_slice(owner: Owner, component: str, service_uid: str, name: str, family: str) -> dict[str, Any]:
    """A slice as it is applied: its endpoints are the pods' own, so they are not in it.

    Owner: the Service, so that it goes with it. family: IPv4 or IPv6.
    """
    metadata = owner.metadata(name, component)
    service = service_name(owner, component)
    metadata["labels"] |= {SERVICE_LABEL: service, MANAGER_LABEL: SLICE_MANAGER}
    metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Service", "name": service, "uid": service_uid}]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": family,
        "ports": [{"name": PORT_NAME, "port": PORT, "protocol": "TCP"}],
    }


def role(owner: Owner, component: str, slices: Sequence[str]) -> dict[str, Any]:
    """What a component's pods may do: read and write their own Lease and slices."""
    verbs = ["get", "watch", "update"]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": owner.metadata(account_name(owner, component), component),
        "rules": [
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": [lease_name(owner, component)],
                "verbs": verbs,
            },
            {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "resourceNames": list(slices),
                "verbs": verbs,
            },
        ],
    }


def role_binding(owner: Owner, component: str) -> dict[str, Any]:
    """The role, bound to the component's ServiceAccount."""
    name = account_name(owner, component)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": owner.metadata(name, component),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": owner.namespace}],
    }
