"""The writer's metrics."""

from flowagg.loop_metrics import LoopCounter, LoopHistogram
from prometheus_client import Gauge

FLOWS = LoopCounter("flowagg_writer_flows", "Flows acknowledged by Kafka.")
POSTS = LoopCounter("flowagg_writer_posts", "Answers to POST /flows, by status.", ["status"])
POST_SECONDS = LoopHistogram(
    "flowagg_writer_post_seconds",
    "Time of a POST from its headers to its answer, in seconds.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
)
for _status in (200, 500, 503):
    POSTS.labels(_status)  # shown as 0 from the start: a rate needs a value before the first one
IN_FLIGHT_BYTES = Gauge("flowagg_writer_in_flight_bytes", "Bytes of records on their way to Kafka.")
WAITING = Gauge("flowagg_writer_waiting_requests", "Requests in hand.")
AWAITED = Gauge("flowagg_writer_waiting", "1 while this writer waits for it: kafka.", ["source"])
