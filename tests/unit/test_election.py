"""The candidate's rules, event by event; the lease and the slice as objects of the API."""

from datetime import UTC, datetime
from typing import Any

import pytest
from flowagg.election import LEASE, Candidate, Done, Ending, Failed, Read, Seen, Serve, Timing, Woken, Write
from flowagg.election_lease import Lease, micro_time
from flowagg.election_slice import Pod, Slice

WALL = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
ME = Pod("writer-a", "flows", "uid-a", "node-1", ("10.0.0.1", "fd00::1"))
OTHER = Pod("writer-b", "flows", "uid-b", "node-2", ("10.0.0.2", "fd00::2"))
SLICES = ("main-writer", "main-writer-ipv6")


def lease(version: int, holder: str | None = None, renewed: str = "t1", **spec: Any) -> Lease:
    """As an object of the API; holder None: just made."""
    body: dict[str, Any] = {"metadata": {"name": "main-writer", "resourceVersion": str(version)}}
    if holder is not None:
        times = {"acquireTime": "t0", "renewTime": renewed, "leaseTransitions": 0}
        body["spec"] = {"holderIdentity": holder, "leaseDurationSeconds": 3, **times, **spec}
    return Lease.read(body, 3)


def endpoint_slice(version: int, pod: Pod | None = None, family: str = "IPv4") -> Slice:
    name = SLICES[family == "IPv6"]
    body: dict[str, Any] = {"metadata": {"name": name, "resourceVersion": str(version)}, "addressType": family}
    found = Slice.read({**body, "endpoints": None, "ports": [{"name": "http", "port": 8080}]})
    return found if pod is None else Slice.read(found.leading_to(pod))


def candidate(*slices: str) -> Candidate:
    return Candidate(ME, slices, Timing(), now=0.0)


def active(*slices: str) -> Candidate:
    """A candidate that became active at 0.1 and whose lease is at version 11."""
    one = candidate(*slices)
    one.handle(Seen(LEASE, lease(10, "")), 0.0, WALL)
    one.handle(Seen(LEASE, lease(11, ME.name, micro_time(WALL)), call=1, written=True), 0.1, WALL)
    assert one.active
    return one


# The objects -------------------------------------------------------------------------------------


def test_a_lease_is_taken_as_kubernetes_components_take_theirs() -> None:
    spec = lease(7, OTHER.name, leaseTransitions=4).taken(ME.name, 3, WALL)["spec"]
    assert spec == {
        "holderIdentity": "writer-a",
        "leaseDurationSeconds": 3,
        "acquireTime": "2026-03-04T05:06:07.000089Z",
        "renewTime": "2026-03-04T05:06:07.000089Z",
        "leaseTransitions": 5,
    }


def test_a_renewal_changes_the_time_of_the_renewal_alone() -> None:
    before = lease(7, ME.name)
    after = before.taken(ME.name, 3, WALL)
    assert after["spec"] == before.source["spec"] | {"renewTime": micro_time(WALL)}
    assert after["metadata"] == before.source["metadata"]


def test_the_first_holder_is_no_transition() -> None:
    assert lease(7).taken(ME.name, 3, WALL)["spec"]["leaseTransitions"] == 0


