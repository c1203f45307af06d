"""What consumers, pods and Redis say, and what is made of it."""

import json
from typing import Any

import pytest
from flowagg_operator.consuming import Consumers, Stop, judge, read_checks, read_metrics, stops_in
from flowagg_operator.redis_look import judge as judge_redis
from flowagg_operator.troubles import is_ready, is_running, trouble

STOPPED = (
    "stopped, TopicChanged: the topic was deleted and made again: its id is A, the view's B; see docs/guides/"
    "stopped-partitions.md"
)
STOP = Stop(3, "c-1", "TopicChanged", "the topic was deleted and made again: its id is A, the view's B")


def readyz(**checks: str) -> bytes:
    return json.dumps({"status": "failing", "checks": {"kafka": "ok", **checks}}).encode()


def test_only_checks_that_fail_are_kept() -> None:
    assert read_checks(readyz(redis="waiting")) == {"redis": "waiting"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"checks": 1}', b"{}"])
def test_an_answer_that_is_no_readyz_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="readyz"):
        read_checks(body)


def test_a_stopped_partition_is_read_from_the_checks() -> None:
    checks = {"partition_3": STOPPED, "partition_4": "not applied at the moment, trying again", "redis": "x"}
    assert stops_in("c-1", checks) == [STOP]


def test_owned_partitions_are_read_from_the_metrics() -> None:
    text = (
        "# HELP flowagg_consumer_position p\n# TYPE flowagg_consumer_position gauge\n"
        'flowagg_consumer_position{partition="0"} 12.0\nflowagg_consumer_position{partition="5"} 0.0\n'
        "# HELP other o\n# TYPE other gauge\nother 1.0\n"
    )
    assert read_metrics(text)[0] == {0, 5}


@pytest.mark.parametrize(
    ("consumers", "stalled", "replicas", "status", "reason", "says"),
    [
        (Consumers(), {}, 0, "False", "Paused", "Set it to 1"),
        (Consumers(stops=[STOP], answered=1), {}, 1, "False", "PartitionStopped", "partition 3: TopicChanged"),
        (
            Consumers(stops=[STOP], answered=1),
            {},
            1,
            "False",
            "PartitionStopped",
            "rollout restart deployment/m-consumer",
        ),
        (
            Consumers({0: "c-1"}, answered=1),
            {0: 61.0},
            1,
            "False",
            "StalledPartition",
            "partition 0 for 61 s (pod c-1)",
        ),
        (
            Consumers({1: "c-1"}, answered=1),
            {0: 61.0},
            1,
            "False",
            "StalledPartition",
            "no consumer applies partition 0",
        ),
        (Consumers(silent=["c-1"]), {}, 1, "Unknown", "NoConsumer", "c-1 did not answer"),
        (Consumers(silent=["c-1"]), {0: 90.0}, 1, "Unknown", "NoConsumer", ""),
        (Consumers(waiting=["pod c: redis: away"], answered=1), {}, 1, "False", "Waiting", "redis: away"),
        (Consumers({0: "c"}, waiting=["pod c: redis: away"], answered=1), {}, 1, "False", "Waiting", "redis: away"),
        (Consumers({0: "a"}, waiting=["pod b: group: x"], answered=2, well=1), {}, 2, "True", "Applying", ""),
        (
            Consumers({0: "a", 1: "b"}, answered=2, well=2),
            {},
            2,
            "True",
            "Applying",
            "2 partitions applied by 2 consumers",
        ),
    ],
)
def test_consuming_says_which_partition_why_and_what_to_do(
    consumers: Consumers, stalled: dict[int, float], replicas: int, status: str, reason: str, says: str
) -> None:
    verdict = judge(consumers, stalled, replicas, "m-consumer")
    assert (verdict.status, verdict.reason) == (status, reason)
    assert says in verdict.message


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "w-1"}, "status": status}


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (pod(phase="Running", conditions=[{"type": "Ready", "status": "True"}]), ""),
        (pod(containerStatuses=[{"state": {"waiting": {"reason": "ContainerCreating"}}}]), ""),
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: cpu"}]),
            "pod w-1 finds no node: 0/1 nodes: cpu",
        ),
        (
            pod(containerStatuses=[{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no image x"}}}]),
            "pod w-1: ImagePullBackOff: no image x",
        ),
        (
            pod(
                containerStatuses=[
                    {
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                        "lastState": {"terminated": {"message": "the settings are wrong:\n  FLOWAGG_X: unknown"}},
                    }
                ]
            ),
            "pod w-1: CrashLoopBackOff: the settings are wrong: FLOWAGG_X: unknown",
        ),
        (
            pod(containerStatuses=[{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]),
            "pod w-1: OOMKilled: exit code 137",
        ),
    ],
)
def test_what_keeps_a_pod_from_being_ready_is_one_line(found: dict[str, Any], text: str) -> None:
    assert trouble(found) == text


def test_a_pod_that_is_ending_is_asked_nothing() -> None:
    found = pod(phase="Running", podIP="10.0.0.1")
    assert is_running(found)
    assert not is_ready(found)
    found["metadata"]["deletionTimestamp"] = "t"
    assert not is_running(found)


MIB = 2**20


@pytest.mark.parametrize(
    ("info", "reason", "says"),
    [
        ({"role": "master", "used_memory": 5 * MIB}, "MasterReady", "answers"),
        ({"role": "slave", "used_memory": 5 * MIB}, "NoMaster", "cannot be written to"),
        ({"role": "master", "used_memory": 100 * MIB, "maxmemory": 100 * MIB}, "RedisFull", "Raise maxmemory"),
        ({"role": "master", "used_memory": 95 * MIB, "maxmemory": 100 * MIB}, "MasterReady", "nearly full"),
        (
            {"role": "master", "used_memory": 1, "maxmemory": 100 * MIB, "maxmemory_policy": "allkeys-lru"},
            "RedisMisconfigured",
            "noeviction",
        ),
        ({"role": "master", "used_memory": 1, "maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, "MasterReady", ""),
    ],
)
def test_redis_is_judged_by_its_own_account(info: dict[str, Any], reason: str, says: str) -> None:
    verdict = judge_redis(info, "main")
    assert verdict.reason == reason
    assert says in verdict.message
