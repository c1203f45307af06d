"""A real Apache Kafka broker (KRaft, combined mode) as a process."""

import base64
import subprocess
import uuid
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from flowagg_stack import provision
from flowagg_stack.embedded import Server
from flowagg_stack.ports import free_port
from flowagg_stack.processes import Processes, ProcessFailed, wait_until

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={logs}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.segment.bytes=67108864
"""


def start_kafka(processes: Processes, directory: Path, heap_mib: int = 512) -> Server:
    """Format a log directory and start a broker on free ports. Raises provision.Missing, ProcessFailed."""
    java, jars = provision.java(), provision.kafka_jars()
    port = free_port()
    home = directory / "kafka"
    home.mkdir()
    properties = home / "server.properties"
    properties.write_text(_PROPERTIES.format(port=port, controller=free_port(), logs=home / "logs"), encoding="utf-8")
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    if cluster_id.startswith("-"):
        cluster_id = "A" + cluster_id[1:]  # the tool would take it for an option
    classpath = ["-cp", f"{jars}/*"]
    format_command = [java, *classpath, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)]
    done = subprocess.run(format_command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ProcessFailed(f"Kafka's log directory could not be formatted:\n{done.stdout}{done.stderr}")
    options = [f"-Xmx{heap_mib}m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    child = processes.start("kafka", [java, *options, *classpath, "kafka.Kafka", str(properties)])
    address = f"127.0.0.1:{port}"
    wait_until(lambda: _serves(address), "Kafka serves", 60, [child], pause=0.2)
    return Server(address, f"Apache Kafka {provision.KAFKA_VERSION}", child)


def _ignore(_: object) -> None:
    """A broker that is still starting is no news."""


def _serves(address: str) -> bool:
    properties: dict[str, Any] = {"bootstrap.servers": address, "log_level": 0, "error_cb": _ignore}
    admin = AdminClient(properties)
    try:
        return bool(admin.list_topics(timeout=1).brokers)
    except KafkaException:
        return False
