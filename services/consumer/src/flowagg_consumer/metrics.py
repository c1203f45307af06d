"""The consumer's metrics."""

from prometheus_client import Counter, Gauge, Histogram

FLOWS = Counter("flowagg_consumer_flows", "Flows applied to the view.")
BATCHES = Counter("flowagg_consumer_batches", "Batches applied to the view (one script call each).")
APPLY_SECONDS = Histogram(
    "flowagg_consumer_apply_seconds",
    "Time of one batch from fetched to applied, in seconds.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
LOADS = Counter("flowagg_consumer_loads", "Loads of a partition's stored position, by cause.", ["cause"])
POSITION = Gauge("flowagg_consumer_position", "Applied position of an owned partition.", ["partition"])
PARTITIONS = Gauge(
    "flowagg_consumer_partitions",
    "Owned partitions by state: running, loading, stopped.",
    ["state"],
)
STOPPED = Gauge(
    "flowagg_consumer_partition_stopped",
    "1 for a partition that waits for an operator.",
    ["partition", "reason"],
)
CACHED_BYTES = Gauge("flowagg_consumer_cached_bytes", "Estimated memory of totals kept in memory, in bytes.")
