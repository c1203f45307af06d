"""Where things are: the cluster's addresses and its folders."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flowagg_stack.provision import cache_directory

NODE_NAME: Final = "flowagg"
NETWORK: Final = "10.207.0.0/16"
"""All of the cluster's addresses; a route of the machine that overlaps with it is an error."""
HOST_IP: Final = "10.207.0.1"
NODE_IP: Final = "10.207.0.2"
LINK_BITS: Final = 30
POD_CIDR: Final = "10.207.1.0/24"
SERVICE_CIDR: Final = "10.207.128.0/20"
API_SERVICE_IP: Final = "10.207.128.1"
DNS_IP: Final = "10.207.128.10"
CLUSTER_DOMAIN: Final = "cluster.local"
API_URL: Final = f"https://{NODE_IP}:6443"
HOST_LINK: Final = "flowagg-node"
"""The machine's end of the one link to the node."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one cluster.

    state goes with the cluster. images outlives it: containerd keeps unpacked images there, so that the next start
    need not import them again.
    """

    state: Path
    images: Path

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.state / "pki"

    @property
    def configuration(self) -> Path:
        """What the components read at their start."""
        return self.state / "etc"

    @property
    def logs(self) -> Path:
        """One log a component."""
        return self.state / "logs"

    @property
    def etcd(self) -> Path:
        """etcd's data."""
        return self.state / "etcd"

    @property
    def cgroup(self) -> str:
        """The cgroup that holds all pods: its own for each cluster, so that one's end never touches another's."""
        return f"flowagg-{hashlib.sha256(str(self.state).encode()).hexdigest()[:8]}"

    @property
    def lock(self) -> Path:
        """Held while up or down works; beside the state, since the state is deleted."""
        return self.state.with_name(f"{self.state.name}.lock")


def default_layout() -> Layout:
    """The one cluster of this user: XDG_STATE_HOME and XDG_CACHE_HOME are followed."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Layout(
        state=Path(base) / "flow-aggregator" / "cluster",
        images=cache_directory() / "cluster-images",
    )


def direct(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without proxies: none of them knows the way to the cluster's addresses."""
    return {name: value for name, value in environment.items() if not name.lower().endswith("_proxy")}
