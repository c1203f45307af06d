"""What the repair guide says, done: a real Kafka and a real Redis are broken, and its commands mend them.

Steps on pods are done to processes here; everything else is run as it stands in docs/guides/repair.md.
"""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import httpx
import pytest
import redis
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from flowagg.flow import Flow, encode_value
from flowagg.view import meta_key
from flowagg_load.generator import Ledger, Shape, flows
from flowagg_stack import provision
from flowagg_stack.apache_kafka import KafkaCluster, start_kafka_cluster
from flowagg_stack.embedded import Server, start_redis_binary
from flowagg_stack.ports import answers
from flowagg_stack.processes import Child, Processes, ProcessFailed
from flowagg_stack.sentinel import start_sentinel_set
from flowagg_stack.services import Service, Stack, start_service
from flowagg_stack.topics import ensure_topic

from tests.conftest import Place
from tests.integration.repair_guide import Shell
from tests.integration.tools import assert_exact, get, post, wait_check, wait_for, wait_fresh

pytestmark = [pytest.mark.operations, pytest.mark.timeout(240)]

PARTITIONS = 6
SHAPE = Shape(keys=200, hours=3)


@dataclass
class World:
    """A system with one consumer and a Redis of its own, who repairs it, and the ledger of what was posted."""

    processes: Processes
    place: Place
    server: Server
    shell: Shell
    stack: Stack
    source: Iterator[Flow] = field(default_factory=lambda: flows(SHAPE, seed=20261128))
    ledger: Ledger = field(default_factory=Ledger)
    _started: int = 0

    @property
    def consumer(self) -> Service:
        return self.stack.consumers[0]

    def raw(self) -> redis.Redis:
        return redis.Redis.from_url(f"redis://{self.server.address}/0")

    def post(self, count: int = 600) -> None:
        post(self.stack, islice(self.source, count), self.ledger)

    def stop_consumers(self) -> None:
        for consumer in self.stack.consumers:
            self.processes.stop(consumer.child)
        self.stack.consumers = []

    def start_consumers(self, view: str | None = None) -> None:
        self.stack.consumers = [self._start("consumer", view)]

    def restart_consumers(self) -> None:
        self.stop_consumers()
        self.start_consumers()

    def switch(self, view: str) -> Service:
        """Consumers and readers keep another view from now on; the old view's reader."""
        old = self.stack.reader
        if self.stack.consumers:
            self.stop_consumers()
        self.start_consumers(view)
        self.stack.reader = self._start("reader", view)
        self.stack.reader.wait_ready()
        return old

    def _start(self, service: str, view: str | None) -> Service:
        self._started += 1
        given = self.place.environment | ({} if view is None else {"FLOWAGG_VIEW": view})
        return start_service(self.processes, service, given, f"{service}-{self._started}-again")

    def stopped(self, *reasons: str) -> None:
        """Wait until a partition is stopped for one of the reasons, as /readyz and the metric tell it."""
        wait_for(
            lambda: any(
                state.startswith(f"stopped, {r}: ") for r in reasons for state in self.consumer.checks().values()
            ),
            f"a partition is stopped, {reasons}",
            90,
        )
        series = re.compile(rf'flowagg_consumer_partition_stopped{{partition="\d",reason="({"|".join(reasons)})"}} 1')
        wait_for(lambda: series.search(httpx.get(f"{self.consumer.url}/metrics").text), "the metric")

    def incomplete(self) -> bool:
        return any("flowagg-incomplete" in get(self.stack, hour).headers for hour in self.ledger.hours())

    def forget(self, place: str, offset: int, partition: int = 3) -> None:
        """Retention takes a partition's records below an offset."""
        part = TopicPartition(place, partition, offset)
        self.place.admin.delete_records([part])[part].result(20)

    def backup(self) -> str:
        """The one backup there is."""
        (found,) = (self.shell.directory / "backups").iterdir()
        return str(found)

    def end(self, partition: int = 3) -> int:
        """Where the partition's log ends, by a new client: one that knows of a later epoch is refused by a broker whose
        disk was put back."""
        part = TopicPartition(self.place.topic, partition)
        admin = AdminClient({"bootstrap.servers": self.place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"]})
        offset: int = admin.list_offsets({part: OffsetSpec.latest()})[part].result(20).offset
        return offset


def make_world(processes: Processes, place: Place, directory: Path, own: Server) -> World:
    environment = place.environment | {"FLOWAGG_REDIS_URL": f"redis://{own.address}/0"}
    environment |= {"FLOWAGG_SESSION_TIMEOUT_SECONDS": "2"}
    place = Place(environment, place.topic, place.view, place.admin)
    stack = Stack(processes, environment, consumers=1)
    stack.wait_ready()
    (directory / "backups").mkdir()
    given = {name: value for name, value in os.environ.items() if not name.startswith("FLOWAGG_")}
    given |= environment
    given |= {
        "VIEW": place.view,
        "REDIS": f"redis://{own.address}/0",
        "KAFKA": environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"],
        "TOPIC": place.topic,
        "WRITER": stack.writer.url,
        "READER": stack.reader.url,
        "BACKUPS": f"{directory / 'backups'}/",
    }
    return World(processes, place, own, Shell(directory, given), stack)


@pytest.fixture
def world(processes: Processes, place: Place, tmp_path: Path) -> World:
    own = start_redis_binary(processes, provision.redis_server(), name="own-redis")
    ensure_topic(place.admin, f"{place.topic}.dead-letters", 1)
    return make_world(processes, place, tmp_path, own)


def produce(world: World, partition: int, key: bytes, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": world.place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"]})
    producer.produce(world.place.topic, value, key, partition)
    assert producer.flush(30) == 0


