"""How a Service gets from one way of leading to the other."""

from dataclasses import dataclass, field, replace

import pytest
from flowagg_operator.pods import ELECTION
from flowagg_operator.routing import Plan, Seen, active_pods, plan, see
from flowagg_operator.spec import Mode

FRESH = Seen()
PASSIVE = Seen(own=("main-writer",), own_leads=True, elects=True)
ACTIVE = Seen(selects=True, controllers=("main-writer-abc",), controllers_lead=True)


@pytest.mark.parametrize(
    ("mode", "seen", "expected"),
    [
        ("ActivePassive", FRESH, Plan(False, elects=True, equipped=True, drop_endpoints=True)),
        ("ActivePassive", PASSIVE, Plan(False, elects=True, equipped=True, drop_endpoints=True)),
        ("ActiveActive", FRESH, Plan(True, elects=False, equipped=False, retire=True)),
        ("ActiveActive", ACTIVE, Plan(True, elects=False, equipped=False, retire=True)),
    ],
)
def test_a_settled_service_stays_as_it_is(mode: Mode, seen: Seen, expected: Plan) -> None:
    assert plan(mode, seen) == expected


def test_the_selector_stays_until_our_slice_leads_somewhere_and_all_pods_hold_elections() -> None:
    on_the_way = replace(ACTIVE, own=("main-writer",), elects=True)
    assert plan("ActivePassive", on_the_way).selects
    assert plan("ActivePassive", on_the_way).drop_slices == ()
    led = replace(on_the_way, own_leads=True)
    assert plan("ActivePassive", replace(led, settled=False)).selects
    assert plan("ActivePassive", replace(led, elects=False)).selects
    assert not plan("ActivePassive", led).selects


def test_what_kubernetes_controllers_leave_lying_goes_once_the_selector_is_gone() -> None:
    left = replace(PASSIVE, controllers=("main-writer-abc",), controllers_lead=True)
    steps = plan("ActivePassive", left)
    assert steps.drop_endpoints
    assert steps.drop_slices == ("main-writer-abc",)


def test_our_slice_stays_until_the_controllers_slice_leads_to_a_ready_pod() -> None:
    begun = replace(PASSIVE, selects=True, controllers=("main-writer-abc",))
    assert plan("ActiveActive", begun) == Plan(True, elects=True, equipped=True)
    ready = replace(begun, controllers_lead=True)
    assert plan("ActiveActive", ready) == Plan(True, elects=False, equipped=False, drop_slices=("main-writer",))


def test_lease_and_rights_stay_until_no_pod_holds_elections() -> None:
    rolling = Seen(selects=True, controllers=("c",), controllers_lead=True, elects=False, settled=False)
    assert not plan("ActiveActive", rolling).retire
    assert plan("ActiveActive", replace(rolling, settled=True)).retire


@dataclass
class Cluster:
    """Enough of a cluster to walk through a switch: what each plan does to it, and what answers a moment later."""

    selects: bool = False
    own: dict[str, bool] = field(default_factory=dict)
    controllers: dict[str, bool] = field(default_factory=dict)
    elects: bool = False
    settled: bool = True
    lease: bool = False

    def seen(self) -> Seen:
        return Seen(
            self.selects,
            tuple(self.own),
            any(self.own.values()),
            tuple(self.controllers),
            any(self.controllers.values()),
            (),
            self.elects,
            self.settled,
        )

    def carry_out(self, steps: Plan) -> None:
        if steps.selects and not self.selects:
            self.controllers.setdefault("c", False)
        self.selects = steps.selects
        if steps.equipped:
            self.own.setdefault("o", False)
            self.lease = True
        if steps.elects != self.elects:
            self.elects, self.settled = steps.elects, False
        for name in steps.drop_slices:
            self.own.pop(name, None)
            self.controllers.pop(name, None)
        if steps.retire:
            self.lease = False

    def answer(self) -> None:
        """Pods roll, elect one, and the controller follows."""
        self.settled = True
        if self.elects and self.own:
            self.own = dict.fromkeys(self.own, True)
        if self.selects and self.controllers:
            self.controllers = dict.fromkeys(self.controllers, True)

    def leads(self) -> bool:
        return any(self.own.values()) or any(self.controllers.values())


@pytest.mark.parametrize("start", ["ActivePassive", "ActiveActive"])
def test_a_switch_leads_somewhere_at_every_moment_and_leaves_nothing_behind(start: Mode) -> None:
    cluster, other = Cluster(), "ActiveActive" if start == "ActivePassive" else "ActivePassive"

    def settle(mode: Mode, *, begun: bool) -> None:
        for _ in range(8):
            cluster.carry_out(plan(mode, cluster.seen()))
            assert cluster.leads() or not begun
            cluster.answer()

    settle(start, begun=False)
    for mode in (other, start, other):
        settle(mode, begun=True)  # type: ignore[arg-type]
        assert bool(cluster.own) == cluster.lease == cluster.elects == (mode == "ActivePassive")
        assert bool(cluster.controllers) == cluster.selects == (mode == "ActiveActive")


def slice_of(name: str, manager: str | None, *endpoints: dict[str, object]) -> dict[str, object]:
    labels = {"kubernetes.io/service-name": "main-writer"}
    if manager is not None:
        labels["endpointslice.kubernetes.io/managed-by"] = manager
    return {"metadata": {"name": name, "labels": labels}, "endpoints": list(endpoints) or None}


def test_slices_are_told_apart_by_who_manages_them() -> None:
    seen = see(
        {"spec": {"selector": {"a": "b"}}},
        [
            slice_of("main-writer", "flow-aggregator", {"addresses": ["10.0.0.1"]}),
            slice_of("main-writer-x", "endpointslice-controller.k8s.io", {"conditions": {"ready": False}}),
            slice_of("main-writer-y", "endpointslicemirroring-controller.k8s.io"),
            slice_of("handmade", None),
            slice_of("staff", "kubectl"),
        ],
        {
            "metadata": {"generation": 2},
            "spec": {"replicas": 2, "template": {"metadata": {"annotations": {ELECTION: "main-writer"}}}},
            "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2},
        },
    )
    assert seen == Seen(
        selects=True,
        own=("main-writer",),
        own_leads=True,
        controllers=("main-writer-x", "main-writer-y"),
        controllers_lead=False,
        foreign=(("handmade", ""), ("staff", "kubectl")),
        elects=True,
        settled=False,
    )


def test_the_active_pod_is_the_one_that_our_slice_names() -> None:
    ours = slice_of("main-writer", "flow-aggregator", {"targetRef": {"kind": "Pod", "name": "main-writer-a"}})
    theirs = slice_of("x", "endpointslice-controller.k8s.io", {"targetRef": {"kind": "Pod", "name": "other"}})
    assert active_pods([ours, theirs]) == ["main-writer-a"]
