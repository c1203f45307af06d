"""What connections hold in a server's memory: idle ones, and those that have posted once."""

import os
import resource
import time
from dataclasses import dataclass
from typing import Final

from flowagg_stack.processes import wait_until

from benchmarks.http.common import memory_mib
from benchmarks.peers.http.peers import Peer, Variant
from benchmarks.peers.http.wire import JSON, connect, receive, request

CONNECTIONS: Final = 4_096
_AT_ONCE: Final = 256  # POSTs on their way
_ACCEPT_SECONDS: Final = 30
_SETTLE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Held:
    """Resident memory in MiB: before the connections, with all of them idle, once each has posted a flow."""

    variant: Variant
    connections: int
    before_mib: float
    idle_mib: float
    posted_mib: float
    errors: int

    @property
    def idle_kib(self) -> float:
        """A connection."""
        return (self.idle_mib - self.before_mib) * 1024 / self.connections

    @property
    def posted_kib(self) -> float:
        """A connection."""
        return (self.posted_mib - self.before_mib) * 1024 / self.connections


def hold(peer: Peer, body: bytes, count: int = CONNECTIONS) -> Held:
    """Open so many connections, then post the body over each. Raises ProcessFailed where they are not accepted."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    post = request("POST", "/flows", body, JSON)
    time.sleep(_SETTLE_SECONDS)
    before, files = memory_mib(peer.pid), _open_files(peer.pid)
    connections = [connect(peer.url) for _ in range(count)]
    try:
        accepted = f"{peer.variant.name} accepts {count} connections"
        wait_until(lambda: _open_files(peer.pid) >= files + count, accepted, _ACCEPT_SECONDS, [peer.child])
        time.sleep(_SETTLE_SECONDS)
        idle = memory_mib(peer.pid)
        errors = 0
        for start in range(0, count, _AT_ONCE):
            group = connections[start : start + _AT_ONCE]
            for connection in group:
                connection.sendall(post)
            for connection in group:
                errors += receive(connection, "POST").status != 200
        time.sleep(_SETTLE_SECONDS)
        return Held(peer.variant, count, before, idle, memory_mib(peer.pid), errors)
    finally:
        for connection in connections:
            connection.close()


def _open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - a count, no paths
