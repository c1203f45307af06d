"""Quix Streams: a stateful function on RocksDB with a changelog topic.

Told by PEER_KAFKA, PEER_TOPIC, PEER_NAME (the group), PEER_STATE (a directory), PEER_PROGRESS and PEER_GUARANTEE
(at-least-once or exactly-once). State is one value a flow key, [bytes_tx, bytes_rx]. Its settings are the defaults (a
checkpoint every 5 s), but for reading from the beginning and a session time-out that suits a restart after kill -9.
"""

import os
from typing import Any

from quixstreams import Application  # type: ignore[import-not-found] # in its own environment

from benchmarks.peers.consumers.python_peers.progress import Progress


def main() -> None:
    """Work until SIGTERM."""
    progress = Progress(os.environ["PEER_PROGRESS"])
    application = Application(
        broker_address=os.environ["PEER_KAFKA"],
        consumer_group=os.environ["PEER_NAME"],
        auto_offset_reset="earliest",
        processing_guarantee=os.environ["PEER_GUARANTEE"],
        state_dir=os.environ["PEER_STATE"],
        consumer_extra_config={"session.timeout.ms": 6000, "fetch.queue.backoff.ms": 5},
        loglevel="WARNING",
    )
    topic = application.topic(os.environ["PEER_TOPIC"], key_deserializer="bytes", value_deserializer="json")

    def add(value: dict[str, int], state: Any) -> None:
        bytes_tx, bytes_rx = state.get("totals", (0, 0))
        state.set("totals", (bytes_tx + value["bytes_tx"], bytes_rx + value["bytes_rx"]))
        progress.add(1)

    application.dataframe(topic).update(add, stateful=True)
    application.run()


if __name__ == "__main__":
    main()