def test_a_released_lease_has_no_holder_and_keeps_its_count() -> None:
    spec = lease(7, ME.name, leaseTransitions=4).released(WALL)["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("", 1, 4)


@pytest.mark.parametrize(("family", "address"), [("IPv4", "10.0.0.1"), ("IPv6", "fd00::1")])
def test_a_slice_gets_one_endpoint_of_its_own_family(family: str, address: str) -> None:
    before = endpoint_slice(3, OTHER, family)
    assert before.leading_to(ME) == {
        **before.source,
        "endpoints": [
            {
                "addresses": [address],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "targetRef": {"kind": "Pod", "namespace": "flows", "name": "writer-a", "uid": "uid-a"},
                "nodeName": "node-1",
            }
        ],
    }


@pytest.mark.parametrize(
    "change",
    [
        {"addresses": ["10.0.0.3"]},
        {"conditions": {"ready": False}},
        {"targetRef": {"kind": "Pod", "namespace": "flows", "name": "writer-a", "uid": "an older one"}},
        {"nodeName": "node-9"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_endpoint_that_differs_in_anything_is_drift(change: dict[str, Any]) -> None:
    body = dict(endpoint_slice(3, ME).source)
    assert Slice.read(body).leads_to_just(ME)
    body["endpoints"] = [body["endpoints"][0] | change]
    assert not Slice.read(body).leads_to_just(ME)


def test_a_second_endpoint_is_drift() -> None:
    body = dict(endpoint_slice(3, ME).source)
    body["endpoints"] = [*body["endpoints"], *endpoint_slice(3, OTHER).endpoints]
    assert not Slice.read(body).leads_to_just(ME)


def test_a_slice_of_a_family_that_the_pod_has_not_is_left_alone() -> None:
    only_ipv4 = Pod("writer-a", "flows", "uid-a", "node-1", ("10.0.0.1",))
    assert endpoint_slice(3, OTHER, "IPv6").leads_to_just(only_ipv4)


# The rules ---------------------------------------------------------------------------------------


def test_a_released_lease_is_taken_at_once() -> None:
    (effect,) = candidate().handle(Seen(LEASE, lease(10, "")), 0.0, WALL)
    assert isinstance(effect, Write)
    assert effect.body["spec"]["holderIdentity"] == ME.name
    assert effect.body["metadata"]["resourceVersion"] == "10"


def test_a_lease_just_made_is_left_to_whoever_serves_already() -> None:
    one = candidate()
    assert one.handle(Seen(LEASE, lease(10)), 0.0, WALL) == []
    assert one.wake_at == 2.0
    (effect,) = one.handle(Woken(), 2.0, WALL)
    assert isinstance(effect, Write)


def test_the_new_active_overwrites_every_slice_with_what_it_knows_of_it() -> None:
    one = candidate(*SLICES)
    one.handle(Seen(SLICES[0], endpoint_slice(5, OTHER)), 0.0, WALL)
    one.handle(Seen(SLICES[1], endpoint_slice(6, OTHER, "IPv6")), 0.0, WALL)
    one.handle(Seen(LEASE, lease(10, "")), 0.0, WALL)
    effects = one.handle(Seen(LEASE, lease(11, ME.name, micro_time(WALL)), call=2, written=True), 0.1, WALL)
    assert effects[0] == Serve(True, ME.name)
    writes = [effect for effect in effects if isinstance(effect, Write)]
    assert [(w.target, w.body["metadata"]["resourceVersion"]) for w in writes] == [(SLICES[0], "5"), (SLICES[1], "6")]


def test_a_lease_is_taken_over_only_when_a_read_shows_that_it_ran_out() -> None:
    one = candidate()
    one.handle(Seen(LEASE, lease(10, OTHER.name)), 0.0, WALL)
    assert one.wake_at == 3.0
    (read,) = one.handle(Woken(), 3.0, WALL)
    assert isinstance(read, Read)
    (write,) = one.handle(Seen(LEASE, lease(10, OTHER.name), call=read.call), 3.01, WALL)
    assert isinstance(write, Write)


def test_a_read_that_shows_a_renewal_gives_the_holder_its_time_again() -> None:
    one = candidate()
    one.handle(Seen(LEASE, lease(10, OTHER.name)), 0.0, WALL)
    (read,) = one.handle(Woken(), 3.0, WALL)
    assert isinstance(read, Read)
    assert one.handle(Seen(LEASE, lease(11, OTHER.name, "t2"), call=read.call), 3.01, WALL) == []
    assert one.wake_at == pytest.approx(6.01)


def test_a_late_answer_gives_the_holder_its_time_again() -> None:
    """The API server did not answer for a while: the holder could not renew either."""
    one = candidate()
    one.handle(Seen(LEASE, lease(10, OTHER.name)), 0.0, WALL)
    (read,) = one.handle(Woken(), 3.0, WALL)
    assert isinstance(read, Read)
    assert one.handle(Seen(LEASE, lease(10, OTHER.name), call=read.call), 3.9, WALL) == []
    assert one.wake_at == pytest.approx(6.9)


def test_a_failed_read_gives_the_holder_its_time_again() -> None:
    one = candidate()
    one.handle(Seen(LEASE, lease(10, OTHER.name)), 0.0, WALL)
    (read,) = one.handle(Woken(), 3.0, WALL)
    assert isinstance(read, Read)
    assert one.handle(Failed(read.call, "unreachable"), 3.1, WALL) == []
    (read,) = one.handle(Woken(), 3.6, WALL)
    assert isinstance(read, Read)
    assert one.handle(Seen(LEASE, lease(10, OTHER.name), call=read.call), 3.61, WALL) == []
    assert one.wake_at == pytest.approx(6.61)


def test_a_take_over_that_is_not_answered_in_time_is_looked_at_anew() -> None:
    one = candidate()
    one.handle(Seen(LEASE, lease(10, OTHER.name)), 0.0, WALL)
    (read,) = one.handle(Woken(), 3.0, WALL)
    assert isinstance(read, Read)
    (take,) = one.handle(Seen(LEASE, lease(10, OTHER.name), call=read.call), 3.01, WALL)
    assert isinstance(take, Write)
    (again,) = one.handle(Woken(), 3.61, WALL)
    assert isinstance(again, Read)
    assert again.fresh


def test_the_holders_own_duration_is_waited_for() -> None:
    one = candidate()
    one.handle(Seen(LEASE, lease(10, OTHER.name, leaseDurationSeconds=15)), 0.0, WALL)
    assert one.handle(Woken(), 14.9, WALL) == []
    assert isinstance(one.handle(Woken(), 15.0, WALL)[0], Read)


def test_what_others_change_of_the_lease_is_no_renewal() -> None:
    one = candidate()
    one.handle(Seen(LEASE, lease(10, OTHER.name)), 0.0, WALL)
    one.handle(Seen(LEASE, lease(12, OTHER.name)), 2.0, WALL)  # the operator changed a label
    assert isinstance(one.handle(Woken(), 3.0, WALL)[0], Read)


def test_the_active_renews_each_second_by_its_own_clock() -> None:
    one = active()
    assert one.wake_at == 1.0
    (effect,) = one.handle(Woken(), 1.0, WALL)
    assert isinstance(effect, Write)
    assert (effect.target, effect.fresh) == (LEASE, False)


def test_a_renewal_that_is_not_answered_in_time_is_repeated_on_a_new_connection() -> None:
    one = active()
    one.handle(Woken(), 1.0, WALL)
    assert one.handle(Woken(), 1.59, WALL) == []
    (effect,) = one.handle(Woken(), 1.6, WALL)
    assert isinstance(effect, Write)
    assert effect.fresh


def test_a_slow_answer_makes_the_next_call_wait_for_longer() -> None:
    one = active()
    (effect,) = one.handle(Woken(), 1.0, WALL)
    assert isinstance(effect, Write)
    one.handle(Seen(LEASE, lease(12, ME.name, "t2"), call=effect.call, written=True), 2.0, WALL)
    one.handle(Woken(), 2.0, WALL)
    assert one.handle(Woken(), 3.4, WALL) == []
    assert len(one.handle(Woken(), 3.5, WALL)) == 1


def test_calls_that_hang_do_not_become_more_and_more() -> None:
    one = active()
    sent = [len(one.handle(Woken(), 1.0 + tenth / 10, WALL)) for tenth in range(200)]
    assert 8 < sum(sent) < 200 / 6
    assert sum(sent[:59]) == 8, "within as long as a call may last"


def test_news_from_a_watch_that_is_behind_changes_nothing() -> None:
    one = active()
    assert one.handle(Seen(LEASE, lease(9, OTHER.name, "t0")), 0.2, WALL) == []
    assert one.active


def test_an_answer_that_is_overtaken_by_a_watch_changes_nothing() -> None:
    one = active()
    (effect,) = one.handle(Woken(), 1.0, WALL)
    assert isinstance(effect, Write)
    assert Serve(False, OTHER.name) in one.handle(Seen(LEASE, lease(14, OTHER.name, "t3")), 1.1, WALL)
    one.handle(Seen(LEASE, lease(12, ME.name, micro_time(WALL)), call=effect.call, written=True), 1.2, WALL)
    assert not one.active


def test_a_read_counts_though_versions_went_back() -> None:
    """As after a restore of etcd from a backup."""
    one = active()
    assert Serve(False, OTHER.name) in one.handle(Seen(LEASE, lease(3, OTHER.name), asked_at=0.2), 0.3, WALL)


def test_a_lost_answer_is_made_up_for_by_the_watch() -> None:
    one = candidate()
    one.handle(Seen(LEASE, lease(10, "")), 0.0, WALL)
    assert one.handle(Seen(LEASE, lease(11, ME.name, micro_time(WALL))), 0.1, WALL) == [Serve(True, ME.name)]


def test_an_active_that_sees_another_holder_stands_by() -> None:
    one = active()
    assert one.handle(Seen(LEASE, lease(12, OTHER.name, "t2")), 0.5, WALL) == [Serve(False, OTHER.name)]


def test_an_active_that_hears_nothing_serves_on() -> None:
    one = active()
    for second in range(1, 100):
        assert Serve(False, "") not in one.handle(Woken(), float(second), WALL)
    assert one.active


def test_a_slice_is_written_only_while_nobody_else_can_hold_the_lease() -> None:
    """One that was stopped for longer than its lease finds its successor's slice first, the lease later."""
    one = active(SLICES[0])
    effects = one.handle(Seen(SLICES[0], endpoint_slice(20, OTHER)), 60.0, WALL)
    assert [effect.target for effect in effects if isinstance(effect, Write)] == [LEASE]


def test_drift_is_repaired_but_no_more_often_than_the_lease_is_renewed() -> None:
    one = active(SLICES[0])
    one.handle(Seen(SLICES[0], endpoint_slice(20, OTHER)), 0.2, WALL)
    one.handle(Seen(SLICES[0], endpoint_slice(21, ME), call=3, written=True), 0.3, WALL)
    assert one.handle(Seen(SLICES[0], endpoint_slice(22, OTHER)), 0.4, WALL) == []
    effects = one.handle(Woken(), 1.3, WALL)
    assert SLICES[0] in [effect.target for effect in effects if isinstance(effect, Write)]


def test_a_conflict_is_looked_at_before_anything_is_written_again() -> None:
    one = candidate()
    (write,) = one.handle(Seen(LEASE, lease(10, "")), 0.0, WALL)
    assert isinstance(write, Write)
    (read,) = one.handle(Failed(write.call, "conflict"), 0.1, WALL)
    assert isinstance(read, Read)
    assert one.handle(Seen(LEASE, lease(11, OTHER.name), call=read.call), 0.2, WALL) == []
    assert not one.active


@pytest.mark.parametrize("reason", ["forbidden", "invalid", "not_found", "credentials", "unreachable"])
def test_what_is_refused_is_tried_again_after_a_while(reason: Any) -> None:
    one = candidate()
    (write,) = one.handle(Seen(LEASE, lease(10, "")), 0.0, WALL)
    assert isinstance(write, Write)
    assert one.handle(Failed(write.call, reason), 0.01, WALL) == []
    assert isinstance(one.handle(Woken(), 0.6, WALL)[0], Read)


def test_an_ending_active_releases_serves_and_is_done_two_seconds_after_it_is_replaced() -> None:
    one = active(SLICES[0])
    one.handle(Seen(SLICES[0], endpoint_slice(20, ME)), 0.2, WALL)
    (release,) = one.handle(Ending(), 0.5, WALL)
    assert isinstance(release, Write)
    assert release.body["spec"]["holderIdentity"] == ""
    one.handle(Seen(LEASE, lease(12, "", "t5"), call=release.call, written=True), 0.51, WALL)
    assert one.active, "it serves"
    one.handle(Seen(LEASE, lease(13, OTHER.name, "t6")), 0.52, WALL)
    assert one.active, "the slice leads here still"
    assert one.handle(Seen(SLICES[0], endpoint_slice(21, OTHER)), 0.53, WALL) == [Serve(False, OTHER.name)]
    assert one.handle(Woken(), 2.52, WALL) == []
    assert one.handle(Woken(), 2.54, WALL) == [Done(OTHER.name)]
    assert one.handle(Woken(), 3.0, WALL) == []


def test_an_ending_standby_gives_back_what_it_was_about_to_take() -> None:
    one = candidate(SLICES[0])
    one.handle(Seen(SLICES[0], endpoint_slice(20, OTHER)), 0.0, WALL)
    (take,) = one.handle(Seen(LEASE, lease(10, "")), 0.0, WALL)
    assert isinstance(take, Write)
    assert one.handle(Ending(), 0.05, WALL) == []
    (release,) = one.handle(Seen(LEASE, lease(11, ME.name, micro_time(WALL)), call=take.call, written=True), 0.1, WALL)
    assert isinstance(release, Write)
    assert release.body["spec"]["holderIdentity"] == ""
    assert one.handle(Seen(LEASE, lease(12, "", "t5"), call=release.call, written=True), 0.2, WALL) == [Done("")]
