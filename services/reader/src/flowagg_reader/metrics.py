"""The reader's metrics."""

from prometheus_client import Counter, Gauge, Histogram

GETS = Counter("flowagg_reader_gets", "Answers to GET /flows, by status.", ["status"])
for _status in (200, 500, 503):
    GETS.labels(
        _status
    )  # shown as 0 from the start, as are the results below: a rate needs a value before the first one
STALE = Counter(
    "flowagg_reader_stale",
    "Answers that could not be shown to be fresh; not counted with consistency=eventual, which does not ask for it.",
)
ROWS = Counter("flowagg_reader_rows", "Rows in answers.")
GET_SECONDS = Histogram(
    "flowagg_reader_get_seconds",
    "Time of a GET from its headers to its answer, in seconds.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
)
LOOKUPS = Counter("flowagg_reader_end_offset_lookups", "Look-ups of the log's end offsets, by result.", ["result"])
for _result in ("ok", "failed"):
    LOOKUPS.labels(_result)
WAITING = Gauge(
    "flowagg_reader_waiting", "1 while this reader waits for it: redis, looked at every second.", ["source"]
)
BODIES = Counter(
    "flowagg_reader_bodies",
    "Bodies that were looked for: found in the cache, missed there; and those that were rendered.",
    ["result"],
)
TABLES = Counter(
    "flowagg_reader_tables",
    "Tables of hours, for queries, that were looked for: found in the cache, missed there; and those that were made.",
    ["result"],
)
TABLE_CACHE_BYTES = Gauge("flowagg_reader_table_cache_bytes", "Bytes of the tables in the cache.")
TABLE_SECONDS = Histogram(
    "flowagg_reader_table_seconds",
    "Time to make a table, in seconds, without the pauses in which others had the event loop.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
CACHE_BYTES = Gauge("flowagg_reader_body_cache_bytes", "Bytes of the bodies in the cache.")
RENDER_SECONDS = Histogram(
    "flowagg_reader_render_seconds",
    "Time to render a body, in seconds, without the pauses in which others had the event loop.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
