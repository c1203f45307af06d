"""What the cluster takes from the distribution: containerd, runc, CNI plugins, nft, buildah, mmdebstrap."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from flowagg_stack.provision import Missing

CNI_PLUGINS: Final = Path("/usr/lib/cni")
_PROGRAMS: Final = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    str(CNI_PLUGINS / "ptp"): "containernetworking-plugins",
}
"""program -> Debian's package"""


def require_linux_root() -> None:
    """Raises Missing where the cluster cannot run at all, with what to use there."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Missing(
            "This cluster needs Linux and root (namespaces, mounts, cgroups). Elsewhere use a cluster of your own, "
            "such as kind's, and name it by KUBECONFIG: see docs/guides/develop-on-kubernetes.md."
        )


def provision(say: Callable[[str], None]) -> None:
    """Install by apt what is missing. Raises Missing."""
    missing = sorted({package for program, package in _PROGRAMS.items() if shutil.which(program) is None})
    if not missing:
        return
    hint = f"Install: apt-get install {' '.join(missing)}; then the same make again."
    if shutil.which("apt-get") is None:
        raise Missing(hint)
    say(f"Installing {', '.join(missing)} by apt ...")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0:
            raise Missing(f"{' '.join(command)} failed:\n{done.stderr.strip()}\n{hint}")
