"""The operator's passes over several views on a real API server: no controllers, so tests say what pods and Jobs do."""

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flowagg.kubernetes import Api, Invalid, KubernetesError, NotFound, Object, path
from flowagg.view import Meta
from flowagg_operator import crd, metrics
from flowagg_operator.conditions import timestamp
from flowagg_operator.events import Recorder
from flowagg_operator.observer import Observation, Target
from flowagg_operator.pods import Platform
from flowagg_operator.reconcile import Reconciler
from flowagg_operator.spec import API_VERSION, PLURAL
from flowagg_operator.views import READ_NOW, Found, Look, gate

from tests.integration.api_server import NEEDS_API_SERVER, running
from tests.integration.tools import wait_for

pytestmark = NEEDS_API_SERVER

NAMESPACE = "flows"
IMAGES = {"writer": "w:1", "reader": "r:1", "consumer": "c:1", "cli": "f:1"}
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


class World:
    """A FlowAggregator, an operator that passes over it, and what a look at Kafka and Redis would find.

    positions: view -> what each partition has applied. parts: views that a clone has not brought to an end. damaged:
    view -> what of it cannot be read. whole_log: whether the log still begins at 0.
    """

    def __init__(self, api: Api, *views: dict[str, Any], read: str = "a") -> None:
        self.api = api
        self.name = f"fa-{next(_numbers)}"
        self.positions: dict[str, list[int]] = {}
        self.parts: set[str] = set()
        self.damaged: dict[str, str] = {}
        self.whole_log = True
        self.seen = Look()
        self.target: Target | None = None
        self.operator = self.new_operator()
        spec = {
            "kafka": {"bootstrapServers": "kafka:9092"},
            "redis": {"url": "redis://redis:6379"},
            "reader": {"view": read, "mode": "ActiveActive"},
            "views": list(views) or [{"name": "a"}],
        }
        metadata = {"name": self.name, "namespace": NAMESPACE}
        body = {"apiVersion": API_VERSION, "kind": "FlowAggregator", "metadata": metadata, "spec": spec}
        api.create(path(API_VERSION, PLURAL, NAMESPACE), body)

    def new_operator(self, cli: str = "f:1") -> Reconciler:
        """Another operator, which has looked at nothing yet."""
        recorder = Recorder(self.api, "operator-0", 600, time.monotonic)
        self.seen = Look()

        def observe(_: str, target: Target | None) -> None:
            self.target = target

        platform = Platform(images=IMAGES | {"cli": cli})
        return Reconciler(self.api, NAMESPACE, platform, recorder, lambda _: Observation(views=self.seen), observe)

    def run(self, passes: int = 2) -> None:
        """Passes, each after a look and after the Deployments' pods have become as they should."""
        for _ in range(passes):
            self.look()
            self.operator.run(self.name)
            self.settle()

    def look(self) -> None:
        if self.target is None:
            return
        metas = {
            name: {n: Meta(position, "t", 0, 0, False, "i") for n, position in enumerate(self.positions.get(name, []))}
            for name in self.target.views
        }
        found = {
            name: Found(len(one), 0, whole=name not in self.parts, damaged=self.damaged.get(name, ""))
            for name, one in metas.items()
        }
        read, wanted = self.target.views[0], self.target.spec.reader.view
        compared = read != wanted and not {read, wanted} & self.damaged.keys()
        way = gate(read, wanted, metas[read], metas[wanted]) if compared else None
        self.seen = Look(found, self.whole_log, way)

    def settle(self) -> None:
        """What the Deployment controller says once all pods are as wanted."""
        for one in self._list("apps/v1", "deployments"):
            count = one["spec"]["replicas"]
            counts = dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas", "availableReplicas"), count)
            status = {"observedGeneration": one["metadata"]["generation"], **counts}
            self.api.merge(
                path("apps/v1", "deployments", NAMESPACE, one["metadata"]["name"], "status"), {"status": status}
            )

    def end_job(self, name: str, kind: str) -> None:
        """What the Job controller says. kind: Complete or Failed."""
        now = timestamp(datetime.now(UTC))
        before = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}[kind]
        conditions = [{"type": one, "status": "True", "lastTransitionTime": now} for one in (before, kind)]
        status: Object = {"startTime": now, "conditions": conditions, "uncountedTerminatedPods": {}}
        if kind == "Complete":
            status |= {"completionTime": now, "succeeded": 1}
        else:
            status["failed"] = 1
        self.api.merge(path("batch/v1", "jobs", NAMESPACE, self.named(name), "status"), {"status": status})

    def patch(self, **spec: Any) -> None:
        self.api.merge(path(API_VERSION, PLURAL, NAMESPACE, self.name), {"spec": spec}, field_manager="kubectl")

    def annotate(self, value: str) -> None:
        """Have readers change over to a view whatever it lacks."""
        body = {"metadata": {"annotations": {READ_NOW: value}}}
        self.api.merge(path(API_VERSION, PLURAL, NAMESPACE, self.name), body, field_manager="kubectl")

    @property
    def annotations(self) -> dict[str, str]:
        metadata = self.api.get(path(API_VERSION, PLURAL, NAMESPACE, self.name))["metadata"]
        return dict(metadata.get("annotations") or {})

    def pod(self, name: str, view: str) -> None:
        """A pod of a view's consumers that is still there."""
        labels = {"app.kubernetes.io/instance": self.name, "flowaggregator.io/view": view}
        spec = {"containers": [{"name": "c", "image": "c"}], "serviceAccountName": "default"}
        where = path("v1", "serviceaccounts", NAMESPACE, "default")
        self.api.apply(
            where, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}, field_manager="test"
        )
        body = {"metadata": {"name": self.named(name), "labels": labels}, "spec": spec}
        self.api.create(path("v1", "pods", NAMESPACE), {"apiVersion": "v1", "kind": "Pod", **body})

    def named(self, end: str) -> str:
        return f"{self.name}-{end}"

    def names(self, version: str, plural: str) -> set[str]:
        """Names of our objects of a kind, without the FlowAggregator's."""
        return {one["metadata"]["name"].removeprefix(f"{self.name}-") for one in self._list(version, plural)}

    @property
    def deployments(self) -> set[str]:
        return self.names("apps/v1", "deployments")

    @property
    def jobs(self) -> set[str]:
        return self.names("batch/v1", "jobs")

    def view_of(self, deployment: str) -> str:
        found = self.api.get(path("apps/v1", "deployments", NAMESPACE, self.named(deployment)))
        env = found["spec"]["template"]["spec"]["containers"][0]["env"]
        return next(str(one["value"]) for one in env if one["name"] == "FLOWAGG_VIEW")

    @property
    def status(self) -> Object:
        found: Object = self.api.get(path(API_VERSION, PLURAL, NAMESPACE, self.name))["status"]
        return found

    @property
    def states(self) -> dict[str, str]:
        return {one["name"]: one["state"] for one in self.status["views"]}

    @property
    def reason(self) -> str:
        found = next(one for one in self.status["conditions"] if one["type"] == "ViewReady")
        return str(found["reason"])

    def message(self, kind: str = "ViewReady") -> str:
        return str(next(one["message"] for one in self.status["conditions"] if one["type"] == kind))

    def _list(self, version: str, plural: str) -> list[Object]:
        query = {"labelSelector": f"app.kubernetes.io/instance={self.name}"}
        return self.api.list(path(version, plural, NAMESPACE), query)


