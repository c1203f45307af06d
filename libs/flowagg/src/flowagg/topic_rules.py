"""What exactness asks of the topic's settings in Kafka, and what is wrong with those that it has. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

_LEAST_REPLICAS = 3
"""Replicas from which on a broker may be lost while another is down for maintenance."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A setting of the topic that should differ.

    refused: with it records would be lost or miscounted for certain, so nothing is applied; else
    it is a risk to be told of.
    """

    setting: str
    value: str
    advice: str
    refused: bool = False

    def __str__(self) -> str:
        return f"{self.setting} is {self.value}: {self.advice}"


def judge_topic(settings: Mapping[str, str], replicas: int) -> list[Finding]:
    """What is wrong with a topic. settings: as Kafka describes them; one that is missing is not judged.

    replicas: the least number of replicas of a partition.
    """
    found = []
    policy = settings.get("cleanup.policy", "delete")
    if policy != "delete":
        advice = "compaction removes flows that were not counted yet; set it to delete"
        found.append(Finding("cleanup.policy", policy, advice, refused=True))
    if (kind := settings.get("message.timestamp.type", "LogAppendTime")) != "LogAppendTime":
        advice = "dedupe and retention would go by the producers' clocks; set it to LogAppendTime"
        found.append(Finding("message.timestamp.type", kind, advice))
    if (unclean := settings.get("unclean.leader.election.enable", "false")) != "false" and replicas > 1:
        advice = "an election may lose acknowledged flows; set it to false"
        found.append(Finding("unclean.leader.election.enable", unclean, advice))
    insync = int(settings.get("min.insync.replicas", "2"))
    if replicas >= _LEAST_REPLICAS and insync == 1:
        advice = "a flow may be acknowledged while a single broker has it; set it to 2"
        found.append(Finding("min.insync.replicas", "1", advice))
    if replicas > 1 and insync >= replicas:
        advice = f"with {replicas} replicas nothing can be written while a broker is down; set it to {replicas - 1}"
        found.append(Finding("min.insync.replicas", str(insync), advice))
    return found
