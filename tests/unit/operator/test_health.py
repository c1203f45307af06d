"""The topic and Redis in figures."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from flowagg_operator.health import STATES, RedisHealth, TopicHealth, redis_health, topic_health


@dataclass
class Node:
    id: int


@dataclass
class Partition:
    leader: Node | None
    isr: list[Node]
    replicas: list[Node] = field(default_factory=lambda: [Node(1), Node(2), Node(3)])


def test_a_topic_whose_replicas_are_all_in_sync() -> None:
    nodes = [Node(1), Node(2), Node(3)]
    found = topic_health([Partition(nodes[0], nodes), Partition(nodes[1], nodes)])
    assert found == TopicHealth(partitions=2, under_replicated=0, leaderless=0, brokers=3)


@pytest.mark.parametrize("leader", [None, Node(-1)])
def test_a_topic_that_lacks_a_broker_and_a_leader(leader: Node | None) -> None:
    found = topic_health([Partition(Node(1), [Node(1), Node(2)]), Partition(leader, [Node(2)])])
    assert found == TopicHealth(partitions=2, under_replicated=2, leaderless=1, brokers=2)
    assert found.states == {"all": 2, "under_replicated": 2, "leaderless": 1}
    assert tuple(found.states) == STATES


def test_a_master_with_replicas_one_of_them_behind_and_one_not_yet_online() -> None:
    info: dict[str, Any] = {
        "role": "master",
        "connected_slaves": 3,
        "slave0": {"ip": "10.0.0.2", "port": 6379, "state": "online", "offset": 90, "lag": 1},
        "slave1": {"ip": "10.0.0.3", "port": 6379, "state": "online", "offset": 100, "lag": 0},
        "slave2": {"ip": "10.0.0.4", "port": 6379, "state": "wait_bgsave", "offset": 0, "lag": 0},
        "slave_read_only": 1,
        "master_repl_offset": 100,
        "used_memory": 7,
        "maxmemory": 10,
    }
    assert redis_health(info) == RedisHealth(used=7, maximum=10, replicas=2, behind=10)


def test_a_master_alone_without_a_bound() -> None:
    assert redis_health({"used_memory": 7, "maxmemory": 0, "master_repl_offset": 5}) == RedisHealth(7, None, 0, None)
