"""The logs that are read: shapes of flows, a topic filled with them, and their ledger."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from flowagg.errors import FlowaggError
from flowagg.flow import Flow, encode_key, encode_value
from flowagg_load.generator import Ledger, Shape, flows
from flowagg_stack.sample import read_flows
from flowagg_stack.topics import ensure_topic

SAMPLE: Final = Path(__file__).parents[3] / "examples" / "flows" / "flows.ndjson.gz"
_FLUSH_SECONDS: Final = 120
_QUEUED_RECORDS: Final = 500_000
_TIMEOUT_SECONDS: Final = 30
_READ_SECONDS: Final = 120
_FILL_SECONDS: Final = 0.1


class CannotRead(FlowaggError):
    """A topic could not be read as it should."""


@dataclass(frozen=True, slots=True)
class LogShape:
    """How a log is. keys: flow keys that are drawn from; 0 for the sample log, repeated. zipf: 0 for uniform."""

    partitions: int
    keys: int
    zipf: float = 0.0

    @property
    def name(self) -> str:
        """For people."""
        partitions = f"{self.partitions} partition{'s' if self.partitions > 1 else ''}"
        if self.keys == 0:
            return f"{partitions}, the sample repeated"
        return f"{partitions}, {self.keys:,} keys, {f'Zipf {self.zipf:g}' if self.zipf else 'uniform'}"

    @property
    def topic(self) -> str:
        """For Kafka."""
        return f"flows-{self.partitions}-{self.keys or 'sample'}-{self.zipf:g}"


@dataclass(frozen=True, slots=True)
class FilledLog:
    """A topic with flows. ends: partition -> offset after the last record. ledger: the true totals."""

    shape: LogShape
    topic: str
    ends: dict[int, int]
    ledger: Ledger


def source(shape: LogShape, count: int, counted: bool = False) -> Iterator[Flow]:
    """As many flows, the same ones each time.

    counted: each has one byte received, so that totals of bytes received count flows, lost and double ones too.
    """
    endless: Iterator[Flow] = (
        flows(Shape(keys=shape.keys, zipf=shape.zipf), seed=1) if shape.keys else cycle(read_flows(SAMPLE))
    )
    for flow in islice(endless, count):
        yield msgspec.structs.replace(flow, bytes_rx=1) if counted else flow


def fill(address: str, shape: LogShape, topic: str, source: Iterable[Flow]) -> FilledLog:
    """Put flows into a new topic as the writer would."""
    quiet: dict[str, str | int | float | bool] = {"bootstrap.servers": address, "log_level": 0}
    ensure_topic(AdminClient(quiet), topic, shape.partitions)
    producer = Producer(
        {
            **quiet,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": 0,
        }
    )
    ledger = Ledger()
    for number, flow in enumerate(source):
        ledger.add(flow)
        key = encode_key(flow.src_app, flow.dest_app, flow.vpc_id, flow.hour)
        producer.produce(topic, encode_value(flow.bytes_tx, flow.bytes_rx), key)
        if number % 10_000 == 0:
            producer.poll(0)
            while len(producer) > _QUEUED_RECORDS:
                producer.poll(0.05)
    assert producer.flush(_FLUSH_SECONDS) == 0, "Kafka did not take all records in time"
    ends = ends_of(address, topic, shape.partitions)
    assert sum(ends.values()) == ledger.flows, f"{topic} holds {sum(ends.values())} records of {ledger.flows}"
    return FilledLog(shape, topic, ends, ledger)


def ends_of(address: str, topic: str, partitions: int) -> dict[int, int]:
    """Partition -> offset after its last record."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "ends"})
    try:
        return {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_TIMEOUT_SECONDS)[1]
            for number in range(partitions)
        }
    finally:
        consumer.close()


def read_latest(address: str, topic: str, partitions: int) -> dict[bytes, bytes | None]:
    """The last committed value of each key of a topic: what a changelog says. Raises CannotRead, KafkaException."""
    ends = {number: end for number, end in ends_of(address, topic, partitions).items() if end > 0}
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "read-latest",
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 5,
        }
    )
    latest: dict[bytes, bytes | None] = {}
    left = set(ends)
    deadline = time.monotonic() + _READ_SECONDS
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in ends])
        while left:
            if time.monotonic() > deadline:
                raise CannotRead(f"{topic} could not be read to its end within {_READ_SECONDS} s")
            for message in consumer.consume(10_000, _FILL_SECONDS):
                if message.error() is not None:  # the end of a partition; consume() raises for what is worse
                    left.discard(message.partition())
                    continue
                key = message.key()
                if key is None:
                    raise CannotRead(f"{topic} holds a record without a key")
                latest[key] = message.value()
    finally:
        consumer.close()
    return latest
