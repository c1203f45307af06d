"""What is in the log: a durable service must have appended the same records as ours."""

import time
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from benchmarks.http.common import PARTITIONS

Record = tuple[int, bytes | None, bytes | None]
"""partition, key, value"""
_ANSWER_SECONDS: Final = 10.0
_READ_SECONDS: Final = 30.0


class Tail:
    """The end of the topic as it moves on."""

    def __init__(self, kafka: str, topic: str = "flows") -> None:
        """kafka: address of a broker."""
        self._topic = topic
        self._consumer = Consumer({"bootstrap.servers": kafka, "group.id": "tail", "enable.auto.commit": False})
        self._seen = self._ends()

    def read(self) -> list[Record]:
        """The records since the last call, sorted. Raises TimeoutError."""
        begins, self._seen = self._seen, self._ends()
        left = {partition for partition, end in self._seen.items() if end > begins[partition]}
        if not left:
            return []
        self._consumer.assign([TopicPartition(self._topic, partition, begins[partition]) for partition in left])
        found: list[Record] = []
        deadline = time.monotonic() + _READ_SECONDS
        while left:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the records of partitions {sorted(left)} were not read within {_READ_SECONDS:g} s")
            for message in self._consumer.consume(1000, 0.1):
                assert message.error() is None, message.error()
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                if offset < self._seen[partition]:
                    found.append((partition, message.key(), message.value()))
                if offset + 1 >= self._seen[partition]:
                    left.discard(partition)
        self._consumer.unassign()
        return sorted(found, key=repr)

    def close(self) -> None:
        """End the client."""
        self._consumer.close()

    def _ends(self) -> dict[int, int]:
        """Partition -> end offset."""
        ends = {}
        for partition in range(PARTITIONS):
            _, end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), _ANSWER_SECONDS)
            ends[partition] = end
        return ends