def a_and_b(api: Api, read: str = "a", **of_b: Any) -> World:
    """Two views that are live."""
    world = World(api)
    world.positions = {"a": [5, 5]}
    world.run()
    world.patch(views=[{"name": "a"}, {"name": "b", **of_b}])
    world.run(1)
    world.positions["b"] = [5, 5]
    world.run()
    assert world.states == {"a": "Live", "b": "Live"}
    if read == "b":
        world.patch(reader={"view": "b"})
        world.run(3)
    assert (world.status["readView"], world.reason) == (read, "Serving")
    return world


def test_one_view_is_as_before_and_needs_no_look(api: Api) -> None:
    world = World(api)
    world.operator.run(world.name)
    assert world.deployments == {"writer", "reader", "consumer"}
    world.positions = {"a": [0]}
    world.run()
    assert (world.states, world.reason, world.status["readView"]) == ({"a": "Live"}, "Serving", "a")


def test_a_second_view_from_the_log_gets_consumers_of_its_own(api: Api) -> None:
    world = World(api, {"name": "a", "retention": {"hours": 48}})
    world.positions = {"a": [5]}
    world.run()
    world.patch(views=[{"name": "a", "retention": {"hours": 48}}, {"name": "b", "replicas": 2}])
    world.run(1)
    world.run()
    assert world.deployments == {"writer", "reader", "consumer", "consumer-b"}
    assert world.names("policy/v1", "poddisruptionbudgets") == world.deployments
    assert (world.view_of("consumer-b"), world.view_of("consumer"), world.view_of("reader")) == ("b", "a", "a")
    assert world.jobs == set()
    assert (world.states, world.reason) == ({"a": "Live", "b": "Building"}, "Building")
    world.positions["b"] = [1]
    world.run()
    assert (world.states, world.reason) == ({"a": "Live", "b": "Live"}, "Serving")
    entry = world.status["views"][1]
    assert (entry["ready"], entry["replicas"], entry["lag"], entry["deletionPolicy"]) == (2, 2, 0, "Retain")
    shown = metrics.REPLICAS.labels(world.name, "consumer-b", "ready")._value.get()
    assert shown == 2


