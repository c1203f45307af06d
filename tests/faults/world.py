"""The system under test: three brokers, a Sentinel set, writers, consumers and readers, with proxies in between."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from flowagg.kafka import known_offset
from flowagg_stack.apache_kafka import KafkaCluster
from flowagg_stack.processes import Child, ProcessFailed, wait_until
from flowagg_stack.sentinel import SentinelSet
from flowagg_stack.services import Service

from tests.faults.clock import Clock, ClockedProcesses
from tests.faults.disk import Disk
from tests.faults.proxy import Network, Proxy

PARTITIONS: Final = 6
COUNTS: Final = {"writer": 2, "consumer": 3, "reader": 2}
VIEW: Final = "faults"
TOPIC: Final = "flows"
HEAL_SECONDS: Final = 120
_DAMAGED: Final = "Bad file format reading the append only file"


@dataclass(slots=True)
class World:
    """Its parts by name: broker-1, redis-0, sentinel-2, writer-1 and so on.

    directory: where the processes' files are.
    proxies: those before Kafka ("kafka-1"), and those before Redis and sentinels, of consumers and of readers
    ("consumers redis-0"). disks: what Kafka and Redis keep, by "broker-1" and "redis". ended_alone: who ended though
    nobody ended it. repairs: what was done by hand to have one start again. used: the URL that clients go to now, of
    "writer" and "reader".
    """

    directory: Path
    processes: ClockedProcesses
    network: Network
    kafka: KafkaCluster
    redis: SentinelSet
    services: dict[str, Service] = field(default_factory=dict)
    proxies: dict[str, Proxy] = field(default_factory=dict)
    disks: dict[str, Disk] = field(default_factory=dict)
    ended_alone: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    used: dict[str, Callable[[], str]] = field(default_factory=dict)

    def child(self, name: str) -> Child:
        """A part's process."""
        kind, _, number = name.partition("-")
        if kind == "broker":
            return self.kafka.nodes[int(number)]
        if kind == "redis":
            return self.redis.nodes[list(self.redis.nodes)[int(number)]]
        if kind == "sentinel":
            return self.redis.sentinels[list(self.redis.sentinels)[int(number)]]
        return self.services[name].child

    def names(self) -> list[str]:
        """All parts."""
        nodes = [f"redis-{number}" for number in range(len(self.redis.nodes))]
        sentinels = [f"sentinel-{number}" for number in range(len(self.redis.sentinels))]
        return [*(f"broker-{node}" for node in self.kafka.nodes), *nodes, *sentinels, *self.services]

    def clock(self, name: str) -> Clock:
        """The clock of a broker."""
        return self.processes.clocks[name.replace("broker", "kafka")]

    def redis_master(self) -> str:
        """The name of the master. Raises ProcessFailed."""
        return f"redis-{list(self.redis.nodes).index(self.redis.master())}"

    def of_service(self, service: str, active: bool) -> str:
        """The name of the writer or reader that clients go to now, or of the other one."""
        url = self.used[service]()
        return next(n for n, one in self.services.items() if n.startswith(service) and (one.url == url) == active)

    def urls(self, service: str) -> list[str]:
        """The addresses of all writers, or of all readers."""
        return [one.url for name, one in self.services.items() if name.startswith(service)]

    def send(self, name: str, number: signal.Signals) -> None:
        """Signal a part."""
        with suppress(ProcessLookupError):
            os.killpg(self.child(name).process.pid, number)

    def end(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a part, and wait until it is gone. One that does not go by SIGTERM in 10 s is killed."""
        child = self.child(name)
        if child in self.processes.children:
            self.processes.stop(child, number)

    def crash(self) -> None:
        """Kill all: first everybody is struck, then they are waited for."""
        for name in self.names():
            self.send(name, signal.SIGKILL)
        for name in self.names():
            self.end(name)

    def mend(self) -> None:
        """Everything goes on, runs and passes again; waits until all is well. Raises ProcessFailed past two minutes."""
        deadline = time.monotonic() + HEAL_SECONDS
        self.network.heal()
        for disk in self.disks.values():
            disk.widen()
        for clock in self.processes.clocks.values():
            clock.set(0)
        for name in self.names():
            self.send(name, signal.SIGCONT)
        for last in (False, False, True):
            try:
                self.start_ended()
                self.wait_well(deadline)
            except ProcessFailed:  # one has ended again: its AOF is damaged, or somebody else had its port meanwhile
                self._empty_damaged()
                if last or time.monotonic() > deadline:
                    raise
            else:
                return

    def start_ended(self) -> None:
        """Start what does not run: the sentinels before the nodes, whose roles they tell."""
        order = sorted(self.names(), key=lambda name: not name.startswith(("broker", "sentinel")))
        for name in order:
            child = self.child(name)
            if not child.ended:
                continue
            if child in self.processes.children:
                self.ended_alone.append(f"{name}, status {child.process.returncode}: {child.last_lines(3)[-300:]}")
                self.processes.forget(child)
            self._start(name, child)

    def wait_well(self, deadline: float) -> None:
        """Wait until all replicas are in sync and all services are ready and share the work. Raises ProcessFailed."""
        self.redis.wait_ready(_left(deadline))
        self.kafka.wait_ready(_left(deadline))
        for service in self.services.values():
            service.wait_ready(_left(deadline))
        consumers = [service for name, service in self.services.items() if name.startswith("consumer")]

        def settled() -> bool:
            running = [service.running_partitions() for service in consumers]
            return sum(running) == PARTITIONS and min(running) >= PARTITIONS // len(running)

        children = [service.child for service in consumers]
        wait_until(settled, "the consumers share the partitions", _left(deadline), children, pause=0.1)

    def leave_records(self, directory: Path) -> None:
        """Copy what the brokers keep of the flows and of the groups, as it lies there, to directory/kafka-1/flows-0."""
        for node in self.kafka.nodes:
            kept = self.directory / f"kafka-{node}" / "logs"
            for source in (*kept.glob(f"{TOPIC}-*"), *kept.glob("__consumer_offsets-*"), *kept.glob("*-checkpoint")):
                target = directory / f"kafka-{node}" / source.name
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, target, dirs_exist_ok=True)
                else:
                    shutil.copy(source, target)

    def dead_letters(self) -> int:
        """How many records became dead letters."""
        admin = admin_of(self.kafka)  # kept until the answer is there
        place = TopicPartition(f"{TOPIC}.dead-letters", 0)
        return int(known_offset(admin.list_offsets({place: OffsetSpec.latest()})[place].result(20)).offset)

    def _start(self, name: str, child: Child) -> None:
        kind, _, number = name.partition("-")
        if kind == "broker":
            self.kafka.restart(int(number))
        elif kind in {"redis", "sentinel"}:
            addresses = self.redis.nodes if kind == "redis" else self.redis.sentinels
            self.redis.restart(list(addresses)[int(number)])
        else:
            again = self.processes.start(child.name, child.command, child.environment)
            self.services[name] = replace(self.services[name], child=again)

    def _empty_damaged(self) -> None:
        """Nodes whose AOF a full disk has damaged do not start: they begin empty, as an operator would have it."""
        damaged = [
            name
            for name in self.names()
            if name.startswith("redis-") and self.child(name).ended and _DAMAGED in self.child(name).last_lines()
        ]
        for name in damaged:
            self.repairs.append(f"{name} was emptied: its AOF was damaged")
            shutil.rmtree(self.redis.directory / name / "appendonlydir")
            if self.child(name) in self.processes.children:
                self.processes.forget(self.child(name))


def admin_of(kafka: KafkaCluster) -> AdminClient:
    """A client of the brokers themselves, that does not tell of their ends."""
    return AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})


def _left(deadline: float) -> float:
    return max(1.0, deadline - time.monotonic())
