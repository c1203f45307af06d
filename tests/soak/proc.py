"""What Linux says of a process: memory, open files, connections, threads."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_STATES: Final = {
    "01": "established",
    "02": "syn-sent",
    "03": "syn-received",
    "04": "fin-wait-1",
    "05": "fin-wait-2",
    "07": "closed",
    "08": "close-wait",
    "09": "last-ack",
    "0A": "listen",
    "0B": "closing",
}
"""Those of sockets that a process still holds (linux/net/tcp_states.h); one in TIME-WAIT belongs to nobody."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a process.

    memory_mib: anonymous memory, swapped out or not, in MiB: what it has allocated, without files that are mapped,
    which the kernel takes back as it likes. connections: TCP sockets by state, those that listen left out.
    """

    memory_mib: float
    files: int
    threads: int
    connections: Mapping[str, int]


def sockets() -> dict[str, str]:
    """The state of every TCP socket in this network, by its inode."""
    found = {}
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines[1:]:
            parts = line.split()
            if parts[3] in _STATES:
                found[parts[9]] = _STATES[parts[3]]
    return found


def born(pid: int) -> int | None:
    """When a process began, in the kernel's ticks: with its number, who it is. None where it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    after_name = text.rpartition(")")[2].split()
    return None if after_name[0] in {"Z", "X"} else int(after_name[19])


def look(pid: int, states: Mapping[str, str]) -> Reading | None:
    """Look at a process; None where it has ended. states: as sockets() has them."""
    try:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        )
        links = [_target(Path(f"/proc/{pid}/fd/{name}")) for name in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH208 - names alone
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # a zombie's files may not be looked at
        return None
    if "RssAnon" not in status:
        return None  # a zombie has no memory
    kib = sum(int(status.get(name, "0 kB").split()[0]) for name in ("RssAnon", "VmSwap"))
    of = Counter(states[link[8:-1]] for link in links if link.startswith("socket:[") and link[8:-1] in states)
    del of["listen"]
    return Reading(kib / 1024, len(links), int(status["Threads"]), dict(of))


def _target(link: Path) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 - what it names is no path
    except FileNotFoundError:
        return ""  # closed meanwhile, or the listing's own
