"""The topic and Redis as metrics."""

from prometheus_client import Gauge

from flowagg_operator import metrics
from flowagg_operator.health import STATES, RedisHealth, TopicHealth


def show(name: str, topic: TopicHealth | None, redis: RedisHealth | None) -> None:
    """Bring the metrics of a FlowAggregator up to what was found; what is not known is not shown."""
    for state in STATES:
        _set(metrics.TOPIC_PARTITIONS, (name, state), None if topic is None else topic.states[state])
    _set(metrics.TOPIC_BROKERS, (name,), None if topic is None else topic.brokers)
    _set(metrics.REDIS_MEMORY, (name, "used"), None if redis is None else redis.used)
    _set(metrics.REDIS_MEMORY, (name, "maximum"), None if redis is None else redis.maximum)
    _set(metrics.REDIS_REPLICAS, (name,), None if redis is None else redis.replicas)
    _set(metrics.REDIS_REPLICA_LAG, (name,), None if redis is None else redis.behind)


def _set(gauge: Gauge, labels: tuple[str, ...], value: float | None) -> None:
    if value is None:
        gauge.remove(*labels)
    else:
        gauge.labels(*labels).set(value)
