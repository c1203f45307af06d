"""The topic's settings in Kafka."""

import pytest
from flowagg.topic_rules import judge_topic

GOOD = {
    "cleanup.policy": "delete",
    "message.timestamp.type": "LogAppendTime",
    "unclean.leader.election.enable": "false",
    "min.insync.replicas": "2",
}


@pytest.mark.parametrize(
    ("changes", "replicas", "found"),
    [
        ({}, 3, []),
        ({"min.insync.replicas": "1"}, 1, []),
        ({"min.insync.replicas": "1"}, 3, ["min.insync.replicas"]),
        ({"min.insync.replicas": "3"}, 3, ["min.insync.replicas"]),
        ({"unclean.leader.election.enable": "true"}, 3, ["unclean.leader.election.enable"]),
        ({"message.timestamp.type": "CreateTime"}, 3, ["message.timestamp.type"]),
    ],
)
def test_what_risks_records_is_told(changes: dict[str, str], replicas: int, found: list[str]) -> None:
    findings = judge_topic(GOOD | changes, replicas)
    assert [finding.setting for finding in findings] == found
    assert not any(finding.refused for finding in findings)


@pytest.mark.parametrize("policy", ["compact", "compact,delete", "delete,compact"])
def test_compaction_is_refused(policy: str) -> None:
    (finding,) = judge_topic(GOOD | {"cleanup.policy": policy}, 3)
    assert finding.refused
    assert str(finding) == (
        f"cleanup.policy is {policy}: compaction removes flows that were not counted yet; set it to delete"
    )


def test_what_kafka_does_not_tell_is_not_judged() -> None:
    assert judge_topic({}, 1) == []
