"""All objects of a FlowAggregator, from its spec and the plans of its Services. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flowagg_operator.drift import stamped
from flowagg_operator.elections import endpoint_slice, lease, role, role_binding, slice_names
from flowagg_operator.pods import Platform
from flowagg_operator.routing import Plan
from flowagg_operator.services import pods_service, service, service_name
from flowagg_operator.spec import COMPONENTS, SERVERS, Owner, Spec, View
from flowagg_operator.view_objects import view_budget, view_consumers
from flowagg_operator.workloads import deployment, disruption_budget, service_account

Object = dict[str, Any]

PLURALS: Mapping[str, tuple[str, str]] = {
    "ServiceAccount": ("v1", "serviceaccounts"),
    "Service": ("v1", "services"),
    "Deployment": ("apps/v1", "deployments"),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets"),
    "Role": ("rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", "rolebindings"),
    "Job": ("batch/v1", "jobs"),
    "Lease": ("coordination.k8s.io/v1", "leases"),
    "EndpointSlice": ("discovery.k8s.io/v1", "endpointslices"),
}
"""Kind -> API version and plural, of everything that the operator makes."""


@dataclass(frozen=True, slots=True)
class Address:
    """What is known of a Service once it is there. families: its IP families, the first one first."""

    uid: str
    families: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Serving:
    """What pods do with views. read: the one that is read. first: whether the first view's consumers are wanted; else
    those that there are stay as they are. further: the others whose consumers are wanted."""

    read: str
    first: bool = True
    further: tuple[View, ...] = ()


def services(owner: Owner, plans: Mapping[str, Plan]) -> list[Object]:
    """The Services; they come first, since slices need their uid and IP families."""
    found = [service(owner, component, selects=plans[component].selects) for component in SERVERS]
    found += [pods_service(owner, component) for component in COMPONENTS]
    return [stamped(manifest) for manifest in found]


def others(
    owner: Owner,
    spec: Spec,
    platform: Platform,
    plans: Mapping[str, Plan],
    addresses: Mapping[str, Address],
    digests: Mapping[str, str] | None,
    views: Serving,
) -> list[Object]:
    """Everything else, in the order in which it is applied: what pods need comes before them.

    addresses: by name of the Service. digests: component -> digest of its Secrets; None: they cannot be read, so the
    Deployments stay as they are.
    """
    return [stamped(manifest) for manifest in _others(owner, spec, platform, plans, addresses, digests, views)]


def _others(
    owner: Owner,
    spec: Spec,
    platform: Platform,
    plans: Mapping[str, Plan],
    addresses: Mapping[str, Address],
    digests: Mapping[str, str] | None,
    views: Serving,
) -> Iterator[Object]:
    slices = {}
    for component in COMPONENTS:
        yield service_account(owner, component)
        yield disruption_budget(owner, component)
    for view in views.further:
        yield view_budget(owner, view.name)
    for component in SERVERS:
        plan, address = plans[component], addresses[service_name(owner, component)]
        names = slice_names(owner, component, address.families)
        slices[component] = names if plan.elects else []
        if plan.equipped:
            yield lease(owner, component)
            for name, family in zip(names, address.families, strict=True):
                yield endpoint_slice(owner, component, address.uid, name, family)
            yield role(owner, component, names)
            yield role_binding(owner, component)
    if digests is not None:
        yield deployment(owner, spec, "writer", platform, digests["writer"], slices["writer"])
        yield deployment(owner, spec, "reader", platform, digests["reader"], slices["reader"], views.read)
        if views.first:
            yield deployment(owner, spec, "consumer", platform, digests["consumer"], [], spec.view.name)
        for view in views.further:
            yield view_consumers(owner, spec, view, platform, digests["consumer"])


def retired(owner: Owner, plans: Mapping[str, Plan]) -> list[tuple[str, str]]:
    """Kind and name of what an election no longer needs."""
    return [
        (kind, f"{owner.name}-{component}")
        for component in SERVERS
        if plans[component].retire
        for kind in ("Lease", "RoleBinding", "Role")
    ]
