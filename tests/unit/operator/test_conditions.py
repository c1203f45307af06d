"""Conditions, and the judgement of the whole."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flowagg_operator.conditions import KAFKA, NOT_LOOKED, READY, REDIS, Verdict, recalled, updated
from flowagg_operator.readiness import Facts, judge
from flowagg_operator.reconcile import is_changing
from flowagg_operator.routing import Seen
from flowagg_operator.spec import read_spec
from flowagg_operator.troubles import Trouble

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
GOOD = Verdict("True", "Fine", "all is well")
BAD = Verdict("False", "Unreachable", "see that it runs")
SPEC = read_spec({"kafka": {"bootstrapServers": "k:9092"}, "redis": {"url": "redis://r"}})


def test_the_time_of_a_condition_moves_with_its_status_alone() -> None:
    first, _ = updated([], {READY: BAD}, 1, NOW)
    later, _ = updated(first, {READY: replace(BAD, reason="Other", message="m")}, 2, NOW + timedelta(hours=1))
    good, _ = updated(later, {READY: GOOD}, 3, NOW + timedelta(hours=2))
    assert first[0]["lastTransitionTime"] == later[0]["lastTransitionTime"] == "2026-05-01T12:00:00Z"
    assert good[0]["lastTransitionTime"] == "2026-05-01T14:00:00Z"
    assert [one[0]["observedGeneration"] for one in (first, later, good)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("verdict", "changed"),
    [
        (BAD, False),
        (replace(BAD, message="another text"), False),
        (replace(BAD, reason="AuthenticationFailed"), True),
        (GOOD, True),
    ],
)
def test_a_change_is_another_status_or_reason(verdict: Verdict, changed: bool) -> None:
    before, _ = updated([], {KAFKA: BAD}, 1, NOW)
    _, changes = updated(before, {KAFKA: verdict}, 1, NOW)
    assert bool(changes) is changed


def test_conditions_of_others_stay_and_ready_comes_first() -> None:
    other = {"type": "Scaling", "status": "True", "reason": "Fits", "message": "", "lastTransitionTime": "t"}
    conditions, _ = updated([other], {REDIS: GOOD, READY: GOOD, KAFKA: GOOD}, 1, NOW)
    assert [condition["type"] for condition in conditions] == [READY, KAFKA, REDIS, "Scaling"]
    assert conditions[-1] == other


def test_a_long_message_is_cut() -> None:
    conditions, _ = updated([], {READY: replace(BAD, message="x" * 40_000)}, 1, NOW)
    assert len(conditions[0]["message"]) <= 1500


def deployment(
    replicas: int,
    ready: int,
    updated_: int | None = None,
    total: int | None = None,
    progress: str = "NewReplicaSetAvailable",
) -> dict[str, Any]:
    return {
        "metadata": {"generation": 1},
        "spec": {"replicas": replicas},
        "status": {
            "observedGeneration": 1,
            "readyReplicas": ready,
            "updatedReplicas": replicas if updated_ is None else updated_,
            "replicas": replicas if total is None else total,
        },
    }


def facts(**changes: Any) -> Facts:
    whole = Facts(
        deployments={"writer": deployment(2, 2), "reader": deployment(2, 2), "consumer": deployment(1, 1)},
        active={"writer": ["w-1"], "reader": ["r-1"]},
        seen={"writer": Seen(own=("main-writer",), own_leads=True), "reader": Seen()},
    )
    return replace(whole, **changes)


def deployments(**changes: Any) -> dict[str, Any]:
    return {**facts().deployments, **changes}


@pytest.mark.parametrize(
    ("found", "kafka", "redis", "status", "reason", "says"),
    [
        (facts(), GOOD, GOOD, "True", "Running", "w-1 active"),
        (facts(), NOT_LOOKED, NOT_LOOKED, "True", "Running", "consumer: 1 ready"),
        (facts(problem="Secret x is not there: create it"), BAD, BAD, "False", "Reconciling", "create it"),
        (facts(), BAD, BAD, "False", "KafkaUnreachable", "see that it runs"),
        (facts(), GOOD, BAD, "False", "RedisUnreachable", "see that it runs"),
        (facts(), Verdict("False", "TopicMisconfigured", "m"), GOOD, "True", "Running", ""),
        (facts(deployments={}), GOOD, GOOD, "False", "Reconciling", "not there yet"),
        (facts(deployments=deployments(writer=deployment(2, 1))), GOOD, GOOD, "False", "WriterNotReady", "1 of 2"),
        (facts(deployments=deployments(reader=deployment(2, 0))), GOOD, GOOD, "False", "ReaderNotReady", "0 of 2"),
        (facts(deployments=deployments(consumer=deployment(1, 0))), GOOD, GOOD, "False", "ConsumerNotReady", "0 of 1"),
        (facts(deployments=deployments(consumer=deployment(0, 0))), GOOD, GOOD, "True", "Running", "consumer: 0 ready"),
        (
            facts(deployments=deployments(writer=deployment(2, 2, updated_=1, total=3))),
            GOOD,
            GOOD,
            "False",
            "Reconciling",
            "1 of 2 so far, 3 pods in all",
        ),
        (
            facts(deployments=deployments(writer=deployment(2, 0)), changing=True),
            GOOD,
            GOOD,
            "False",
            "Reconciling",
            "0 of 2 pods are ready",
        ),
        (
            facts(
                deployments=deployments(writer=deployment(2, 2, updated_=1, total=3)),
                troubles={"writer": [Trouble("pod new: CrashLoopBackOff: FLOWAGG_X: unknown", lasting=True)]},
            ),
            GOOD,
            GOOD,
            "False",
            "WriterNotReady",
            "FLOWAGG_X: unknown",
        ),
        (
            facts(
                changing=True,
                deployments=deployments(writer=deployment(2, 0)),
                troubles={"writer": [Trouble("pod a finds no node", lasting=True)]},
            ),
            GOOD,
            GOOD,
            "False",
            "WriterNotReady",
            "finds no node",
        ),
        (facts(active={"writer": [], "reader": ["r"]}), GOOD, GOOD, "False", "Reconciling", "no pod is active"),
        (
            facts(seen={"writer": Seen(foreign=(("handmade", ""),))}),
            GOOD,
            GOOD,
            "False",
            "WriterNotReady",
            "EndpointSlice handmade",
        ),
        (
            facts(
                deployments=deployments(writer=deployment(2, 1)),
                troubles={"writer": [Trouble("pod a: CrashLoopBackOff: FLOWAGG_X: unknown setting", lasting=True)]},
            ),
            GOOD,
            GOOD,
            "False",
            "WriterNotReady",
            "FLOWAGG_X: unknown setting",
        ),
    ],
)
def test_the_deepest_trouble_is_said(
    found: Facts, kafka: Verdict, redis: Verdict, status: str, reason: str, says: str
) -> None:
    verdict = judge(SPEC, found, kafka, redis)
    assert (verdict.status, verdict.reason) == (status, reason)
    assert says in verdict.message


def test_without_an_election_no_active_pod_is_asked_for() -> None:
    spec = read_spec(
        {
            "kafka": {"bootstrapServers": "k:9092"},
            "redis": {"url": "redis://r"},
            "writer": {"mode": "ActiveActive"},
            "reader": {"mode": "ActiveActive"},
        }
    )
    assert judge(spec, facts(active={}), GOOD, GOOD).good


def test_until_somebody_has_looked_the_last_word_holds() -> None:
    before, _ = updated([], {KAFKA: BAD}, 1, NOW)
    assert recalled(NOT_LOOKED, before, KAFKA) == BAD
    assert recalled(GOOD, before, KAFKA) == GOOD
    assert recalled(NOT_LOOKED, before, REDIS) is NOT_LOOKED


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, True),  # just made
        ({"observedGeneration": 1}, True),
        ({"observedGeneration": 2}, False),
        ({"observedGeneration": 2, "conditions": [("Reconciling", "2026-05-01T11:59:00Z")]}, True),
        ({"observedGeneration": 2, "conditions": [("Reconciling", "2026-05-01T11:57:00Z")]}, False),
        ({"observedGeneration": 2, "conditions": [("Running", "2026-05-01T11:59:59Z")]}, False),
    ],
)
def test_after_a_change_of_the_spec_pods_have_two_minutes_to_become_ready(
    status: dict[str, Any], expected: bool
) -> None:
    conditions = [
        {"type": READY, "reason": reason, "lastTransitionTime": since} for reason, since in status.get("conditions", [])
    ]
    assert is_changing({**status, "conditions": conditions}, 2, NOW) is expected
