"""How the topic and Redis are in figures: what a look brings home beside its verdict. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

STATES: Final = ("all", "under_replicated", "leaderless")
"""Of partitions, as the metric has them."""


class _Node(Protocol):
    @property
    def id(self) -> int: ...


class _Partition(Protocol):
    @property
    def leader(self) -> _Node | None: ...
    @property
    def replicas(self) -> list[Any]: ...
    @property
    def isr(self) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class TopicHealth:
    """A topic's partitions, those of them that lack an in-sync replica, and those without a leader.

    brokers: how many have an in-sync replica of any of them.
    """

    partitions: int
    under_replicated: int
    leaderless: int
    brokers: int

    @property
    def states(self) -> dict[str, int]:
        """State, of STATES -> partitions."""
        return dict(zip(STATES, (self.partitions, self.under_replicated, self.leaderless), strict=True))


@dataclass(frozen=True, slots=True)
class RedisHealth:
    """A Redis master by its own account. Sizes in bytes.

    maximum: of its memory; None: without bound. behind: of its replication stream, what the slowest replica has not
    acknowledged; None: it has no replica.
    """

    used: int
    maximum: int | None
    replicas: int
    behind: int | None


def topic_health(partitions: list[Any]) -> TopicHealth:
    """What Kafka's description of a topic's partitions (TopicPartitionInfo) comes to."""
    found: list[_Partition] = partitions
    return TopicHealth(
        partitions=len(found),
        under_replicated=sum(len(each.isr) < len(each.replicas) for each in found),
        leaderless=sum(each.leader is None or each.leader.id < 0 for each in found),
        brokers=len({node.id for each in found for node in each.isr}),
    )


def redis_health(info: Mapping[str, Any]) -> RedisHealth:
    """What INFO replication and memory of a master come to."""
    position = int(info.get("master_repl_offset", 0))
    replicas = [value for name, value in info.items() if name.startswith("slave") and isinstance(value, Mapping)]
    online = [int(replica.get("offset", 0)) for replica in replicas if replica.get("state") == "online"]
    return RedisHealth(
        used=int(info.get("used_memory", 0)),
        maximum=int(info.get("maxmemory", 0)) or None,
        replicas=len(online),
        behind=max(0, position - min(online)) if online else None,
    )
