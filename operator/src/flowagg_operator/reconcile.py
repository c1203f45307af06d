"""One pass over a FlowAggregator: what should be is applied, what should not be is removed, and status says it.

The order is the same each time, and each pass begins from what is there, so a pass may end anywhere.
"""

import logging
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from flowagg.kubernetes import Api, Forbidden, Invalid, KubernetesError, NotFound, path

from flowagg_operator import metrics
from flowagg_operator.conditions import (
    CONSUMING,
    KAFKA,
    NOT_LOOKED,
    READY,
    REDIS,
    SCALING,
    VIEW_READY,
    Change,
    Verdict,
    recalled,
    updated,
)
from flowagg_operator.events import Kind, Recorder
from flowagg_operator.objects import Objects, Refused
from flowagg_operator.observer import Observation, Target
from flowagg_operator.pods import Platform, account_name, digest_of, needed_keys, secrets_read_once
from flowagg_operator.readiness import Facts, judge
from flowagg_operator.resources import Address, Object, others, retired, services
from flowagg_operator.routing import Plan, active_pods, plan, see
from flowagg_operator.secret_files import SecretData
from flowagg_operator.services import service_name
from flowagg_operator.spec import (
    API_VERSION,
    COMPONENTS,
    MANAGER,
    PLURAL,
    SERVERS,
    Owner,
    Spec,
    owner_of,
    read_spec,
)
from flowagg_operator.view_keeper import ViewKeeper, ViewsPass
from flowagg_operator.views import READ_NOW, kept_in, looked_at, read_view
from flowagg_operator.views import judge as judge_views

_log = logging.getLogger(__name__)

_CHANGE_TIME: Final = timedelta(seconds=120)
"""For which pods that are not ready after a change of the spec are taken to be on their way."""
_NO_WARNING: Final = frozenset({"Reconciling", "Paused", "Waiting", "ManualOverride", "Building", "CatchingUp"})
"""Reasons that are somebody's wish, or that follow from what another condition says."""
_SOON_SECONDS: Final = 1.0
"""To the next pass while a Service's way changes."""
_AGAIN_SECONDS: Final = 5.0
"""To the next pass where something is missing that no event tells of, such as a Secret or a right."""


@dataclass(slots=True)
class _Pass:
    """What a pass has found so far."""

    owner: Owner
    spec: Spec
    generation: int
    status: Mapping[str, Any]
    override: str = ""
    problem: str = ""
    soon: bool = False
    again: bool = False
    views: ViewsPass | None = None
    further: Mapping[str, Object] = field(default_factory=dict)