def test_consumers_of_a_clone_come_once_the_job_is_complete(api: Api) -> None:
    world = World(api)
    world.positions, world.whole_log = {"a": [50]}, False
    world.run()
    world.patch(views=[{"name": "a"}, {"name": "b"}])
    world.run(3)
    assert (world.jobs, world.states["b"]) == ({"clone-b"}, "Cloning")
    assert "consumer-b" not in world.deployments
    world.positions["b"] = [50]  # Redis has some of it, or all: only the Job knows
    world.run(2)
    assert "consumer-b" not in world.deployments
    world.operator = world.new_operator()  # in the middle
    world.operator.run(world.name)
    assert (world.jobs, world.states["b"]) == ({"clone-b"}, "Cloning")
    world.end_job("clone-b", "Complete")
    world.run(3)
    assert (world.jobs, world.states["b"], world.reason) == (set(), "Live", "Serving")
    assert world.view_of("consumer-b") == "b"


def test_a_failed_clone_is_a_condition_and_deleting_its_job_has_it_tried_again(api: Api) -> None:
    world = World(api)
    world.positions = {"a": [50]}
    world.run()
    world.patch(views=[{"name": "a"}, {"name": "b", "source": "Clone"}], reader={"view": "b"})
    world.run(2)
    world.positions["b"], world.parts = [50], {"b"}
    world.end_job("clone-b", "Failed")
    world.run(2)
    assert (world.states["b"], world.reason, world.view_of("reader")) == ("Failed", "CloneFailed", "a")
    assert f"kubectl delete job {world.named('clone-b')}" in world.message()
    before = world.api.get(path("batch/v1", "jobs", NAMESPACE, world.named("clone-b")))["metadata"]["uid"]
    world.api.delete(
        path("batch/v1", "jobs", NAMESPACE, world.named("clone-b")), body={"propagationPolicy": "Background"}
    )
    world.run(2)
    after = world.api.get(path("batch/v1", "jobs", NAMESPACE, world.named("clone-b")))["metadata"]["uid"]
    assert before != after
    assert "consumer-b" not in world.deployments