def test_topic_changed(world: World) -> None:
    world.post()
    assert_exact(world.stack, world.ledger)
    before = Ledger(dict(world.ledger.totals), world.ledger.flows)
    topic, admin = world.place.topic, world.place.admin
    admin.delete_topics([topic], operation_timeout=10)[topic].result(20)
    wait_for(lambda: topic not in admin.list_topics(timeout=5).topics, "the topic is gone")
    ensure_topic(admin, topic, PARTITIONS)
    another = Ledger()

    def posted() -> bool:
        try:
            post(world.stack, islice(world.source, 200), another)
        except AssertionError:
            return False
        return True

    wait_for(posted, "the writer appends to the new topic")
    world.stopped("TopicChanged")
    world.shell.run("TopicChanged", 1)
    assert list((world.shell.directory / "backups").iterdir())
    old = world.switch(f"{world.place.view}-2")
    # What the writer had sent to the topic's first moments may have come into it, and was not acknowledged.
    wait_fresh(world.stack, 1)
    assert httpx.get(f"{old.url}/flows", params={"hour": 1, "consistency": "eventual"}).json() == before.rows(1)
    world.shell.run("TopicChanged", 2, OLD_READER=old.url, READER=world.stack.reader.url)
    new = get(world.stack, 1).json()
    both = json.loads((world.shell.directory / "both.json").read_text())
    assert sum(row["bytes_tx"] for row in both) == sum(row["bytes_tx"] for row in before.rows(1) + new)
    assert len(both) == len(
        {tuple(row[name] for name in ("src_app", "dest_app", "vpc_id")) for row in before.rows(1) + new}
    )
    assert all(row["bytes_rx"] >= 0 for row in both)


@dataclass
class Disk:
    """A broker, and what its disk was like at a moment."""

    cluster: KafkaCluster
    directory: Path

    def _down(self) -> None:
        self.cluster.kill(1)  # and not in order: then the leader's epoch would move on, and clients know it

    def _up(self) -> None:
        self.cluster.restart(1)
        self.cluster.wait_ready()

    def keep(self) -> None:
        self._down()
        shutil.copytree(self.directory / "logs", self.directory / "kept")
        self._up()

    def restore(self) -> None:
        self._down()
        shutil.rmtree(self.directory / "logs")
        shutil.copytree(self.directory / "kept", self.directory / "logs")
        self._up()

    def restart(self) -> None:
        self._down()
        self._up()


@pytest.fixture
def disk(processes: Processes, tmp_path: Path) -> Disk:
    cluster = start_kafka_cluster(processes, tmp_path, brokers=1, heap_mib=512)
    return Disk(cluster, tmp_path / "kafka-1")


@pytest.fixture
def on_disk(processes: Processes, disk: Disk, tmp_path: Path) -> World:
    own = start_redis_binary(processes, provision.redis_server(), name="own-redis")
    admin = AdminClient({"bootstrap.servers": disk.cluster.bootstrap_servers})
    topic = "flows-of-a-disk"
    ensure_topic(admin, topic, PARTITIONS)
    environment = {**disk.cluster.environment, "FLOWAGG_KAFKA_TOPIC": topic, "FLOWAGG_VIEW": "disk"}
    return make_world(processes, Place(environment, topic, "disk", admin), tmp_path, own)


