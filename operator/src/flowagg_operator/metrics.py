"""The operator's metrics. Those of consumer groups have the names that dashboards for Kafka know."""

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

GROUP_LAG = Gauge(
    "kafka_consumergroup_lag",
    "Records of a partition that a group has not applied.",
    ["name", "consumergroup", "topic", "partition"],
)
GROUP_LAG_SUM = Gauge(
    "kafka_consumergroup_lag_sum",
    "Records of a topic that a group has not applied.",
    ["name", "consumergroup", "topic"],
)
GROUP_OFFSET = Gauge(
    "kafka_consumergroup_current_offset",
    "Offset that a group has committed.",
    ["name", "consumergroup", "topic", "partition"],
)
GROUP_MEMBERS = Gauge("kafka_consumergroup_members", "Members of a group.", ["name", "consumergroup"])
GROUP_LAG_SECONDS = Gauge(
    "kafka_consumergroup_group_lag_seconds", "Lag of a group as time, in seconds.", ["name", "group"]
)
