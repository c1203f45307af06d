"""Bytewax: stateful_map on its Kafka source, totals written to Redis batch by batch; state in its recovery store.

Told by PEER_KAFKA, PEER_TOPIC, PEER_PROGRESS and PEER_REDIS (host:port). Run by `python -m bytewax.run` with a recovery
store and a snapshot every second. Totals are written whole, so that what is written again after a restart is the same.
"""

import os
from typing import Any

import bytewax.operators as op  # type: ignore[import-not-found] # in its own environment
import msgspec
import redis
from bytewax.connectors.kafka import KafkaSource  # type: ignore[import-not-found] # in its own environment
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found] # in its own environment
from bytewax.outputs import DynamicSink, StatelessSinkPartition  # type: ignore[import-not-found] # in its own environment

from benchmarks.peers.consumers.python_peers.progress import Progress

_BATCH_RECORDS = 1000

Totals = tuple[int, int]


class Counts(msgspec.Struct, gc=False):
    """A flow's value in the log."""

    bytes_tx: int
    bytes_rx: int


_decode = msgspec.json.Decoder(Counts).decode


class Writer(StatelessSinkPartition):  # type: ignore[misc] # Bytewax is not known here
    """Writes totals to Redis, the last ones of each flow key of a batch."""

    def __init__(self) -> None:
        self._redis = redis.Redis.from_url(f"redis://{os.environ['PEER_REDIS']}/0")
        self._progress = Progress(os.environ["PEER_PROGRESS"])

    def write_batch(self, items: list[tuple[str, Totals]]) -> None:
        """Write a batch; items: flow key and totals."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for key, (bytes_tx, bytes_rx) in dict(items).items():
                pipeline.hset(f"totals:{key[key.rindex(',') + 1 : -1]}", key, f"{bytes_tx} {bytes_rx}")
            pipeline.execute()
        self._progress.add(len(items))


class RedisSink(DynamicSink):  # type: ignore[misc] # Bytewax is not known here
    """One writer a worker."""

    def build(self, *_: object) -> Writer:
        """A worker's writer."""
        return Writer()


def _keyed(message: Any) -> tuple[str, Counts]:
    return message.key.decode(), _decode(message.value)


def _add(totals: Totals | None, counts: Counts) -> tuple[Totals, Totals]:
    bytes_tx, bytes_rx = totals or (0, 0)
    new = (bytes_tx + counts.bytes_tx, bytes_rx + counts.bytes_rx)
    return new, new


flow = Dataflow("totals")
_source = KafkaSource(
    brokers=[os.environ["PEER_KAFKA"]], topics=[os.environ["PEER_TOPIC"]], tail=True, batch_size=_BATCH_RECORDS
)
_messages = op.input("flows", flow, _source)
_sums = op.stateful_map("totals", op.map("keyed", _messages, _keyed), _add)
op.output("redis", _sums, RedisSink())
