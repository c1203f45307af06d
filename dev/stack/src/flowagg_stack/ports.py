"""Free ports on the loopback."""

import socket
from collections import deque
from typing import Final

_given: Final = deque[int](maxlen=256)
"""What this process was told last. The system gives a port again while whoever asked for it has yet to take it."""


def free_port() -> int:
    """A port that was free a moment ago, and that this process was not told just before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.append(port)
            return port


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
