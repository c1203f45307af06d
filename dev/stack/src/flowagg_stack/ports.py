"""Free ports on the loopback."""

import random
import socket
from collections import deque
from pathlib import Path
from typing import Final

_LOWEST: Final = 15_000
_LEAST: Final = 1_000
_NODE_PORTS: Final = 30_000  # from here on, a Kubernetes on this machine gives them to its Services
_given: Final = deque[int](maxlen=256)
"""What this process was told last: whoever asked for it may have yet to take it."""
_random: Final = random.SystemRandom()  # processes that run side by side choose apart, also where both are forks of one


def free_port() -> int:
    """A port that was free a moment ago, and that this process was not told just before.

    It is none of those that the system gives to outgoing connections: one of them may take it before its server does.
    """
    end = min(_first_of_outgoing(), _NODE_PORTS)
    while True:
        port = _random.randrange(_LOWEST, end) if end >= _LOWEST + _LEAST else 0
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            taken: int = probe.getsockname()[1]
        if taken not in _given:
            _given.append(taken)
            return taken


def _first_of_outgoing() -> int:
    """The lowest port of those for outgoing connections; 0 where the system does not tell."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except OSError:
        return 0


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, no two the same."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


def is_free(port: int) -> bool:
    """Whether a server could listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Whether something accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