@pytest.mark.parametrize("deleted", [False, True])
def test_a_view_that_is_whole_though_its_clone_failed_gets_its_consumers(api: Api, deleted: bool) -> None:
    world = World(api)
    world.positions = {"a": [50]}
    world.run()
    world.patch(views=[{"name": "a"}, {"name": "b", "source": "Clone"}])
    world.run(2)
    world.positions["b"], world.parts = [50], {"b"}
    world.end_job("clone-b", "Failed")
    world.run(2)
    assert world.states["b"] == "Failed"
    world.parts = set()  # somebody has made it by hand
    if deleted:
        where = path("batch/v1", "jobs", NAMESPACE, world.named("clone-b"))
        world.api.delete(where, body={"propagationPolicy": "Background"})
    world.run(3)
    assert (world.jobs, world.states["b"], world.reason) == (set(), "Live", "Serving")
    assert world.view_of("consumer-b") == "b"
    world.patch(views=[{"name": "a"}])
    world.run(3)
    assert (world.jobs, world.states) == (set(), {"a": "Live"})  # its data stay


def test_a_view_that_is_itself_being_cloned_is_waited_for(api: Api) -> None:
    world = World(api)
    world.positions = {"a": [50]}
    world.run()
    of_a, of_b = {"source": "Clone", "cloneFrom": "a"}, {"source": "Clone", "cloneFrom": "b"}
    world.patch(views=[{"name": "a"}, {"name": "b", **of_a}, {"name": "c", **of_b}])
    world.run(2)
    world.positions["b"], world.parts = [50], {"b"}
    world.run(2)
    assert (world.jobs, world.states) == ({"clone-b"}, {"a": "Live", "b": "Cloning", "c": "Building"})
    world.parts = set()
    world.end_job("clone-b", "Complete")
    world.run(3)
    assert (world.jobs, world.states["b"], world.states["c"]) == ({"clone-c"}, "Live", "Cloning")


def test_a_damaged_view_is_the_reason_and_an_annotation_leads_away_from_it(api: Api) -> None:
    world = a_and_b(api)
    world.damaged = {"a": "flowagg:{a:0}:meta: something"}
    world.patch(reader={"view": "b"})
    world.run(2)
    assert (world.view_of("reader"), world.reason) == ("a", "DamagedView")
    assert "flowagg:{a:0}:meta: something: docs/guides/repair.md#damagedview" in world.message()
    world.annotate("b")
    world.run()
    assert (world.view_of("reader"), world.reason) == ("b", "DamagedView")


def test_without_an_image_for_jobs_status_says_so(api: Api) -> None:
    world = World(api)
    world.operator = world.new_operator(cli="")
    world.positions, world.whole_log = {"a": [50]}, False
    world.run()
    world.patch(views=[{"name": "a"}, {"name": "b"}])
    world.run(2)
    assert "FLOWAGG_CLI_IMAGE" in world.message("Ready")


def test_readers_go_on_with_the_former_view_until_the_new_one_is_as_far(api: Api) -> None:
    world = a_and_b(api)
    world.positions = {"a": [9, 9], "b": [9, 8]}
    world.patch(reader={"view": "b"})
    world.run(3)
    assert (world.view_of("reader"), world.status["readView"], world.reason) == ("a", "a", "CatchingUp")
    assert "behind by 1 records in 1 of 2 partitions (1 by 1)" in world.message()
    world.operator = world.new_operator()  # in the middle: it must not guess
    world.operator.run(world.name)
    assert (world.view_of("reader"), world.status["readView"]) == ("a", "a")
    world.positions["b"] = [9, 9]
    world.run()
    assert (world.view_of("reader"), world.status["readView"], world.reason) == ("b", "b", "Serving")
    world.operator = world.new_operator()
    world.positions["a"] = [20, 20]  # whatever becomes of the former one
    world.run()
    assert world.view_of("reader") == "b"


