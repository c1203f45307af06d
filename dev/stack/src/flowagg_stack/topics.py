"""The topic of a stack."""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from flowagg.kafka import TopicMissing, describe_topic, resolve_topic

TOPIC_CONFIG = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}


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
    return partitions
