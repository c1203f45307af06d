"""Redis with two replicas and three sentinels as processes, which may be killed and started again."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flowagg_stack import provision
from flowagg_stack.certificates import Certificate, redis_options
from flowagg_stack.ports import answers, free_port
from flowagg_stack.processes import Child, Processes, ProcessFailed, wait_until

MASTER_NAME: Final = "main"
NODES: Final = 3
SENTINELS: Final = 3
_ASK_SECONDS: Final = 0.5

_NODE = """\
{listens}
bind 127.0.0.1
dir {directory}
save ""
appendonly yes
appendfsync everysec
repl-diskless-sync-delay 0
shutdown-timeout 0
maxmemory-policy noeviction
{secrets}
"""

_SENTINEL = """\
{listens}
bind 127.0.0.1
dir {directory}
sentinel monitor {name} {host} {master_port} 2
sentinel down-after-milliseconds {name} {down_after_ms}
sentinel failover-timeout {name} {failover_timeout_ms}
{secrets}
"""


@dataclass(frozen=True, slots=True)
class Security:
    """What a set asks of its clients, which its nodes and sentinels ask of each other too.

    server, client: certificates of one CA. Nothing is taken in the clear, or from whoever has none.
    password: of the nodes. sentinel_password: of the sentinels.
    """

    server: Certificate
    client: Certificate
    password: str
    sentinel_password: str


@dataclass(slots=True)
class SentinelSet:
    """One master, two replicas and three sentinels.

    nodes, sentinels: the process of each by its address host:port; one that was killed stays listed.
    """

    processes: Processes
    directory: Path
    security: Security | None = None
    nodes: dict[str, Child] = field(default_factory=dict)
    sentinels: dict[str, Child] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The FLOWAGG_* variables for services."""
        found = {"FLOWAGG_REDIS_SENTINELS": ",".join(self.sentinels), "FLOWAGG_REDIS_MASTER_NAME": MASTER_NAME}
        if self.security is not None:
            found |= {
                "FLOWAGG_REDIS_TLS": "true",
                "FLOWAGG_SENTINEL_TLS": "true",
                "FLOWAGG_REDIS_CA_FILE": str(self.security.client.ca),
                "FLOWAGG_REDIS_CERTIFICATE_FILE": str(self.security.client.certificate),
                "FLOWAGG_REDIS_KEY_FILE": str(self.security.client.key),
            }
        return found

    def client(self, address: str) -> redis.Redis:
        """A client of one node or sentinel, as the function of that name, which knows the passwords."""
        if self.security is None:
            return client(address)
        sentinel = address in self.sentinels
        return client(
            address,
            ssl=True,
            ssl_ca_certs=str(self.security.client.ca),
            ssl_certfile=str(self.security.client.certificate),
            ssl_keyfile=str(self.security.client.key),
            password=self.security.sentinel_password if sentinel else self.security.password,
        )

    def master(self) -> str:
        """The master's address, as that sentinel says which has seen the newest failover. Raises ProcessFailed."""
        said = [answer for address in self.sentinels if (answer := self._says(address)) is not None]
        if not said:
            raise ProcessFailed("no sentinel answers")
        return max(said)[1]

    def replicas(self) -> list[str]:
        """The addresses of the other nodes. Raises ProcessFailed."""
        master = self.master()
        return [address for address in self.nodes if address != master]

    def kill(self, address: str) -> None:
        """Kill -9 a node or a sentinel, and wait until it is gone."""
        child = self.nodes.get(address) or self.sentinels[address]
        self.processes.stop(child, signal.SIGKILL)

    def kill_all(self) -> None:
        """Kill -9 what is left, for a quick end: a node refuses SIGTERM while it writes its first AOF as a replica."""
        for child in [*self.nodes.values(), *self.sentinels.values()]:
            if child in self.processes.children:
                self.processes.stop(child, signal.SIGKILL)

    def restart(self, address: str) -> Child:
        """Start a killed node or sentinel again, with what it has on disk. Raises ProcessFailed.

        A node becomes what the sentinels say now: a replica, unless it is still their master. (Left
        to itself a former master would be one again until they correct it, 8 s and more later.)
        """
        if address in self.sentinels:
            child = self.processes.start(self.sentinels[address].name, self.sentinels[address].command)
            self.sentinels[address] = child
        else:
            master = self.master()
            role = ["no", "one"] if master == address else master.split(":")
            child = self._start_node(self.nodes[address].name, address, role)
        wait_until(lambda: answers(_port(address)), f"{child.name} answers", 20, [child])
        return child

    def wait_ready(self, seconds: float = 30) -> None:
        """Wait until both replicas are in sync and all sentinels know it and each other. Raises ProcessFailed."""
        children = [*self.nodes.values(), *self.sentinels.values()]
        wait_until(self._ready, "the replicas are in sync and the sentinels know", seconds, children, pause=0.05)

    def _ready(self) -> bool:
        try:
            return self._in_sync() and all(self._knows(address) for address in self.sentinels)
        except redis.RedisError:
            return False

    def _in_sync(self) -> bool:
        """Whether each replica has all that the master has written, and follows it."""
        master = self.master()
        with self.client(master) as asked:
            written: Any = asked.info("replication")
        if written["role"] != "master" or written["connected_slaves"] != NODES - 1:
            return False
        for address in self.nodes.keys() - {master}:
            with self.client(address) as asked:
                copied: Any = asked.info("replication")
            following = f"{copied.get('master_host')}:{copied.get('master_port')}" == master
            if not following or copied["master_link_status"] != "up":
                return False
            if copied["slave_repl_offset"] < written["master_repl_offset"]:
                return False
        return True

    def _knows(self, sentinel: str) -> bool:
        """Whether a sentinel would take part in a failover: it sees all of the others, and nothing down."""
        with self.client(sentinel) as asked:
            master: Any = asked.sentinel_master(MASTER_NAME, return_responses=True)
            replicas: Any = asked.sentinel_slaves(MASTER_NAME)
            others: Any = asked.sentinel_sentinels(MASTER_NAME)
        return (
            f"{master['ip']}:{master['port']}" == self.master()
            and master["flags"] == "master"
            and [replica["flags"] for replica in replicas] == ["slave"] * (NODES - 1)
            and [other["flags"] for other in others] == ["sentinel"] * (SENTINELS - 1)
        )

    def _says(self, sentinel: str) -> tuple[int, str] | None:
        """The failovers that a sentinel has seen (the epoch) and the master's address; None without an answer."""
        with self.client(sentinel) as asked:
            try:
                state: Any = asked.sentinel_master(MASTER_NAME, return_responses=True)
                # Not state["ip"]: the sentinel that leads a failover shows the old one until it is all over.
                host, port = asked.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
            except redis.RedisError:
                return None
        return int(state["config-epoch"]), f"{host.decode()}:{int(port)}"

    def _connected(self, port: int) -> int:
        with self.client(f"127.0.0.1:{port}") as asked:
            found: Any = asked.info("replication")
        connected: int = found["connected_slaves"]
        return connected

    def _start_node(self, name: str, address: str, role: Sequence[str]) -> Child:
        configuration = self.directory / name / "redis.conf"
        command = [provision.redis_server(), str(configuration), "--replicaof", *role]
        self.nodes[address] = child = self.processes.start(name, command)
        return child


