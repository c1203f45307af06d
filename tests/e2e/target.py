"""The cluster under test: the one that KUBECONFIG names, else the one of dev/cluster."""

import ipaddress
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import httpx
import pytest
from flowagg_cluster.layout import NODE_IP, Layout, default_layout
from flowagg_cluster.namespaces import enter_command, node_process
from flowagg_cluster.tools import search_path

_HOST: Final = "e2e.flows.test"
_API_SERVER: Final = "kube-apiserver"


class NotReachable(Exception):
    """There is no cluster to test on, or a program to drive it with is missing."""


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster and how clients get to it.

    url: the ingress controller's address. host: the name that the Ingress answers to. own: the layout of dev/cluster's
    cluster, None for a cluster of somebody else, whose nodes' processes are out of reach. registry, tag: of the
    services' images. ingress_class: empty for the cluster's default one.
    """

    kubeconfig: Path
    url: str
    host: str
    own: Layout | None
    registry: str
    tag: str
    ingress_class: str
    search_path: str

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """From KUBECONFIG and E2E_URL, E2E_HOST, E2E_REGISTRY, E2E_TAG, E2E_INGRESS_CLASS. Raises NotReachable."""
        layout = default_layout()
        given = environment.get("KUBECONFIG")
        own = layout if given is None or Path(given) == layout.kubeconfig else None
        if own is not None and node_process(layout) is None:
            raise NotReachable("the cluster for tests is not up: make e2e-up, or set KUBECONFIG to a cluster of yours")
        url = environment.get("E2E_URL", f"http://{NODE_IP}" if own is not None else "").rstrip("/")
        if not url:
            raise NotReachable("with KUBECONFIG set, E2E_URL must be the address of its ingress controller")
        name = urlsplit(url).hostname or ""
        return cls(
            kubeconfig=Path(given) if own is None and given is not None else layout.kubeconfig,
            url=url,
            host=environment.get("E2E_HOST", _HOST if _is_address(name) else name),
            own=own,
            registry=environment.get("E2E_REGISTRY", "docker.io"),
            tag=environment.get("E2E_TAG", "dev"),
            ingress_class=environment.get("E2E_INGRESS_CLASS", "traefik" if own is not None else ""),
            search_path=search_path(),
        )

    @property
    def names_host(self) -> bool:
        """Whether the URL alone leads to the Ingress, with no Host header of its own."""
        return urlsplit(self.url).hostname == self.host

    def program(self, name: str) -> str:
        """Path of kubectl or helm: the pinned one where it is built, else the PATH's. Raises NotReachable."""
        path = shutil.which(name, path=self.search_path)
        if path is None:
            raise NotReachable(f"{name} is missing: make e2e-up builds it, or install it")
        return path

    def client(self, *, seconds: float = 30.0) -> httpx.Client:
        """A client of the public API."""
        return httpx.Client(base_url=self.url, headers={"Host": self.host}, timeout=seconds, trust_env=False)


@dataclass(frozen=True, slots=True)
class Node:
    """The processes of dev/cluster's one node, as root on this machine sees them."""

    layout: Layout

    def processes(self, container: str) -> list[int]:
        """Ids, on this machine, of a container's processes; container: its containerd id."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cgroup"):
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue  # it has ended
            if container in text:
                found.append(int(path.parent.name))
        return found

    def signal(self, container: str, number: signal.Signals) -> None:
        """Signal all processes of a container. Raises LookupError where it has none."""
        found = self.processes(container)
        if not found:
            raise LookupError(f"no process of container {container}")
        for pid in found:
            with suppress(ProcessLookupError):  # a probe's, that has ended meanwhile
                os.kill(pid, number)

    @contextmanager
    def api_server_stopped(self) -> Iterator[float]:
        """The API server takes connections and answers none meanwhile. Yields when it began, of time.monotonic()."""
        self.run("pkill", "-STOP", "-x", _API_SERVER)
        try:
            yield time.monotonic()
        finally:
            self.run("pkill", "-CONT", "-x", _API_SERVER)

    def run(self, *command: str, text: str | None = None) -> str:
        """Run a command inside the node; its output. Raises CalledProcessError."""
        done = subprocess.run(
            enter_command(self.layout, command), input=text, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout


def node_of(target: Target) -> Node:
    """The node whose processes tests stop and kill. Skips the test on a cluster of somebody else."""
    if target.own is None:
        pytest.skip("signals to containers' processes need the node of dev/cluster: unset KUBECONFIG")
    return Node(target.own)


def container_id(status: str) -> str:
    """The id alone, of a pod's containerStatuses[].containerID."""
    match = re.fullmatch(r"[a-z-]+://([0-9a-f]{16,})", status)
    if match is None:
        raise ValueError(f"{status!r} names no container")
    return match[1]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
