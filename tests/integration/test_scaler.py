"""The autoscaler's hand on a real API server: whose number it is, and what a death or a rival in between leaves."""

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flowagg.kubernetes import Api, Forbidden, KubernetesError, Object, Unreachable, path
from flowagg_operator import crd
from flowagg_operator.conditions import Verdict
from flowagg_operator.events import Recorder
from flowagg_operator.lag import History, Snapshot
from flowagg_operator.scaler import HOLD_ANNOTATION, Scaler, restored
from flowagg_operator.scaling_terms import Observation
from flowagg_operator.spec import API_VERSION, PLURAL, Autoscaling, owner_of, read_spec

from tests.integration.api_server import NEEDS_API_SERVER, running
from tests.integration.tools import wait_for

pytestmark = NEEDS_API_SERVER

NAMESPACE = "flows"
PARTITIONS = 6
SPEED = 100
"""Records a second that a consumer applies."""
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("kubernetes")) as server:
        made = server.administrator
        made.create(path("v1", "namespaces"), {"metadata": {"name": NAMESPACE}})
        crd.apply(made)
        wait_for(lambda: _listed(made), "the API server knows FlowAggregators")
        yield made


def _listed(api: Api) -> bool:
    try:
        api.list(path(API_VERSION, PLURAL, NAMESPACE))
    except KubernetesError:
        return False
    return True


