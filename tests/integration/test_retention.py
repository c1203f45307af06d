"""Retention of hours, and settings of Kafka and Redis that would spoil totals, on the real programs."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

import httpx
import pytest
import redis
from confluent_kafka import Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource
from flowagg.flow import Flow, encode_key, encode_value
from flowagg.view import meta_key
from flowagg_load.generator import Ledger, Shape, flows
from flowagg_stack import provision
from flowagg_stack.embedded import start_redis_binary
from flowagg_stack.processes import Processes
from flowagg_stack.services import Service, Stack, start_service
from flowagg_stack.topics import ensure_topic

from tests.conftest import PARTITIONS, Place
from tests.integration.tools import assert_exact, get, post, wait_check, wait_for, wait_fresh

pytestmark = pytest.mark.operations

StartStack = Callable[..., Stack]
HOUR_MS = 3_600_000
DAY_ONE = 1_790_000_000_000


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def source() -> Iterator[Flow]:
    return flows(Shape(keys=100, hours=3, zipf=1.1), seed=20261124)


def configure(place: Place, setting: str, value: str) -> None:
    """Set a topic's setting in Kafka."""
    entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, place.topic, incremental_configs=[entry])
    place.admin.incremental_alter_configs([resource])[resource].result(20)


def produce(place: Place, flows_: Sequence[tuple[int, int]], ledger: Ledger, partitions: Sequence[int]) -> None:
    """Append a flow of (hour, milliseconds after the first day) to each of the partitions, and count it."""
    producer = Producer({"bootstrap.servers": place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"]})
    for hour, after in flows_:
        flow = Flow("foo", "bar", "vpc-0", hour, 1, 2)
        for number in partitions:
            key, value = encode_key("foo", "bar", "vpc-0", hour), encode_value(1, 2)
            producer.produce(place.topic, value, key, number, timestamp=DAY_ONE + after)
            ledger.add(flow)
    assert producer.flush(30) == 0


def metric(service: Service, line: str) -> bool:
    return line in httpx.get(f"{service.url}/metrics", timeout=10).text


def test_hours_expire_by_log_time_and_never_come_back(
    start_stack: StartStack, processes: Processes, place: Place, ledger: Ledger
) -> None:
    configure(place, "message.timestamp.type", "CreateTime")  # so that the test can say what time it is
    ensure_topic(place.admin, f"{place.topic}.dead-letters", 1)
    stack = start_stack(FLOWAGG_RETENTION_HOURS="10")
    assert all(
        metric(service, 'flowagg_consumer_topic_misconfigured{setting="message.timestamp.type"} 1.0')
        for service in stack.consumers
    )
    everywhere = range(PARTITIONS)
    produce(place, [(1, 0), (2, 0), (3, 6 * HOUR_MS)], ledger, everywhere)
    assert_exact(stack, ledger)
    # One partition alone sees the time go on: then the others' part of the hour is no longer served either.
    produce(place, [(4, 12 * HOUR_MS)], ledger, [0])
    for hour in (1, 2):
        reply = wait_for(partial(_expired, stack, hour), f"hour {hour} expires")
        assert reply.json() == []
        assert reply.headers["flowagg-fresh"] == "true"
    for hour in (3, 4):
        reply = wait_fresh(stack, hour)
        assert reply.json() == ledger.rows(hour)
        assert "flowagg-expired" not in reply.headers
    # A late flow is a dead letter, after a crash of the consumers too.
    for victim in stack.consumers:
        os.kill(victim.child.process.pid, signal.SIGKILL)
        victim.child.process.wait()
    produce(place, [(2, 12 * HOUR_MS)], Ledger(), [0])
    given = place.environment | {"FLOWAGG_RETENTION_HOURS": "10"}
    last = start_service(processes, "consumer", given, "consumer-last")
    last.wait_ready()
    wait_for(lambda: metric(last, 'flowagg_consumer_dead_letters_total{reason="ExpiredHour"} 1.0'), "a dead letter")
    assert wait_fresh(stack, 2).json() == []
    with redis.Redis.from_url(place.environment["FLOWAGG_REDIS_URL"]) as raw:
        assert raw.hget(meta_key(place.view, 0), "floor") == b"3"
        assert raw.hget(meta_key(place.view, 1), "floor") == b"0"
        assert len(raw.keys(f"flowagg:{{{place.view}:0}}:*:hour:*")) == 2
        assert len(raw.keys(f"flowagg:{{{place.view}:1}}:*:hour:*")) == 3


def _expired(stack: Stack, hour: int) -> httpx.Response | None:
    reply = get(stack, hour)
    return reply if reply.headers.get("flowagg-expired") == "true" else None


def test_a_compacted_topic_is_refused_until_it_is_mended(
    start_stack: StartStack, processes: Processes, place: Place, ledger: Ledger, source: Iterator[Flow]
) -> None:
    configure(place, "cleanup.policy", "compact")
    stack = Stack(processes, place.environment)
    for service in (stack.writer, stack.reader):
        service.wait_ready()
    for consumer in stack.consumers:
        wait_check(consumer, "topic", "cleanup.policy is compact: compaction removes flows")
    post(stack, islice(source, 100), ledger)
    assert get(stack, 1).json() == []
    configure(place, "cleanup.policy", "delete")
    assert_exact(stack, ledger)
    wait_for(lambda: not any(consumer.checks() for consumer in stack.consumers), "the consumers are ready")


def test_a_redis_that_evicts_is_refused_until_it_is_mended(
    processes: Processes, place: Place, ledger: Ledger, source: Iterator[Flow]
) -> None:
    own = start_redis_binary(processes, provision.redis_server(), "--maxmemory-policy", "allkeys-lru", name="own-redis")
    url = f"redis://{own.address}/0"
    stack = Stack(processes, place.environment | {"FLOWAGG_REDIS_URL": url})
    for service in (stack.writer, stack.reader):
        service.wait_ready()
    wait_check(stack.consumers[0], "redis", "maxmemory-policy allkeys-lru would throw totals away")
    post(stack, islice(source, 100), ledger)
    with redis.Redis.from_url(url) as raw:
        raw.config_set("maxmemory-policy", "noeviction")
    assert_exact(stack, ledger)
