"""Each record is counted exactly once, on a real Kafka and a real Redis, whatever happens to the processes."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import httpx
import pytest
import redis
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions
from flowagg.flow import Flow, encode_value
from flowagg.view import meta_key
from flowagg_load.generator import Ledger, Shape, flows
from flowagg_stack import provision
from flowagg_stack.embedded import Server, start_redis_binary
from flowagg_stack.processes import Processes
from flowagg_stack.services import Service, Stack, start_service
from flowagg_stack.topics import ensure_topic

from tests.conftest import Place
from tests.integration.tools import assert_exact, get, post, wait_check, wait_for, wait_fresh

StartStack = Callable[..., Stack]
KEY = ("src_app", "dest_app", "vpc_id", "hour")
SHAPE = Shape(keys=500, hours=5, zipf=1.1)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def source() -> Iterator[Flow]:
    return flows(SHAPE, seed=20261124)


def send(service: Service, number: signal.Signals) -> None:
    os.kill(service.child.process.pid, number)


def test_totals_are_exact_while_consumers_are_killed(
    start_stack: StartStack, processes: Processes, place: Place, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack(FLOWAGG_SESSION_TIMEOUT_SECONDS="2", FLOWAGG_BATCH_RECORDS="200")
    for number in range(4):
        post(stack, islice(source, 3000), ledger)
        victim = stack.consumers.pop(0)
        send(victim, signal.SIGKILL)
        victim.child.process.wait()
        post(stack, islice(source, 1000), ledger)
        given = place.environment | {"FLOWAGG_SESSION_TIMEOUT_SECONDS": "2"}
        stack.consumers.append(start_service(processes, "consumer", given, f"consumer-again-{number}"))
    assert_exact(stack, ledger)
    assert ledger.flows == 16_000


def test_a_paused_consumer_that_comes_back_counts_nothing_twice(
    start_stack: StartStack, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack(FLOWAGG_SESSION_TIMEOUT_SECONDS="2")
    zombie, other = stack.consumers
    post(stack, islice(source, 2000), ledger)
    send(zombie, signal.SIGSTOP)
    post(stack, islice(source, 2000), ledger)
    stack.wait_settled([other])
    post(stack, islice(source, 2000), ledger)
    assert_exact(stack, ledger)
    send(zombie, signal.SIGCONT)
    post(stack, islice(source, 2000), ledger)
    assert_exact(stack, ledger)
    stack.wait_settled()
    assert_exact(stack, ledger)


def test_a_stored_position_that_goes_back_is_noticed_when_idle(
    start_stack: StartStack, place: Place, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack()
    with redis.Redis.from_url(place.environment["FLOWAGG_REDIS_URL"]) as raw:
        post(stack, islice(source, 1000), ledger)
        assert_exact(stack, ledger)
        tails = {key: raw.dump(key) for key in raw.keys(f"flowagg:{{{place.view}:*")}
        post(stack, islice(source, 1000), ledger)
        assert_exact(stack, ledger)
        with raw.pipeline() as lost:  # what a failover to a replica that lags does
            lost.delete(*raw.keys(f"flowagg:{{{place.view}:*"))
            for key, dump in tails.items():
                lost.restore(key, 0, dump)
            lost.execute()
    assert_exact(stack, ledger, seconds=10)


def test_a_redis_that_lost_everything_is_filled_again_from_the_log(
    start_stack: StartStack, place: Place, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack()
    with redis.Redis.from_url(place.environment["FLOWAGG_REDIS_URL"]) as raw:
        post(stack, islice(source, 2000), ledger)
        assert_exact(stack, ledger)
        for number in range(6):
            raw.delete(meta_key(place.view, number))  # totals survive as orphans, and are not counted again
        post(stack, islice(source, 100), ledger)
        assert_exact(stack, ledger)


def test_a_redis_that_hangs_or_restarts_is_waited_for_and_explained(
    processes: Processes, kafka: Server, place: Place, ledger: Ledger, source: Iterator[Flow]
) -> None:
    own = start_redis_binary(processes, provision.redis_server(), name="own-redis")
    settings = {"FLOWAGG_REDIS_URL": f"redis://{own.address}/0", "FLOWAGG_REDIS_TIMEOUT_SECONDS": "0.5"}
    stack = Stack(processes, place.environment | settings)
    stack.wait_ready()
    post(stack, islice(source, 1000), ledger)
    assert_exact(stack, ledger)
    os.kill(own.child.process.pid, signal.SIGSTOP)
    post(stack, islice(source, 1000), ledger)
    wait_check(stack.consumers[0], "redis", "Timeout")
    assert get(stack, 1).status_code == 503
    assert get(stack, 1).headers["content-type"] == "application/problem+json"
    os.kill(own.child.process.pid, signal.SIGCONT)
    assert_exact(stack, ledger)
    stack.wait_settled()
    wait_for(lambda: all(not service.checks() for service in stack.services), "every service is ready again")


def test_a_topic_made_again_stops_its_partitions(
    start_stack: StartStack, place: Place, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack()
    post(stack, islice(source, 1000), ledger)
    assert_exact(stack, ledger)
    place.admin.delete_topics([place.topic], operation_timeout=10)[place.topic].result(20)
    wait_for(lambda: place.topic not in place.admin.list_topics(timeout=5).topics, "the topic is gone")
    ensure_topic(place.admin, place.topic, 6)
    wait_for(lambda: not stack.writer.checks(), "the writer sees the topic")
    another = Ledger()
    wait_for(lambda: _posted(stack, source, another), "the writer appends to the new topic")
    wait_for(
        lambda: any("TopicChanged" in state for service in stack.consumers for state in service.checks().values()),
        "a consumer says that the topic has changed",
    )
    reply = get(stack, 1)
    assert (reply.headers["flowagg-fresh"], reply.headers["flowagg-lag-records"]) == ("false", "unknown")
    assert reply.json() == ledger.rows(1)
    assert get(stack, 1, consistency="strict").status_code == 503


def _posted(stack: Stack, source: Iterator[Flow], ledger: Ledger) -> bool:
    try:
        post(stack, islice(source, 200), ledger)
    except AssertionError:
        return False
    return True


def test_a_record_that_is_no_flow_goes_to_the_dead_letters_and_the_partition_goes_on(
    start_stack: StartStack, place: Place, ledger: Ledger, source: Iterator[Flow]
) -> None:
    letters = f"{place.topic}.dead-letters"
    ensure_topic(place.admin, letters, 1)
    stack = start_stack()
    post(stack, islice(source, 1000), ledger)
    _produce(place, 2, [(b"no flow key", encode_value(1, 1)), (b'["a","b","c",1]', None)])
    post(stack, islice(source, 1000), ledger)
    assert_exact(stack, ledger)
    found = _consume(place, letters, 2)
    reasons = [dict(message.headers() or [])["flowagg-reason"] for message in found]
    assert reasons == [b"InvalidKey", b"InvalidValue"]
    assert found[0].key() == b"no flow key"
    headers = dict(found[1].headers() or [])
    assert (headers["flowagg-topic"], headers["flowagg-partition"]) == (place.topic.encode(), b"2")


def test_a_dead_letter_topic_that_is_down_is_waited_for_and_explained(
    start_stack: StartStack, place: Place, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack(FLOWAGG_KAFKA_TIMEOUT_SECONDS="1")
    _produce(place, 2, [(b"no flow key", encode_value(1, 1))])
    owner = wait_for(
        lambda: next((s for s in stack.consumers if "takes no records" in s.checks().get("dead_letters", "")), None),
        "a consumer says that it waits for the dead-letter topic",
    )
    wait_check(owner, "partition_2", f"{place.topic}.dead-letters takes no records")
    assert "dead_letters" in owner.checks()  # it stays said while the next try is under way
    assert get(stack, 1).headers["flowagg-fresh"] == "false"
    ensure_topic(place.admin, f"{place.topic}.dead-letters", 1)
    post(stack, islice(source, 500), ledger)
    assert_exact(stack, ledger)
    wait_for(lambda: not owner.checks(), "the consumer is ready again")


def test_other_producers_may_spell_keys_and_values_in_their_own_way(
    start_stack: StartStack, place: Place, ledger: Ledger
) -> None:
    stack = start_stack()
    flow = Flow("foo", "bär", "vpc-0", 1, 5, 6)
    post(stack, [flow], ledger)
    spellings = [
        (b'[ "foo" , "b\\u00e4r", "vpc-0", 1 ]', b'{ "bytes_rx": 6,\n "bytes_tx": 5 }'),
        (b'["foo","b\xc3\xa4r","vpc-0",1]', b'{"bytes_tx":5,"bytes_rx":6,"more":{"x":"\\n"}}'),
    ]
    for partition in range(6):
        _produce(place, partition, spellings)
        for _ in spellings:
            ledger.add(flow)
    assert_exact(stack, ledger)
    assert len(ledger.totals) == 1


def test_aborted_records_of_a_transaction_are_never_counted(
    start_stack: StartStack, place: Place, ledger: Ledger
) -> None:
    stack = start_stack()
    flow = Flow("foo", "bar", "vpc-0", 1, 1, 1)
    producer = _producer(place, **{"transactional.id": place.topic})
    producer.init_transactions(30)
    for end in (producer.abort_transaction, producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        for _ in range(10):
            producer.produce(place.topic, encode_value(1, 1), b'["foo","bar","vpc-0",1]', 3)
        assert producer.flush(30) == 0  # else an abort only drops them here
        end(30)
    for _ in range(10):
        ledger.add(flow)
    wait_for(
        lambda: get(stack, 1, consistency="eventual").json() == ledger.rows(1), "the committed records are counted"
    )
    for _ in range(3):
        _produce(place, 3, [(b'["foo","bar","vpc-0",1]', encode_value(1, 1))])
        ledger.add(flow)
        wait_for(lambda: get(stack, 1, consistency="eventual").json() == ledger.rows(1), "later records are counted")


def test_partitions_that_are_added_later_are_read_and_added_up(
    start_stack: StartStack, place: Place, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack()
    post(stack, islice(source, 2000), ledger)
    assert_exact(stack, ledger)
    place.admin.create_partitions([NewPartitions(place.topic, 9)])[place.topic].result(20)
    _produce(place, 8, [(b'["foo","bar","vpc-0",1]', encode_value(1, 1))])
    ledger.add(Flow("foo", "bar", "vpc-0", 1, 1, 1))
    reply = get(stack, 1)  # the reader sees the partition at once, whether or not a consumer reads it yet
    assert (reply.headers["flowagg-fresh"] == "true") == (reply.json() == ledger.rows(1))
    stack.partitions = 9
    stack.wait_settled()
    post(stack, islice(source, 2000), ledger)
    assert_exact(stack, ledger)


def test_several_views_of_one_log_stand_side_by_side(
    start_stack: StartStack, processes: Processes, place: Place, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack(consumers=1)
    post(stack, islice(source, 2000), ledger)
    other = place.environment | {"FLOWAGG_VIEW": f"{place.view}-other"}
    names = ("consumer", "reader")
    consumer, reader = (start_service(processes, service, other, f"other-{service}") for service in names)
    stack.wait_settled([consumer])
    reader.wait_ready()
    post(stack, islice(source, 2000), ledger)
    assert_exact(stack, ledger)
    stack.reader = reader
    assert_exact(stack, ledger)


def test_more_flow_keys_than_fit_in_memory_are_still_exact(start_stack: StartStack, ledger: Ledger) -> None:
    stack = start_stack(FLOWAGG_CACHE_BYTES=str(2**20), FLOWAGG_BATCH_RECORDS="1000")
    post(stack, islice(flows(Shape(keys=20_000, hours=2), seed=1), 60_000), ledger, batch=5000)
    assert_exact(stack, ledger)


def test_kafka_away_is_said_at_once_and_reads_go_on(
    start_stack: StartStack, kafka: Server, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack(FLOWAGG_POST_TIMEOUT_SECONDS="3", FLOWAGG_KAFKA_TIMEOUT_SECONDS="1")
    post(stack, islice(source, 500), ledger)
    assert_exact(stack, ledger)
    os.kill(kafka.child.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(AssertionError, match="503"):
            post(stack, islice(source, 10), Ledger())
        reply = get(stack, 1)
        assert (reply.status_code, reply.headers["flowagg-fresh"]) == (200, "false")
        assert reply.json() == ledger.rows(1)
        assert get(stack, 1, consistency="strict").status_code == 503
        assert get(stack, 1, consistency="eventual").json() == ledger.rows(1)
    finally:
        os.kill(kafka.child.process.pid, signal.SIGCONT)
    wait_fresh(stack, 1)


def _consume(place: Place, topic: str, count: int) -> list[Message]:
    address = place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"]
    consumer = Consumer({"bootstrap.servers": address, "group.id": "test", "auto.offset.reset": "error"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[Message] = []
    while len(found) < count:
        (message,) = consumer.consume(1, 30)
        assert message.error() is None
        found.append(message)
    consumer.close()
    return found


def _producer(place: Place, **properties: str) -> Producer:
    return Producer({"bootstrap.servers": place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"], **properties})


def _produce(place: Place, partition: int, records: Sequence[tuple[bytes | None, bytes | None]]) -> None:
    producer = _producer(place)
    for key, value in records:
        producer.produce(place.topic, value, key, partition)
    assert producer.flush(30) == 0


def test_a_redis_that_is_full_is_said_and_nothing_is_lost_once_it_has_room(
    processes: Processes, place: Place, ledger: Ledger
) -> None:
    own = start_redis_binary(processes, provision.redis_server(), name="own-redis")
    stack = Stack(processes, place.environment | {"FLOWAGG_REDIS_URL": f"redis://{own.address}/0"})
    stack.wait_ready()
    source = flows(Shape(keys=50_000, hours=5), seed=7)  # nearly each is a flow key of its own, and needs room
    post(stack, islice(source, 2000), ledger)
    assert_exact(stack, ledger)
    with redis.Redis.from_url(f"redis://{own.address}/0") as raw:
        raw.config_set("maxmemory", int(raw.info("memory")["used_memory"]) + 2**18)

        def full() -> str | None:
            post(stack, islice(source, 1000), ledger)  # acknowledged all the same
            return next((text for text in _states(stack, "redis") if "RedisFull" in text), None)

        text = wait_for(full, "a consumer says that Redis is full")
        assert "give Redis more memory (maxmemory)" in text
        for _ in range(3):
            post(stack, islice(source, 1000), ledger)
        # An answer where one came, and none where Redis refused the read.
        answers = {hour: wait_for(partial(_not_fresh, stack, hour), "an answer, not fresh") for hour in ledger.hours()}
        wait_for(lambda: get(stack, 1, consistency="strict").status_code == 503, "a strict read is refused")
        assert int(raw.info("stats")["evicted_keys"]) == 0
        raw.config_set("maxmemory", 0)
    assert_exact(stack, ledger, 120)
    wait_for(lambda: all(not service.checks() for service in stack.services), "every service is ready again")
    for hour, reply in answers.items():
        assert (reply.status_code, int(reply.headers["flowagg-lag-records"]) > 0) == (200, True)
        _assert_no_more_than(ledger, hour, reply.json())


def _states(stack: Stack, name: str) -> list[str]:
    return [service.checks().get(name, "") for service in stack.consumers]


def _not_fresh(stack: Stack, hour: int) -> httpx.Response | None:
    reply = get(stack, hour)
    return None if reply.headers.get("flowagg-fresh") == "true" else reply


def _assert_no_more_than(ledger: Ledger, hour: int, rows: list[dict[str, Any]]) -> None:
    """What is shown was posted: of each flow key no more than in all."""
    posted = {tuple(row[name] for name in KEY): row for row in ledger.rows(hour)}
    for row in rows:
        most = posted[tuple(row[name] for name in KEY)]
        assert row["bytes_tx"] <= most["bytes_tx"]
        assert row["bytes_rx"] <= most["bytes_rx"]