class Place:
    """A FlowAggregator, its consumers' Deployment, and a group that behaves as it is told.

    Time goes by looks of five seconds, from a moment of its own on.
    """

    def __init__(self, api: Api, **autoscaling: Any) -> None:
        self.api = api
        self.name = f"fa-{next(_numbers)}"
        spec = {
            "kafka": {"bootstrapServers": "kafka:9092"},
            "redis": {"url": "redis://redis:6379"},
            "consumer": {"replicas": 1, "autoscaling": autoscaling},
        }
        metadata = {"name": self.name, "namespace": NAMESPACE}
        body = {"apiVersion": API_VERSION, "kind": "FlowAggregator", "metadata": metadata, "spec": spec}
        self.owner = owner_of(api.create(path(API_VERSION, PLURAL, NAMESPACE), body))
        # Points in time are kept to the second.
        self.at, self.began = 1_000.0, datetime.now(UTC).replace(microsecond=0)
        self.history = History()
        self.applied = self.arrived = 0.0
        self.arriving = 50.0
        self.seen = self.replicas
        self._deploy(1)
        self.scaler = self.new_scaler()

    def new_scaler(self, api: Api | None = None) -> Scaler:
        """Another operator's."""
        recorder = Recorder(self.api, "operator-0", 60, time.monotonic)
        return Scaler(api or self.api, recorder, lambda: self.began + timedelta(seconds=self.at - 1_000.0))

    @property
    def resource(self) -> Object:
        return self.api.get(path(API_VERSION, PLURAL, NAMESPACE, self.name))

    @property
    def replicas(self) -> int:
        number: int = self.resource["spec"]["consumer"]["replicas"]
        return number

    @property
    def status(self) -> Object:
        found: Object = (self.resource.get("status") or {}).get("autoscaling") or {}
        return found

    @property
    def events(self) -> list[str]:
        found = self.api.list(path("events.k8s.io/v1", "events", NAMESPACE))
        return [one["reason"] for one in found if one["regarding"]["name"] == self.name]

    def scale(self, replicas: int) -> None:
        """As kubectl scale does."""
        where = path(API_VERSION, PLURAL, NAMESPACE, self.name, "scale")
        self.api.merge(where, {"spec": {"replicas": replicas}}, field_manager="kubectl")

    def annotate(self, value: str) -> None:
        where = path(API_VERSION, PLURAL, NAMESPACE, self.name)
        self.api.merge(where, {"metadata": {"annotations": {HOLD_ANNOTATION: value}}}, field_manager="kubectl")

    def look(self, scaler: Scaler | None = None, trouble: str = "") -> Verdict:
        """Five seconds later."""
        self.at += 5.0
        self.seen = max(1, self.replicas)
        self._deploy(self.seen)
        self.arrived += 5 * self.arriving
        self.applied = min(self.arrived, self.applied + 5 * SPEED * self.seen)
        share, done = int(self.arrived / PARTITIONS), int(self.applied / PARTITIONS)
        all_of = range(PARTITIONS)
        snapshot = Snapshot(
            self.at, dict.fromkeys(all_of, done), dict.fromkeys(all_of, 0), dict.fromkeys(all_of, share)
        )
        self.history = self.history.after(snapshot)
        owners = {partition: f"c-{partition % self.seen}" for partition in all_of}
        scene = Observation(
            self.at,
            history=None if trouble else self.history,
            trouble=trouble,
            group="Stable",
            members=self.seen,
            owners=owners,
        )
        wanted = read_spec(self.resource["spec"]).consumer.autoscaling
        return (scaler or self.scaler).step(self.owner, wanted, scene)

    def run(self, looks: int, scaler: Scaler | None = None) -> list[Verdict]:
        return [self.look(scaler) for _ in range(looks)]

    def _deploy(self, replicas: int) -> None:
        labels = {"app": self.name}
        container = {"name": "consumer", "image": "consumer"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        name = f"{self.name}-consumer"
        manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        where = path("apps/v1", "deployments", NAMESPACE, name)
        self.api.apply(where, manifest, field_manager="test", force=True)
        counts = {"replicas": replicas, "readyReplicas": replicas, "updatedReplicas": replicas}
        self.api.merge(f"{where}/status", {"status": counts}, field_manager="test")


class DiesBeforeTheScale:
    """An API whose user dies once it has noted what it is about to write."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    def merge(self, where: str, patch: Object, **options: Any) -> Object:
        if where.endswith("/scale"):
            raise SystemExit
        return self._api.merge(where, patch, **options)


def test_more_consumers_come_by_the_scale_subresource_and_status_says_why(api: Api) -> None:
    place = Place(api)
    place.arriving = 250.0
    verdicts = place.run(12)
    assert place.replicas == PARTITIONS
    assert {(verdict.status, verdict.reason) for verdict in verdicts} == {("True", "Automatic")}
    status = place.resource["status"]
    assert status["desired"] == PARTITIONS
    last = status["lastDecision"]
    assert (last["from"], last["to"], last["reason"]) == (1, PARTITIONS, "ScaledUp")
    assert "records/s arrive" in last["message"]
    assert status["autoscaling"]["capacityPerConsumer"] == pytest.approx(SPEED, rel=0.1)
    assert "ScaledUp" in place.events


def test_an_operator_that_died_before_its_number_was_written_leaves_nothing_by_hand(api: Api) -> None:
    place = Place(api)
    place.arriving = 250.0
    dying = place.new_scaler(DiesBeforeTheScale(api))  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        place.run(20, dying)
    assert place.replicas == 1
    assert (place.status["target"], place.status["previous"]) == (PARTITIONS, 1)
    verdicts = place.run(14, place.new_scaler())
    assert {verdict.reason for verdict in verdicts} == {"Automatic"}
    assert place.replicas == PARTITIONS


def test_an_operator_that_died_after_its_number_was_written_leaves_nothing_by_hand(api: Api) -> None:
    place = Place(api)
    place.arriving = 250.0
    while place.replicas == 1:
        place.look()
    assert place.status["previous"] == 1
    verdicts = place.run(4, place.new_scaler())
    assert {verdict.reason for verdict in verdicts} == {"Automatic"}
    assert "previous" not in place.status


def test_a_number_whose_writing_was_not_answered_is_not_taken_for_one_set_by_hand(api: Api) -> None:
    place = Place(api)
    place.arriving = 250.0

    class Unanswered(DiesBeforeTheScale):
        def merge(self, where: str, patch: Object, **options: Any) -> Object:
            found = api.merge(where, patch, **options)
            if where.endswith("/scale"):
                raise Unreachable("no answer within 5 s")
            return found

    unanswered = place.new_scaler(Unanswered(api))  # type: ignore[arg-type]
    verdicts = place.run(14, unanswered)
    assert place.replicas == PARTITIONS
    assert {verdict.reason for verdict in verdicts} == {"Automatic"}


def test_a_number_that_is_refused_is_told_and_not_tried_at_every_look(api: Api) -> None:
    place = Place(api)
    place.arriving = 250.0
    tries = []

    class Refusing(DiesBeforeTheScale):
        def merge(self, where: str, patch: Object, **options: Any) -> Object:
            if where.endswith("/scale"):
                tries.append(place.at)
                raise Forbidden("may not patch flowaggregators/scale")
            return api.merge(where, patch, **options)

    refusing = place.new_scaler(Refusing(api))  # type: ignore[arg-type]
    verdicts = place.run(20, refusing)
    told = [verdict for verdict in verdicts if verdict.reason == "WriteFailed"]
    assert told
    assert "may not patch" in told[0].message
    assert all(later - earlier >= 30 for earlier, later in itertools.pairwise(tries))
    assert "lastDecision" not in place.resource["status"]
    assert place.look(place.new_scaler()).reason == "Automatic"


def test_a_speed_that_was_measured_and_one_that_was_estimated_stay_what_they_are(api: Api) -> None:
    place = Place(api)
    place.arriving = 250.0
    place.run(12)
    measured = restored(place.status, 0.0, datetime.now(UTC))
    assert measured.rate == pytest.approx(SPEED, rel=0.1)
    estimated = restored({**place.status, "capacityMeasured": False}, 0.0, datetime.now(UTC))
    assert (estimated.rate, estimated.unhindered) == (None, measured.rate)


def test_a_number_set_by_hand_while_another_is_written_stands(api: Api) -> None:
    place = Place(api)
    place.arriving = 250.0

    class Rival(DiesBeforeTheScale):
        def merge(self, where: str, patch: Object, **options: Any) -> Object:
            if where.endswith("/scale"):
                place.scale(4)
            return api.merge(where, patch, **options)

    rivalled = place.new_scaler(Rival(api))  # type: ignore[arg-type]
    while place.replicas == 1:
        place.look(rivalled)
    assert place.replicas == 4
    assert place.look().reason == "ManualOverride"
    assert place.replicas == 4


def test_a_number_set_by_hand_holds_over_a_restart_for_as_long_as_is_left(api: Api) -> None:
    place = Place(api, manualHoldSeconds=60, scaleDownWindowSeconds=30, settleSeconds=5)
    place.run(3)
    place.scale(3)
    held = place.look()
    assert (held.status, held.reason) == ("False", "ManualOverride")
    assert "60 s" in held.message
    assert place.status["manualUntil"] > place.status["manualSince"]
    place.run(5)
    another = place.new_scaler()
    assert "30 s" in place.look(another).message
    place.annotate("anew")
    assert "60 s" in place.look(another).message
    reasons = [verdict.reason for verdict in place.run(24, another)]
    assert reasons[0] == "ManualOverride"
    assert reasons[-1] == "Automatic"
    assert place.replicas == 1
    assert "manualSince" not in place.status


def test_zero_pauses_until_it_is_changed(api: Api) -> None:
    place = Place(api, manualHoldSeconds=10)
    place.run(2)
    place.scale(0)
    assert {verdict.reason for verdict in place.run(6)} == {"Paused"}
    assert place.replicas == 0


def test_an_autoscaler_of_somebody_else_stops_this_one_until_it_is_gone(api: Api) -> None:
    place = Place(api)
    place.arriving = 250.0
    autoscalers = path("autoscaling/v2", "horizontalpodautoscalers", NAMESPACE)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{place.name}-consumer"}
    rival = {"metadata": {"name": f"{place.name}-rival"}, "spec": {"scaleTargetRef": target, "maxReplicas": 3}}
    api.create(autoscalers, rival)
    verdicts = place.run(12)
    assert {verdict.reason for verdict in verdicts} == {"AutoscalerConflict"}
    assert f"{place.name}-rival" in verdicts[-1].message
    assert place.replicas == 1
    api.delete(f"{autoscalers}/{place.name}-rival")
    place.run(3)
    assert place.replicas == PARTITIONS


def test_a_dry_run_writes_status_and_one_event_and_no_number(api: Api) -> None:
    place = Place(api, dryRun=True)
    place.arriving = 250.0
    verdicts = place.run(12)
    assert verdicts[-1].reason == "DryRun"
    assert place.replicas == 1
    assert place.resource["status"]["desired"] == PARTITIONS
    assert place.events.count("DryRun") == 1


def test_switched_off_it_takes_its_word_back(api: Api) -> None:
    place = Place(api)
    place.run(4)
    assert place.status
    off = Autoscaling(enabled=False)
    verdict = place.scaler.step(place.owner, off, Observation(place.at))
    assert (verdict.status, verdict.reason) == ("Unknown", "Disabled")
    assert place.status == {}
    assert "desired" not in place.resource["status"]


def test_a_failed_look_up_changes_nothing(api: Api) -> None:
    place = Place(api)
    place.arriving = 250.0
    place.run(3)
    before = place.replicas
    verdict = place.look(trouble="Kafka at kafka:9092 does not answer")
    assert (verdict.status, verdict.reason) == ("False", "LagUnknown")
    assert "does not answer" in verdict.message
    assert place.replicas == before
