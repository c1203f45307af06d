"""The node as the machine sees it: one process that holds namespaces, one link, one cgroup."""

import contextlib
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from flowagg.errors import FlowaggError
from flowagg_stack.processes import wait_until

from flowagg_cluster.layout import (
    HOST_IP,
    HOST_LINK,
    LINK_BITS,
    NETWORK,
    NODE_IP,
    POD_CIDR,
    SERVICE_CIDR,
    Layout,
    direct,
)
from flowagg_cluster.node import NODE_LINK
from flowagg_cluster.tools import search_path

_CGROUPS: Final = Path("/sys/fs/cgroup")
_END_SECONDS: Final = 30.0


class ClusterFailed(FlowaggError):
    """The node does not start, or does not go away."""


def start_node(layout: Layout) -> None:
    """Start the node's process 1 and link it to the machine."""
    _refuse_overlapping_routes()
    _make_cgroups(layout)
    command = ["unshare", "--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    command += ["--mount-proc", sys.executable, "-m", "flowagg_cluster.node", str(layout.state), str(layout.images)]
    with (layout.logs / "node.log").open("ab") as log:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=direct(os.environ) | {"PATH": search_path()},
            cwd="/",
            start_new_session=True,
        )
    wait_until(lambda: node_process(layout) is not None, "the node's process 1", 10)
    _link(node_process(layout))


def node_process(layout: Layout) -> int | None:
    """Process id, on this machine, of the node's process 1; None when there is no node."""
    for pid in _processes(layout):
        ids = [line.split() for line in _read(Path(f"/proc/{pid}/status")).splitlines() if line.startswith("NSpid:")]
        if ids and ids[0][-1] == "1":
            return pid
    return None


def enter_command(layout: Layout, command: Sequence[str]) -> list[str]:
    """A command line that runs a command inside the node. Raises ClusterFailed when there is none."""
    process = node_process(layout)
    if process is None:
        raise ClusterFailed("the cluster is not up: make e2e-up")
    return ["nsenter", "--target", str(process), "--mount", "--net", "--pid", *command]


def end_node(layout: Layout) -> None:
    """End the node, from whatever state it is in, with all that is below it. Raises ClusterFailed."""
    # By --kill-child and the rules of process namespaces, all below them ends with these; process 1 as the last.
    ending = _processes(layout)
    for pid in ending:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(_lives(pid) for pid in ending), "the end of the node", _END_SECONDS)
    subprocess.run(["ip", "link", "delete", HOST_LINK], capture_output=True, check=False)
    _remove_cgroups(layout)


def _processes(layout: Layout) -> list[int]:
    """The node's process 1 and the unshare above it. Found by their command lines: a file of ids can be lost or old."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        arguments = _read(path).split("\0")
        if "flowagg_cluster.node" in arguments and str(layout.state) in arguments:
            found.append(int(path.parent.name))
    return found


def _link(process: int | None) -> None:
    for command in (
        ("link", "add", HOST_LINK, "type", "veth", "peer", "name", NODE_LINK, "netns", str(process)),
        ("address", "add", f"{HOST_IP}/{LINK_BITS}", "dev", HOST_LINK),
        ("link", "set", HOST_LINK, "up"),
        ("route", "add", POD_CIDR, "via", NODE_IP),
        ("route", "add", SERVICE_CIDR, "via", NODE_IP),
    ):
        done = subprocess.run(["ip", *command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterFailed(f"ip {' '.join(command)}: {done.stderr.strip()}")


def _refuse_overlapping_routes() -> None:
    text = subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, text=True, check=True).stdout
    ours = ipaddress.ip_network(NETWORK)
    for route in json.loads(text or "[]"):
        if route["dst"] != "default" and ipaddress.ip_network(route["dst"]).overlaps(ours):
            raise ClusterFailed(f"this machine routes {route['dst']}, which the cluster would use: see layout.py")


def _cgroups(layout: Layout) -> list[Path]:
    """The node's cgroup in each controller's tree (v1), or in the one tree (v2)."""
    trees = [_CGROUPS] if (_CGROUPS / "cgroup.controllers").exists() else sorted(_CGROUPS.iterdir())
    return [tree / layout.cgroup for tree in trees if (tree / "cgroup.procs").exists()]


def _make_cgroups(layout: Layout) -> None:
    """Make the cgroup that the kubelet puts all pods below."""
    for cgroup in _cgroups(layout):
        cgroup.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            # In v1 a cpuset starts without any CPU, and nothing can be started in it.
            if (cgroup / name).exists() and not (cgroup.parent / "cgroup.controllers").exists():
                (cgroup / name).write_text(_read(cgroup.parent / name), encoding="ascii")


def _remove_cgroups(layout: Layout) -> None:
    """End what is left in the node's cgroups, then remove them."""
    deadline = time.monotonic() + _END_SECONDS
    for root in _cgroups(layout):
        while root.is_dir():
            for directory, _, _ in os.walk(root, topdown=False):
                for pid in _read(Path(directory) / "cgroup.procs").split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                with contextlib.suppress(OSError):  # not empty yet
                    Path(directory).rmdir()
            if time.monotonic() > deadline:
                raise ClusterFailed(f"{root} does not get empty: see its cgroup.procs")
            if root.is_dir():
                time.sleep(0.05)


def _lives(pid: int) -> bool:
    state = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return bool(state) and state[0] not in "ZX"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
