"""Three real brokers: what was acknowledged survives any one of them."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from flowagg.kafka import KafkaUnavailable, known_offset
from flowagg.settings import KafkaSettings
from flowagg_reader.log import Log
from flowagg_stack.apache_kafka import KafkaCluster, start_kafka_cluster
from flowagg_stack.processes import Processes
from flowagg_stack.topics import ensure_topic

from tests.integration.tools import wait_for

pytestmark = pytest.mark.cluster

PARTITIONS = 3


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    directory = tmp_path_factory.mktemp("brokers")
    with Processes(directory) as processes:
        started = start_kafka_cluster(processes, directory)
        yield started
        started.kill_all()


@pytest.fixture
def cluster(shared_cluster: KafkaCluster) -> KafkaCluster:
    """The module's brokers, all up and in sync."""
    shared_cluster.wait_ready()
    return shared_cluster


@pytest.fixture
def topic(cluster: KafkaCluster, request: pytest.FixtureRequest) -> str:
    """A topic of the test's own."""
    name: str = request.node.name
    assert ensure_topic(AdminClient({"bootstrap.servers": cluster.bootstrap_servers}), name, PARTITIONS) == PARTITIONS
    cluster.wait_ready()
    return name


class Writing:
    """An idempotent acks=all producer of numbered records, and which of them were acknowledged."""

    def __init__(self, cluster: KafkaCluster, topic: str, delivery_timeout_ms: int = 60_000) -> None:
        self.acknowledged: list[bytes] = []
        self.failed: list[Any] = []
        self.sent = 0
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": cluster.bootstrap_servers,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 2,
                "delivery.timeout.ms": delivery_timeout_ms,
                "log_level": 0,
                "error_cb": lambda _: None,
            }
        )

    def _delivered(self, error: Any, message: Any) -> None:
        if error is None:
            self.acknowledged.append(message.value())
        else:
            self.failed.append(error)

    def send(self, count: int) -> None:
        for _ in range(count):
            self._producer.produce(
                self._topic, b"%d" % self.sent, partition=self.sent % PARTITIONS, on_delivery=self._delivered
            )
            self.sent += 1

    def send_until_acknowledged(self, count: int, seconds: float = 60) -> None:
        """Send a record at a time until so many more were acknowledged."""
        goal, deadline = len(self.acknowledged) + count, time.monotonic() + seconds
        while len(self.acknowledged) < goal:
            assert time.monotonic() < deadline, f"{len(self.acknowledged)} of {goal} acknowledged; {self.failed}"
            if self.sent < goal:
                self.send(1)
            self._producer.poll(0.005)

    def wait_failed(self) -> None:
        wait_for(lambda: self._producer.poll(0.05) and self.failed, "Kafka refuses a record", 30)

    def finish(self) -> None:
        assert self._producer.flush(60) == 0
        assert self.failed == []
        assert len(self.acknowledged) == self.sent


def read_all(cluster: KafkaCluster, topic: str, seconds: float = 30) -> Iterator[bytes]:
    """The log's records from its beginning to its end."""
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap_servers,
            "group.id": "reading",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    ended: set[int | None] = set()
    deadline = time.monotonic() + seconds
    try:
        while len(ended) < PARTITIONS:
            assert time.monotonic() < deadline, f"the log's end was not reached: {ended}"
            message = consumer.poll(0.5)
            if message is None:
                continue
            if message.error():
                ended.add(message.partition())
                continue
            value = message.value()
            assert value is not None
            yield value
    finally:
        consumer.close()


def test_a_record_that_one_broker_alone_has_is_not_acknowledged(cluster: KafkaCluster, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers})
    partitions = admin.list_topics(topic, timeout=10).topics[topic].partitions
    assert [sorted(partition.replicas) for partition in partitions.values()] == [[1, 2, 3]] * PARTITIONS
    left = cluster.leader(topic, 0)
    others = [node for node in cluster.nodes if node != left]
    writing = Writing(cluster, topic, delivery_timeout_ms=3000)
    writing.send(1)
    writing.finish()
    for node in others:
        cluster.kill(node)
    writing.send(1)
    writing.wait_failed()
    assert len(writing.acknowledged) == 1
    for node in others:
        cluster.restart(node)
    cluster.wait_ready()
    again = Writing(cluster, topic)
    again.send(PARTITIONS)
    again.finish()


def test_acknowledged_records_survive_the_kill_of_their_leader(cluster: KafkaCluster, topic: str) -> None:
    writing = Writing(cluster, topic)
    writing.send_until_acknowledged(1000)
    victim = cluster.leader(topic, 0)
    writing.send(500)  # some of these are on their way when the broker dies
    cluster.kill(victim)
    writing.send_until_acknowledged(1000)
    assert cluster.leader(topic, 0) != victim
    cluster.restart(victim)
    writing.send_until_acknowledged(1000)
    cluster.wait_ready()
    writing.send_until_acknowledged(1000)
    writing.finish()
    values = list(read_all(cluster, topic))
    assert sorted(values, key=int) == [b"%d" % number for number in range(writing.sent)]


def test_an_end_that_its_leader_does_not_tell_is_an_error_and_no_offset(cluster: KafkaCluster, topic: str) -> None:
    """librdkafka answers OFFSET_INVALID without an error: any view would have reached that end."""
    writing = Writing(cluster, topic)
    writing.send(30)
    writing.finish()
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 0})
    request = {TopicPartition(topic, number): OffsetSpec.latest() for number in range(PARTITIONS)}
    settings = KafkaSettings(
        kafka_bootstrap_servers=cluster.bootstrap_servers, kafka_topic=topic, kafka_timeout_seconds=3.0
    )
    log = Log(settings)

    async def ends() -> list[int]:
        return [offset for _, offset in sorted((await log.end()).offsets.items())]

    async def scenario() -> None:
        assert sum(await ends()) == 30
        hung = cluster.nodes[cluster.leader(topic, 0)].process.pid
        os.kill(hung, signal.SIGSTOP)
        try:
            told = admin.list_offsets(request, request_timeout=2)[TopicPartition(topic, 0)]
            with pytest.raises(KafkaUnavailable):
                await log.end()
            info = await asyncio.wrap_future(told)
            assert info.offset == OFFSET_INVALID
            with pytest.raises(KafkaException, match="did not tell its offset"):
                known_offset(info)
        finally:
            os.kill(hung, signal.SIGCONT)

    asyncio.run(scenario())
