"""Several views: how each is built and removed, when readers change over, and what is said of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from flowagg.view import Meta
from flowagg_operator.conditions import Verdict
from flowagg_operator.spec import Spec, View, read_spec
from flowagg_operator.views import (
    READ_NOW,
    Found,
    Gate,
    JobKind,
    Kept,
    Look,
    Plan,
    Seen,
    entries,
    found_in,
    gate,
    judge,
    keep,
    kept_in,
    leave,
    looked_at,
    next_read,
    read_view,
)

JOBS: Mapping[JobKind, str] = {"clone": "main-clone-b", "remove": "main-remove-b"}
RUNNING = Seen(consumers=True, served=True, ready=1, replicas=1)
GONE = Look({"b": Found()}, whole_log=True)


def meta(position: int, topic: str = "t", incomplete: bool = False) -> Meta:
    return Meta(position, topic, 0, 0, incomplete, "i")


def metas(*positions: int) -> dict[int, Meta]:
    return dict(enumerate(map(meta, positions)))


# The change of readers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ({}, {}, "Serving"),
        ({}, metas(1), "Serving"),
        (metas(5, 7), metas(5, 7), "Serving"),
        (metas(5, 7), metas(6, 9, 3), "Serving"),
        (metas(0), metas(0), "Serving"),
        (metas(5, 7), metas(5, 6), "CatchingUp"),
        (metas(5, 7), metas(9), "CatchingUp"),
        (metas(0, 0), metas(0), "CatchingUp"),
        (metas(5), {}, "CatchingUp"),
        (metas(5), {0: meta(9, "other")}, "OtherTopic"),
        (metas(5), {0: meta(5, incomplete=True)}, "Incomplete"),
        ({0: meta(5, incomplete=True)}, {0: meta(5, incomplete=True)}, "Serving"),
        ({0: meta(5, incomplete=True)}, metas(5), "Serving"),
    ],
)
def test_readers_change_over_where_the_new_view_is_at_or_past_the_old_one_everywhere(
    before: dict[int, Meta], after: dict[int, Meta], reason: str
) -> None:
    found = gate("a", "b", before, after)
    assert found.verdict.reason == reason
    assert found.is_open is (reason == "Serving")
    assert next_read("b", "a", found, "", live=True) == ("b" if found.is_open else "a")


def test_what_is_waited_for_says_how_far_it_is_and_stays_short() -> None:
    found = gate("a", "b", metas(*[100] * 50), metas(*[90] * 48, 50))
    assert "behind by 630 records in 50 of 50 partitions (49 by 100, 48 by 50, 0 by 10" in found.verdict.message
    assert "and 45 more" in found.verdict.message
    assert "readers go on with a" in found.verdict.message


@pytest.mark.parametrize("after", [{0: meta(9, "other")}, {0: meta(5, incomplete=True)}])
def test_what_no_waiting_mends_names_the_way_on(after: dict[int, Meta]) -> None:
    assert f"{READ_NOW} to b" in gate("a", "b", metas(5), after).verdict.message


OPEN = gate("a", "b", metas(5), metas(5))
CLOSED = gate("a", "b", metas(5), metas(4))


@pytest.mark.parametrize(
    ("wanted", "read", "found", "override", "live", "then"),
    [
        ("a", "a", None, "", True, "a"),
        ("b", "a", None, "", True, "a"),
        ("b", "a", OPEN, "", True, "b"),
        ("b", "a", OPEN, "", False, "a"),  # a clone that is under way may have the positions already
        ("a", "b", OPEN, "", True, "b"),  # of the other way round
        ("c", "a", OPEN, "", True, "a"),
        ("b", "a", CLOSED, "", True, "a"),
        ("b", "a", CLOSED, "b", True, "b"),
        ("b", "a", CLOSED, "b", False, "a"),
        ("b", "a", CLOSED, "c", True, "a"),
    ],
)
def test_only_the_last_look_at_these_two_views_opens_the_way(
    wanted: str, read: str, found: Gate | None, override: str, live: bool, then: str
) -> None:
    assert next_read(wanted, read, found, override, live=live) == then


@pytest.mark.parametrize(
    ("kept", "live", "read"), [("", "", "wanted"), ("", "old", "old"), ("kept", "old", "kept"), ("kept", "", "kept")]
)
def test_what_is_read_is_known_from_status_then_from_the_deployment(kept: str, live: str, read: str) -> None:
    assert read_view("wanted", kept, live) == read


# Building ----------------------------------------------------------------------------------------


def step(seen: Seen, found: Look) -> Plan:
    return keep(View(name="b"), "a", seen, found, JOBS)


def look(b: int = 0, a: int = 6, whole: bool | None = True) -> Look:
    return Look({"a": Found(a), "b": Found(b)}, whole)


@pytest.mark.parametrize(
    ("kind", "found", "runs", "starts"),
    [
        ("Auto", look(whole=True), True, None),
        ("Auto", look(whole=False), False, "clone"),
        ("Auto", look(whole=None), False, None),
        ("Auto", look(a=0, whole=None), True, None),  # nothing to be cloned
        ("Auto", look(b=6, whole=False), True, None),  # it is there already
        ("Auto", Look(None, True), False, None),
        ("Auto", Look({"a": Found(6)}, True), False, None),  # of the look before the spec named it
        ("Log", Look(None, None), True, None),
        ("Log", look(whole=False), True, None),
        ("Clone", look(whole=True), False, "clone"),
        ("Clone", look(a=0), False, None),
        ("Clone", look(b=6), True, None),
        ("Clone", Look(None, True), False, None),
    ],
)
def test_a_new_view_is_made_of_the_log_where_it_is_whole_and_else_of_another_view(
    kind: Any, found: Look, runs: bool, starts: str | None
) -> None:
    plan = keep(View(name="b", source=kind), "a", Seen(), found, JOBS)
    assert (plan.runs, plan.start) == (runs, starts)
    assert plan.source == ("a" if starts else "")
    assert plan.message


def test_the_view_that_is_read_has_nothing_to_be_cloned_from() -> None:
    assert keep(View(name="b"), "b", Seen(), Look(), JOBS).runs


@pytest.mark.parametrize("found", [Look(), look(), look(6, whole=False)])
@pytest.mark.parametrize("clone", ["", "Active", "Complete", "Failed"])
def test_a_view_whose_consumers_are_there_is_never_cloned_over(found: Look, clone: Any) -> None:
    plan = step(replace(RUNNING, clone=clone), found)
    assert plan.runs
    assert plan.start is None
    assert plan.finish == (("clone",) if clone in ("Complete", "Failed") else ())


@pytest.mark.parametrize(
    ("state", "runs", "said"),
    [
        ("Active", False, "Cloning"),
        ("Complete", True, "Building"),
        ("Failed", False, "Failed"),
    ],
)
def test_consumers_start_once_the_clone_is_whole_and_not_before(state: Any, runs: bool, said: str) -> None:
    # Redis has a part of it, or all of it: only the Job knows.
    plan = step(Seen(clone=state), look(b=6, whole=False))
    assert (plan.runs, plan.state, plan.start, plan.begun) == (runs, said, None, "clone")


def test_a_failed_clone_says_what_to_do_and_is_tried_again_without_its_job() -> None:
    failed = step(Seen(clone="Failed"), look(b=3, whole=False))
    assert "kubectl logs job/main-clone-b" in failed.message
    assert "kubectl delete job main-clone-b" in failed.message
    # Redis has a part of it now, which must not pass for the view: not even where the log is whole again.
    again = step(Seen(begun="clone"), look(b=3, whole=True))
    assert (again.runs, again.start, again.begun) == (False, "clone", "clone")
    waits = step(Seen(begun="clone"), Look())
    assert (waits.runs, waits.start, waits.begun) == (False, None, "clone")


@pytest.mark.parametrize(
    ("seen", "found", "state"),
    [
        (RUNNING, look(6), "Live"),
        (RUNNING, Look(), "Live"),
        (RUNNING, look(0), "Building"),
        (replace(RUNNING, ready=0), look(6), "Building"),
        (replace(RUNNING, ready=0, was_live=True), look(6), "Live"),
        (replace(RUNNING, ready=0, replicas=0), look(6), "Live"),
        (replace(RUNNING, was_live=True), look(0), "Building"),  # somebody has removed it
    ],
)
def test_a_view_is_live_once_its_consumers_are_ready_and_redis_has_it(seen: Seen, found: Look, state: str) -> None:
    assert step(seen, found).state == state


def test_a_view_that_comes_back_while_its_data_go_is_built_anew_after_that() -> None:
    active = step(Seen(remove="Active"), look(3))
    assert (active.state, active.runs, active.begun) == ("Removing", False, "remove")
    failed = step(Seen(remove="Failed"), look(3))
    assert (failed.state, failed.runs) == ("Failed", False)
    # The rest of a removal is no view.
    left = step(Seen(begun="remove"), look(3))
    assert (left.start, left.runs) == ("remove", False)
    done = step(Seen(remove="Complete", begun="remove"), look(0))
    assert (done.finish, done.runs, done.begun) == (("remove",), False, None)
    assert step(Seen(), look(0)).runs


# Removal -----------------------------------------------------------------------------------------


def go(policy: str, seen: Seen, found: Look = GONE, *, is_read: bool = False) -> Plan:
    return leave("b", policy, seen, found, JOBS, is_read=is_read)


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_a_view_that_is_still_read_stays_with_its_consumers(policy: str) -> None:
    plan = go(policy, RUNNING, is_read=True)
    assert (plan.runs, plan.start, plan.gone) == (True, None, False)


def test_with_retain_the_consumers_go_and_the_data_stay() -> None:
    plan = go("Retain", RUNNING, Look({"b": Found(6)}))
    assert (plan.runs, plan.start, plan.gone) == (False, None, False)
    after = go("Retain", Seen(pods=True), Look({"b": Found(6)}))
    assert (after.start, after.gone) == (None, True)


@pytest.mark.parametrize(
    ("seen", "found", "start", "gone"),
    [
        (RUNNING, look(6), None, False),
        (Seen(served=True), look(6), None, False),  # readers are still on their way to another one
        (Seen(pods=True), look(6), None, False),
        (Seen(), Look(), None, False),
        (Seen(), look(6), "remove", False),
        (Seen(), look(0), None, True),
        (Seen(remove="Active"), look(3), None, False),
        (Seen(remove="Failed"), look(3), None, False),
        (Seen(remove="Complete"), look(0), None, True),
        (Seen(begun="remove"), look(3), "remove", False),
        (Seen(begun="remove"), look(0), None, True),
    ],
)
def test_with_delete_the_data_go_once_the_last_pod_has_ended(
    seen: Seen, found: Look, start: str | None, gone: bool
) -> None:
    plan = go("Delete", seen, found)
    assert (plan.runs, plan.start, plan.gone) == (False, start, gone)
    assert plan.finish == (("remove",) if seen.remove == "Complete" else ())
    assert not plan.start or (not seen.pods and not seen.served)


@pytest.mark.parametrize("state", ["Active", "Failed"])
def test_the_part_of_a_clone_is_nobodys_data_and_goes_with_retain_too(state: Any) -> None:
    first = go("Retain", Seen(clone=state, pods=True), look(3))
    assert (first.finish, first.start, first.gone, first.begun) == (("clone",), None, False, "clone")
    waits = go("Retain", Seen(pods=True, begun="clone"), look(3))
    assert (waits.start, waits.gone, waits.begun) == (None, False, "clone")
    assert go("Retain", Seen(begun="clone"), look(3)).start == "remove"


# What is said ------------------------------------------------------------------------------------

LEAST: dict[str, Any] = {"kafka": {"bootstrapServers": "k:9092"}, "redis": {"url": "redis://r"}}


def spec(read: str = "a", *views: str) -> Spec:
    return read_spec({**LEAST, "reader": {"view": read}, "views": [{"name": name} for name in views or ("a", "b")]})


LIVE = [Plan("a", "Live", runs=True), Plan("b", "Live", runs=True)]


@pytest.mark.parametrize(
    ("wanted", "plans", "found", "reason", "said"),
    [
        ("a", LIVE, None, "Serving", "readers read a; kept are a, b"),
        ("b", LIVE, CLOSED, "CatchingUp", "readers go on with a"),
        ("b", LIVE, None, "CatchingUp", "readers go on with a"),
        ("b", LIVE, OPEN, "CatchingUp", "readers go on with a"),  # the next pass takes it
        ("b", [LIVE[0], Plan("b", "Cloning", "Job x copies it")], CLOSED, "Building", "view b: Job x copies it"),
        ("a", [LIVE[0], Plan("b", "Building", "m")], None, "Building", "view b: m"),
        ("b", [LIVE[0], Plan("b", "Failed", "m")], CLOSED, "CloneFailed", "view b: m; readers go on with a"),
        ("a", [*LIVE, Plan("c", "Failed", "m")], None, "RemovalFailed", "view c: m"),
        ("a", [*LIVE, Plan("c", "Removing", "m")], None, "Serving", "readers read a"),
        ("a", [LIVE[0], Plan("b", "Live", "pod x crashes")], None, "NotApplied", "view b: pod x crashes"),
    ],
)
def test_the_condition_says_what_is_waited_for(
    wanted: str, plans: list[Plan], found: Gate | None, reason: str, said: str
) -> None:
    verdict = judge(spec(wanted), "a", Look(gate=found), plans)
    assert verdict.reason == reason
    assert said in verdict.message
    assert verdict.good is (reason == "Serving")
    assert verdict.message.count("go on with a") == (wanted != "a")


def test_one_view_is_said_in_a_few_words() -> None:
    assert judge(spec("a", "a"), "a", Look(), LIVE[:1]) == Verdict("True", "Serving", "readers read a")


def test_status_tells_of_each_view_and_is_read_back() -> None:
    plans = [
        Plan("a", "Live", runs=True),
        Plan("b", "Cloning", "m", start="clone", begun="clone"),
        Plan("c", "Removing", gone=True),
    ]
    found = Look({"a": Found(6, 3, incomplete=True), "b": Found(2, 9)})
    told = entries(plans, {"a": RUNNING}, found, {"a": "Delete"})
    assert told == [
        {"name": "a", "state": "Live", "ready": 1, "replicas": 1, "deletionPolicy": "Delete", "lag": 3}
        | {"incomplete": True},
        {"name": "b", "state": "Cloning", "ready": 0, "replicas": 0, "deletionPolicy": "Retain", "job": "clone"}
        | {"message": "m"},
    ]
    kept = kept_in({"views": told, "readView": "a"})
    assert kept == Kept("a", {"a": "Live", "b": "Cloning"}, {"a": "Delete", "b": "Retain"}, {"a": "", "b": "clone"})
    assert kept_in({}) == Kept()
    assert looked_at(spec("b", "b", "d"), kept, "a") == ("a", "b", "d")


@pytest.mark.parametrize(
    ("ends", "lag"), [(None, None), ({0: 10, 1: 10}, 7), ({0: 3, 1: 3}, 0), ({0: 10, 1: 10, 2: 5}, 12)]
)
def test_a_partition_that_the_view_has_not_begun_is_all_lag(ends: dict[int, int] | None, lag: int | None) -> None:
    assert found_in({0: meta(5), 1: meta(8)}, 2, ends) == Found(2, lag, incomplete=False)
