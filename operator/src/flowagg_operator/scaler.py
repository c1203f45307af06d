"""Carries out what the scaling decision says: reads what there is, writes the number of consumers, and says why.

The number is spec.consumer.replicas of the FlowAggregator, written by its scale subresource; the Deployment follows in
the next pass. What has to outlive this process is kept in status.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flowagg.kubernetes import Api, Conflict, KubernetesError, NotFound, Unreachable, path

from flowagg_operator import metrics
from flowagg_operator.conditions import Verdict, shortened, timestamp
from flowagg_operator.events import Recorder
from flowagg_operator.pods import account_name
from flowagg_operator.scaling import decide
from flowagg_operator.scaling_terms import WELL, Decision, Observation, Policy, State
from flowagg_operator.spec import API_VERSION, KIND, MANAGER, PLURAL, Autoscaling, Owner

_log = logging.getLogger(__name__)

HOLD_ANNOTATION: Final = "flowaggregator.io/hold-replicas"
"""Annotation of a FlowAggregator: a new value has its number of consumers hold, as if it were set by hand anew."""

_WRITE_SECONDS: Final = 15.0
"""Between two writes of status that only bring numbers up to date."""
_DISABLED: Final = Verdict(
    "Unknown", "Disabled", "spec.consumer.autoscaling.enabled is false: spec.consumer.replicas is set by hand alone"
)


@dataclass(frozen=True, slots=True)
class Found:
    """What the API server says of the number of consumers and those who set it."""

    resource: Mapping[str, Any]
    deployment: Mapping[str, Any]
    rival: str

    @property
    def replicas(self) -> int:
        """What the FlowAggregator asks for."""
        return int(self.resource["spec"]["consumer"]["replicas"])

    @property
    def status(self) -> Mapping[str, Any]:
        """What was kept of the autoscaler before."""
        found: Mapping[str, Any] = (self.resource.get("status") or {}).get("autoscaling") or {}
        return found


class Scaler:
    """The autoscaler of one FlowAggregator. `step` is called by one thread at a time."""

    def __init__(self, api: Api, recorder: Recorder, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._api = api
        self._recorder = recorder
        self._now = now
        self._state: State | None = None
        self._uid = ""
        self._written = float("-inf")
        self._said = (0, "")
        self._name: str | None = None

    def step(self, owner: Owner, wanted: Autoscaling, seen: Observation) -> Verdict:
        """Decide and act once; the condition Scaling. Of seen, the API server's part is filled in here."""
        if not wanted.enabled:
            self._forget_decision(owner)
            return _DISABLED
        try:
            found = self._find(owner)
        except KubernetesError as error:
            return Verdict(
                "Unknown", "Unreachable", f"the API server did not say how many consumers there are: {error}"
            )
        if self._state is None or self._uid != owner.uid:
            self._uid, self._state = owner.uid, restored(found.status, seen.at, self._now())
        status = found.deployment.get("status") or {}
        seen = replace(
            seen,
            replicas=found.replicas,
            desired=found.deployment["spec"].get("replicas", 1),
            ready=status.get("readyReplicas", 0),
            updated=status.get("updatedReplicas", 0),
            rival=found.rival,
            renewal=(found.resource["metadata"].get("annotations") or {}).get(HOLD_ANNOTATION, ""),
        )
        before = self._state
        decision = decide(seen, policy_of(wanted), before)
        self._publish(owner.name, decision)
        if decision.target != seen.replicas:
            refused = "" if wanted.dry_run else self._write(owner, found, decision, seen.at)
            if refused is not None:
                # Not written: what was there is still what this operator stands for.
                state = replace(
                    decision.state,
                    target=seen.replicas,
                    previous=None,
                    changed_at=seen.at if refused else before.changed_at,
                    trial=None,
                    lessons=before.lessons,
                )
                decision = replace(decision, state=state)
            if refused:
                text = f"spec.consumer.replicas could not be set to {decision.target}: {refused}"
                decision = replace(decision, target=seen.replicas, reason="WriteFailed", message=text)
        self._state = decision.state
        self._keep(owner, found, decision, seen.at, dry_run=wanted.dry_run)
        return _verdict(wanted, decision)

    def close(self) -> None:
        """Withdraw the metrics."""
        if self._name is not None:
            metrics.SCALINGS.remove_by_labels({"name": self._name})
        self._withdraw()

    def _withdraw(self) -> None:
        if self._name is not None:
            for gauge in (metrics.CAPACITY, metrics.WANTED, metrics.SCALING_HELD):
                gauge.remove_by_labels({"name": self._name})
            self._name = None

    def _find(self, owner: Owner) -> Found:
        resource = self._api.get(path(API_VERSION, PLURAL, owner.namespace, owner.name))
        name = account_name(owner, "consumer")
        try:
            deployment = self._api.get(path("apps/v1", "deployments", owner.namespace, name))
        except NotFound:
            deployment = {"spec": {"replicas": 0}}
        targets = {(KIND, owner.name), ("Deployment", name)}
        rival = ""
        for one in self._api.list(path("autoscaling/v2", "horizontalpodautoscalers", owner.namespace)):
            ref = one["spec"]["scaleTargetRef"]
            if (ref["kind"], ref["name"]) in targets:
                rival = f"HorizontalPodAutoscaler {one['metadata']['name']}"
        return Found(resource, deployment, rival)

    def _write(self, owner: Owner, found: Found, decision: Decision, at: float) -> str | None:
        """Write the number. First what is about to be written: after a death in between, it is known to be ours.

        None: it was written, or nobody knows; else it was not, and why, where that is worth telling.
        """
        where = path(API_VERSION, PLURAL, owner.namespace, owner.name)
        kept = kept_state(decision, at, self._now())
        last = {
            "time": timestamp(self._now()),
            "from": found.replicas,
            "to": decision.target,
            "reason": decision.reason,
            "message": shortened(decision.message),
        }
        try:
            noted = self._api.merge(
                f"{where}/status",
                {
                    "metadata": {"resourceVersion": found.resource["metadata"]["resourceVersion"]},
                    "status": {"autoscaling": kept},
                },
                field_manager=MANAGER,
            )
            # A number that somebody else sets in between is a conflict, and theirs stands.
            version = noted["metadata"]["resourceVersion"]
            patch = {"metadata": {"resourceVersion": version}, "spec": {"replicas": decision.target}}
            self._api.merge(f"{where}/scale", patch, field_manager=MANAGER)
        except Conflict:
            return ""  # the next look decides anew
        except Unreachable as error:
            # It may have been written all the same: the next look sees one of the two numbers, which are both ours.
            _log.warning("no answer to the number of consumers", extra={"reason": str(error)})
            return None
        except KubernetesError as error:
            _log.warning("the number of consumers could not be written", extra={"reason": str(error)})
            return str(error)
        try:
            self._api.merge(
                f"{where}/status",
                {"status": {"desired": decision.target, "lastDecision": last}},
                field_manager=MANAGER,
            )
        except KubernetesError as error:
            _log.warning("status could not be written", extra={"reason": str(error)})
        direction = "up" if decision.reason == "ScaledUp" else "down"
        metrics.SCALINGS.labels(owner.name, direction).inc()
        self._recorder.say(owner, "Normal", decision.reason, decision.message, repeats=True)
        return None

    def _keep(self, owner: Owner, found: Found, decision: Decision, at: float, *, dry_run: bool) -> None:
        """Bring status up to what was decided: at once where it was something new, else from time to time."""
        state = kept_state(decision, at, self._now())
        if dry_run and decision.target != found.replicas:
            state["message"] = shortened(f"dry run, nothing is written: {decision.message}")
        said = (decision.target, decision.reason)
        if dry_run and said != self._said and decision.target != found.replicas:
            self._recorder.say(owner, "Normal", "DryRun", state["message"], repeats=True)
        due = at - self._written >= _WRITE_SECONDS
        if said == self._said and not due and not found.status.get("previous"):
            return
        patch = {name: value for name, value in state.items() if found.status.get(name) != value}
        body: dict[str, Any] = {"autoscaling": patch} if patch else {}
        if (found.resource.get("status") or {}).get("desired") != decision.target:
            body["desired"] = decision.target
        if body:
            try:
                where = path(API_VERSION, PLURAL, owner.namespace, owner.name, "status")
                self._api.merge(where, {"status": body}, field_manager=MANAGER)
            except KubernetesError as error:
                _log.warning("status could not be written", extra={"reason": str(error)})
                return
        self._said, self._written = said, at

    def _publish(self, name: str, decision: Decision) -> None:
        self._name = name
        metrics.WANTED.labels(name).set(decision.target)
        if decision.capacity is not None:
            metrics.CAPACITY.labels(name).set(decision.capacity)
        metrics.SCALING_HELD.remove_by_labels({"name": name})
        if decision.reason not in WELL:
            metrics.SCALING_HELD.labels(name, decision.reason).set(1)
        for direction in ("up", "down"):
            metrics.SCALINGS.labels(name, direction)

    def _forget_decision(self, owner: Owner) -> None:
        """Nobody decides any more: what status says of that goes, once."""
        if self._said == (-1, "Disabled"):
            return
        self._withdraw()
        self._state = None
        try:
            where = path(API_VERSION, PLURAL, owner.namespace, owner.name, "status")
            self._api.merge(where, {"status": {"autoscaling": None, "desired": None}}, field_manager=MANAGER)
        except KubernetesError as error:
            _log.warning("status could not be written", extra={"reason": str(error)})
            return
        self._said = (-1, "Disabled")


