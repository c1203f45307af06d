"""Brings the world up on this machine: programs, small disks and the proxies in between."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from flowagg_stack.apache_kafka import KafkaCluster, start_kafka_cluster
from flowagg_stack.ports import free_port
from flowagg_stack.processes import ProcessFailed
from flowagg_stack.sentinel import start_sentinel_set
from flowagg_stack.services import start_service
from flowagg_stack.topics import ensure_topic

from tests.faults import clock
from tests.faults.clock import ClockedProcesses
from tests.faults.disk import Disk
from tests.faults.proxy import Network, Proxy
from tests.faults.world import COUNTS, HEAL_SECONDS, PARTITIONS, TOPIC, VIEW, World, admin_of

_DISK_MIB: Final = 2048
_LISTENER: Final = "PROXIED"


@contextmanager
def world_here(
    with_disks: bool,
    logs: Path | None = None,
    settings: Mapping[str, str] | None = None,
    with_clocks: bool = False,
) -> Iterator[World]:
    """Start everything on this machine, all of it on 127.0.0.1; it ends with the context.

    with_disks: what Kafka and Redis keep lies on small disks of their own, which needs a mount.
    logs: where what the processes have said is left in the end. settings: of the services, as FLOWAGG_*.
    with_clocks: brokers have clocks that can be set wrong.
    Raises provision.Missing, ProcessFailed.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flow-aggregator-faults-")))
        stack.callback(_leave_logs, directory, logs)
        disks: dict[str, Disk] = {}
        (directory / "redis").mkdir()
        if with_disks:
            disks["redis"] = stack.enter_context(Disk(directory / "redis", _DISK_MIB))
        network = stack.enter_context(Network())
        brokers_disks = stack.enter_context(ExitStack())  # unmounted once nothing runs
        processes = ClockedProcesses(directory, clock.library() if with_clocks else None)
        stack.enter_context(processes)
        kafka = start_kafka_cluster(processes, directory)
        kafka.kill_all()
        kafka_proxies = proxied(kafka, network, directory)
        if with_disks:
            for node in kafka.nodes:
                disk = _moved(directory / f"kafka-{node}" / "logs", brokers_disks)
                disks[f"broker-{node}"] = disk
        for node in kafka.nodes:
            kafka.restart(node)
        redis = start_sentinel_set(processes, directory / "redis")
        kafka.wait_ready()
        admin = admin_of(kafka)
        ensure_topic(admin, TOPIC, PARTITIONS, len(kafka.nodes))
        ensure_topic(admin, f"{TOPIC}.dead-letters", 1, len(kafka.nodes))
        made = World(directory, processes, network, kafka, redis, proxies=kafka_proxies, disks=disks)
        stack.callback(made.crash)  # an orderly end would wait for those that have ended before
        servers = ",".join(f"127.0.0.1:{proxy.port}" for proxy in kafka_proxies.values())
        for service, count in COUNTS.items():
            given = {"FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": servers, "FLOWAGG_VIEW": VIEW, "FLOWAGG_KAFKA_TOPIC": TOPIC}
            given |= settings or {}
            if service != "writer":
                given |= _redis_given(made, f"{service}s")
            for number in range(1, count + 1):
                name = f"{service}-{number}"
                made.services[name] = start_service(processes, service, given, name)
        made.wait_well(time.monotonic() + HEAL_SECONDS)
        yield made


def proxied(kafka: KafkaCluster, network: Network, directory: Path) -> dict[str, Proxy]:
    """Give each broker, which is down, one more listener, which it advertises at a proxy's address."""
    proxies = {}
    for node in kafka.nodes:
        port = free_port()
        proxies[f"kafka-{node}"] = proxy = network.proxy(port)
        path = directory / f"kafka-{node}" / "server.properties"
        lines = []
        for line in path.read_text(encoding="utf-8").splitlines():
            added = {
                "listeners": f",{_LISTENER}://127.0.0.1:{port}",
                "advertised.listeners": f",{_LISTENER}://127.0.0.1:{proxy.port}",
            }
            lines.append(line + added.get(line.partition("=")[0], ""))
        protocols = ",".join(f"{name}:PLAINTEXT" for name in ("PLAINTEXT", "CONTROLLER", _LISTENER))
        lines.append(f"listener.security.protocol.map={protocols}")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return proxies


def _moved(directory: Path, stack: ExitStack) -> Disk:
    """What is in the directory, on a disk of its own at the same place."""
    aside = directory.with_name("aside")
    directory.rename(aside)
    directory.mkdir()
    disk: Disk = stack.enter_context(Disk(directory, _DISK_MIB))
    shutil.copytree(aside, directory, dirs_exist_ok=True)
    shutil.rmtree(aside)
    return disk


def _redis_given(world: World, group: str) -> Mapping[str, str]:
    """Proxies of a group's own before the nodes and the sentinels, which name the nodes' proxies; as FLOWAGG_*."""
    translated = {}
    for number, address in enumerate(world.redis.nodes):
        port = int(address.rpartition(":")[2])
        world.proxies[f"{group} redis-{number}"] = proxy = world.network.proxy(port)
        translated[b"\r\n%d\r\n" % port] = b"\r\n%d\r\n" % proxy.port
        if len(str(port)) != len(str(proxy.port)):
            raise ProcessFailed(f"ports {port} and {proxy.port} are not as long: start again")
    sentinels = []
    for number, address in enumerate(world.redis.sentinels):
        proxy = world.network.proxy(int(address.rpartition(":")[2]), translated)
        world.proxies[f"{group} sentinel-{number}"] = proxy
        sentinels.append(f"127.0.0.1:{proxy.port}")
    return world.redis.environment | {"FLOWAGG_REDIS_SENTINELS": ",".join(sentinels)}


def _leave_logs(directory: Path, logs: Path | None) -> None:
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
        for log in directory.glob("*.log"):
            shutil.copy(log, logs)
