"""Each record is counted exactly once on three brokers and a Redis with Sentinel, whichever of them die."""

import itertools
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec
from flowagg.flow import ByteCounts, Flow, decode_key
from flowagg.kafka import known_offset
from flowagg.view import Meta, decode_meta, meta_key
from flowagg_consumer.core import GUIDE
from flowagg_load.generator import Ledger, Shape, flows
from flowagg_stack import sentinel
from flowagg_stack.apache_kafka import KafkaCluster, start_kafka_cluster
from flowagg_stack.processes import Processes
from flowagg_stack.sentinel import SentinelSet, start_sentinel_set
from flowagg_stack.services import Service, Stack, start_service
from flowagg_stack.topics import TOPIC_CONFIG, ensure_topic

from tests.conftest import Place
from tests.integration.kafka_worlds import LOST, Real, lose_a_tail
from tests.integration.tools import assert_exact, get, post, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

PARTITIONS = 6
REPLICAS = 3
SHAPE = Shape(keys=500, hours=5, zipf=1.1)
REPOSITORY = Path(__file__).parents[2]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    directory = tmp_path_factory.mktemp("brokers")
    with Processes(directory) as children:
        started = start_kafka_cluster(children, directory)
        yield started
        started.kill_all()


@pytest.fixture(scope="module")
def shared_redis_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelSet]:
    directory = tmp_path_factory.mktemp("redis")
    with Processes(directory) as children:
        started = start_sentinel_set(children, directory)
        yield started
        started.kill_all()


@pytest.fixture
def cluster(shared_cluster: KafkaCluster) -> KafkaCluster:
    """The module's brokers, all up and in sync."""
    for node, child in shared_cluster.nodes.items():
        if child.ended:
            shared_cluster.restart(node)
    shared_cluster.wait_ready()
    return shared_cluster


@pytest.fixture
def redis_set(shared_redis_set: SentinelSet) -> SentinelSet:
    """The module's Redis nodes and sentinels, all up and in sync."""
    for address, child in [*shared_redis_set.nodes.items(), *shared_redis_set.sentinels.items()]:
        if child.ended:
            shared_redis_set.restart(address)
    shared_redis_set.wait_ready()
    return shared_redis_set


@pytest.fixture
def place(cluster: KafkaCluster, redis_set: SentinelSet) -> Place:
    """A topic, its dead-letter topic and a view of the test's own."""
    number = next(_numbers)
    topic, view = f"cluster-{number}", f"cluster-{number}"
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers})
    ensure_topic(admin, topic, PARTITIONS, REPLICAS)
    ensure_topic(admin, f"{topic}.dead-letters", 1, REPLICAS)
    cluster.wait_ready()
    own = {"FLOWAGG_KAFKA_TOPIC": topic, "FLOWAGG_VIEW": view}
    return Place(cluster.environment | redis_set.environment | own, topic, view, admin)


StartStack = Callable[..., Stack]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def source() -> Iterator[Flow]:
    return flows(SHAPE, seed=20270211)


@dataclass
class KeyedClient:
    """Sends batches, each with an Idempotency-Key of its own, and sends them again until a 200."""

    prefix: str
    timeout_seconds: float = 10
    sent: dict[str, bytes] = field(default_factory=dict)
    repeats: int = 0

    def new(self, part: list[Flow], ledger: Ledger) -> str:
        """A batch's key. It is counted in the ledger once, here."""
        key = f"{self.prefix}-{len(self.sent)}"
        self.sent[key] = msgspec.json.encode(part)
        for flow in part:
            ledger.add(flow)
        return key

    def try_once(self, writer: Service, key: str, read_seconds: float | None = None) -> bool:
        """Whether the answer is 200; no answer or 503 is no."""
        read = self.timeout_seconds if read_seconds is None else read_seconds
        try:
            reply = httpx.post(
                f"{writer.url}/flows",
                content=self.sent[key],
                headers={"Content-Type": "application/json", "Idempotency-Key": key},
                timeout=httpx.Timeout(self.timeout_seconds, read=read),
            )
        except httpx.HTTPError:
            return False
        assert reply.status_code in (200, 503), reply.text
        return reply.status_code == 200

    def send(self, writer: Service, key: str, seconds: float = 60) -> None:
        """Send a batch until the answer is 200."""

        def done() -> bool:
            if self.try_once(writer, key):
                return True
            self.repeats += 1
            return False

        wait_for(done, f"200 for {key}", seconds)


