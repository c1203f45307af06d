"""Whether a FlowAggregator as a whole is ready, and if not, the one thing to look at first. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flowagg_operator.conditions import Verdict
from flowagg_operator.routing import Seen, is_settled
from flowagg_operator.spec import COMPONENTS, SERVERS, Spec
from flowagg_operator.troubles import Trouble

_REASONS: Final = {"writer": "WriterNotReady", "reader": "ReaderNotReady", "consumer": "ConsumerNotReady"}
_TROUBLES_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out in a pass.

    problem: why the pass could not do all of its work; empty: it could. changing: the spec was changed a moment ago, so
    pods that are not ready yet are on their way. deployments: component -> Deployment. active:
    component -> names of the pods that its slices lead to. seen: how the Services lead. troubles: component -> what its
    pods complain of.
    """

    problem: str = ""
    changing: bool = False
    deployments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    active: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seen: Mapping[str, Seen] = field(default_factory=dict)
    troubles: Mapping[str, Sequence[Trouble]] = field(default_factory=dict)


def judge(spec: Spec, facts: Facts, kafka: Verdict, redis: Verdict) -> Verdict:
    """The condition Ready. What lies deepest is said: pods that wait for Kafka are not the thing to look at."""
    if facts.problem:
        return Verdict("False", "Reconciling", facts.problem)
    for component in SERVERS:
        if (server := spec.server(component)).mode == "ActivePassive" and (seen := facts.seen.get(component)):
            for name, manager in seen.foreign:
                return Verdict(
                    "False",
                    _REASONS[component],
                    f"EndpointSlice {name} (of {manager or 'nobody known'}) leads the {component}'s Service elsewhere "
                    f"beside its active pod, so requests get lost: find who made it, and delete it ({server.mode})",
                )
    if kafka.status == "False" and kafka.reason != "TopicMisconfigured":
        return Verdict("False", "KafkaUnreachable", _because(kafka))
    if redis.status == "False" and redis.reason != "RedisMisconfigured":
        return Verdict("False", "RedisUnreachable", _because(redis))
    for component in COMPONENTS:
        if (verdict := _component(spec, component, facts)) is not None:
            return verdict
    return Verdict("True", "Running", "; ".join(_summary(spec, component, facts) for component in COMPONENTS))


def _because(verdict: Verdict) -> str:
    """What is wrong with what lies below, without saying twice that it cannot be reached."""
    return verdict.message if verdict.reason == "Unreachable" else f"{verdict.reason}: {verdict.message}"


def _component(spec: Spec, component: str, facts: Facts) -> Verdict | None:
    """What is wrong with a component; None: nothing."""
    found = facts.deployments.get(component)
    if found is None:
        return Verdict("False", "Reconciling", f"the {component}'s Deployment is not there yet")
    status, wanted = found.get("status") or {}, found["spec"].get("replicas", 1)
    ready = status.get("readyReplicas", 0)
    troubles = facts.troubles.get(component) or ()
    more = "".join(f"; {trouble.text}" for trouble in troubles[:_TROUBLES_SHOWN])
    if len(troubles) > _TROUBLES_SHOWN:
        more += f"; and {len(troubles) - _TROUBLES_SHOWN} more"
    lasting = any(trouble.lasting for trouble in troubles)
    if ready < wanted:
        reason = "Reconciling" if facts.changing and not lasting else _REASONS[component]
        return Verdict("False", reason, f"{component}: {ready} of {wanted} pods are ready{more}")
    if not is_settled(found):
        updated, total = status.get("updatedReplicas", 0), status.get("replicas", 0)
        text = f"{component}: new pods are rolled out, {updated} of {wanted} so far, {total} pods in all"
        if status.get("observedGeneration", 0) < found["metadata"].get("generation", 1):
            text = f"{component}: new pods are about to be rolled out"
        return Verdict("False", _REASONS[component] if lasting else "Reconciling", text + more)
    if component in SERVERS and spec.server(component).mode == "ActivePassive" and not facts.active.get(component):
        # A slice is never emptied, so this is the beginning of an election, or none is possible.
        return Verdict(
            "False",
            "Reconciling",
            f"{component}: no pod is active; they elect one in a few seconds: if this stays, look at their logs for "
            "what the API server refuses",
        )
    return None


def _summary(spec: Spec, component: str, facts: Facts) -> str:
    ready = (facts.deployments[component].get("status") or {}).get("readyReplicas", 0)
    active = facts.active.get(component) if component in SERVERS else None
    passive = component in SERVERS and spec.server(component).mode == "ActivePassive"
    return f"{component}: {ready} ready" + (f", {', '.join(active)} active" if passive and active else "")
