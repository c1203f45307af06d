"""Real Apache Kafka (KRaft, combined mode) as processes: one broker, or a cluster whose brokers may be killed."""

import base64
import signal
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    ClusterMetadata,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from flowagg_stack import provision
from flowagg_stack.certificates import Certificate
from flowagg_stack.embedded import Server
from flowagg_stack.ports import free_ports
from flowagg_stack.processes import Child, Processes, ProcessFailed, wait_until

_TOLD: Final = (
    "org.apache.kafka.coordinator.common.runtime.CoordinatorRuntime",
    "org.apache.kafka.coordinator.group.GroupCoordinatorService",
)
CLUSTER_HEAP_MIB: Final = 384
_FORMAT_SECONDS: Final = 60
_SCRAM_ITERATIONS: Final = 4096

_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{more}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{more}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={logs}
auto.create.topics.enable=false
unclean.leader.election.enable=false
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=5
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=2000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500
log.segment.bytes=67108864
"""

# A killed broker says nothing: until its session ends, nothing that it leads or replicates goes on. One that came back
# without fetching holds up writes until it is taken out of the ISR: after a crash of all, 30 s of them by default.
_CLUSTER_PROPERTIES = """\
replica.lag.time.max.ms=10000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""

# Passwords of SCRAM are in the cluster's metadata, so that they can be changed while it runs: see set_password.
_SECURE_PROPERTIES = """\
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
ssl.keystore.type=PEM
ssl.keystore.location={keys}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
listener.name.ssl.ssl.client.auth=required
listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
"""