def post_until(
    stack: Stack,
    source: Iterator[Flow],
    ledger: Ledger | None,
    condition: Callable[[], Any],
    what: str,
    seconds: float = 60,
) -> None:
    """Go on posting until a condition holds. ledger: None where POSTs may be refused, and are not counted."""

    def held() -> bool:
        with nullcontext() if ledger is not None else suppress(AssertionError):
            post(stack, islice(source, 500), Ledger() if ledger is None else ledger)
        return bool(condition())

    wait_for(held, what, seconds)


def shared(consumers: list[Service], partitions: int = PARTITIONS) -> bool:
    """Whether the consumers share the partitions evenly."""
    running = [service.running_partitions() for service in consumers]
    return sum(running) == partitions and min(running) >= partitions // len(running)


def metric(service: Service, name: str) -> float | None:
    """The sum of a metric over its labels, or one series where they are given; None where there is none."""
    text = httpx.get(f"{service.url}/metrics", timeout=5).text
    pattern = re.escape(name) + (r"" if "{" in name else r"(?:\{[^}]*\})?")
    found = re.findall(rf"^{pattern} (\S+)$", text, re.M)
    return sum(map(float, found)) if found else None


def total(consumers: list[Service], name: str) -> float:
    return sum(metric(service, name) or 0 for service in consumers)


def loads_so_far(stack: Stack, place: Place) -> float:
    """The loads of positions, once all of the log is applied.

    A consumer publishes its counts every FLOWAGG_REREAD_SECONDS, its positions together with them:
    counts beside older positions would be from before.
    """

    def published() -> bool:
        return total(stack.consumers, "flowagg_consumer_position") == sum(ends(place).values())

    wait_for(published, "the consumers' metrics show all of the log", 10)
    return total(stack.consumers, "flowagg_consumer_loads_total")


def metas(place: Place, redis_set: SentinelSet) -> dict[int, Meta]:
    """The stored metas, as the master has them."""
    with sentinel.client(redis_set.master()) as client:
        found: dict[int, Meta] = {}
        for number in range(PARTITIONS):
            fields: Any = client.hgetall(meta_key(place.view, number))
            meta = decode_meta(fields)
            if meta is not None:
                found[number] = meta
    return found