def _post_when_it_can(world: World, hour: int, seconds: float = 60) -> None:
    """One flow a partition and more, of an hour of its own, once the writer has its producer again."""

    def posted() -> bool:
        part = [Flow(f"late-{n}", "b", "c", hour, 1, 1) for n in range(60)]
        body = json.dumps([{name: getattr(f, name) for name in Flow.__struct_fields__} for f in part]).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"late-{hour}"}
        reply = httpx.post(f"{world.stack.writer.url}/flows", content=body, headers=headers, timeout=30)
        if reply.status_code == 200:
            for flow in part:
                world.ledger.add(flow)
        return reply.status_code == 200

    wait_for(posted, "the writer appends", seconds)


@pytest.mark.timeout(400)
def test_position_beyond_log(on_disk: World, disk: Disk) -> None:
    world = on_disk
    world.post()
    assert_exact(world.stack, world.ledger)
    disk.keep()
    wait_for(lambda: not world.stack.writer.checks(), "the writer is ready")
    world.post(2000)
    assert_exact(world.stack, world.ledger)
    lost = Ledger(dict(world.ledger.totals), world.ledger.flows)
    disk.restore()
    # Which of the two Kafka says depends on what its brokers still know; what to do is the same.
    world.stopped("PositionBeyondLog", "LogTruncated")
    world.shell.run("PositionBeyondLog", 1)
    old = world.switch(f"{world.place.view}-2")
    _post_when_it_can(world, hour=100)
    for hour in lost.hours():
        wait_fresh(world.stack, hour)
    assert get(world.stack, 1).json() != lost.rows(1), "nothing was lost"
    _give_back(world, old, lost)


def _give_back(world: World, old: Service, lost: Ledger) -> None:
    """The guide's commands bring hour 1 back, and may be repeated."""
    wait_fresh(world.stack, 1)
    world.shell.run("PositionBeyondLog", 3, OLD_READER=old.url, READER=world.stack.reader.url)
    for _ in range(2):
        world.shell.run("PositionBeyondLog", 4)
        assert wait_fresh(world.stack, 1).json() == lost.rows(1)
    assert wait_fresh(world.stack, 100).json() == world.ledger.rows(100)


@pytest.mark.timeout(400)
def test_log_truncated(on_disk: World, disk: Disk) -> None:
    world = on_disk
    world.post()
    assert_exact(world.stack, world.ledger)
    world.shell.run("LogTruncated", 1)
    disk.keep()
    wait_for(lambda: not world.stack.writer.checks(), "the writer is ready")
    world.post(60)
    assert_exact(world.stack, world.ledger)
    lost = Ledger(dict(world.ledger.totals), world.ledger.flows)
    world.stop_consumers()
    disk.restore()
    disk.restart()  # the leader epoch of the lost records has passed
    grown = world.end()
    _post_when_it_can(world, hour=100)
    for number in range(8):
        _post_when_it_can(world, hour=101 + number)
    assert world.end() > grown
    world.start_consumers()
    world.stopped("LogTruncated")
    world.stop_consumers()
    world.shell.run("PositionBeyondLog", 2, BACKUP=world.backup())
    old = world.switch(f"{world.place.view}-2")
    _give_back(world, old, lost)


def test_damaged_view_counted_again(world: World) -> None:
    world.post()
    assert_exact(world.stack, world.ledger)
    with world.raw() as raw:
        raw.hset(meta_key(world.place.view, 3), "position", "a foreigner's")
    world.stopped("DamagedView")
    assert "a foreigner's" in world.shell.run("DamagedView", 1)
    world.shell.run("DamagedView", 2)
    world.restart_consumers()
    world.post()
    assert_exact(world.stack, world.ledger)
    assert not world.incomplete()


def test_damaged_view_restored(world: World) -> None:
    world.post()
    assert_exact(world.stack, world.ledger)
    world.shell.run("TopicChanged", 1)  # a backup
    world.post()
    assert_exact(world.stack, world.ledger)
    with world.raw() as raw:
        raw.hset(meta_key(world.place.view, 3), "position", "a foreigner's")
    world.stopped("DamagedView")
    world.stop_consumers()
    world.shell.run("DamagedView", 3)
    world.start_consumers()
    assert_exact(world.stack, world.ledger)
    assert not world.incomplete()


