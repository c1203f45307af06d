"""The programs of the cluster, built from the tool modules in dev/cluster/tools by the Go toolchain.

Each module's programs go into a folder of the cache that is named by version and by a digest of go.mod and go.sum,
so a changed pin builds that module alone. Where the modules come from is the Go toolchain's matter (GOPROXY).
A file named stamps, where there is one, has NAME=VALUE lines for the linker: a program's own version, mostly.
"""

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from flowagg.errors import FlowaggError
from flowagg_stack.provision import Missing, cache_directory

from flowagg_cluster import golang
from flowagg_cluster.locks import alone

SOURCES: Final = Path(__file__).parents[2] / "tools"


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

    @property
    def go_version(self) -> golang.Version:
        """The oldest Go that builds it."""
        found = re.search(r"^go (\S+)$", (self.source / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
        return golang.version(f"go{found[1]}") if found else ()

    def linker_flags(self) -> str:
        """Flags for go build -ldflags: no symbol tables, and the module's stamps."""
        file = self.source / "stamps"
        lines = file.read_text(encoding="utf-8").split() if file.is_file() else []
        major, minor = [*self.version.split("."), "0"][:2]
        stamps = [line.format(version=self.version, major=major, minor=minor) for line in lines]
        return " ".join(["-s -w", *(f"-X {stamp}" for stamp in stamps)])


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
HELM3: Final = ToolModule("helm3", "helm.sh/helm/v3", ("helm3",), (("helm", "helm3"),))
VERSITYGW: Final = ToolModule("versitygw", "github.com/versity/versitygw", ("versitygw",))
"""An S3 API over a folder: the object store of the tests of backups."""
PAUSE: Final = ToolModule("pause", None, ("pause",))
MODULES: Final = (PAUSE, ETCD, KUBERNETES, COREDNS, TRAEFIK, HELM, HELM3, VERSITYGW)


def program(name: str) -> Path:
    """Path of a built program, as helm or helm3. Raises Missing."""
    module = module_of(name)
    if not module.is_built:
        raise Missing(f"{name} {module.version} is not built yet: python -m flowagg_cluster build {module.name}")
    return module.directory / name


def module_of(name: str) -> ToolModule:
    """The module of that name, or the one that has a program of that name. Raises Missing."""
    for module in MODULES:
        if name == module.name or name in module.programs:
            return module
    raise Missing(f"{name} is none of the cluster's programs: {', '.join(p for m in MODULES for p in m.programs)}")


def search_path() -> str:
    """A PATH on which the built programs come first."""
    return os.pathsep.join([*(str(module.directory) for module in MODULES), os.environ["PATH"]])


def build(modules: Iterable[ToolModule], say: Callable[[str], None]) -> None:
    """Build what is not in the cache, and say nothing where all is. Raises Missing without Go, BuildFailed."""
    if all(module.is_built for module in modules):
        return
    with alone(cache_directory() / "cluster-build.lock"):
        wanted = [module for module in modules if not module.is_built]
        if not wanted:
            return
        go = golang.provide(max(module.go_version for module in wanted), say)
        for module in wanted:
            say(f"Building {module.name} {module.version}, once ...")
            started = time.monotonic()
            _build(module, go)
            say(f"  {time.monotonic() - started:.0f} s")


def _build(module: ToolModule, go: Path) -> None:
    target = module.directory
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a build that was killed
    partial.mkdir()
    packages = "." if module.requirement is None else "tool"
    flags = ["-trimpath", "-buildvcs=false", "-ldflags", module.linker_flags()]
    try:
        _go(go, module, "build", *flags, "-o", f"{partial}/", packages)
        for built, name in module.renamed:
            (partial / built).rename(partial / name)
        absent = [name for name in module.programs if not (partial / name).is_file()]
        if absent:
            raise BuildFailed(f"{module.name} built without {', '.join(absent)}: its go.mod and tools.py disagree")
        for dependency, folder in module.folders:
            source = Path(_go(go, module, "list", "-m", "-f", "{{.Dir}}", dependency).strip()) / folder
            shutil.copytree(source, partial / source.name, copy_function=shutil.copyfile)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _go(go: Path, module: ToolModule, command: str, *arguments: str) -> str:
    # -mod=readonly: what go.mod and go.sum do not pin is refused.
    line = [str(go), command, "-mod=readonly", *arguments]
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    environment.pop("GOROOT", None)  # of another Go
    done = subprocess.run(line, cwd=module.source, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"go {command} of {module.name} failed:\n{done.stderr[-3000:]}")
    return done.stdout
