"""What the operator's looks show as metrics of the topic and of Redis, and when it is there no more."""

from collections.abc import Iterator

import pytest
from flowagg_operator.health import RedisHealth, TopicHealth
from flowagg_operator.health_metrics import show
from prometheus_client import REGISTRY

NAME = "health-of-mine"
TOPIC = TopicHealth(partitions=6, under_replicated=2, leaderless=1, brokers=3)
REDIS = RedisHealth(used=7, maximum=10, replicas=2, behind=5)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    show(NAME, None, None)


def shown() -> dict[tuple[str, ...], float]:
    found = {}
    for metric in REGISTRY.collect():
        if metric.name.startswith(("flowagg_operator_topic_", "flowagg_operator_redis_")):
            for sample in metric.samples:
                if sample.labels["name"] == NAME:
                    found[metric.name, *(sample.labels[one] for one in sorted(sample.labels) if one != "name")] = (
                        sample.value
                    )
    return found


def test_topic_and_redis_are_shown_in_figures() -> None:
    show(NAME, TOPIC, REDIS)
    assert shown() == {
        ("flowagg_operator_topic_partitions", "all"): 6,
        ("flowagg_operator_topic_partitions", "under_replicated"): 2,
        ("flowagg_operator_topic_partitions", "leaderless"): 1,
        ("flowagg_operator_topic_brokers",): 3,
        ("flowagg_operator_redis_memory_bytes", "used"): 7,
        ("flowagg_operator_redis_memory_bytes", "maximum"): 10,
        ("flowagg_operator_redis_replicas",): 2,
        ("flowagg_operator_redis_replica_lag_bytes",): 5,
    }


def test_what_is_not_known_any_more_is_not_shown() -> None:
    show(NAME, TOPIC, REDIS)
    show(NAME, None, RedisHealth(used=8, maximum=None, replicas=0, behind=None))
    assert shown() == {
        ("flowagg_operator_redis_memory_bytes", "used"): 8,
        ("flowagg_operator_redis_replicas",): 0,
    }
    show(NAME, None, None)
    assert shown() == {}