def policy_of(wanted: Autoscaling) -> Policy:
    """The policy that a spec asks for."""
    return Policy(
        min_replicas=wanted.min,
        max_replicas=wanted.max,
        target_utilization=wanted.target_utilization,
        scale_up_utilization=wanted.scale_up_utilization,
        catch_up_seconds=wanted.catch_up_seconds,
        lag_seconds=wanted.lag_seconds,
        rate_seconds=wanted.rate_seconds,
        scale_up_interval_seconds=wanted.scale_up_interval_seconds,
        settle_seconds=wanted.settle_seconds,
        scale_down_window_seconds=wanted.scale_down_window_seconds,
        stalled_seconds=wanted.stalled_seconds,
        ineffective_hold_seconds=wanted.ineffective_hold_seconds,
        manual_hold_seconds=wanted.manual_hold_seconds,
    )


def restored(status: Mapping[str, Any], at: float, now: datetime) -> State:
    """What status.autoscaling has kept of the state, as times of the clock that `at` is of."""

    def moment(name: str) -> float | None:
        text = status.get(name)
        return None if text is None else at - (now - datetime.fromisoformat(text)).total_seconds()

    rate, measured = status.get("capacityPerConsumer") or None, status.get("capacityMeasured", False)
    return State(
        target=status.get("target"),
        previous=status.get("previous"),
        manual_since=moment("manualSince"),
        renewal=status.get("renewal", ""),
        changed_at=moment("changedTime"),
        rate=rate if measured else None,
        unhindered=None if measured else rate,
        measured_at=at,
        ineffective_until=moment("ineffectiveUntil"),
    )