def test_an_operator_that_ends_between_status_and_deployment_never_has_readers_go_back(api: Api) -> None:
    world = a_and_b(api)
    where = path(API_VERSION, PLURAL, NAMESPACE, world.name, "status")
    world.patch(reader={"view": "b"})
    world.api.merge(where, {"status": {"readView": "b"}})  # what the one that ended had written
    world.positions = {"a": [90, 90], "b": [50, 50]}
    world.operator = world.new_operator()
    world.run()
    assert world.view_of("reader") == "b"


def test_readers_of_an_older_operator_are_known_by_their_deployment(api: Api) -> None:
    world = a_and_b(api)
    where = path(API_VERSION, PLURAL, NAMESPACE, world.name, "status")
    world.api.merge(where, {"status": {"readView": None, "views": None}})
    world.patch(reader={"view": "b"})
    world.positions = {"a": [90, 90], "b": [50, 50]}
    world.operator = world.new_operator()
    world.run(3)
    assert (world.view_of("reader"), world.status["readView"], world.reason) == ("a", "a", "CatchingUp")


def test_an_annotation_has_readers_change_over_whatever_the_new_view_lacks(api: Api) -> None:
    world = a_and_b(api)
    world.positions = {"a": [90, 90], "b": [1, 1]}
    world.patch(reader={"view": "b"})
    world.run(2)
    assert world.view_of("reader") == "a"
    world.annotate("b")
    world.run()
    assert (world.view_of("reader"), world.reason) == ("b", "Serving")
    # It has done its part: the next change finds the gate as it should be.
    assert READ_NOW not in world.annotations
    world.positions = {"a": [90, 90], "b": [99, 99]}
    world.patch(reader={"view": "a"})
    world.run(2)
    assert (world.view_of("reader"), world.reason) == ("b", "CatchingUp")
    world.positions["a"] = [99, 99]
    world.run(2)
    world.positions["b"] = [99, 98]
    world.patch(reader={"view": "b"})
    world.run(2)
    assert (world.view_of("reader"), world.reason) == ("a", "CatchingUp")


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_a_view_that_left_the_spec_loses_its_consumers_and_with_delete_its_data(api: Api, policy: str) -> None:
    world = a_and_b(api, deletionPolicy=policy)
    world.pod("last", "b")
    world.patch(views=[{"name": "a"}])
    world.run(3)
    assert world.deployments == {"writer", "reader", "consumer"}
    assert world.names("policy/v1", "poddisruptionbudgets") == world.deployments
    assert world.jobs == set()
    assert world.states == ({"a": "Live", "b": "Removing"} if policy == "Delete" else {"a": "Live"})
    world.api.delete(path("v1", "pods", NAMESPACE, world.named("last")), body={"gracePeriodSeconds": 0})
    world.run(2)
    assert world.jobs == ({"remove-b"} if policy == "Delete" else set())
    if policy == "Delete":
        world.operator = world.new_operator()  # in the middle
        world.run(2)
        assert (world.jobs, world.states["b"]) == ({"remove-b"}, "Removing")
        world.end_job("remove-b", "Complete")
        del world.positions["b"]
        world.run(2)
    assert (world.jobs, world.states, world.reason) == (set(), {"a": "Live"}, "Serving")


def test_a_failed_removal_stays_until_it_is_mended(api: Api) -> None:
    world = a_and_b(api, deletionPolicy="Delete")
    world.patch(views=[{"name": "a"}])
    world.run(3)
    world.end_job("remove-b", "Failed")
    world.run(2)
    assert (world.states["b"], world.reason) == ("Failed", "RemovalFailed")
    world.api.delete(
        path("batch/v1", "jobs", NAMESPACE, world.named("remove-b")), body={"propagationPolicy": "Background"}
    )
    world.run(2)
    assert (world.jobs, world.states["b"]) == ({"remove-b"}, "Removing")