def start_sentinel_set(
    processes: Processes,
    directory: Path,
    *,
    down_after_ms: int = 1000,
    failover_timeout_ms: int = 2000,
    security: Security | None = None,
) -> SentinelSet:
    """Start one master, two replicas and three sentinels on free ports, and wait until they are ready.

    down_after_ms: silence after which a sentinel holds the master to be down, in milliseconds.
    failover_timeout_ms: twice this passes before a failover that failed, as by a split vote, is
    tried again, in milliseconds. Raises provision.Missing, ProcessFailed.
    """
    started = SentinelSet(processes, directory, security)
    secrets = sentinel_secrets = ""
    if security is not None:
        secrets = f"requirepass {security.password}\nmasterauth {security.password}"
        own = f"requirepass {security.sentinel_password}\nsentinel sentinel-pass {security.sentinel_password}"
        sentinel_secrets = f"{own}\nsentinel auth-pass {MASTER_NAME} {security.password}"
    role = ["no", "one"]
    master_port = 0
    for number in range(NODES):
        name, port = f"redis-{number}", free_port()
        (directory / name).mkdir()
        text = _NODE.format(listens=_listens(security, port), directory=directory / name, secrets=secrets)
        (directory / name / "redis.conf").write_text(text, encoding="utf-8")
        child = started._start_node(name, f"127.0.0.1:{port}", role)
        _wait_answers(child, port)
        if number == 0:
            master_port = port
            role = ["127.0.0.1", str(port)]
    # Only now: a sentinel learns of replicas from the master's INFO, which it reads at once and then every 10 s.
    wait_until(
        lambda: started._connected(master_port) == NODES - 1, "the replicas connect", 20, list(started.nodes.values())
    )
    for number in range(SENTINELS):
        name, port = f"sentinel-{number}", free_port()
        (directory / name).mkdir()
        text = _SENTINEL.format(
            listens=_listens(security, port),
            secrets=sentinel_secrets,
            directory=directory / name,
            name=MASTER_NAME,
            host="127.0.0.1",
            master_port=master_port,
            down_after_ms=down_after_ms,
            failover_timeout_ms=failover_timeout_ms,
        )
        configuration = directory / name / "sentinel.conf"
        configuration.write_text(text, encoding="utf-8")
        child = processes.start(name, [provision.redis_server(), str(configuration), "--sentinel"])
        started.sentinels[f"127.0.0.1:{port}"] = child
        _wait_answers(child, port)
    started.wait_ready()
    return started


def client(address: str, **options: Any) -> redis.Redis:
    """A client of one node or sentinel, whatever its role is: short waits, no retries. options: redis-py's."""
    return redis.Redis(
        "127.0.0.1",
        _port(address),
        socket_timeout=_ASK_SECONDS,
        socket_connect_timeout=_ASK_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        **options,
    )


def _listens(security: Security | None, port: int) -> str:
    """The lines of a configuration about the port."""
    if security is None:
        return f"port {port}"
    options = {"port": "0", "tls-port": str(port), **redis_options(security.server)}
    return "\n".join(f"{option} {value}" for option, value in options.items())


def _wait_answers(child: Child, port: int) -> None:
    wait_until(lambda: answers(port), f"{child.name} answers", 20, [child])


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
