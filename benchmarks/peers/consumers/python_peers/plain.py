"""A plain loop: confluent-kafka, a fold of each batch, MULTI with HINCRBY, then a commit to Kafka. At least once.

Told by PEER_KAFKA, PEER_TOPIC, PEER_NAME (the group), PEER_PROGRESS and PEER_REDIS (host:port). A kill between EXEC and
the commit counts the batch twice: the two stores share no transaction.
"""

import os
import signal

import msgspec
import redis
from confluent_kafka import Consumer

from benchmarks.peers.consumers.python_peers.progress import Progress

_BATCH_RECORDS = 10_000
_WAIT_SECONDS = 0.05


class Counts(msgspec.Struct, gc=False):
    """A flow's value in the log."""

    bytes_tx: int
    bytes_rx: int


def main() -> None:
    """Work until SIGTERM."""
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["PEER_KAFKA"],
            "group.id": os.environ["PEER_NAME"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            # As our consumer has it: the default waits 1 s after the queue was full.
            "fetch.queue.backoff.ms": 5,
            "session.timeout.ms": 6000,
        }
    )
    consumer.subscribe([os.environ["PEER_TOPIC"]])
    client = redis.Redis.from_url(f"redis://{os.environ['PEER_REDIS']}/0")
    progress = Progress(os.environ["PEER_PROGRESS"])
    decode = msgspec.json.Decoder(Counts).decode
    while not stopping:
        messages = consumer.consume(_BATCH_RECORDS, _WAIT_SECONDS)
        if not messages:
            continue
        sums: dict[bytes, tuple[int, int]] = {}
        for message in messages:
            if (error := message.error()) is not None:
                raise RuntimeError(error.str())
            key, value = message.key(), message.value()
            assert key is not None
            assert value is not None
            counts = decode(value)
            bytes_tx, bytes_rx = sums.get(key, (0, 0))
            sums[key] = (bytes_tx + counts.bytes_tx, bytes_rx + counts.bytes_rx)
        with client.pipeline(transaction=True) as pipeline:
            for key, (bytes_tx, bytes_rx) in sums.items():
                name = b"totals:" + key[key.rindex(b",") + 1 : -1]
                pipeline.hincrby(name, key + b":tx", bytes_tx)
                pipeline.hincrby(name, key + b":rx", bytes_rx)
            pipeline.execute()
        consumer.commit(asynchronous=False)
        progress.add(len(messages))
    consumer.close()


if __name__ == "__main__":
    main()