def test_a_view_that_comes_back_while_its_data_go_is_built_anew_after_that(api: Api) -> None:
    world = a_and_b(api, deletionPolicy="Delete")
    world.patch(views=[{"name": "a"}])
    world.run(3)
    assert world.jobs == {"remove-b"}
    world.patch(views=[{"name": "a"}, {"name": "b"}])
    world.run(2)
    assert "consumer-b" not in world.deployments
    world.end_job("remove-b", "Complete")
    del world.positions["b"]
    world.run(3)
    assert world.view_of("consumer-b") == "b"
    assert world.jobs == set()


def test_the_second_view_takes_the_place_of_the_first_one(api: Api) -> None:
    world = a_and_b(api, read="b")
    world.patch(views=[{"name": "b", "deletionPolicy": "Retain"}])
    world.look()
    world.operator.run(world.name)  # the scaled consumers change over; those of its own stay meanwhile
    assert world.view_of("consumer") == "b"
    assert "consumer-b" in world.deployments
    world.settle()
    world.run(2)
    assert world.deployments == {"writer", "reader", "consumer"}
    assert world.states == {"b": "Live"}


def test_a_view_that_is_still_read_stays_though_the_spec_names_it_no_more(api: Api) -> None:
    world = a_and_b(api, read="b", deletionPolicy="Delete")
    world.positions = {"a": [5, 5], "b": [9, 9]}
    world.patch(reader={"view": "a"}, views=[{"name": "a"}])
    world.run(3)
    assert (world.view_of("reader"), world.reason) == ("b", "CatchingUp")
    assert "consumer-b" in world.deployments
    world.positions["a"] = [9, 9]
    world.run(4)
    assert world.view_of("reader") == "a"
    assert "consumer-b" not in world.deployments
    assert world.jobs == {"remove-b"}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no view": ({"views": []}, "spec.views"),
    "17 views": ({"views": [{"name": f"v{n}"} for n in range(17)]}, "spec.views"),
    "a name twice": ({"views": [{"name": "a"}, {"name": "a"}]}, "Duplicate value"),
    "a view that is read and not kept": ({"reader": {"view": "x"}}, "reader.view must be the name of one of views"),
    "a clone of itself": ({"views": [{"name": "a"}, {"name": "b", "cloneFrom": "b"}]}, "cannot be cloned from itself"),
    "a clone of nobody": ({"views": [{"name": "a"}, {"name": "b", "cloneFrom": "x"}]}, "cloneFrom must be the name of"),
    "a clone from the log": (
        {"views": [{"name": "a"}, {"name": "b", "cloneFrom": "a", "source": "Log"}]},
        "cloneFrom has no effect with source Log",
    ),
    "replicas of the first": ({"views": [{"name": "a", "replicas": 2}]}, "set spec.consumer.replicas instead"),
    "a new first view": ({"views": [{"name": "n"}, {"name": "a"}]}, "the first view must be one that was there before"),
    "an unknown source": ({"views": [{"name": "a", "source": "Air"}]}, "Unsupported value"),
    "an unknown policy": ({"views": [{"name": "a", "deletionPolicy": "Burn"}]}, "Unsupported value"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_spec_that_cannot_be_is_refused(api: Api, name: str) -> None:
    world = World(api)
    changes, said = REFUSED[name]
    with pytest.raises(Invalid) as refusal:
        world.patch(**changes)
    assert said in str(refusal.value)


def test_sixteen_views_are_taken_with_their_defaults(api: Api) -> None:
    world = World(api, *({"name": f"v{n}"} for n in range(16)), read="v3")
    found = world.api.get(path(API_VERSION, PLURAL, NAMESPACE, world.name))["spec"]["views"]
    assert found == [{"name": f"v{n}", "source": "Auto", "deletionPolicy": "Retain"} for n in range(16)]
    world.patch(views=[{"name": "v3"}, {"name": "v0", "cloneFrom": "v3"}])
    with pytest.raises(NotFound):
        world.api.get(path("apps/v1", "deployments", NAMESPACE, world.named("consumer-v0")))