@dataclass(slots=True)
class KafkaCluster:
    """Brokers of one cluster, each also a controller.

    addresses: host:port by node id. nodes: the process by node id; one that was killed stays listed.
    """

    processes: Processes
    addresses: Mapping[int, str]
    nodes: dict[int, Child]

    @property
    def bootstrap_servers(self) -> str:
        """All addresses, comma-separated."""
        return ",".join(self.addresses.values())

    @property
    def environment(self) -> dict[str, str]:
        """The FLOWAGG_* variables for services."""
        return {"FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers}

    def kill(self, node: int) -> None:
        """Kill -9 a broker, and wait until it is gone."""
        self.processes.stop(self.nodes[node], signal.SIGKILL)

    def kill_all(self) -> None:
        """Kill -9 what is left, for a quick end: in an orderly one each broker waits for the others."""
        for child in self.nodes.values():
            if child in self.processes.children:
                self.processes.stop(child, signal.SIGKILL)

    def restart(self, node: int) -> Child:
        """Start a killed broker again, on its ports and its log; see wait_ready."""
        killed = self.nodes[node]
        self.nodes[node] = self.processes.start(killed.name, killed.command)
        return self.nodes[node]

    def leader(self, topic: str, partition: int) -> int:
        """Node id of a partition's leader; -1 where it has none. Raises KafkaException."""
        metadata = _admin(self.bootstrap_servers).list_topics(topic, timeout=5)
        leader: int = metadata.topics[topic].partitions[partition].leader
        return leader

    def wait_ready(self, seconds: float = 90) -> None:
        """Wait until every broker serves, knows all of them, and all replicas are in sync. Raises ProcessFailed.

        A broker is registered by the quorum's leader alone, so there is one then.
        """
        brokers = list(self.nodes.values())
        for node, address in self.addresses.items():
            what = f"Kafka broker {node} serves and all replicas are in sync"
            wait_until(partial(self._sees_all, address), what, seconds, brokers, pause=0.2)

    def _sees_all(self, address: str) -> bool:
        metadata = _metadata(address)
        if metadata is None or metadata.brokers.keys() != self.nodes.keys():
            return False
        partitions = [p for topic in metadata.topics.values() for p in topic.partitions.values()]
        return all(p.leader in self.nodes and sorted(p.isrs) == sorted(p.replicas) for p in partitions)


def start_kafka(processes: Processes, directory: Path, heap_mib: int = 512) -> Server:
    """Format a log directory and start a broker on free ports. Raises provision.Missing, ProcessFailed."""
    cluster = _start(processes, directory, ["kafka"], heap_mib, "")
    return Server(cluster.bootstrap_servers, f"Apache Kafka {provision.KAFKA_VERSION}", cluster.nodes[1])


@dataclass(frozen=True, slots=True)
class SecureKafka:
    """A broker and the addresses host:port of its listeners.

    server.address: in the clear, for those who administer it. sasl_ssl: TLS and SCRAM-SHA-512.
    mutual_tls: TLS and a client certificate.
    """

    server: Server
    sasl_ssl: str
    mutual_tls: str

    def set_password(self, user: str, password: str) -> None:
        """Make a user of the SASL_SSL listener, or give one another password. Raises KafkaException."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _SCRAM_ITERATIONS)
        change = UserScramCredentialUpsertion(user, info, password.encode())
        admin = _admin(self.server.address)  # kept until the answer is there
        admin.alter_user_scram_credentials([change])[user].result(20)


def start_secure_kafka(
    processes: Processes, directory: Path, files: Certificate, heap_mib: int = CLUSTER_HEAP_MIB
) -> SecureKafka:
    """Start a broker that speaks TLS too, with that certificate. Raises provision.Missing, ProcessFailed."""
    sasl_ssl, mutual_tls = free_ports(2)
    more = f",SASL_SSL://127.0.0.1:{sasl_ssl},SSL://127.0.0.1:{mutual_tls}"
    properties = _SECURE_PROPERTIES.format(keys=files.both, ca=files.ca)
    cluster = _start(processes, directory, ["kafka-secure"], heap_mib, properties, more)
    server = Server(cluster.bootstrap_servers, f"Apache Kafka {provision.KAFKA_VERSION}", cluster.nodes[1])
    return SecureKafka(server, f"127.0.0.1:{sasl_ssl}", f"127.0.0.1:{mutual_tls}")


def start_kafka_cluster(
    processes: Processes, directory: Path, brokers: int = 3, heap_mib: int = CLUSTER_HEAP_MIB
) -> KafkaCluster:
    """Start brokers with node ids from 1 on free ports, and wait until all are registered.

    Topics have three replicas (fewer with fewer brokers) and take acks=all writes while all but one
    are in sync. heap_mib: of each broker, in MiB. Raises provision.Missing, ProcessFailed.
    """
    names = [f"kafka-{node}" for node in range(1, brokers + 1)]
    return _start(processes, directory, names, heap_mib, _CLUSTER_PROPERTIES)


def _start(
    processes: Processes, directory: Path, names: Sequence[str], heap_mib: int, properties: str, more: str = ""
) -> KafkaCluster:
    """properties: further ones of each broker. more: its further listeners, each after a comma."""
    java, jars = provision.java(), provision.kafka_jars()
    classpath = ["-cp", f"{jars}/*"]
    nodes = range(1, len(names) + 1)
    ports = free_ports(2 * len(names))
    own, controllers = dict(zip(nodes, ports, strict=False)), dict(zip(nodes, reversed(ports), strict=False))
    replicas = min(3, len(names))
    files = {}
    for node, name in zip(nodes, names, strict=True):
        home = directory / name
        home.mkdir()
        files[node] = home / "server.properties"
        text = _PROPERTIES.format(
            node=node,
            voters=",".join(f"{voter}@127.0.0.1:{port}" for voter, port in controllers.items()),
            port=own[node],
            controller=controllers[node],
            more=more,
            logs=home / "logs",
            replicas=replicas,
            in_sync=max(1, replicas - 1),
        )
        files[node].write_text(text + properties, encoding="utf-8")
    tool = [java, *classpath, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c"]
    _run_all(processes, {f"{name}-format": [*tool, str(files[node])] for node, name in zip(nodes, names, strict=True)})
    options = [f"-Xmx{heap_mib}m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    # What a coordinator loads and when: a line for each of its partitions.
    options += [f"-Dorg.slf4j.simpleLogger.log.{name}=info" for name in _TOLD]
    children = {
        node: processes.start(name, [java, *options, *classpath, "kafka.Kafka", str(files[node])])
        for node, name in zip(nodes, names, strict=True)
    }
    cluster = KafkaCluster(processes, {node: f"127.0.0.1:{port}" for node, port in own.items()}, children)
    cluster.wait_ready()
    return cluster


def _run_all(processes: Processes, commands: Mapping[str, Sequence[str]]) -> None:
    """Run commands at the same time, to their end. Raises ProcessFailed."""
    children = [processes.start(name, command) for name, command in commands.items()]
    wait_until(lambda: all(child.ended for child in children), f"{', '.join(commands)} end", _FORMAT_SECONDS)
    for child in children:
        processes.forget(child)
        if child.process.returncode != 0:
            raise ProcessFailed(f"Kafka's log directory could not be formatted:\n{child.last_lines()}")


def _cluster_id() -> str:
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    # The tool would take a leading dash for an option.
    return "A" + cluster_id[1:] if cluster_id.startswith("-") else cluster_id


def _ignore(_: object) -> None:
    """A broker that is still starting, or was killed, is no news."""


def _admin(servers: str) -> AdminClient:
    properties: dict[str, Any] = {"bootstrap.servers": servers, "log_level": 0, "error_cb": _ignore}
    return AdminClient(properties)


def _metadata(address: str) -> ClusterMetadata | None:
    """What a broker knows of the cluster; None where it does not serve."""
    try:
        return _admin(address).list_topics(timeout=1)
    except KafkaException:
        return None
