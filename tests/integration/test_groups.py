"""A group whose coordinator cannot load it any more: consumers go to another one, and so does the operator's look."""

import itertools
import struct
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from flowagg.kafka import group_names
from flowagg.settings import KafkaSettings
from flowagg_load.generator import Ledger, Shape, flows
from flowagg_operator.kafka_look import KafkaClient
from flowagg_operator.spec import Topic
from flowagg_stack.apache_kafka import KafkaCluster, start_kafka_cluster
from flowagg_stack.embedded import Server
from flowagg_stack.processes import Processes
from flowagg_stack.services import Stack, start_service
from flowagg_stack.topics import ensure_topic

from tests.integration.tools import assert_exact, post, wait_for

PARTITIONS = 6
VIEW = "stuck"
GROUPS = group_names(VIEW)
PATIENCE_SECONDS = 5
_MEMBERS_ASSIGNMENT = 8
"""The version of the key of a record of __consumer_offsets that holds a member's assignment (KIP-848)."""


def partition_of_group(group: str, partitions: int) -> int:
    """As Kafka: the absolute value of Java's hash of the text."""
    code = 0
    for character in group:
        code = (31 * code + ord(character)) & 0xFFFFFFFF
    return abs(code - (1 << 32) if code >= 1 << 31 else code) % partitions


def break_group(kafka: KafkaCluster, group: str) -> None:
    """Have its coordinator fail whenever it loads the group: by a record that it cannot read, and a restart."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    topic = "__consumer_offsets"
    count = len(admin.list_topics(topic, timeout=10).topics[topic].partitions)
    # Brokers take records for this topic from the client of that name alone.
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "client.id": "__admin_client"})
    producer.produce(topic, b"", struct.pack(">h", _MEMBERS_ASSIGNMENT) + b"garbage", partition_of_group(group, count))
    assert producer.flush(20) == 0
    kafka.kill(1)
    kafka.restart(1)
    kafka.wait_ready()


@pytest.mark.cluster
def test_a_group_that_kafka_cannot_load_is_left_for_another_one(
    processes: Processes, tmp_path: Path, redis_server: Server
) -> None:
    kafka = start_kafka_cluster(processes, tmp_path, brokers=1)
    ensure_topic(AdminClient({"bootstrap.servers": kafka.bootstrap_servers}), "flows", PARTITIONS)
    environment = kafka.environment | {
        "FLOWAGG_REDIS_URL": f"redis://{redis_server.address}/0",
        "FLOWAGG_VIEW": VIEW,
        "FLOWAGG_GROUP_PATIENCE_SECONDS": str(PATIENCE_SECONDS),
    }
    stack = Stack(processes, environment, consumers=2)
    stack.wait_ready()
    client = KafkaClient(KafkaSettings(kafka_bootstrap_servers=kafka.bootstrap_servers))
    topic = Topic(name="flows", partitions=PARTITIONS, keyed_partitions=PARTITIONS)
    ledger, source = Ledger(), flows(Shape(keys=200, hours=2), seed=11)

    def members() -> int:
        """How many members the operator sees, in whichever group."""
        snapshot = client.look(topic, GROUPS[0], time.monotonic).snapshot
        return len(snapshot.members or ()) if snapshot is not None else 0

    try:
        post(stack, itertools.islice(source, 1_000), ledger)
        assert_exact(stack, ledger)
        wait_for(lambda: members() == 2, "the operator sees both consumers", 30)
        break_group(kafka, GROUPS[0])

        def left() -> bool:
            return all("from now on" in consumer.child.log.read_text(encoding="utf-8") for consumer in stack.consumers)

        wait_for(left, "both consumers go to another group", 60)
        stack.wait_settled()
        post(stack, itertools.islice(source, 1_000), ledger)
        assert_exact(stack, ledger)
        wait_for(lambda: members() == 2, "the operator sees both consumers again", 60)

        # One that starts only now comes to the same group as the others.
        third = start_service(processes, "consumer", environment, "consumer-3")
        stack.consumers.append(third)
        stack.wait_settled()
        post(stack, itertools.islice(source, 1_000), ledger)
        assert_exact(stack, ledger)
        wait_for(lambda: members() == 3, "the operator sees all three", 60)
    finally:
        client.close()
        kafka.kill_all()
