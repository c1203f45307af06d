"""The node: process 1 of namespaces of its own, python -m flowagg_cluster.node STATE IMAGES. The cluster is below it.

Network, mounts and processes live in the node's namespaces. When process 1 ends, the kernel ends every process below
it, and with the last one go the mounts, links, routes and nftables tables: nothing has to be found and undone.
"""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import urlopen

from flowagg.kubernetes import Api
from flowagg_stack.processes import Child, Processes, wait_until

from flowagg_cluster.components import components, environment
from flowagg_cluster.configuration import CONTAINERD_SOCKET, CRI_PLUGIN, KERNEL_SETTINGS
from flowagg_cluster.layout import HOST_IP, LINK_BITS, NODE_IP, Layout
from flowagg_cluster.volumes import Provisioner

NODE_LINK: Final = "eth0"
_READY_SECONDS: Final = 60.0
_API_SECONDS: Final = 5.0
_PASS_SECONDS: Final = 0.5
_RESTART_SECONDS: Final = 1.0


def run(layout: Layout) -> None:
    """Set the node up and keep its processes running until it is killed."""
    mount(layout)
    wait_until(lambda: Path(f"/proc/sys/net/ipv4/conf/{NODE_LINK}").is_dir(), "the node's link", _READY_SECONDS)
    network()
    with Processes(layout.logs) as processes:
        forget_containers(layout, processes)
        for component in components(layout):
            if component.first:
                _run(*component.first)
            child = processes.start(component.name, component.command, environment())
            wait_until(
                partial(is_ready, component.ready, layout.pki / "ca.pem"), component.name, _READY_SECONDS, [child]
            )
        api = Api.from_kubeconfig(layout.kubeconfig, timeout_seconds=_API_SECONDS)
        threading.Thread(target=Provisioner(api, _say).run, name="volumes", daemon=True).start()
        _keep_running(processes)


def mount(layout: Layout) -> None:
    """Give the node its own /run, /var/lib and /var/log, so that all programs work at their usual paths.

    The mounts are of this mount namespace: the machine sees none of them.
    """
    containerd = layout.state / "var-lib" / "containerd"
    containerd.mkdir(parents=True)
    (layout.state / "var-log").mkdir()
    _run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
    _run("mount", "--bind", str(layout.images), str(containerd))
    _run("mount", "--rbind", str(layout.state / "var-lib"), "/var/lib")
    _run("mount", "--bind", str(layout.state / "var-log"), "/var/log")
    Path("/run/cni").mkdir()
    Path("/run/cni/10-flowagg.conflist").write_bytes((layout.configuration / "cni.conflist").read_bytes())
    for name in KERNEL_SETTINGS:
        _run("mount", "--bind", str(layout.configuration / name.replace("/", ".")), f"/proc/sys/{name}")


def network() -> None:
    """Address the link to the machine and forward."""
    for command in (
        ("link", "set", "lo", "up"),
        ("address", "add", f"{NODE_IP}/{LINK_BITS}", "dev", NODE_LINK),
        ("link", "set", NODE_LINK, "up"),
        ("route", "add", "default", "via", HOST_IP),
    ):
        _run("ip", *command)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")


def forget_containers(layout: Layout, processes: Processes) -> None:
    """Make the images that are kept forget the containers of an earlier node.

    containerd's CRI plugin would show them to the kubelet, which would spend its first half minute on them.
    """
    store = Path("/var/lib/containerd")
    if not (store / CRI_PLUGIN).is_dir():
        return
    configuration = layout.configuration / "containerd-without-cri.toml"
    child = processes.start("containerd", ("containerd", "--config", str(configuration)), environment())
    wait_until(partial(is_ready, f"unix:{CONTAINERD_SOCKET}", None), child.name, _READY_SECONDS, [child])
    ctr = ("ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", "containers")
    containers = subprocess.run((*ctr, "list", "--quiet"), check=True, capture_output=True, text=True).stdout.split()
    if containers:
        _run(*ctr, "remove", *containers)
    processes.stop(child)
    shutil.rmtree(store / CRI_PLUGIN)


def is_ready(url: str | None, ca: Path | None) -> bool:
    """Whether a component answers at the URL that it is judged by (see Component); ca: whom to trust for https."""
    if url is None:
        return True
    parts = urlsplit(url)
    if parts.scheme == "https":
        try:
            with urlopen(url, timeout=2, context=ssl.create_default_context(cafile=ca)) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False
    unix = parts.scheme == "unix"
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(parts.path if unix else (parts.hostname, parts.port)) == 0


def reap_orphans(children: Sequence[Child]) -> None:
    """Collect ended processes that were left to process 1; children's own are theirs to collect."""
    own = {child.process.pid for child in children}
    ended = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = int(stat.parent.name), stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if state == "Z" and parent == "1" and pid not in own:
            ended.append(pid)
    for pid in ended:
        os.waitpid(pid, os.WNOHANG)


def _keep_running(processes: Processes) -> None:
    """As an init would: a process that ends is started again a second later."""
    while True:
        time.sleep(_PASS_SECONDS)
        reap_orphans(processes.children)
        for child in list(processes.children):
            if child.ended:
                _say(f"{child.name} ended with status {child.process.returncode}; starting it again")
                time.sleep(_RESTART_SECONDS)
                processes.restart(child)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    run(Layout(state=Path(sys.argv[1]), images=Path(sys.argv[2])))
