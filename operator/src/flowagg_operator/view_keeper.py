"""The views of one pass: what there is of each, what becomes of it, and the objects and Jobs that this takes."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flowagg.kubernetes import Api, Conflict, Forbidden, Invalid, NotFound, path

from flowagg_operator import metrics
from flowagg_operator.drift import stamped
from flowagg_operator.objects import Objects, Refused
from flowagg_operator.observer import Observation
from flowagg_operator.pods import Platform, account_name
from flowagg_operator.pods_look import key_of
from flowagg_operator.resources import Object, Serving
from flowagg_operator.routing import is_settled
from flowagg_operator.spec import API_VERSION, INSTANCE, MANAGER, PLURAL, Owner, Spec
from flowagg_operator.view_objects import (
    CONSUMER,
    VIEW,
    consumer_name,
    is_about,
    job_names,
    job_state,
    view_job,
    view_of,
)
from flowagg_operator.views import (
    READ_NOW,
    Kept,
    Look,
    Plan,
    Seen,
    entries,
    keep,
    kept_in,
    leave,
    next_read,
    read_view,
)

_log = logging.getLogger(__name__)

_COMPONENT: Final = "app.kubernetes.io/component"


@dataclass(frozen=True, slots=True)
class ViewsPass:
    """What a pass has found and planned. read: the view that readers read from now on. further: view -> its Deployment,
    of those that have one of their own."""

    read: str
    plans: Sequence[Plan]
    seen: Mapping[str, Seen]
    policies: Mapping[str, str]
    further: Mapping[str, Object] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        """Whether a view waits for what no event tells of, such as the end of a pod."""
        return any(plan.state == "Removing" or plan.finish for plan in self.plans)

    def serving(self, spec: Spec) -> Serving:
        """What pods do with views."""
        run = {plan.name for plan in self.plans if plan.runs}
        return Serving(self.read, spec.view.name in run, tuple(view for view in spec.views[1:] if view.name in run))

    def entries(self, look: Look) -> list[dict[str, Any]]:
        """status.views."""
        return entries(self.plans, self.seen, look, self.policies)


class ViewKeeper:
    """Keeps the views of all FlowAggregators; passes over one come one after another. Methods raise KubernetesError."""

    def __init__(self, api: Api, platform: Platform, observation: Callable[[str], Observation]) -> None:
        self._api = api
        self._platform = platform
        self._observation = observation

    def plan(self, status: Mapping[str, Any], override: str, owner: Owner, spec: Spec, objects: Objects) -> ViewsPass:
        """What becomes of each view. override: the view that readers change over to whatever it lacks."""
        observation, kept = self._observation(owner.name), kept_in(status)
        look = observation.views
        reader = objects.get("Deployment", account_name(owner, "reader"))
        before = read_view(spec.reader.view, kept.read, _view_in(reader))
        policies = dict(kept.policies) | {view.name: view.deletion_policy for view in spec.views}
        named = [view.name for view in spec.views]
        left = [name for name in dict.fromkeys((*kept.states, *_orphans(objects))) if name not in named]
        pods = self._pods(owner) if left else []
        further = {str(found["metadata"]["labels"].get(VIEW)): found for found in _own(objects)}
        seen = {}
        for name in (*named, *left):
            troubles = observation.troubles.get(key_of(name)) or ()
            trouble = next((one.text for one in troubles if one.lasting), "")
            seen[name] = _seen(owner, spec, name, objects, kept, pods, trouble)
        plans = [
            keep(view, view.clone_from or before, seen[view.name], look, job_names(owner, view.name))
            for view in spec.views
        ]
        live = any(plan.name == spec.reader.view and plan.state == "Live" for plan in plans)
        read = next_read(spec.reader.view, before, look.gate, override, live=live)
        for name in left:
            policy, jobs = policies.get(name, "Retain"), job_names(owner, name)
            plans.append(leave(name, policy, seen[name], look, jobs, is_read=name in (before, read)))
        return ViewsPass(read, plans, seen, policies, further)

    def end_override(self, owner: Owner, version: str) -> None:
        """Take the annotation away by which readers have changed over: it would pass over the next change's gate too.

        version: the resource version of the FlowAggregator that held it. Where it is another by now, it may hold
        another name, and the next pass looks again.
        """
        metadata = {"resourceVersion": version, "annotations": {READ_NOW: None}}
        where = path(API_VERSION, PLURAL, owner.namespace, owner.name)
        try:
            self._api.merge(where, {"metadata": metadata}, field_manager=MANAGER)
        except (Conflict, NotFound):
            return
        except (Forbidden, Invalid) as error:
            # No reason to leave the rest of the pass undone.
            advice = f"let the operator's Role patch flowaggregators, or take the annotation {READ_NOW} away by hand"
            _log.warning("an annotation that has done its part stays", extra={"reason": str(error), "advice": advice})

    def begin_jobs(self, owner: Owner, spec: Spec, views: ViewsPass, objects: Objects) -> None:
        """Have the Jobs that plans start. Raises Refused where there is no image for them."""
        for plan in views.plans:
            if plan.start is None:
                continue
            if not self._platform.images.get("cli"):
                raise Refused(
                    f"view {plan.name}: the operator has no image to {plan.start} views with: set FLOWAGG_CLI_IMAGE "
                    "(the chart does), or say source: Log, or deletionPolicy: Retain"
                )
            objects.apply(stamped(view_job(owner, spec, plan.start, plan.name, plan.source, self._platform)))

    def remove(self, owner: Owner, spec: Spec, views: ViewsPass, objects: Objects) -> dict[str, Object]:
        """Have gone what no view needs: consumers of those that do not run, and Jobs that have done their part.

        View -> its own Deployment, of those that stay.
        """
        stay = {plan.name for plan in views.plans if plan.runs} - {spec.view.name}
        first = objects.get("Deployment", account_name(owner, "consumer"))
        if first is None or _view_in(first) != spec.view.name or not is_settled(first):
            # Until the scaled consumers have taken it over.
            stay.add(spec.view.name)
        for name in views.further:
            if name not in stay:
                objects.delete("Deployment", consumer_name(owner, name))
                objects.delete("PodDisruptionBudget", consumer_name(owner, name))
                metrics.REPLICAS.remove_by_labels({"name": owner.name, "component": f"consumer-{name}"})
        for plan in views.plans:
            for kind in plan.finish:
                objects.delete("Job", job_names(owner, plan.name)[kind])
        return {name: found for name, found in views.further.items() if name in stay}

    def _pods(self, owner: Owner) -> list[Object]:
        return self._api.list(path("v1", "pods", owner.namespace), {"labelSelector": f"{INSTANCE}={owner.name}"})


def _seen(
    owner: Owner, spec: Spec, name: str, objects: Objects, kept: Kept, pods: Sequence[Object], trouble: str
) -> Seen:
    jobs = job_names(owner, name)
    keeps = [objects.get("Deployment", n) for n in (account_name(owner, "consumer"), consumer_name(owner, name))]
    keeping = [found for found in keeps if _view_in(found) == name]
    reader = objects.get("Deployment", account_name(owner, "reader"))
    # Of the two that a view has while it moves to or from the first place, the one that stays counts.
    chosen = keeping[0 if name == spec.view.name else -1] if keeping else None
    return Seen(
        consumers=bool(keeping),
        served=bool(keeping) or _view_in(reader) == name,
        ready=((chosen or {}).get("status") or {}).get("readyReplicas", 0),
        replicas=0 if chosen is None else chosen["spec"].get("replicas", 1),
        pods=any(is_about(pod, name) for pod in pods),
        clone=job_state(objects.get("Job", jobs["clone"])),
        remove=job_state(objects.get("Job", jobs["remove"])),
        trouble=trouble,
        was_live=kept.states.get(name) == "Live",
        begun=kept.jobs.get(name, ""),
    )


def _own(objects: Objects) -> list[Object]:
    """The Deployments of further views."""
    return [one for one in objects.all("Deployment") if one["metadata"]["labels"].get(_COMPONENT) == CONSUMER]


def _orphans(objects: Objects) -> list[str]:
    """Views with consumers of their own, which status may have lost."""
    return [str(found["metadata"]["labels"].get(VIEW)) for found in _own(objects)]


def _view_in(deployment: Object | None) -> str:
    return "" if deployment is None else view_of(deployment["spec"]["template"])