class Reconciler:
    """Makes passes. `run` may be called by several threads, for different names."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        platform: Platform,
        recorder: Recorder,
        observation: Callable[[str], Observation],
        observe: Callable[[str, Target | None], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """observation: what the last look at a name found. observe: what is to be looked at; None: nothing any more."""
        self._api = api
        self._namespace = namespace
        self._platform = platform
        self._recorder = recorder
        self._observation = observation
        self._observe = observe
        self._now = now
        self._views = ViewKeeper(api, platform, observation)

    def run(self, name: str) -> float | None:
        """Make a pass. Returns the seconds to the next one, where that is soon. Raises KubernetesError."""
        began = time.perf_counter()
        try:
            soon = self._run(name)
        except KubernetesError:
            metrics.RECONCILES.labels("failed").inc()
            raise
        finally:
            metrics.RECONCILE_SECONDS.observe(time.perf_counter() - began)
        metrics.RECONCILES.labels("done").inc()
        return soon

    def _run(self, name: str) -> float | None:
        # 1. The FlowAggregator as it is now; one that is being deleted takes everything with it by itself.
        try:
            resource = self._api.get(path(API_VERSION, PLURAL, self._namespace, name))
        except NotFound:
            self._observe(name, None)
            forget(name)
            return None
        if resource["metadata"].get("deletionTimestamp"):
            return None
        owner, status = owner_of(resource), resource.get("status") or {}
        generation = resource["metadata"]["generation"]
        try:
            spec = read_spec(resource["spec"])
        except msgspec.ValidationError as error:
            text = f"spec: {error}; the CRD does not go with this operator: see the chart's upgrade notes"
            verdict = Verdict("False", "InvalidSpec", text)
            self._write_status(owner, status, generation, {READY: verdict}, {})
            return None
        override = (resource["metadata"].get("annotations") or {}).get(READ_NOW, "")
        if override and override == status.get("readView"):
            self._views.end_override(owner, resource["metadata"]["resourceVersion"])
        work, objects = _Pass(owner, spec, generation, status, override), Objects(self._api, owner)
        try:
            facts = self._bring_about(work, objects)
        except (Invalid, Forbidden, Refused) as error:
            facts = Facts(problem=str(error))
        finally:
            self._say_changes(owner, objects.changes)
        # 8. What it has come to.
        self._report(work, facts)
        if work.soon:
            return _SOON_SECONDS
        return _AGAIN_SECONDS if facts.problem or work.again else None

    def _bring_about(self, work: _Pass, objects: Objects) -> Facts:
        owner, spec = work.owner, work.spec
        # 2. The Secrets. Without them the pods that are there are left as they are.
        secrets = self._secrets(work)
        complete = not work.problem
        kept = kept_in(work.status)
        read = read_view(spec.reader.view, kept.read, "")
        target = Target(owner, spec, secrets, looked_at(spec, kept, read))
        self._observe(owner.name, target if complete else None)
        digests = {c: _digest(secrets, spec, c) for c in COMPONENTS} if complete else None
        # 3. What is there, and how the Services lead.
        objects.read()

        def deployment(component: str) -> Object | None:
            return objects.get("Deployment", account_name(owner, component))

        seen = {
            c: see(objects.get("Service", service_name(owner, c)), objects.slices[c], deployment(c)) for c in SERVERS
        }
        plans = {c: plan(spec.server(c).mode, seen[c]) for c in SERVERS}
        # 4. What becomes of each view. What readers read is kept first: whoever goes on after a death between here and
        # the Deployment never has them go back.
        views = work.views = self._views.plan(work.status, work.override, owner, spec, objects)
        if views.read != kept.read:
            self._api.merge(
                path(API_VERSION, PLURAL, owner.namespace, owner.name, "status"),
                {"status": {"readView": views.read}},
                field_manager=MANAGER,
            )
            if kept.read:
                note = f"readers change over from view {kept.read} to {views.read}"
                self._recorder.say(owner, "Normal", "ReadersSwitched", note, repeats=True)
        # 5. The Services, whose addresses the slices need; then everything else.
        addresses = {}
        for manifest in services(owner, plans):
            found = objects.apply(manifest)
            families = tuple(found["spec"].get("ipFamilies") or ("IPv4",))
            addresses[found["metadata"]["name"]] = Address(found["metadata"]["uid"], families)
        for manifest in others(owner, spec, self._platform, plans, addresses, digests, views.serving(spec)):
            objects.apply(manifest)
        if complete:
            self._views.begin_jobs(owner, spec, views, objects)
        # 6. What is not wanted any more.
        self._remove(objects, owner, plans)
        work.further = self._views.remove(owner, spec, views, objects)
        work.again = views.waits
        work.soon = any(self._on_the_way(plans[c], spec.server(c).mode) for c in SERVERS)
        # 7. What came of it.
        return Facts(
            problem=work.problem,
            changing=is_changing(work.status, work.generation, self._now()),
            deployments={c: one for c in COMPONENTS if (one := deployment(c)) is not None},
            active={c: active_pods(objects.slices[c]) for c in SERVERS},
            seen=seen,
            troubles=self._observation(owner.name).troubles,
        )

    def _secrets(self, work: _Pass) -> SecretData:
        found: dict[str, dict[str, bytes]] = {}
        for name, key in needed_keys(work.spec):
            try:
                if name not in found:
                    secret = self._api.get(path("v1", "secrets", work.owner.namespace, name))
                    found[name] = {one: b64decode(value) for one, value in (secret.get("data") or {}).items()}
            except NotFound:
                work.problem = f"Secret {name} is not there: create it, or take its reference out of spec"
                continue
            except Forbidden:
                work.problem = f"the operator may not read Secret {name}: name it in the values of its chart"
                continue
            if key not in found[name]:
                work.problem = f"Secret {name} has no key {key}: add it, or name another key in spec"
        return found

    def _say_changes(self, owner: Owner, changes: Mapping[str, list[str]]) -> None:
        """One event for all that a pass has done of a kind."""
        for action, names in changes.items():
            metrics.OBJECTS.labels(action).inc(len(names))
            why = ", changed by somebody else" if action == "repaired" else ""
            note = f"{action} {', '.join(names)}{why}"
            self._recorder.say(owner, "Normal", action.capitalize(), note, repeats=True)

    @staticmethod
    def _remove(objects: Objects, owner: Owner, plans: Mapping[str, Plan]) -> None:
        for component in SERVERS:
            steps = plans[component]
            # The Endpoints object before its slices: they are made again from it.
            if steps.drop_endpoints:
                objects.delete("Endpoints", service_name(owner, component))
            for name in steps.drop_slices:
                objects.delete("EndpointSlice", name)
        for kind, name in retired(owner, plans):
            if objects.get(kind, name) is not None:
                objects.delete(kind, name)

    @staticmethod
    def _on_the_way(steps: Plan, mode: str) -> bool:
        if mode == "ActivePassive":
            return steps.selects or bool(steps.drop_slices)
        return steps.elects or bool(steps.drop_slices) or not steps.retire

    def _report(self, work: _Pass, facts: Facts) -> None:
        owner, spec = work.owner, work.spec
        observation = self._observation(owner.name)
        # After a start there is no look yet: until then the last one's word holds, another replica's too.
        known_before = work.status.get("conditions") or []
        kafka = recalled(observation.kafka, known_before, KAFKA)
        redis = recalled(observation.redis, known_before, REDIS)
        verdicts = {
            READY: judge(spec, facts, kafka, redis),
            KAFKA: kafka,
            REDIS: redis,
            CONSUMING: recalled(observation.consuming, known_before, CONSUMING),
            VIEW_READY: self._views_verdict(work, observation),
            SCALING: recalled(observation.scaling, known_before, SCALING),
        }
        known: dict[str, Any] = {}
        if work.views is not None:
            known["views"] = work.views.entries(observation.views)
            known["readView"] = work.views.read
        if facts.deployments:
            consumer = (facts.deployments.get("consumer") or {}).get("status") or {}
            known |= {
                "replicas": consumer.get("replicas", 0),
                "readyReplicas": consumer.get("readyReplicas", 0),
                "selector": ",".join(f"{key}={value}" for key, value in owner.selector("consumer").items()),
                "active": {component: _active(spec, component, facts) for component in SERVERS},
            }
        if observation.kafka is not NOT_LOOKED:
            known |= {
                "partitions": observation.partitions,
                "lag": observation.lag,
                "lagSeconds": observation.lag_seconds,
            }
        show_replicas(owner.name, {**facts.deployments, **{f"consumer-{view}": d for view, d in work.further.items()}})
        self._write_status(owner, work.status, work.generation, verdicts, known)

    @staticmethod
    def _views_verdict(work: _Pass, observation: Observation) -> Verdict:
        before = work.status.get("conditions") or []
        found = NOT_LOOKED
        if work.views is not None:
            found = judge_views(work.spec, work.views.read, observation.views, work.views.plans)
        return recalled(found, before, VIEW_READY)

    def _write_status(
        self,
        owner: Owner,
        before: Mapping[str, Any],
        generation: int,
        verdicts: Mapping[str, Verdict],
        known: Mapping[str, Any],
    ) -> None:
        """Write what differs. None in known: the field goes."""
        conditions, changes = updated(before.get("conditions") or [], verdicts, generation, self._now())
        status = {"observedGeneration": generation, "conditions": conditions, **known}
        patch = {name: value for name, value in status.items() if _differs(before.get(name), value)}
        if patch:
            self._api.merge(
                path(API_VERSION, PLURAL, owner.namespace, owner.name, "status"),
                {"status": patch},
                field_manager=MANAGER,
            )
        for change in changes:
            self._say_changed(owner, change)
        show_conditions(owner.name, verdicts)

    def _say_changed(self, owner: Owner, change: Change) -> None:
        verdict = change.verdict
        if verdict.status == "Unknown" and not change.before:
            return  # nothing is known yet, and nothing has happened
        kind: Kind = "Warning" if verdict.status == "False" and verdict.reason not in _NO_WARNING else "Normal"
        reason = verdict.reason if verdict.status == "False" else f"{change.type}{verdict.status}"
        self._recorder.say(owner, kind, reason, f"{change.type} is {verdict.status}: {verdict.message}", repeats=True)


def is_changing(status: Mapping[str, Any], generation: int, now: datetime) -> bool:
    """Whether the spec was changed a moment ago, and what it asks for may still be on its way."""
    if status.get("observedGeneration") != generation:
        return True
    for condition in status.get("conditions") or []:
        if condition["type"] == READY and condition["reason"] == "Reconciling":
            return now - datetime.fromisoformat(condition["lastTransitionTime"]) < _CHANGE_TIME
    return False


def show_conditions(name: str, verdicts: Mapping[str, Verdict]) -> None:
    """Bring the metrics of a FlowAggregator's conditions up to date."""
    for kind, verdict in verdicts.items():
        for status in ("True", "False", "Unknown"):
            metrics.CONDITION.labels(name, kind, status).set(verdict.status == status)


def show_replicas(name: str, deployments: Mapping[str, Any]) -> None:
    """Bring the metrics of a FlowAggregator's pods up to date. deployments: by component."""
    for component, found in deployments.items():
        metrics.REPLICAS.labels(name, component, "desired").set(found["spec"].get("replicas", 1))
        metrics.REPLICAS.labels(name, component, "ready").set((found.get("status") or {}).get("readyReplicas", 0))


def forget(name: str) -> None:
    """Withdraw the metrics of a FlowAggregator that is gone."""
    for metric in (metrics.CONDITION, metrics.REPLICAS):
        metric.remove_by_labels({"name": name})


def _active(spec: Spec, component: str, facts: Facts) -> str | None:
    """The pod that a component's Service leads to; None where it leads to all, or to none yet."""
    pods = facts.active.get(component)
    return pods[0] if pods and spec.server(component).mode == "ActivePassive" else None


def _differs(before: Any, value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_differs((before or {}).get(key), one) for key, one in value.items())
    return bool(before != value)


def _digest(secrets: SecretData, spec: Spec, component: str) -> str:
    refs = secrets_read_once(spec, component)
    return digest_of(secrets, refs) if refs else ""
