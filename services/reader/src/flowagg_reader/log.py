"""Kafka as the reader sees it: the log's end offsets."""

import asyncio
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from flowagg.kafka import (
    KafkaUnavailable,
    LookUps,
    Topic,
    TopicMissing,
    awaited,
    describe_topic,
    end_offsets,
    known_offset,
    look_up_error,
    topic_of,
)
from flowagg.position import Position
from flowagg.settings import KafkaSettings


class Log:
    """Looks up where the log ends. Methods belong to one event loop's thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic_name = settings.kafka_topic
        self._timeout_seconds = settings.kafka_timeout_seconds
        self._look_ups = LookUps(settings, "reader")
        self._known: Topic | None = None

    def serve_logs(self) -> None:
        """Hand librdkafka's log lines on; unserved they would pile up."""
        self._look_ups.client.poll(0)

    async def end(self) -> Position:
        """The end offsets of every partition, as of after this call. Raises KafkaUnavailable.

        The topic is described anew each time, so that new partitions and a topic that was made
        again are seen at once. Both requests go out together, on the partitions known from before.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                found = await self._look_ups.answer_soon(self._end)
        except TimeoutError:
            self._look_ups.failed()
            raise KafkaUnavailable("Kafka did not answer in time") from None
        except KafkaException as error:
            found_out = look_up_error(error, self._topic_name)
            if not isinstance(found_out, TopicMissing):
                self._look_ups.failed()
            raise found_out from error
        self._look_ups.worked()
        return found

    async def _end(self, client: AdminClient) -> Position:
        known = self._known
        describing = asyncio.ensure_future(self._describe(client))
        ends: dict[int, Any] = {}
        try:
            if known is not None:
                ends = await self._ends(client, known.partitions)
        except KafkaException:
            known = None  # the topic may have changed meanwhile: asked again below
        finally:
            topic = await describing
        if known is None or known.topic_id != topic.topic_id:
            ends = {}
        new = topic.partitions - ends.keys()
        if new:
            ends |= await self._ends(client, frozenset(new))
        self._known = topic
        return Position(
            topic.topic_id,
            {number: ends[number].offset for number in topic.partitions},
            {number: -1 if (epoch := ends[number].leader_epoch) is None else epoch for number in topic.partitions},
        )

    async def _describe(self, client: AdminClient) -> Topic:
        described = describe_topic(client, self._topic_name, self._timeout_seconds)
        return topic_of(await awaited(described))

    async def _ends(self, client: AdminClient, partitions: frozenset[int]) -> dict[int, Any]:
        futures = end_offsets(client, self._topic_name, partitions, self._timeout_seconds)
        results: list[Any] = await asyncio.gather(*(awaited(future) for future in futures.values()))
        return dict(zip(futures, map(known_offset, results), strict=True))
