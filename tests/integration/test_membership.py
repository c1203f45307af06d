"""What librdkafka forgets: a consumer notices, and joins its group anew."""

import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from flowagg.kafka import GroupLooks
from flowagg.settings import KafkaSettings
from flowagg_consumer.effects import Start
from flowagg_consumer.log import Log
from flowagg_consumer.settings import ConsumerSettings
from flowagg_stack.apache_kafka import start_kafka_cluster
from flowagg_stack.embedded import Server
from flowagg_stack.processes import Processes
from flowagg_stack.services import start_service
from flowagg_stack.topics import ensure_topic

from tests.conftest import Place
from tests.faults.proxy import PASS, Condition, Network
from tests.faults.start import proxied
from tests.integration.test_groups import partition_of_group
from tests.integration.tools import wait_for

PARTITIONS = 6
SLOW = Condition(delay_seconds=0.3)
"""Slow enough that an answer can be held after the broker has given it."""
HELD_SECONDS = 1.3
"""Longer than librdkafka waits for a heartbeat's answer, and less than the session."""
SHARED_SECONDS = 20


@pytest.mark.cluster
def test_an_answer_that_was_lost_is_noticed(processes: Processes, tmp_path: Path, redis_server: Server) -> None:
    with Network() as network:
        kafka = start_kafka_cluster(processes, tmp_path, brokers=1)
        kafka.kill_all()
        (proxy,) = proxied(kafka, network, tmp_path).values()
        kafka.restart(1)
        kafka.wait_ready()
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        ensure_topic(admin, "flows", PARTITIONS)
        environment = {"FLOWAGG_REDIS_URL": f"redis://{redis_server.address}/0", "FLOWAGG_VIEW": "shared"}
        near = environment | {"FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{proxy.port}"}
        first = start_service(processes, "consumer", near, "first")
        wait_for(lambda: first.running_partitions() == PARTITIONS, "the first has all partitions", 30)

        def assigned() -> list[int]:
            """How many partitions the group says that each member has."""
            described = admin.describe_consumer_groups(["flowagg-shared"])["flowagg-shared"].result(10)
            return sorted(len(m.assignment.topic_partitions) for m in described.members if m.assignment is not None)

        proxy.condition = SLOW
        second = start_service(processes, "consumer", kafka.environment | environment, "second")
        wait_for(lambda: assigned() == [0, PARTITIONS // 2], "the first was told to share", 30)
        proxy.condition = Condition(black_hole=True)
        time.sleep(HELD_SECONDS)
        proxy.condition = PASS

        def shared() -> bool:
            return first.running_partitions() == second.running_partitions() == PARTITIONS // 2

        wait_for(shared, "both have half of the partitions", SHARED_SECONDS)
        assert "and the group says [" in first.child.log.read_text(encoding="utf-8")
        wait_for(lambda: "flowagg_consumer_rejoins_total 1.0" in httpx.get(f"{first.url}/metrics").text, "counted", 5)


@pytest.mark.cluster
def test_a_look_at_a_group_outlives_its_coordinator(processes: Processes, tmp_path: Path) -> None:
    """One with a time-out of librdkafka's has ended the process at this place."""
    kafka = start_kafka_cluster(processes, tmp_path, brokers=1)
    looks = GroupLooks(KafkaSettings(kafka_bootstrap_servers=kafka.bootstrap_servers), "test")

    def answered() -> bool:
        """Whether the coordinator has said something about the group, be it that it is not there."""
        looks.poll()
        with suppress(TimeoutError):
            looks.start("nobody").exception(1)
            return True
        return False

    try:
        wait_for(answered, "the first answer", 60)
        kafka.kill(1)
        asked = looks.start("nobody")
        time.sleep(3)
        assert looks.start("nobody") is asked
        kafka.restart(1)
        kafka.wait_ready()
        wait_for(answered, "an answer", 60)
    finally:
        looks.close()


@pytest.mark.cluster
def test_a_look_at_a_group_follows_its_coordinator(processes: Processes, tmp_path: Path) -> None:
    """One client asks the broker that was the coordinator for good, once that is back and is it no more."""
    kafka = start_kafka_cluster(processes, tmp_path)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    looks = GroupLooks(KafkaSettings(kafka_bootstrap_servers=kafka.bootstrap_servers), "test")

    def answered() -> bool:
        looks.poll()
        with suppress(TimeoutError, KafkaException):
            looks.start("nobody").result(1)
            return True
        return False

    try:
        wait_for(answered, "the first answer", 60)
        count = len(admin.list_topics("__consumer_offsets", timeout=10).topics["__consumer_offsets"].partitions)
        partition = partition_of_group("nobody", count)
        was = kafka.leader("__consumer_offsets", partition)
        kafka.kill(was)
        wait_for(lambda: kafka.leader("__consumer_offsets", partition) not in (was, -1), "another coordinator", 60)
        wait_for(answered, "an answer of the other one", 60)
        kafka.restart(was)
        kafka.wait_ready()
        for _ in range(5):
            wait_for(answered, "an answer after the first one is back", 20)
            time.sleep(1)
    finally:
        looks.close()
        kafka.kill_all()


def test_records_that_do_not_come_are_noticed(place: Place) -> None:
    settings = ConsumerSettings(
        kafka_bootstrap_servers=place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"],
        kafka_topic=place.topic,
        view=place.view,
        silence_seconds=0.5,
    )
    log = Log(settings)
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    places = dict.fromkeys(range(PARTITIONS), 0)
    assigned: list[int] = []

    def produce() -> None:
        for number in range(PARTITIONS):
            producer.produce(place.topic, b"{}", b"[]", number)
        assert producer.flush(20) == 0

    def fetch() -> None:
        fetched = log.fetch(0.1, 0.005)
        for number in fetched.assigned:
            assigned.append(number)
            log.restart(number, Start(places[number], -1))
        for number, runs in fetched.records.items():
            places[number] = runs[-1].offsets[-1] + 1

    def all_at(offset: int) -> bool:
        fetch()
        return set(places.values()) == {offset}

    try:
        produce()
        wait_for(lambda: all_at(1), "all come", 30)
        # As librdkafka has stopped it: nobody here has asked for that.
        assert log._consumer is not None
        log._consumer.pause([TopicPartition(place.topic, 4)])
        produce()

        def others_come() -> bool:
            fetch()
            return places == {**dict.fromkeys(range(PARTITIONS), 2), 4: 1}

        wait_for(others_come, "the others come", 30)
        wait_for(lambda: all_at(2), "this one comes, too", 30)
        assert log.rejoins == 1
        assert sorted(assigned) == sorted(2 * list(range(PARTITIONS)))
    finally:
        log.close()