def kept_state(decision: Decision, at: float, now: datetime) -> dict[str, Any]:
    """status.autoscaling: the decision, and what of its state outlives the process. None: the field goes."""
    state = decision.state

    def moment(value: float | None) -> str | None:
        return None if value is None else timestamp(now + timedelta(seconds=value - at))

    held = decision.reason == "ManualOverride"
    return {
        "reason": decision.reason,
        "message": shortened(decision.message),
        "arrivalRate": _rounded(decision.arrival_rate),
        "capacity": _rounded(decision.capacity),
        "capacityPerConsumer": _rounded(decision.rate_per_consumer),
        "capacityMeasured": None if decision.rate_per_consumer is None else state.rate is not None,
        "needed": decision.needed,
        "target": state.target,
        "previous": state.previous,
        "manualSince": moment(state.manual_since) if held else None,
        "manualUntil": moment(decision.manual_until) if held else None,
        "renewal": state.renewal or None,
        "changedTime": moment(state.changed_at),
        "ineffectiveUntil": moment(state.ineffective_until),
    }


def _verdict(wanted: Autoscaling, decision: Decision) -> Verdict:
    if decision.reason not in WELL:
        return Verdict("False", decision.reason, decision.message)
    most = "one for each partition" if wanted.max is None else str(wanted.max)
    if wanted.dry_run:
        return Verdict("True", "DryRun", "decisions are reported in status.autoscaling and events, and not carried out")
    return Verdict(
        "True", "Automatic", f"the lag decides how many consumers there are: at least {wanted.min}, at most {most}"
    )


def _rounded(number: float | None) -> float | None:
    """To three places: status need not be written for each record."""
    return None if number is None else float(f"{number:.3g}")
