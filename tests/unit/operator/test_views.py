"""Several views: how each is built and removed, when readers change over, and what is said of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import pytest
import redis
from flowagg.kubernetes import Conflict, Forbidden, Invalid, KubernetesError, NotFound, Unreachable
from flowagg.settings import RedisSettings
from flowagg.view import Meta
from flowagg_operator import redis_look
from flowagg_operator.conditions import Verdict
from flowagg_operator.observer import Observation, Target, views_of
from flowagg_operator.pods import Platform
from flowagg_operator.redis_look import RedisLook, ViewMetas, read_metas
from flowagg_operator.spec import MANAGER, Owner, Spec, View, read_spec
from flowagg_operator.view_keeper import ViewKeeper
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
    gaps,
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
OWNER = Owner(name="main", namespace="flows", uid="u-1")
GONE = Look({"b": Found()}, whole_log=True)


def meta(position: int, topic: str = "t", start: int = 0, lost: str | None = None) -> Meta:
    return Meta(position, topic, 0, start, bool(start or lost), "i", lost=lost)


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
        (metas(5), {0: meta(5, start=1)}, "Incomplete"),
        (metas(5), {0: meta(5, lost="1-2")}, "Incomplete"),
        (metas(5), {0: meta(5, start=1), 1: meta(5)}, "Incomplete"),
        ({0: meta(5, start=1)}, metas(5), "Serving"),
        ({0: meta(5, start=1)}, {0: meta(5, start=1)}, "Serving"),
        # Both are incomplete: what counts is where.
        ({0: meta(50, start=10)}, {0: meta(50, start=11)}, "Incomplete"),
        ({0: meta(50, start=10)}, {0: meta(50, start=9)}, "Serving"),
        ({0: meta(50, start=10)}, {0: meta(50, lost="20-30")}, "Incomplete"),
        ({0: meta(50, lost="20-30")}, {0: meta(50, start=10)}, "Incomplete"),
        ({0: meta(50, lost="20-30")}, {0: meta(50, lost="20-25,25-30")}, "Serving"),
        ({0: meta(50, lost="20-25,25-30")}, {0: meta(50, lost="22-30")}, "Serving"),
        ({0: meta(50, lost="20-25,26-30")}, {0: meta(50, lost="22-30")}, "Incomplete"),
        ({0: meta(50, start=10, lost="10-15")}, {0: meta(50, start=15)}, "Serving"),
        ({0: meta(50, start=10, lost="10-15")}, {0: meta(50, start=16)}, "Incomplete"),
        ({0: meta(50, start=10)}, {0: meta(50, start=10, lost="7-7")}, "Serving"),
        ({0: meta(50, start=10)}, {0: meta(50, start=10, lost="10-11,40-41")}, "Incomplete"),
        # What the old one has not applied either it cannot be ahead by.
        ({0: meta(20)}, {0: meta(50, lost="20-30")}, "Serving"),
        ({0: meta(20)}, {0: meta(50, lost="19-30")}, "Incomplete"),
        ({0: meta(20, lost="19-20")}, {0: meta(50, lost="19-30")}, "Serving"),
        (metas(0), {0: meta(50, start=40)}, "Serving"),
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


@pytest.mark.parametrize(
    ("start", "lost", "ranges"),
    [
        (0, None, []),
        (0, "", []),
        (7, None, [(0, 7)]),
        (0, "5-9,20-30", [(5, 9), (20, 30)]),
        (5, "5-9", [(0, 9)]),
        (3, "5-9", [(0, 3), (5, 9)]),
        (0, "20-30,5-9", [(5, 9), (20, 30)]),
        (0, "5-30,7-9", [(5, 30)]),
        (0, "5-9,9-12,14-14", [(5, 12)]),
    ],
)
def test_what_a_view_lacks_is_what_came_before_its_start_and_what_was_lost(
    start: int, lost: str | None, ranges: list[tuple[int, int]]
) -> None:
    assert gaps(meta(99, start=start, lost=lost)) == ranges


@pytest.mark.parametrize("lost", ["5", "5-9-11", "a-b", "5-9,"])
def test_ranges_that_make_no_sense_are_refused(lost: str) -> None:
    with pytest.raises(ValueError, match=r"unpack|invalid literal"):
        gaps(meta(99, lost=lost))


# The last: an old view past the end of a log that has lost records.
@pytest.mark.parametrize("after", [{0: meta(9, "other")}, {0: meta(5, start=1)}, metas(4)])
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


def part(log: bool | None = True) -> Look:
    """What a clone has left before its end."""
    return Look({"a": Found(6), "b": Found(6, whole=False)}, log)


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
        # The other one is being cloned itself.
        ("Clone", Look({"a": Found(6, whole=False), "b": Found()}, True), False, None),
        ("Auto", Look({"a": Found(6, whole=False), "b": Found()}, False), False, None),
        ("Auto", Look({"a": Found(6, whole=False), "b": Found()}, None), False, None),
        ("Auto", Look({"a": Found(6, whole=False), "b": Found()}, True), True, None),
    ],
)
def test_a_new_view_is_made_of_the_log_where_it_is_whole_and_else_of_another_view(
    kind: Any, found: Look, runs: bool, starts: str | None
) -> None:
    plan = keep(View(name="b", source=kind), "a", Seen(), found, JOBS)
    assert (plan.runs, plan.start) == (runs, starts)
    assert plan.source == ("a" if starts else "")
    assert plan.message


def test_a_view_that_is_itself_being_cloned_is_waited_for() -> None:
    plan = keep(View(name="b", source="Clone"), "a", Seen(), Look({"a": Found(6, whole=False), "b": Found()}), JOBS)
    assert (plan.state, plan.message) == ("Building", "waiting for view a, which is to be cloned and is not whole yet")


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
    plan = step(Seen(clone=state), part(log=False))
    assert (plan.runs, plan.state, plan.start, plan.begun) == (runs, said, None, "clone")


@pytest.mark.parametrize("log", [True, False, None])
def test_a_failed_clone_says_what_to_do_and_is_tried_again_without_its_job(log: bool | None) -> None:
    failed = step(Seen(clone="Failed"), part(log=log))
    assert "kubectl logs job/main-clone-b" in failed.message
    assert "kubectl delete job main-clone-b" in failed.message
    # Redis has a part of it now, which must not pass for the view: not even where the log is whole again.
    again = step(Seen(begun="clone"), part(log=log))
    assert (again.runs, again.start, again.begun) == (False, "clone", "clone")
    waits = step(Seen(begun="clone"), Look())
    assert (waits.runs, waits.start, waits.begun) == (False, None, "clone")


@pytest.mark.parametrize("source", ["Auto", "Clone"])
def test_a_view_that_is_whole_though_its_clone_failed_is_the_view(source: Any) -> None:
    # The Job's pod died after the metas, or somebody has made the view by hand.
    whole, view = look(b=6, whole=False), View(name="b", source=source)
    failed = keep(view, "a", Seen(clone="Failed", begun="clone"), whole, JOBS)
    assert (failed.runs, failed.state, failed.start, failed.begun) == (True, "Building", None, "clone")
    after = keep(view, "a", replace(RUNNING, clone="Failed", begun="clone"), whole, JOBS)
    assert (after.runs, after.state, after.finish, after.begun) == (True, "Live", ("clone",), None)
    # The same where somebody has deleted the Job: a second one would be refused for ever.
    deleted = keep(view, "a", Seen(begun="clone"), whole, JOBS)
    assert (deleted.runs, deleted.start, deleted.begun) == (True, None, None)


def test_a_job_that_runs_is_left_to_end_whatever_redis_has() -> None:
    plan = step(Seen(clone="Active", begun="clone"), look(b=6, whole=False))
    assert (plan.runs, plan.state, plan.begun) == (False, "Cloning", "clone")


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
    first = go("Retain", Seen(clone=state, pods=True), part())
    assert (first.finish, first.start, first.gone, first.begun) == (("clone",), None, False, "clone")
    waits = go("Retain", Seen(pods=True, begun="clone"), part())
    assert (waits.start, waits.gone, waits.begun) == (None, False, "clone")
    assert go("Retain", Seen(begun="clone"), part()).start == "remove"
    unknown = go("Retain", Seen(begun="clone"), Look())
    assert (unknown.start, unknown.gone) == (None, False)


@pytest.mark.parametrize(
    "seen", [Seen(clone="Active"), Seen(clone="Failed", begun="clone"), Seen(begun="clone"), Seen(clone="Complete")]
)
def test_a_whole_view_stays_with_retain_whatever_became_of_its_clone(seen: Seen) -> None:
    plan = go("Retain", seen, look(b=6))
    assert (plan.start, plan.begun, plan.gone) == (None, None, True)
    assert plan.finish == (("clone",) if seen.clone else ())
    assert go("Delete", replace(seen, clone=""), look(b=6)).start == "remove"


def test_a_removal_that_was_begun_ends_with_retain_too_though_no_meta_is_missing() -> None:
    assert go("Retain", Seen(begun="remove"), look(b=6)).start == "remove"


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


# Damage ------------------------------------------------------------------------------------------

HURT = Found(6, damaged="flowagg:{b:3}:meta: something")
FIELDS: Mapping[bytes, bytes] = {
    **dict.fromkeys((b"position", b"leader_epoch", b"start", b"incomplete", b"time"), b"0"),
    **dict.fromkeys((b"topic_id", b"incarnation", b"writer"), b"x"),
}


@pytest.mark.parametrize("source", ["Auto", "Clone"])
@pytest.mark.parametrize("unfinished", ["", "clone"])
def test_a_damaged_view_is_neither_taken_up_nor_cloned_over(source: Any, unfinished: str) -> None:
    found = Look({"a": Found(6), "b": HURT}, whole_log=False)
    plan = keep(View(name="b", source=source), "a", Seen(begun=unfinished), found, JOBS)
    assert (plan.state, plan.runs, plan.start) == ("Building", False, None)
    assert plan.message == "flowagg:{b:3}:meta: something: docs/guides/repair.md#damagedview"


def test_nothing_is_cloned_of_a_damaged_view() -> None:
    plan = keep(View(name="b", source="Clone"), "a", Seen(), Look({"a": HURT, "b": Found()}), JOBS)
    assert (plan.runs, plan.start) == (False, None)
    assert "view a, which is to be cloned, is damaged: flowagg:{b:3}:meta: something" in plan.message
    # Where the log is whole, nothing needs it.
    assert keep(View(name="b"), "a", Seen(), Look({"a": HURT, "b": Found()}, whole_log=True), JOBS).runs


def test_a_failed_clone_that_left_damage_is_not_taken_up() -> None:
    plan = step(Seen(clone="Failed"), Look({"a": Found(6), "b": HURT}))
    assert (plan.state, plan.runs) == ("Failed", False)


def test_a_damaged_view_that_runs_says_so_and_one_that_leaves_is_removed() -> None:
    plan = step(RUNNING, Look({"b": HURT}))
    assert (plan.state, plan.runs, plan.message) == ("Live", True, HURT.mend)
    assert go("Delete", Seen(), Look({"b": HURT})).start == "remove"
    kept = go("Retain", Seen(begun="clone"), Look({"b": HURT}))  # nobody deletes what cannot be read
    assert (kept.start, kept.gone) == (None, True)


@pytest.mark.parametrize(
    ("wanted", "read", "hurt", "said"),
    [
        ("a", "a", ("a",), "view a: flowagg:{b:3}:meta: something: docs/guides/repair.md#damagedview"),
        ("a", "a", ("b",), "view b: flowagg:{b:3}:meta: something"),
        ("b", "a", ("a",), f"readers go on with a until it is mended, or the annotation {READ_NOW} is set to b"),
        ("b", "a", ("b",), "docs/guides/repair.md#damagedview; readers go on with a"),
        ("b", "a", ("a", "b"), "; readers go on with a"),
    ],
)
def test_damage_is_the_reason_and_readers_change_over_by_nobodys_word_but_an_admins(
    wanted: str, read: str, hurt: tuple[str, ...], said: str
) -> None:
    target = Target(OWNER, spec(wanted), {}, (read, "b" if read == "a" else "a"))
    views = {name: ViewMetas(1, metas(5), HURT.damaged if name in hurt else "") for name in ("a", "b")}
    found = views_of(target, None, RedisLook(Verdict("True", "MasterReady", ""), views))
    assert found.gate is None
    assert next_read(wanted, read, found.gate, "", live=True) == read
    assert next_read(wanted, read, found.gate, wanted, live=True) == wanted
    verdict = judge(spec(wanted), read, found, LIVE)
    assert (verdict.status, verdict.reason) == ("False", "DamagedView")
    assert said in verdict.message
    assert verdict.message.count("readers go on with a") == (wanted != read)
    assert (READ_NOW in verdict.message) is (wanted != read and wanted not in hurt)
    known = found.of(hurt[0])
    assert known == Found(1, None, whole=True, damaged=HURT.damaged)


def test_views_without_damage_are_compared() -> None:
    target = Target(OWNER, spec("b"), {}, ("a", "b"))
    good = Verdict("True", "MasterReady", "")
    found = views_of(target, None, RedisLook(good, {"a": ViewMetas(1, metas(5)), "b": ViewMetas(2, metas(5))}))
    assert found.gate is not None
    assert found.gate.is_open
    assert found.found == {"a": Found(1), "b": Found(2, whole=False)}


WRONG_TYPE = redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")


@pytest.mark.parametrize(
    ("replies", "known", "said"),
    [
        ({}, [], ""),
        ({0: FIELDS, 1: FIELDS}, [0, 1], ""),
        ({0: FIELDS, 1: {}}, [0], ""),  # a clone that has not come to its end
        ({0: FIELDS, 3: {**FIELDS, b"position": b"a foreigner's"}}, [0], "flowagg:{b:3}:meta: a partition's meta"),
        ({0: FIELDS, 3: {b"position": b"1"}, 4: FIELDS}, [0, 4], "flowagg:{b:3}:meta: a partition's meta"),
        ({0: WRONG_TYPE, 1: FIELDS}, [1], "flowagg:{b:0}:meta: WRONGTYPE"),
        ({0: {**FIELDS, b"lost": b"5"}, 1: FIELDS}, [1], "flowagg:{b:0}:meta: the ranges in lost make no sense"),
        ({0: {}, 1: WRONG_TYPE, 2: WRONG_TYPE}, [], "flowagg:{b:1}:meta: WRONGTYPE"),
    ],
)
def test_what_cannot_be_read_of_a_view_is_damage_and_the_rest_is_known(
    replies: Mapping[int, Any], known: list[int], said: str
) -> None:
    found = read_metas("b", replies)
    assert (found.begun, sorted(found.metas)) == (len(replies), known)
    assert found.damaged.startswith(said)
    assert bool(found.damaged) is bool(said)


class Listing:
    """A Redis with one list of partitions, which may be what nobody can read."""

    def __init__(self, listed: set[bytes] | redis.ResponseError) -> None:
        self._listed = listed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def info(self, _: str) -> dict[str, Any]:
        return {"role": "master", "used_memory": 1}

    def pipeline(self, *, transaction: bool) -> Self:
        assert not transaction
        return self

    def smembers(self, _: str) -> set[bytes]:
        if isinstance(self._listed, redis.ResponseError):
            raise self._listed
        return self._listed


@pytest.mark.parametrize(
    ("listed", "views"),
    [
        (set(), {"b": ViewMetas(0, {})}),
        (WRONG_TYPE, {"b": ViewMetas(0, {}, f"flowagg:view:b:partitions: {WRONG_TYPE}")}),
        (
            {b"x"},
            {
                "b": ViewMetas(
                    1,
                    {},
                    "flowagg:view:b:partitions names what is no partition "
                    "(invalid literal for int() with base 10: b'x')",
                )
            },
        ),
        (redis.ResponseError("LOADING Redis is loading the dataset in memory"), None),
    ],
)
def test_a_list_of_partitions_that_cannot_be_read_is_damage_and_redis_still_answers(
    monkeypatch: pytest.MonkeyPatch, listed: set[bytes] | redis.ResponseError, views: Any
) -> None:
    monkeypatch.setattr(redis_look, "connect", lambda *_: Listing(listed))
    found = redis_look.look(RedisSettings(redis_url="redis://r"), ["b"])
    assert found.views == views
    assert found.verdict.good is (views is not None)


def test_a_redis_that_refuses_is_no_damage() -> None:
    with pytest.raises(redis.ResponseError, match="LOADING"):
        read_metas("b", {0: FIELDS, 1: redis.ResponseError("LOADING Redis is loading the dataset in memory")})


# The annotation ----------------------------------------------------------------------------------


class Recording:
    """An API server that keeps what is written to it, or fails."""

    def __init__(self, failure: KubernetesError | None = None) -> None:
        self.written: list[tuple[str, Any, str]] = []
        self._failure = failure

    def merge(self, where: str, patch: Any, *, field_manager: str = "") -> None:
        self.written.append((where, patch, field_manager))
        if self._failure is not None:
            raise self._failure


def keeper(api: Any) -> ViewKeeper:
    return ViewKeeper(api, Platform(images={}), lambda _: Observation())


@pytest.mark.parametrize("failure", [None, Conflict("newer"), NotFound("gone"), Forbidden("no"), Invalid("no")])
def test_an_annotation_that_has_done_its_part_is_taken_away_unless_it_is_another_by_now(
    failure: KubernetesError | None,
) -> None:
    api = Recording(failure)
    keeper(api).end_override(OWNER, "17")
    patch = {"metadata": {"resourceVersion": "17", "annotations": {READ_NOW: None}}}
    where = "/apis/flowaggregator.io/v1alpha1/namespaces/flows/flowaggregators/main"
    assert api.written == [(where, patch, MANAGER)]


def test_a_pass_without_an_api_server_ends_there() -> None:
    with pytest.raises(Unreachable):
        keeper(Recording(Unreachable("away"))).end_override(OWNER, "17")


# A look ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "lag"), [(None, None), ({0: 10, 1: 10}, 7), ({0: 3, 1: 3}, 0), ({0: 10, 1: 10, 2: 5}, 12)]
)
def test_a_partition_that_the_view_has_not_begun_is_all_lag(ends: dict[int, int] | None, lag: int | None) -> None:
    assert found_in({0: meta(5), 1: meta(8)}, 2, ends) == Found(2, lag, incomplete=False)


@pytest.mark.parametrize(
    ("begun", "damaged", "found"),
    [
        (1, "", Found(1, 5)),
        (2, "", Found(2, 5, whole=False)),
        (2, "m", Found(2, None, damaged="m")),
        (0, "m", Found(1, None, damaged="m")),  # its list cannot be read, and something is there
    ],
)
def test_a_view_is_whole_once_each_of_its_partitions_has_a_meta(begun: int, damaged: str, found: Found) -> None:
    assert found_in({0: meta(5)}, begun, {0: 10}, damaged) == found
