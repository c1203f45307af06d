"""The EndpointSlice that leads a Service without a selector to the active pod: discovery.k8s.io/v1.

https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Self

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pod:
    """Who a candidate is. addresses: the pod's, one an IP family; uid and node may be empty outside of a cluster."""

    name: str
    namespace: str
    uid: str
    node: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """An EndpointSlice as it was last seen. source: the whole object, to be written back."""

    name: str
    version: str
    source: Object = field(compare=False, repr=False)

    @classmethod
    def read(cls, source: Object) -> Self:
        """The slice in an object of the API."""
        metadata = source["metadata"]
        return cls(metadata["name"], str(metadata["resourceVersion"]), source)

    @property
    def endpoints(self) -> list[Object]:
        """Its endpoints; none in a slice just made."""
        return list(self.source.get("endpoints") or ())

    def address_of(self, pod: Pod) -> str | None:
        """The pod's address in this slice's IP family."""
        version = {"IPv4": 4, "IPv6": 6}.get(self.source.get("addressType", ""))
        return next((a for a in pod.addresses if ip_address(a).version == version), None)

    def leads_to(self, pod: Pod) -> bool:
        """Whether any traffic comes to the pod by this slice."""
        return any(set(e.get("addresses") or ()) & set(pod.addresses) for e in self.endpoints)

    def leads_to_just(self, pod: Pod) -> bool:
        """Whether the slice is as the active pod wants it. True where the pod has no address of this family."""
        address = self.address_of(pod)
        if address is None:
            return True
        if len(self.endpoints) != 1:
            return False
        (found,) = self.endpoints
        wanted = _endpoint(pod, address)
        target, conditions = found.get("targetRef") or {}, found.get("conditions") or {}
        return (
            found.get("addresses") == wanted["addresses"]
            and conditions.get("ready") is True
            and target.get("name") == pod.name
            and target.get("uid", "") == pod.uid
            and found.get("nodeName", "") == pod.node
        )

    def leading_to(self, pod: Pod) -> dict[str, Any]:
        """The object by which the pod takes over: one endpoint in the place of all others, never none."""
        address = self.address_of(pod)
        if address is None:
            raise ValueError(f"{pod.name} has no address for {self.name}")
        return {**self.source, "endpoints": [_endpoint(pod, address)]}


def _endpoint(pod: Pod, address: str) -> dict[str, Any]:
    target = {"kind": "Pod", "namespace": pod.namespace, "name": pod.name}
    endpoint: dict[str, Any] = {
        "addresses": [address],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "targetRef": target | ({"uid": pod.uid} if pod.uid else {}),
    }
    return endpoint | ({"nodeName": pod.node} if pod.node else {})
