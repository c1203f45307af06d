"""The consumer's metrics."""

from prometheus_client import Counter, Gauge, Histogram

from flowagg_consumer.partition import DeadLetterReason

FLOWS = Counter("flowagg_consumer_flows", "Flows applied to the view (repeats of keyed POSTs included).")
BATCHES = Counter("flowagg_consumer_batches", "Batches applied to the view (one call to Redis each).")
TURN_SECONDS = Histogram(
    "flowagg_consumer_turn_seconds",
    "Time of one round of the main loop that brought records, without the wait for them, in seconds; a wait for "
    "FLOWAGG_FLOWS_PER_SECOND is part of it.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
DEAD_LETTERS = Counter("flowagg_consumer_dead_letters", "Records sent to the dead-letter topic.", ["reason"])
for _reason in DeadLetterReason:
    DEAD_LETTERS.labels(_reason.value)  # shown as 0 from the start: a rate needs a value before the first letter
LOADS = Counter("flowagg_consumer_loads", "Loads of a partition's stored position: read, or memory kept.", ["outcome"])
REFETCHES = Counter("flowagg_consumer_refetches", "Gaps in the log that were fetched again.")
REJOINS = Counter(
    "flowagg_consumer_rejoins",
    "Members of the group that a new one took the place of: failed for good, or in disagreement with the group.",
)
POSITION = Gauge("flowagg_consumer_position", "Applied position of an owned partition.", ["partition"])
PARTITIONS = Gauge("flowagg_consumer_partitions", "Owned partitions by state: running, loading, stopped.", ["state"])
STOPPED = Gauge(
    "flowagg_consumer_partition_stopped", "1 for a partition that waits for an operator.", ["partition", "reason"]
)
INCOMPLETE = Gauge(
    "flowagg_consumer_partition_incomplete",
    "1 for a partition whose view lacks records that the log had lost.",
    ["partition"],
)
TOPIC_MISCONFIGURED = Gauge(
    "flowagg_consumer_topic_misconfigured",
    "1 for a setting of the topic that risks records or stops their being applied; looked at once, at the start.",
    ["setting"],
)
WAITING = Gauge(
    "flowagg_consumer_waiting",
    "1 while this consumer waits for it: kafka, redis, topic (its settings), dead_letters (their topic).",
    ["source"],
)
CACHED_BYTES = Gauge("flowagg_consumer_cached_bytes", "Estimated memory of totals and marks kept, in bytes.")
