"""The operator's look at a real Kafka: one whole snapshot of a group's offsets, or none at all."""

import itertools
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from flowagg.settings import KafkaSettings
from flowagg_operator.health import TopicHealth
from flowagg_operator.kafka_look import KafkaClient, KafkaLook
from flowagg_operator.spec import Topic
from flowagg_stack.embedded import Server

from tests.integration.tools import wait_for

PARTITIONS = 4
RECORDS = 10
_numbers = itertools.count(time.time_ns())


@pytest.fixture
def topic() -> Topic:
    return Topic(name=f"look-{next(_numbers)}", partitions=PARTITIONS, keyed_partitions=PARTITIONS)


@pytest.fixture
def client(kafka: Server) -> Iterator[KafkaClient]:
    made = KafkaClient(KafkaSettings(kafka_bootstrap_servers=kafka.address))
    yield made
    made.close()


@pytest.fixture
def group(topic: Topic) -> str:
    return f"group-of-{topic.name}"


def look(client: KafkaClient, topic: Topic, group: str) -> KafkaLook:
    return client.look(topic, group, time.monotonic)


def filled(kafka: Server, client: KafkaClient, topic: Topic, group: str) -> None:
    """The topic is there, with RECORDS in each partition."""
    wait_for(lambda: look(client, topic, group).snapshot, "a first snapshot")
    producer = Producer({"bootstrap.servers": kafka.address})
    for partition in range(PARTITIONS):
        for _ in range(RECORDS):
            producer.produce(topic.name, b"record", partition=partition)
    assert producer.flush(20) == 0


@pytest.fixture(params=["consumer", "classic"])
def members(request: pytest.FixtureRequest, kafka: Server, topic: Topic, group: str) -> Iterator[list[Consumer]]:
    """Two members of the group, by each of Kafka's protocols; they begin once the topic is there."""
    own = {"bootstrap.servers": kafka.address, "group.id": group, "auto.offset.reset": "earliest"}
    made = [Consumer({**own, "enable.auto.commit": False, "group.protocol": request.param}) for _ in range(2)]
    yield made
    for member in made:
        member.close()


def settle(members: list[Consumer], topic: Topic) -> None:
    """Have the members subscribe, and read until each has its share."""
    for member in members:
        member.subscribe([topic.name])

    def shared() -> bool:
        for member in members:
            member.consume(RECORDS, 0.05)
        return all(len(member.assignment()) == PARTITIONS / 2 for member in members)

    wait_for(shared, "two members with half of the partitions each")


def test_a_topic_that_nobody_reads_lags_by_all_of_it(
    kafka: Server, client: KafkaClient, topic: Topic, group: str
) -> None:
    filled(kafka, client, topic, group)
    found = look(client, topic, group)
    assert found.snapshot is not None
    assert found.snapshot.committed == {}
    assert found.snapshot.total == PARTITIONS * RECORDS
    assert found.snapshot.state != "Stable"


def test_the_topic_is_there_in_figures(kafka: Server, client: KafkaClient, topic: Topic, group: str) -> None:
    filled(kafka, client, topic, group)
    wanted = TopicHealth(partitions=PARTITIONS, under_replicated=0, leaderless=0, brokers=1)
    assert look(client, topic, group).health == wanted


def test_the_group_is_seen_with_its_state_and_who_has_what(
    kafka: Server, client: KafkaClient, topic: Topic, group: str, members: list[Consumer]
) -> None:
    filled(kafka, client, topic, group)
    settle(members, topic)
    for member in members:
        member.commit(
            offsets=[TopicPartition(topic.name, p.partition, 3) for p in member.assignment()], asynchronous=False
        )
    snapshot = wait_for(
        lambda: (one := look(client, topic, group).snapshot) and one.state == "Stable" and one, "a stable group"
    )
    assert snapshot.committed == dict.fromkeys(range(PARTITIONS), 3)
    assert snapshot.lags == dict.fromkeys(range(PARTITIONS), RECORDS - 3)
    shares = sorted(sorted(owned) for owned in snapshot.members.values())
    assert shares == sorted(sorted(part.partition for part in member.assignment()) for member in members)


def test_what_is_gone_from_the_log_is_no_lag(kafka: Server, client: KafkaClient, topic: Topic, group: str) -> None:
    filled(kafka, client, topic, group)
    end, admin = [TopicPartition(topic.name, 0, 8)], AdminClient({"bootstrap.servers": kafka.address})
    for future in admin.delete_records(end).values():
        future.result(20)
    snapshot = look(client, topic, group).snapshot
    assert snapshot is not None
    assert snapshot.low[0] == 8
    assert snapshot.lags == {0: 2, 1: RECORDS, 2: RECORDS, 3: RECORDS}


def test_without_a_broker_there_is_no_snapshot_and_the_trouble_is_told(topic: Topic) -> None:
    away = KafkaClient(KafkaSettings(kafka_bootstrap_servers="127.0.0.1:1", kafka_timeout_seconds=1))
    began = time.monotonic()
    found = look(away, topic, "nobody")
    away.close()
    assert found.snapshot is None
    assert "127.0.0.1:1" in found.trouble
    assert time.monotonic() - began < 10
