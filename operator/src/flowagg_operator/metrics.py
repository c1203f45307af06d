"""The operator's metrics. The lag is there under the names of kafka_exporter too, where a setting asks for it."""

from prometheus_client import Counter, Gauge, Histogram

RECONCILES = Counter("flowagg_operator_reconciles", "Passes over a FlowAggregator by result.", ["result"])
RECONCILE_SECONDS = Histogram(
    "flowagg_operator_reconcile_seconds",
    "Time of a pass over a FlowAggregator, in seconds.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
OBJECTS = Counter(
    "flowagg_operator_objects", "Objects changed, by what was done: created, updated, repaired, removed.", ["action"]
)
EVENTS = Counter(
    "flowagg_operator_events", "Kubernetes events: sent, left out to stay within the bound, failed.", ["result"]
)
CONDITION = Gauge(
    "flowagg_operator_condition",
    "1 for the status that a condition of a FlowAggregator has.",
    ["name", "type", "status"],
)
REPLICAS = Gauge(
    "flowagg_operator_replicas",
    "Pods of a FlowAggregator's component: desired, and ready.",
    ["name", "component", "state"],
)
LEADER = Gauge("flowagg_operator_leader", "1 for the replica that acts.")
LOOK_SECONDS = Histogram(
    "flowagg_operator_look_seconds",
    "Time of a look at a FlowAggregator's Kafka, Redis and consumers, in seconds.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
LOOKS_FAILED = Counter("flowagg_operator_looks_failed", "Looks at Kafka or Redis that did not succeed.", ["target"])

LAG = Gauge("flowagg_operator_lag", "Records of a partition that the view has not applied yet.", ["name", "partition"])
LAG_SUM = Gauge("flowagg_operator_lag_sum", "Records that the view has not applied yet, over all partitions.", ["name"])
LAG_SECONDS = Gauge("flowagg_operator_lag_seconds", "The lag as time, in seconds.", ["name"])
COMMITTED_OFFSET = Gauge(
    "flowagg_operator_committed_offset",
    "Offset that the view's group has committed in a partition; -1: none.",
    ["name", "partition"],
)
VIEW_LAG = Gauge(
    "flowagg_operator_view_lag",
    "Records that a view has not applied yet, over all partitions, by its positions in Redis.",
    ["name", "view"],
)
MEMBERS = Gauge("flowagg_operator_group_members", "Members of the view's consumer group.", ["name"])

ARRIVAL_RATE = Gauge("flowagg_operator_arrival_rate", "Records that arrive a second.", ["name"])
CAPACITY = Gauge(
    "flowagg_operator_capacity",
    "Records that the present consumers can apply a second; not there before it was measured.",
    ["name"],
)
WANTED = Gauge("flowagg_operator_consumers_wanted", "Consumers that the autoscaler asks for.", ["name"])
SCALINGS = Counter(
    "flowagg_operator_scalings", "Times that the autoscaler changed the number of consumers.", ["name", "direction"]
)
SCALING_HELD = Gauge(
    "flowagg_operator_scaling_held", "1 for the reason for which the autoscaler holds.", ["name", "reason"]
)

TOPIC_PARTITIONS = Gauge(
    "flowagg_operator_topic_partitions",
    "Partitions of the topic: all, under_replicated (with fewer in-sync replicas than replicas), leaderless.",
    ["name", "state"],
)
TOPIC_BROKERS = Gauge(
    "flowagg_operator_topic_brokers", "Brokers that have an in-sync replica of a partition of the topic.", ["name"]
)
REDIS_MEMORY = Gauge(
    "flowagg_operator_redis_memory_bytes",
    "Memory of the Redis master: used, and maximum where it has one (maxmemory).",
    ["name", "kind"],
)
REDIS_REPLICAS = Gauge(
    "flowagg_operator_redis_replicas", "Replicas that the Redis master writes through to now.", ["name"]
)
REDIS_REPLICA_LAG = Gauge(
    "flowagg_operator_redis_replica_lag_bytes",
    "Bytes of replication that the slowest replica of the Redis master has not acknowledged; not there without one.",
    ["name"],
)

GROUP_LAG = Gauge(
    "kafka_consumergroup_lag",
    "As flowagg_operator_lag; with FLOWAGG_KAFKA_EXPORTER_METRICS.",
    ["name", "consumergroup", "topic", "partition"],
)
GROUP_LAG_SUM = Gauge(
    "kafka_consumergroup_lag_sum",
    "As flowagg_operator_lag_sum; with FLOWAGG_KAFKA_EXPORTER_METRICS.",
    ["name", "consumergroup", "topic"],
)
GROUP_OFFSET = Gauge(
    "kafka_consumergroup_current_offset",
    "As flowagg_operator_committed_offset; with FLOWAGG_KAFKA_EXPORTER_METRICS.",
    ["name", "consumergroup", "topic", "partition"],
)
GROUP_MEMBERS = Gauge(
    "kafka_consumergroup_members",
    "As flowagg_operator_group_members; with FLOWAGG_KAFKA_EXPORTER_METRICS.",
    ["name", "consumergroup"],
)
GROUP_LAG_SECONDS = Gauge(
    "kafka_consumergroup_group_lag_seconds",
    "As flowagg_operator_lag_seconds; with FLOWAGG_KAFKA_EXPORTER_METRICS.",
    ["name", "group"],
)
