"""The peers and the load generator: Go, built from go/ into the cache of the user, under a digest of the sources."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flowagg.errors import FlowaggError
from flowagg_cluster import golang
from flowagg_cluster.locks import alone
from flowagg_stack.provision import cache_directory

SOURCES: Final = Path(__file__).with_name("go")
_BUILD_SECONDS: Final = 600
_VERSIONS_SECONDS: Final = 10


class BuildFailed(FlowaggError):
    """The peers did not build."""


@dataclass(frozen=True, slots=True)
class Programs:
    """flows: the service. load: the open-loop generator. versions: of Go and of the modules in the service."""

    flows: Path
    load: Path
    versions: Mapping[str, str]


def digest(sources: Path) -> str:
    """Of the names and contents of all files."""
    total = hashlib.sha256()
    for file in sorted(path for path in sources.rglob("*") if path.is_file()):
        content = file.read_bytes()
        total.update(f"{file.relative_to(sources).as_posix()}\n{len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def go_version(go_mod: str) -> golang.Version:
    """The oldest Go that a go.mod asks for."""
    found = re.search(r"^go (\S+)$", go_mod, re.M)
    return golang.version(f"go{found[1]}") if found else ()


def build(say: Callable[[str], None]) -> Programs:
    """Build what is not in the cache. Raises Missing where there is no Go and none can be fetched, BuildFailed."""
    directory = cache_directory() / f"peers-http-{digest(SOURCES)[:16]}"
    if not directory.is_dir():
        with alone(cache_directory() / "cluster-build.lock"):  # the toolchain may have to be fetched: one at a time
            if not directory.is_dir():
                say("Building the Go peers, once ...")
                go = golang.provide(go_version((SOURCES / "go.mod").read_text(encoding="utf-8")), say)
                _build(go, directory)
    flows = directory / "flows"
    done = subprocess.run([flows, "-versions"], capture_output=True, check=True, timeout=_VERSIONS_SECONDS)
    return Programs(flows, directory / "load", json.loads(done.stdout))


def _build(go: Path, target: Path) -> None:
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a build that was killed
    partial.mkdir(parents=True)
    # -mod=readonly: what go.mod and go.sum do not pin is refused.
    command = [str(go), "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", f"{partial}/", "./cmd/..."]
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    environment.pop("GOROOT", None)  # of another Go
    try:
        done = subprocess.run(
            command, cwd=SOURCES, env=environment, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
        )
        if done.returncode != 0:
            raise BuildFailed(
                f"the Go peers did not build:\n{done.stderr[-3000:]}\nModules come from GOPROXY: can it be reached?"
            )
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
