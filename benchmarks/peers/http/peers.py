"""The services that are measured, each on the one core of servers: ours and the peers in Go."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flowagg_stack.ports import answers, free_port
from flowagg_stack.processes import Child, Processes, wait_until
from flowagg_stack.services import service_environment, start_service

from benchmarks.http.common import SERVER_CORE, on_cores
from benchmarks.peers.http.programs import Programs

OURS: Final = "ours"
DURABLE: Final = "durable Go"
MEMORY: Final = "in-memory Go"
LIBRARIES: Final = ("std", "goccy", "sonic")
"""JSON libraries of the Go services: encoding/json, goccy/go-json, bytedance/sonic"""
_START_SECONDS: Final = 30


@dataclass(frozen=True, slots=True, order=True)
class Variant:
    """A service. library: JSON library of a Go one, empty for ours."""

    role: str
    library: str = ""

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.role}, {self.library}" if self.library else self.role


@dataclass(frozen=True, slots=True)
class Peer:
    """A running service."""

    variant: Variant
    url: str
    child: Child

    @property
    def pid(self) -> int:
        """Of its process."""
        return self.child.process.pid


def start_ours(processes: Processes, service: str, settings: Mapping[str, str], role: str = OURS) -> Peer:
    """Our writer or reader, ready. Raises ProcessFailed."""
    with on_cores(SERVER_CORE):
        started = start_service(processes, service, settings)
    started.wait_ready()
    return Peer(Variant(role), started.url, started.child)


def start_go(
    processes: Processes, programs: Programs, variant: Variant, kafka: str | None = None, *, keep: bool = False
) -> Peer:
    """A Go service, listening. kafka: address of a broker for a durable one. Raises ProcessFailed.

    keep: one in memory keeps rendered hours until they change. Go's defaults but for the one processor that it has.
    """
    port = free_port()
    command = [str(programs.flows), "-listen", f"127.0.0.1:{port}", "-json", variant.library]
    command += ["-store", "memory"] if kafka is None else ["-store", "kafka", "-kafka", kafka]
    command += ["-keep"] if keep else []
    environment = service_environment("writer", {}) | {"GOMAXPROCS": str(len(SERVER_CORE))}
    with on_cores(SERVER_CORE):
        child = processes.start(f"{variant.name} {port}".replace(" ", "-").replace(",", ""), command, environment)
    wait_until(lambda: answers(port), f"{variant.name} listens", _START_SECONDS, [child])
    return Peer(variant, f"http://127.0.0.1:{port}", child)