def test_incomplete_cloned_from_another_view(world: World) -> None:
    other = world.place.environment | {"FLOWAGG_VIEW": f"{world.place.view}-other"}
    start_service(world.processes, "consumer", other, "other-consumer")
    reader = start_service(world.processes, "reader", other, "other-reader")
    reader.wait_ready()
    world.post()
    assert_exact(world.stack, world.ledger)
    begin = world.end()
    world.stop_consumers()
    world.post()
    own, world.stack.reader = world.stack.reader, reader
    assert_exact(world.stack, world.ledger)
    world.forget(world.place.topic, begin + 10)
    world.stack.reader = own
    world.start_consumers()
    wait_fresh(world.stack, 1)
    assert world.incomplete()
    assert world.shell.run("Incomplete", 1).split() == ["1", "0", f"{begin}-{begin + 10}"]
    world.shell.run("Incomplete", 2)
    world.switch(f"{world.place.view}-2")
    world.post()
    assert_exact(world.stack, world.ledger)
    assert not world.incomplete()


def test_incomplete_restored_from_a_backup(world: World) -> None:
    world.post()
    assert_exact(world.stack, world.ledger)
    world.shell.run("TopicChanged", 1)  # a backup
    world.forget(world.place.topic, world.end())
    world.processes.stop(world.server.child, signal.SIGKILL)
    _start_again(world.processes, world.server.child, world.server.address)
    wait_for(world.incomplete, "the view has begun anew, incomplete")
    world.shell.run("Incomplete", 3, BACKUP=world.backup())
    world.switch(f"{world.place.view}-2")
    world.post()
    assert_exact(world.stack, world.ledger)
    assert not world.incomplete()


def _start_again(processes: Processes, child: Child, address: str) -> Child:
    """A killed process once more; it answers then."""
    again = processes.start(child.name, child.command)
    wait_for(lambda: answers(int(address.rpartition(":")[2])), f"{child.name} answers", 20)
    return again


def test_dead_letters(world: World) -> None:
    world.post()
    produce(world, 3, b'["foo","bar","vpc-0","1"]', encode_value(100, 300))
    listed = wait_for(
        lambda: out if "InvalidKey" in (out := world.shell.run("Dead letters", 1)) else _forget_file(world), "a letter"
    )
    assert "Expected `int`, got `str`" in listed
    mended = world.shell.directory / "mended.ndjson"
    line = json.loads(mended.read_text())
    line["flow"]["hour"] = 1
    mended.write_text(json.dumps(line))
    assert "1 letters replayed" in world.shell.run("Dead letters", 2)
    world.ledger.add(Flow("foo", "bar", "vpc-0", 1, 100, 300))
    assert_exact(world.stack, world.ledger)


def _forget_file(world: World) -> None:
    (world.shell.directory / "mended.ndjson").unlink()


def test_dead_letter_topic_away(world: World) -> None:
    letters = f"{world.place.topic}.dead-letters"
    world.place.admin.delete_topics([letters], operation_timeout=10)[letters].result(20)
    world.post()
    produce(world, 3, b"no flow key", encode_value(1, 1))
    wait_check(world.consumer, "dead_letters", "takes no records")
    world.shell.run("Dead-letter topic away", 1, REPLICAS="1")
    assert_exact(world.stack, world.ledger)
    wait_for(lambda: not world.consumer.checks(), "the consumer is ready again")


def test_redis_full(world: World) -> None:
    world.post()
    assert_exact(world.stack, world.ledger)
    world.source = flows(Shape(keys=50_000, hours=5), seed=7)  # nearly each is a flow key of its own, and needs room
    unused = world.place.environment | {"FLOWAGG_VIEW": f"{world.place.view}-unused"}
    consumer = start_service(world.processes, "consumer", unused, "unused-consumer")
    wait_for(lambda: consumer.running_partitions() == PARTITIONS, "the other view is kept")
    world.post(2000)
    assert_exact(world.stack, world.ledger)
    world.processes.stop(consumer.child)
    with world.raw() as raw:

        def fill() -> None:
            memory: dict[str, int] = raw.info("memory")
            raw.config_set("maxmemory", memory["used_memory"] + 2**17)

            def full() -> bool:
                world.post(1000)
                return "RedisFull" in world.consumer.checks().get("redis", "")

            wait_for(full, "a consumer says that Redis is full")

        fill()
        world.shell.run("Redis full", 1, MORE="256mb")
        assert_exact(world.stack, world.ledger)
        fill()
        world.shell.run("Redis full", 2)
        raw.config_set("maxmemory", 0)  # what the other view held is less than what has come meanwhile
        assert_exact(world.stack, world.ledger)


