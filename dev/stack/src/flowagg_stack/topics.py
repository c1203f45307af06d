"""The topic of a stack."""

import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from flowagg.kafka import TopicMissing, describe_topic, resolve_topic

TOPIC_CONFIG = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}
KNOWN_SECONDS = 20.0
PACE_SECONDS = 0.05


def ensure_topic(admin: AdminClient, topic: str, partitions: int, replication_factor: int = -1) -> int:
    """Create the topic unless it exists; the number of its partitions either way."""
    try:
        return len(resolve_topic(describe_topic(admin, topic, 10), topic, 10).partitions)
    except TopicMissing:
        pass
    new = NewTopic(topic, partitions, replication_factor, config=TOPIC_CONFIG)
    try:
        admin.create_topics([new], operation_timeout=10)[topic].result(20)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
    _wait_until_known(admin, topic)
    return partitions


def _wait_until_known(admin: AdminClient, topic: str) -> None:
    """A controller answers before its brokers have heard of a new topic: one that is asked at once does not know it."""
    ends = time.monotonic() + KNOWN_SECONDS
    while not _is_known(admin, topic):
        if time.monotonic() >= ends:
            raise TopicMissing(topic)
        time.sleep(PACE_SECONDS)


def _is_known(admin: AdminClient, topic: str) -> bool:
    try:
        resolve_topic(describe_topic(admin, topic, 10), topic, 10)
    except TopicMissing:
        return False
    return True
