"""The programs of the cluster, built from the tool modules in dev/cluster/tools by the Go toolchain.

Each module's programs go into a folder of the cache that is named by version and by a digest of go.mod and go.sum,
so a changed pin builds that module alone. Where the modules come from is the Go toolchain's matter (GOPROXY).
"""

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from flowagg.errors import FlowaggError
from flowagg_stack.provision import Missing, cache_directory

SOURCES: Final = Path(__file__).parents[2] / "tools"
_STAMP: Final = "k8s.io/component-base/version"


class BuildFailed(FlowaggError):
    """A tool module did not build."""


@dataclass(frozen=True)
class ToolModule:
    """A folder of dev/cluster/tools.

    requirement: the module in its go.mod whose version it goes by; None for code of our own.
    programs: the names of its programs; renamed: what Go calls one where that differs.
    folders: (module, folder) pairs of its dependencies that are kept beside the programs, under the folder's last name.
    """

    name: str
    requirement: str | None
    programs: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...] = ()
    folders: tuple[tuple[str, str], ...] = ()

    @property
    def source(self) -> Path:
        """Its folder in the checkout."""
        return SOURCES / self.name

    @cached_property
    def version(self) -> str:
        """The pinned version, as 1.34.4; 0 for code of our own."""
        if self.requirement is None:
            return "0"
        text = (self.source / "go.mod").read_text(encoding="utf-8")
        found = re.search(rf"^(?:require)?\s+{re.escape(self.requirement)} v(\S+)", text, re.MULTILINE)
        if found is None:
            raise BuildFailed(f"{self.source / 'go.mod'} does not require {self.requirement}: go mod tidy there")
        return found[1]

    @cached_property
    def tag(self) -> str:
        """Version and digest."""
        digest = hashlib.sha256()
        for file in sorted(self.source.iterdir()):
            digest.update(file.read_bytes())
        return f"{self.version}-{digest.hexdigest()[:8]}"

    @property
    def directory(self) -> Path:
        """Where its programs are kept."""
        return cache_directory() / f"cluster-{self.name}-{self.tag}"

    @property
    def image(self) -> str:
        """Name of the image that holds its first program."""
        return f"docker.io/flow-aggregator/cluster-{self.name}:{self.tag}"

    @property
    def is_built(self) -> bool:
        """Whether its programs are in the cache."""
        return self.directory.is_dir()

    def linker_flags(self) -> str:
        """Flags for go build -ldflags: no symbol tables; Kubernetes learns its version this way."""
        if self.requirement != "k8s.io/kubernetes":
            return "-s -w"
        major, minor, _ = self.version.split(".", 2)
        values = {"gitVersion": f"v{self.version}", "gitMajor": major, "gitMinor": minor}
        return " ".join(["-s -w", *(f"-X {_STAMP}.{name}={value}" for name, value in values.items())])


KUBERNETES: Final = ToolModule(
    "kubernetes",
    "k8s.io/kubernetes",
    ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
)
ETCD: Final = ToolModule("etcd", "go.etcd.io/etcd/server/v3", ("etcd",), (("server", "etcd"),))
COREDNS: Final = ToolModule("coredns", "github.com/coredns/coredns", ("coredns",))
GATEWAY_CRDS: Final = "standard"
TRAEFIK: Final = ToolModule(
    "traefik",
    "github.com/traefik/traefik/v3",
    ("traefik",),
    folders=(("sigs.k8s.io/gateway-api", f"config/crd/{GATEWAY_CRDS}"),),
)
HELM: Final = ToolModule("helm", "helm.sh/helm/v4", ("helm",))
PAUSE: Final = ToolModule("pause", None, ("pause",))
MODULES: Final = (PAUSE, ETCD, KUBERNETES, COREDNS, TRAEFIK, HELM)


def program(name: str) -> Path:
    """Path of a built program. Raises Missing."""
    for module in MODULES:
        if name in module.programs:
            if not module.is_built:
                raise Missing(f"{name} {module.version} is not built yet: make e2e-up does it")
            return module.directory / name
    raise Missing(f"{name} is no program of the cluster's tool modules")


def search_path() -> str:
    """A PATH on which the built programs come first."""
    return os.pathsep.join([*(str(module.directory) for module in MODULES), os.environ["PATH"]])


def build(say: Callable[[str], None]) -> None:
    """Build what is not in the cache; nobody else may at the same time. Raises Missing without Go, BuildFailed."""
    wanted = [module for module in MODULES if not module.is_built]
    if wanted and shutil.which("go") is None:
        raise Missing("Building the cluster needs Go 1.26 or newer on the PATH; then the same make again.")
    for module in wanted:
        say(f"Building {module.name} {module.version}, once ...")
        started = time.monotonic()
        _build(module)
        say(f"  {time.monotonic() - started:.0f} s")


def _build(module: ToolModule) -> None:
    target = module.directory
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a build that was killed
    partial.mkdir()
    packages = "." if module.requirement is None else "tool"
    flags = ["-trimpath", "-buildvcs=false", "-ldflags", module.linker_flags()]
    try:
        _go(module, "build", *flags, "-o", f"{partial}/", packages)
        for built, name in module.renamed:
            (partial / built).rename(partial / name)
        absent = [name for name in module.programs if not (partial / name).is_file()]
        if absent:
            raise BuildFailed(f"{module.name} built without {', '.join(absent)}: its go.mod and tools.py disagree")
        for dependency, folder in module.folders:
            source = Path(_go(module, "list", "-m", "-f", "{{.Dir}}", dependency).strip()) / folder
            shutil.copytree(source, partial / source.name, copy_function=shutil.copyfile)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _go(module: ToolModule, command: str, *arguments: str) -> str:
    # -mod=readonly: what go.mod and go.sum do not pin is refused.
    line = ["go", command, "-mod=readonly", *arguments]
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
    done = subprocess.run(line, cwd=module.source, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"go {command} of {module.name} failed:\n{done.stderr[-3000:]}")
    return done.stdout
