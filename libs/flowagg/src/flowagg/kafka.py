"""Kafka: client properties and look-ups that more than one service needs."""

import logging
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec, TopicDescription

from flowagg.errors import FlowaggError
from flowagg.settings import KafkaSettings

_log = logging.getLogger(__name__)

METADATA_MAX_AGE_MS = 10_000
"""librdkafka refreshes metadata every 5 minutes by default: far too late to see a topic grow."""


RESERVED_PROPERTIES = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.gapless.guarantee",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "group.instance.id",
        "group.protocol",
        "isolation.level",
        "partition.assignment.strategy",
        "partitioner",
        "request.required.acks",
        "transactional.id",
    }
)
"""Properties that no file may set: with other values records could be lost or counted twice."""


class KafkaUnavailable(FlowaggError):
    """Kafka did not answer, or refused."""


class TopicMissing(KafkaUnavailable):
    """The topic does not exist."""


class InvalidProperties(FlowaggError):
    """The file of librdkafka properties cannot be read."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as Kafka describes it now. topic_id: changes when a topic is deleted and made again."""

    topic_id: str
    partitions: frozenset[int]


def client_properties(settings: KafkaSettings, service: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """librdkafka properties: the service's own, over them the user's file, over them the address.

    Raises InvalidProperties, or KafkaException at the client's construction for an unknown property.
    """
    properties: dict[str, Any] = {
        "client.id": f"flowagg-{service}",
        "topic.metadata.refresh.interval.ms": METADATA_MAX_AGE_MS,
        "allow.auto.create.topics": False,
        "socket.keepalive.enable": True,
        "reconnect.backoff.max.ms": 1000,
        **own,
    }
    if settings.kafka_properties_file is not None:
        given = read_properties(settings.kafka_properties_file)
        reserved = sorted(RESERVED_PROPERTIES & given.keys())
        if reserved:
            raise InvalidProperties(
                f"{settings.kafka_properties_file}: exactness rests on {', '.join(reserved)}: take it out"
            )
        properties |= given
    properties["bootstrap.servers"] = settings.kafka_bootstrap_servers
    properties.setdefault("error_cb", log_error)
    properties["logger"] = logging.getLogger("librdkafka")  # served by poll and consume, as callbacks are
    return properties


def admin_properties(settings: KafkaSettings, service: str) -> dict[str, Any]:
    """Like client_properties for an AdminClient: producer's and consumer's properties are left out."""
    properties = client_properties(settings, service, {})
    client_only = (
        "batch.",
        "linger.",
        "queue.",
        "compression.",
        "fetch.",
        "delivery.",
        "message.timeout",
        "allow.auto",
        "group.",
    )
    return {name: value for name, value in properties.items() if not name.startswith(client_only)}


def read_properties(path: Path) -> dict[str, str]:
    """Read key=value lines; empty lines and lines that begin with # are skipped."""
    properties = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidProperties(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InvalidProperties(f"{path}, line {number}: write key=value")
        properties[name.strip()] = value.strip()
    return properties


def describe_topic(admin: AdminClient, topic: str, timeout_seconds: float) -> "Future[TopicDescription]":
    """Start a description of the topic; resolve it with topic_of."""
    futures = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_seconds)
    return futures[topic]


def topic_of(description: TopicDescription) -> Topic:
    """The Topic in a description."""
    return Topic(str(description.topic_id), frozenset(p.id for p in description.partitions))


def resolve_topic(future: "Future[TopicDescription]", topic: str, timeout_seconds: float) -> Topic:
    """Wait for a description. Raises TopicMissing or KafkaUnavailable."""
    try:
        return topic_of(future.result(timeout_seconds + 1))
    except KafkaException as error:
        raise look_up_error(error, topic) from error
    except TimeoutError as error:
        raise KafkaUnavailable("Kafka did not answer in time") from error


def look_up_error(error: KafkaException, topic: str) -> KafkaUnavailable:
    """The project's error for a failed look-up."""
    code = error.args[0].code() if error.args and isinstance(error.args[0], KafkaError) else None
    if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return TopicMissing(f"topic {topic} does not exist: create it (6 partitions unless you know better)")
    return KafkaUnavailable(f"Kafka look-up failed: {error}")


def end_offsets(
    admin: AdminClient, topic: str, partitions: frozenset[int], timeout_seconds: float
) -> "dict[int, Future[Any]]":
    """Start a look-up of the partitions' end offsets: high watermarks, past open transactions.

    An acknowledged record behind another producer's open transaction cannot be read yet; with the
    last stable offset a view that lacks it would pass for fresh.
    """
    request = {TopicPartition(topic, partition): OffsetSpec.latest() for partition in partitions}
    futures = admin.list_offsets(request, request_timeout=timeout_seconds)
    return {part.partition: future for part, future in futures.items()}


def log_error(error: KafkaError) -> None:
    """librdkafka's error callback: log it."""
    _log.warning("kafka client error", extra={"code": error.name(), "reason": error.str()})
