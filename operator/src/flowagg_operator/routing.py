"""Which way a component's Service leads, and how it gets from one way to the other without a gap. Pure.

ActivePassive: the Service has no selector; the active pod's slice says where it leads. ActiveActive: it has one, and
Kubernetes' own controller keeps slices of all ready pods. While both kinds are there, both count: each step below is
taken only once the kind that comes leads somewhere, and what goes is removed at once after that (measured: a slice
that is left alone sent half of the requests to a stopped pod).

https://kubernetes.io/docs/concepts/services-networking/service/#services-without-selectors
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flowagg_operator.elections import MANAGER_LABEL, SLICE_MANAGER
from flowagg_operator.pods import ELECTION
from flowagg_operator.spec import Mode

_CONTROLLER: Final = "endpointslice-controller.k8s.io"
_MIRRORING: Final = "endpointslicemirroring-controller.k8s.io"


@dataclass(frozen=True, slots=True)
class Seen:
    """How the Service leads now.

    selects: it has a selector. own: names of our slices. own_leads: one of them has an endpoint. controllers: names of
    the slices of Kubernetes' own controllers; they lead where one of them has a ready endpoint. foreign: slices of
    anybody else, by name with their manager. elects: the Deployment's pods hold elections. settled: all of its pods
    are of its newest template.
    """

    selects: bool = False
    own: tuple[str, ...] = ()
    own_leads: bool = False
    controllers: tuple[str, ...] = ()
    controllers_lead: bool = False
    foreign: tuple[tuple[str, str], ...] = ()
    elects: bool = False
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be.

    selects: the Service gets a selector. elects: pods hold elections. equipped: Lease, slices and rights are there.
    drop_endpoints: the Endpoints object goes. drop_slices: names of slices that go, after it. retire: Lease and rights
    go.
    """

    selects: bool
    elects: bool
    equipped: bool
    drop_endpoints: bool = False
    drop_slices: tuple[str, ...] = ()
    retire: bool = False


def plan(mode: Mode, seen: Seen) -> Plan:
    """The next step towards the mode; the last one is planned again and again, and changes nothing."""
    if mode == "ActivePassive":
        # 1. Lease, slices and rights come, and pods that hold elections. 2. All pods are such ones, and the slice
        # leads to one of them: the selector goes. 3. What Kubernetes' controllers made goes; they leave it lying.
        selects = seen.selects and not (seen.own_leads and seen.elects and seen.settled)
        dropped = () if seen.selects else seen.controllers
        return Plan(selects, elects=True, equipped=True, drop_endpoints=not seen.selects, drop_slices=dropped)
    # 1. The selector comes. 2. The controller's slices lead to ready pods: ours go, and with them the election.
    # 3. All pods are new ones: the Lease and the rights go.
    waits = bool(seen.own) and seen.elects and not seen.controllers_lead
    if waits:
        return Plan(selects=True, elects=True, equipped=True)
    return Plan(
        selects=True,
        elects=False,
        equipped=False,
        drop_slices=seen.own,
        retire=seen.settled and not seen.elects,
    )


def see(
    service: Mapping[str, Any] | None, slices: Iterable[Mapping[str, Any]], deployment: Mapping[str, Any] | None
) -> Seen:
    """How a Service leads, from its own object, the slices that name it, and the Deployment."""
    own, controllers, foreign = [], [], []
    own_leads = controllers_lead = False
    for found in slices:
        name = found["metadata"]["name"]
        manager = (found["metadata"].get("labels") or {}).get(MANAGER_LABEL, "")
        endpoints = found.get("endpoints") or []
        if manager == SLICE_MANAGER:
            own.append(name)
            own_leads |= bool(endpoints)
        elif manager in (_CONTROLLER, _MIRRORING):
            controllers.append(name)
            controllers_lead |= any((e.get("conditions") or {}).get("ready", True) for e in endpoints)
        else:
            foreign.append((name, manager))
    return Seen(
        selects=bool(service and service["spec"].get("selector")),
        own=tuple(sorted(own)),
        own_leads=own_leads,
        controllers=tuple(sorted(controllers)),
        controllers_lead=controllers_lead,
        foreign=tuple(sorted(foreign)),
        elects=deployment is not None and _elects(deployment),
        settled=deployment is None or is_settled(deployment),
    )


def active_pods(slices: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the pods that our slices of a Service lead to."""
    named = {
        endpoint["targetRef"]["name"]
        for found in slices
        if (found["metadata"].get("labels") or {}).get(MANAGER_LABEL) == SLICE_MANAGER
        for endpoint in found.get("endpoints") or []
        if endpoint.get("targetRef")
    }
    return sorted(named)


def is_settled(deployment: Mapping[str, Any]) -> bool:
    """Whether a Deployment's pods are as many as wanted, and all of its newest template."""
    status, wanted = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    return bool(
        status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 1)
        and status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
    )


def _elects(deployment: Mapping[str, Any]) -> bool:
    template = deployment["spec"]["template"].get("metadata") or {}
    return ELECTION in (template.get("annotations") or {})