def ends(place: Place, topic: str | None = None, partitions: int = PARTITIONS) -> dict[int, int]:
    """The partitions' end offsets. With a client of its own: one goes on with the partitions that it has seen."""
    admin = AdminClient({"bootstrap.servers": place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"]})
    request = {TopicPartition(topic or place.topic, number): OffsetSpec.latest() for number in range(partitions)}
    return {
        part.partition: known_offset(future.result(20)).offset for part, future in admin.list_offsets(request).items()
    }


def records_in(place: Place, starts: Mapping[int, int]) -> Iterator[Flow]:
    """The flows of the log from these offsets to its end, read without the product."""
    address = place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"]
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": "oracle", "enable.auto.commit": False, "auto.offset.reset": "error"}
    )
    stops = ends(place)
    left = sum(stops[number] - start for number, start in starts.items())
    consumer.assign([TopicPartition(place.topic, number, start) for number, start in starts.items()])
    try:
        while left:
            messages = consumer.consume(min(left, 10_000), 20)
            assert messages, f"{left} records of the log are missing"
            for message in messages:
                assert message.error() is None, message.error()
                src_app, dest_app, vpc_id, hour = decode_key(message.key())
                counts = msgspec.json.decode(message.value() or b"", type=ByteCounts)
                yield Flow(src_app, dest_app, vpc_id, hour, counts.bytes_tx, counts.bytes_rx)
            left -= len(messages)
    finally:
        consumer.close()


def assert_exact_and_no_dead_letters(stack: Stack, place: Place, ledger: Ledger, seconds: float = 60) -> None:
    assert_exact(stack, ledger, seconds)
    assert ends(place, f"{place.topic}.dead-letters", 1) == {0: 0}
    assert [number for service in stack.consumers for number in service.checks()] == []


@pytest.fixture
def start_stack(processes: Processes, place: Place) -> StartStack:
    """Starts a stack at the test's place; keyword arguments are further settings."""

    def start(consumers: int = 2, **settings: str) -> Stack:
        stack = Stack(processes, place.environment | settings, consumers)
        stack.wait_ready()
        return stack

    return start


def test_totals_are_exact_after_the_redis_master_is_killed_under_load(
    start_stack: StartStack, place: Place, redis_set: SentinelSet, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack(FLOWAGG_BATCH_RECORDS="200")
    post(stack, islice(source, 2000), ledger)
    assert_exact(stack, ledger)
    old = redis_set.master()
    post(stack, islice(source, 20_000), ledger, batch=2000)  # more than is applied before the kill
    redis_set.kill(old)
    post_until(stack, source, ledger, lambda: redis_set.master() != old, "another node is the master")
    post(stack, islice(source, 2000), ledger)
    assert_exact_and_no_dead_letters(stack, place, ledger)
    redis_set.restart(old)
    post(stack, islice(source, 2000), ledger)
    assert_exact_and_no_dead_letters(stack, place, ledger)


def test_writes_that_a_failover_loses_while_idle_are_applied_again_without_another_post(
    start_stack: StartStack, place: Place, redis_set: SentinelSet, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack()
    post(stack, islice(source, 2000), ledger)
    assert_exact(stack, ledger)
    redis_set.wait_ready()  # the replicas have all of it
    loads = loads_so_far(stack, place)
    old = redis_set.master()
    replicas = [redis_set.nodes[address].process.pid for address in redis_set.replicas()]
    try:
        for pid in replicas:
            os.kill(pid, signal.SIGSTOP)
        with sentinel.client(old) as client:
            # Else what follows would lie in the replicas' sockets, to be read when they go on.
            assert client.execute_command("CLIENT", "KILL", "TYPE", "replica") == len(replicas)
        post(stack, islice(source, 1000), ledger)
        assert_exact(stack, ledger)
        redis_set.kill(old)
    finally:
        for pid in replicas:
            os.kill(pid, signal.SIGCONT)
    assert_exact_and_no_dead_letters(stack, place, ledger)
    wait_for(lambda: redis_set.master() != old, "the sentinels name another master, too")
    # Without this the failover lost nothing. Not at once: the metrics follow within a second.
    wait_for(lambda: total(stack.consumers, "flowagg_consumer_loads_total") > loads, "positions are loaded again", 10)


def test_keyed_batches_that_are_repeated_count_once_while_a_broker_is_killed(
    start_stack: StartStack, place: Place, cluster: KafkaCluster, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack(FLOWAGG_POST_TIMEOUT_SECONDS="2", FLOWAGG_BATCH_RECORDS="500")
    client = KeyedClient("broker")
    for _ in range(10):
        client.send(stack.writer, client.new(list(islice(source, 600)), ledger))
    victim = cluster.leader(place.topic, 0)
    key = client.new(list(islice(source, 30_000)), ledger)  # some of it is on its way when the broker dies
    assert not client.try_once(stack.writer, key, read_seconds=0.05)
    cluster.kill(victim)
    client.send(stack.writer, key)
    for _ in range(10):
        client.send(stack.writer, client.new(list(islice(source, 600)), ledger))
    assert cluster.leader(place.topic, 0) != victim
    assert client.repeats
    assert_exact_and_no_dead_letters(stack, place, ledger)
    cluster.restart(victim)
    for _ in range(10):
        client.send(stack.writer, client.new(list(islice(source, 600)), ledger))
    cluster.wait_ready()
    client.send(stack.writer, client.new(list(islice(source, 600)), ledger))
    assert_exact_and_no_dead_letters(stack, place, ledger)
    assert sum(ends(place).values()) > ledger.flows, "no record came to the log a second time"


def test_a_keyed_batch_counts_once_through_two_writers_and_after_the_topic_has_grown(
    start_stack: StartStack, processes: Processes, place: Place, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack()
    other = start_service(processes, "writer", place.environment, "writer-again")
    other.wait_ready()
    client = KeyedClient("two-writers")
    keys = [client.new(list(islice(source, 300)), ledger) for _ in range(5)]
    for key in keys:
        client.send(stack.writer, key)
        client.send(other, key)
    assert_exact_and_no_dead_letters(stack, place, ledger)
    assert sum(ends(place).values()) == 2 * ledger.flows

    place.admin.create_partitions([NewPartitions(place.topic, 9)])[place.topic].result(20)

    def grown() -> bool:
        try:
            found = ends(place, partitions=9)
        except KafkaException:  # a broker that was asked does not know of them yet
            return False
        return all(found[number] for number in range(6, 9))

    post_until(stack, source, ledger, grown, "the writer appends to the new partitions")
    stack.partitions = 9
    stack.wait_settled()
    keys += [client.new(list(islice(source, 300)), ledger) for _ in range(5)]
    for key in keys:
        client.send(stack.writer, key)
        client.send(other, key)
    assert_exact_and_no_dead_letters(stack, place, ledger)


def test_a_keyed_batch_whose_reply_is_lost_counts_once_when_it_is_repeated(
    start_stack: StartStack, processes: Processes, place: Place, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack()
    client = KeyedClient("lost-reply")
    for _ in range(20):
        key = client.new(list(islice(source, 500)), ledger)
        assert not client.try_once(stack.writer, key, read_seconds=0.001)
        client.send(stack.writer, key)
    assert_exact_and_no_dead_letters(stack, place, ledger)
    for number in range(3):
        key = client.new(list(islice(source, 20_000)), ledger)
        before = sum(ends(place).values())

        def partly_there(before: int = before) -> bool:
            return sum(ends(place).values()) > before

        assert not client.try_once(stack.writer, key, read_seconds=0.001)
        wait_for(partly_there, "a part of the batch is in the log")
        processes.stop(stack.writer.child, signal.SIGKILL)
        stack.writer = start_service(processes, "writer", place.environment, f"writer-{number + 2}")
        client.send(stack.writer, key)
    assert_exact_and_no_dead_letters(stack, place, ledger)
    assert sum(ends(place).values()) > ledger.flows, "no record came to the log a second time"


def test_records_that_retention_takes_before_they_are_applied_are_named_and_the_partition_goes_on(
    start_stack: StartStack, processes: Processes, place: Place, redis_set: SentinelSet, source: Iterator[Flow]
) -> None:
    stack = start_stack()
    applied = Ledger()
    post(stack, islice(source, 2000), applied)
    assert_exact(stack, applied)
    for consumer in stack.consumers:
        processes.stop(consumer.child)
    positions = {number: meta.position for number, meta in metas(place, redis_set).items()}
    assert positions == ends(place)

    post(stack, islice(source, 3000), Ledger())
    cut = positions[2] + 40
    assert ends(place)[2] > cut
    place.admin.delete_records([TopicPartition(place.topic, 2, cut)])[TopicPartition(place.topic, 2)].result(20)
    ledger = Ledger(dict(applied.totals), applied.flows)
    for flow in records_in(place, positions | {2: cut}):
        ledger.add(flow)
    assert ledger.flows == 5000 - 40

    stack.consumers = [
        start_service(processes, "consumer", place.environment, f"consumer-again-{number}") for number in (1, 2)
    ]
    stack.wait_settled()
    assert_exact(stack, ledger)
    stored = metas(place, redis_set)
    assert (stored[2].incomplete, stored[2].lost) == (True, f"{positions[2]}-{cut}")
    assert not any(stored[number].incomplete or stored[number].lost for number in range(PARTITIONS) if number != 2)
    post(stack, islice(source, 2000), ledger)
    assert_exact_and_no_dead_letters(stack, place, ledger)
    stored = metas(place, redis_set)
    assert (stored[2].incomplete, stored[2].lost) == (True, f"{positions[2]}-{cut}")
    for number in range(PARTITIONS):
        series = f'flowagg_consumer_partition_incomplete{{partition="{number}"}}'
        wait_for(partial(_shows, stack, series, float(number == 2)), f"{series} is {int(number == 2)}", 10)


def _shows(stack: Stack, series: str, value: float) -> bool:
    return [found for service in stack.consumers if (found := metric(service, series)) is not None] == [value]


def test_a_second_loss_of_the_same_owner_is_named_beside_the_first(
    start_stack: StartStack, place: Place, redis_set: SentinelSet, source: Iterator[Flow]
) -> None:
    ledger = Ledger()
    stack = start_stack(consumers=1)
    posted = list(islice(source, 1000))
    post(stack, posted, ledger)
    assert_exact(stack, ledger)
    counted = Counter(posted)
    (consumer,) = stack.consumers
    for number in (1, 2):
        begin = metas(place, redis_set)[2].position
        assert begin == ends(place)[2]
        # Not for longer than the group's session, so that it keeps its partitions and its memory.
        os.kill(consumer.child.process.pid, signal.SIGSTOP)
        posted = list(islice(source, 2000))
        post(stack, posted, Ledger())
        missed = list(records_in(place, {2: begin}))
        end = begin + len(missed)
        place.admin.delete_records([TopicPartition(place.topic, 2, end)])[TopicPartition(place.topic, 2)].result(20)
        os.kill(consumer.child.process.pid, signal.SIGCONT)
        wait_for(lambda end=end: metas(place, redis_set)[2].position == end, "the partition goes on")  # type: ignore[misc]
        ranges = (metas(place, redis_set)[2].lost or "").split(",")
        first, last = map(int, ranges[-1].split("-"))  # a fetch under way may have brought the first of them
        assert begin <= first < last == end
        counted += Counter(posted) - Counter(missed[first - begin :])
        ledger = Ledger()
        for flow in counted.elements():
            ledger.add(flow)
        assert_exact(stack, ledger)
        assert len(ranges) == number, ranges
    assert_exact_and_no_dead_letters(stack, place, ledger)


def test_totals_are_exact_while_consumers_grow_from_one_to_three_and_back(
    start_stack: StartStack, processes: Processes, place: Place, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack = start_stack(consumers=1, FLOWAGG_BATCH_RECORDS="200")
    post(stack, islice(source, 5000), ledger)
    given = place.environment | {"FLOWAGG_BATCH_RECORDS": "200"}
    stack.consumers += [start_service(processes, "consumer", given, f"consumer-{number}") for number in (2, 3)]
    post_until(stack, source, ledger, lambda: shared(stack.consumers), "three consumers share the partitions")
    post(stack, islice(source, 2000), ledger)
    for _ in range(2):
        processes.stop(stack.consumers.pop(0).child)  # the one that was first, too
        post(stack, islice(source, 1000), ledger)
    post_until(stack, source, ledger, lambda: shared(stack.consumers), "one consumer has all partitions")
    post(stack, islice(source, 2000), ledger)
    assert_exact_and_no_dead_letters(stack, place, ledger)


UNCLEAN_CONFIG = TOPIC_CONFIG | {"min.insync.replicas": "1", "unclean.leader.election.enable": "true"}
LEADER, FOLLOWER, OTHER = 1, 2, 3


@pytest.fixture
def unclean_place(cluster: KafkaCluster, redis_set: SentinelSet) -> Place:
    """A place whose partition 0 has two replicas, the leader and a follower; the others have none on the follower."""
    number = next(_numbers)
    topic, view = f"unclean-{number}", f"unclean-{number}"
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers})
    replicas = [[LEADER, FOLLOWER]] + [[OTHER, LEADER]] * (PARTITIONS - 1)
    new = NewTopic(topic, PARTITIONS, replica_assignment=replicas, config=UNCLEAN_CONFIG)
    admin.create_topics([new], operation_timeout=10)[topic].result(20)
    ensure_topic(admin, f"{topic}.dead-letters", 1, REPLICAS)
    cluster.wait_ready()
    own = {"FLOWAGG_KAFKA_TOPIC": topic, "FLOWAGG_VIEW": view}
    return Place(cluster.environment | redis_set.environment | own, topic, view, admin)


def part(cluster: KafkaCluster, place: Place) -> None:
    """From now on the leader of partition 0 alone has what is appended."""

    def alone() -> bool:
        address = cluster.addresses[OTHER]
        metadata = AdminClient({"bootstrap.servers": address}).list_topics(place.topic, timeout=5)
        found = metadata.topics[place.topic].partitions[0]
        return (found.leader, found.isrs) == (LEADER, [LEADER])

    cluster.kill(FOLLOWER)
    wait_for(alone, "the follower is not in sync", 90)


def lose(cluster: KafkaCluster, place: Place) -> None:
    """The leader of partition 0 is gone with what it alone had; its follower leads."""

    def elected() -> bool:
        try:
            return cluster.leader(place.topic, 0) == FOLLOWER
        except KafkaException:  # two of the three brokers are only just there again
            return False

    cluster.kill(LEADER)
    cluster.restart(FOLLOWER)
    wait_for(elected, "the follower leads", 120)


class UncleanCluster(Real):
    """A log that loses its tail."""

    def __init__(self, cluster: KafkaCluster, place: Place) -> None:
        super().__init__(place, PARTITIONS)
        self._cluster = cluster

    def part(self, number: int) -> None:
        assert number == 0
        part(self._cluster, self._place)

    def lose(self, number: int) -> None:
        assert number == 0
        lose(self._cluster, self._place)


@pytest.mark.timeout(480)
def test_a_log_that_loses_its_tail_stops_who_has_read_it(cluster: KafkaCluster, unclean_place: Place) -> None:
    world = UncleanCluster(cluster, unclean_place)
    try:
        found = lose_a_tail(world)
    finally:
        world.close()
    assert found == LOST


def _ends_if_known(place: Place) -> dict[int, int] | None:
    try:
        return ends(place)
    except (KafkaException, TimeoutError):
        return None  # a new leader is not known yet, or this client asks a broker that was lost: the next is another


def _end_of_0(place: Place) -> int:
    return (_ends_if_known(place) or {0: 0})[0]


def _stopped(stack: Stack) -> tuple[Service, str] | None:
    """Who says that partition 0 is stopped, and how."""
    states = [(service, service.checks().get("partition_0", "")) for service in stack.consumers]
    return next(((service, state) for service, state in states if state.startswith("stopped")), None)


def _apply_what_will_be_lost(
    stack: Stack, cluster: KafkaCluster, place: Place, redis_set: SentinelSet, ledger: Ledger, source: Iterator[Flow]
) -> dict[int, int]:
    """The positions that the view has then."""
    post(stack, islice(source, 2000), ledger)
    assert_exact(stack, ledger)
    part(cluster, place)
    post(stack, islice(source, 4000), ledger)
    assert_exact(stack, ledger, 120)
    return {number: meta.position for number, meta in metas(place, redis_set).items()}


def _assert_the_others_go_on(stack: Stack, place: Place, ledger: Ledger, positions: Mapping[int, int]) -> Ledger:
    """Of partition 0 the view keeps what it has applied of a log that is gone; what it has then."""
    expected = Ledger(dict(ledger.totals), ledger.flows)
    for flow in records_in(place, {number: position for number, position in positions.items() if number}):
        expected.add(flow)
    assert expected.flows > ledger.flows

    def exact() -> bool:
        rows = {hour: get(stack, hour, consistency="eventual") for hour in expected.hours()}
        return all(reply.json() == expected.rows(hour) for hour, reply in rows.items())

    wait_for(exact, "all of the other partitions is counted", 120)
    return expected


@pytest.mark.timeout(480)
def test_a_log_that_loses_what_was_applied_stops_its_partition_and_the_others_go_on_exactly(
    processes: Processes,
    cluster: KafkaCluster,
    unclean_place: Place,
    redis_set: SentinelSet,
    ledger: Ledger,
    source: Iterator[Flow],
) -> None:
    place = unclean_place
    stack = Stack(processes, place.environment)
    stack.wait_ready()
    positions = _apply_what_will_be_lost(stack, cluster, place, redis_set, ledger, source)
    lose(cluster, place)
    cut = wait_for(lambda: _ends_if_known(place), "the log's ends are known", 90)
    assert cut == positions | {0: cut[0]}
    assert 0 < cut[0] < positions[0]

    owner, state = wait_for(lambda: _stopped(stack), "a consumer says that partition 0 is stopped", 90)
    matched = re.fullmatch(r"stopped, (LogTruncated|PositionBeyondLog): (.*); " + re.escape(GUIDE), state)
    assert matched, state
    assert str(positions[0]) in matched[2]
    assert (REPOSITORY / GUIDE.removeprefix("see ")).is_file()
    series = f'flowagg_consumer_partition_stopped{{partition="0",reason="{matched[1]}"}}'
    wait_for(lambda: metric(owner, series) == 1.0, f"{series} is 1", 30)
    wait_for(lambda: total(stack.consumers, "flowagg_consumer_partition_stopped") == 1.0, "nothing else is stopped", 90)

    # A new leader that lacks records refuses the producer's sequence numbers: the writer takes a new producer.
    post_until(stack, source, None, lambda: _end_of_0(place) > cut[0], "partition 0 has new records", 90)
    assert ends(place)[0] < positions[0], "the new end lies before the old one"
    expected = _assert_the_others_go_on(stack, place, ledger, positions)
    assert metas(place, redis_set)[0].position == positions[0]
    assert _stopped(stack) is not None
    # Flows of partition 0 are acknowledged and not in the view.
    replies = [get(stack, hour) for hour in expected.hours()]
    said = {(reply.headers["flowagg-fresh"], reply.headers["flowagg-lag-records"]) for reply in replies}
    assert said == {("false", "unknown")}
    assert get(stack, 1, consistency="strict").status_code == 503


@pytest.mark.timeout(480)
def test_a_log_that_has_grown_again_past_what_was_applied_stops_its_partition_when_consumers_start(
    processes: Processes,
    cluster: KafkaCluster,
    unclean_place: Place,
    redis_set: SentinelSet,
    ledger: Ledger,
    source: Iterator[Flow],
) -> None:
    place = unclean_place
    stack = Stack(processes, place.environment)
    stack.wait_ready()
    positions = _apply_what_will_be_lost(stack, cluster, place, redis_set, ledger, source)
    for consumer in stack.consumers:
        processes.stop(consumer.child)
    lose(cluster, place)
    # A new leader that lacks records refuses the producer's sequence numbers: the writer takes a new producer.
    post_until(stack, source, None, lambda: _end_of_0(place) > positions[0] + 50, "partition 0 has grown again", 90)
    stack.consumers = [
        start_service(processes, "consumer", place.environment, f"consumer-again-{number}") for number in (1, 2)
    ]

    found = wait_for(lambda: _stopped(stack), "a consumer says that partition 0 is stopped", 120)
    assert found[1].startswith("stopped, LogTruncated: ")
    _assert_the_others_go_on(stack, place, ledger, positions)
    assert metas(place, redis_set)[0].position == positions[0]
    assert get(stack, 1).headers["flowagg-fresh"] == "false"