def test_redis_evicts(world: World) -> None:
    world.post()
    assert_exact(world.stack, world.ledger)
    with world.raw() as raw:
        raw.config_set("maxmemory-policy", "allkeys-lru")
    world.stop_consumers()
    world.start_consumers()
    world.post()
    wait_check(world.consumer, "redis", "RedisEvicts")
    assert "evicted_keys:0" in world.shell.run("Redis evicts", 1)
    assert_exact(world.stack, world.ledger)


def _damage(directory: Path) -> None:
    """Bytes that make no sense in the middle of what was appended."""
    (part,) = directory.glob("appendonlydir/*.incr.aof")
    size = part.stat().st_size
    assert size > 10_000
    with part.open("r+b") as file:
        file.seek(size * 2 // 3)
        file.write(b"\xde\xad\xbe\xef" * 64)


def test_redis_with_a_damaged_aof_that_is_the_only_one(processes: Processes, place: Place, tmp_path: Path) -> None:
    directory = tmp_path / "redis"
    directory.mkdir()
    options = ("--appendonly", "yes", "--appendfsync", "always", "--dir", str(directory))
    own = start_redis_binary(processes, provision.redis_server(), *options, name="own-redis")
    world = make_world(processes, place, tmp_path, own)
    for _ in range(3):
        world.post()
        assert_exact(world.stack, world.ledger)
    processes.stop(own.child, signal.SIGKILL)
    _damage(directory)
    failed = processes.start("own-redis-damaged", own.child.command)
    wait_for(lambda: failed.ended, "Redis does not start")
    assert "Bad file format reading the append only file" in failed.last_lines(40)
    processes.forget(failed)
    world.shell.run("Redis with a damaged AOF", 2, DIR=str(directory))
    assert (directory / "appendonlydir.damaged").is_dir()
    _start_again(processes, own.child, own.address)
    world.post()
    assert_exact(world.stack, world.ledger)
    assert not world.incomplete()


@pytest.mark.cluster
def test_redis_with_a_damaged_aof_beside_a_master(processes: Processes, tmp_path: Path) -> None:
    started = start_sentinel_set(processes, tmp_path)
    try:
        with started.client(started.master()) as client:
            for number in range(2000):
                client.set(f"key-{number}", "x" * 20)
        started.wait_ready()
        address = started.replicas()[0]
        directory = tmp_path / started.nodes[address].name
        started.kill(address)
        _damage(directory)
        with suppress(ProcessFailed):  # its port may be open until it has read that far
            started.restart(address)
        failed = started.nodes[address]
        wait_for(lambda: failed.ended, "the replica does not start")
        assert "Bad file format reading the append only file" in failed.last_lines(40)
        processes.forget(failed)
        environment = dict(os.environ)
        Shell(tmp_path / "shell", environment).run("Redis with a damaged AOF", 1, DIR=str(directory))
        started.restart(address)
        started.wait_ready()
        with started.client(address) as client:
            assert client.dbsize() == 2000
    finally:
        started.kill_all()


def test_redis_lost_while_the_log_holds_everything(world: World) -> None:
    world.post()
    assert_exact(world.stack, world.ledger)
    world.processes.stop(world.server.child, signal.SIGKILL)
    _start_again(world.processes, world.server.child, world.server.address)
    wait_for(lambda: world.place.view in world.shell.run("Redis lost", 1), "the view is counted again")
    assert_exact(world.stack, world.ledger)
    assert not world.incomplete()


def test_redis_lost_when_the_logs_start_is_gone(world: World) -> None:
    world.post()
    assert_exact(world.stack, world.ledger)
    world.shell.run("TopicChanged", 1)  # a backup
    for number in range(PARTITIONS):
        world.forget(world.place.topic, world.end(number), number)
    world.post()
    assert_exact(world.stack, world.ledger)
    world.processes.stop(world.server.child, signal.SIGKILL)
    _start_again(world.processes, world.server.child, world.server.address)
    wait_for(world.incomplete, "the consumers begin an incomplete view")
    world.stop_consumers()
    world.shell.run("Redis lost", 2)
    world.start_consumers()
    assert_exact(world.stack, world.ledger)
    assert not world.incomplete()
