"""A real Kafka and a real Redis on this machine, and what they and others use of it."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient
from flowagg_stack import provision
from flowagg_stack.apache_kafka import start_kafka
from flowagg_stack.embedded import Server, start_redis_binary
from flowagg_stack.processes import Processes
from redis import Redis

from benchmarks.peers.consumers.data import FilledLog

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 20


@dataclass(frozen=True, slots=True)
class Site:
    """Where everything runs. directory: for files that go in the end."""

    processes: Processes
    directory: Path
    kafka: Server
    redis: Server
    client: Redis

    def redis_cpu(self) -> float:
        """CPU seconds of Redis so far."""
        return cpu_seconds(self.redis.child.process.pid)

    def kafka_cpu(self) -> float:
        """CPU seconds of Kafka so far."""
        return cpu_seconds(self.kafka.child.process.pid)

    def is_committed(self, group: str, log: FilledLog) -> bool:
        """Whether a group has committed all of a log."""
        admin = AdminClient({"bootstrap.servers": self.kafka.address, "log_level": 0})
        request = [ConsumerGroupTopicPartitions(group)]
        answer = admin.list_consumer_group_offsets(request, request_timeout=_LOOK_SECONDS)[group].result(_LOOK_SECONDS)
        committed = {place.partition: place.offset for place in answer.topic_partitions if place.topic == log.topic}
        return all(committed.get(number, 0) >= end for number, end in log.ends.items())


@contextlib.contextmanager
def open_site() -> Iterator[Site]:
    """Start both; they and their files go in the end. Raises provision.Missing, ProcessFailed."""
    with (
        tempfile.TemporaryDirectory(prefix="flow-aggregator-peers-") as name,
        Processes(Path(name), _STOP_SECONDS) as processes,
    ):
        kafka = start_kafka(processes, Path(name), heap_mib=1024)
        server = start_redis_binary(processes, provision.redis_server())
        with Redis.from_url(f"redis://{server.address}/0") as client:
            yield Site(processes, Path(name), kafka, server, client)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with all its threads so far, its own and the kernel's for it; to 10 ms."""
    return _cpu_seconds(Path(f"/proc/{pid}/stat"))


def main_thread_cpu_seconds(pid: int) -> float:
    """CPU time of a process's first thread alone."""
    return _cpu_seconds(Path(f"/proc/{pid}/task/{pid}/stat"))


def _cpu_seconds(stat: Path) -> float:
    numbers = stat.read_text().rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / _TICKS


def machine_cpu_seconds() -> float:
    """CPU time that everything on this machine has used so far, on all cores."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq) / _TICKS
