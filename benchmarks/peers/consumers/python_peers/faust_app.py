"""Faust (faust-streaming): an agent that adds to a table on RocksDB with a changelog topic. At least once.

Told by PEER_KAFKA, PEER_TOPIC, PEER_NAME (the app's id), PEER_PARTITIONS and PEER_PROGRESS. Values are read by orjson;
no leader topic, no web server, a producer that lingers; the rest is as it comes.
"""

import os
from typing import Any

import faust  # type: ignore[import-not-found] # in its own environment
import orjson  # type: ignore[import-not-found,unused-ignore] # in its own environment

from benchmarks.peers.consumers.python_peers.progress import Progress

app = faust.App(
    os.environ["PEER_NAME"],
    broker=f"kafka://{os.environ['PEER_KAFKA']}",
    store="rocksdb://",
    topic_partitions=int(os.environ["PEER_PARTITIONS"]),
    topic_disable_leader=True,
    table_standby_replicas=0,
    stream_wait_empty=False,
    # A changelog record for each flow: by default each would be a request of its own.
    producer_linger=0.05,
    producer_max_batch_size=2**20,
    # For the restart after kill -9 alone: with the default the group would wait 60 s for the dead member.
    broker_session_timeout=6.0,
    broker_heartbeat_interval=2.0,
    web_enabled=False,
)
topic = app.topic(os.environ["PEER_TOPIC"], key_serializer="raw", value_serializer="raw")
totals = app.Table("totals", key_type=bytes)  # keys as they are, values as JSON
progress = Progress(os.environ["PEER_PROGRESS"])


@app.agent(topic)  # type: ignore[misc,untyped-decorator,unused-ignore] # Faust is not known here
async def add(stream: Any) -> None:
    """Add flows to their totals."""
    async for event in stream.events():
        counts = orjson.loads(event.value)
        bytes_tx, bytes_rx = totals.get(event.key) or (0, 0)
        totals[event.key] = [bytes_tx + counts["bytes_tx"], bytes_rx + counts["bytes_rx"]]
        progress.add(1)


if __name__ == "__main__":
    app.main()
