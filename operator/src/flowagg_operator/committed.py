"""What a consumer group has committed, looked up by a client that never joins it.

Not by AdminClient.list_consumer_group_offsets: where the group's coordinator is starting or has moved, as after a
broker's restart, librdkafka's handling of that answer uses the group of the client, which an AdminClient does not have:
the whole process dies (2.16, SIGSEGV in rd_kafka_cgrp_op under rd_kafka_handle_OffsetFetch).
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from flowagg.kafka import client_properties
from flowagg.settings import KafkaSettings


class Committed:
    """A client for one group at a time. Not safe for threads."""

    def __init__(self, settings: KafkaSettings, service: str, own: Mapping[str, Any]) -> None:
        """own: properties of the client's own."""
        self._make: Callable[[str], Consumer] = lambda group: Consumer(
            client_properties(settings, service, {**own, "group.id": group, "enable.auto.commit": False})
        )
        self._group = ""
        self._client: Consumer | None = None

    def look(self, group: str, partitions: Iterable[TopicPartition], timeout_seconds: float) -> dict[int, int]:
        """Partition -> what is committed, those with nothing left out.

        Raises KafkaException: not known is not the same as nothing committed.
        """
        if self._client is None or group != self._group:
            self.close()
            self._client, self._group = self._make(group), group
        with contextlib.suppress(KafkaException):
            self._client.poll(0)  # serves callbacks and librdkafka's log lines, which would pile up
        try:
            found = self._client.committed(list(partitions), timeout_seconds)
        except KafkaException:
            self.close()  # a new client is answered where an old one waits for an address that is gone
            raise
        offsets = {}
        for part in found:
            if part.error is not None:
                raise KafkaException(part.error)
            if part.offset >= 0:
                offsets[part.partition] = part.offset
        return offsets

    def close(self) -> None:
        """Have no client any more; its end may wait for a broker that is gone, so nobody waits for it."""
        client, self._client = self._client, None
        if client is not None:
            threading.Thread(target=client.close, name="kafka-old-client", daemon=True).start()
