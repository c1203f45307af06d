"""Go: the one on the PATH where it is new enough, else a pinned toolchain from the Go module proxy, kept in the cache.

Go publishes its toolchains as versions of the module golang.org/toolchain, so whoever reaches modules reaches them.
https://go.dev/ref/mod#goproxy-protocol, https://go.dev/doc/toolchain
"""

import base64
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.request import urlopen
from zipfile import ZipFile

from flowagg_stack.provision import Missing, cache_directory

PINNED: Final = "1.26.8"
SUMS: Final = {
    "linux-amd64": "h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM=",
    "linux-arm64": "h1:sYL/O6MqS68ML0kjsQ36WoYIpJqkw60TxizWUYUKQMc=",
    "darwin-amd64": "h1:7/9KPPN8PckcA9s91hm2jmQMhzW4KyTJXHIs45L0C9M=",
    "darwin-arm64": "h1:dFjGhY6f8DTsY8/rLchUTDRRfjJP4pCrGCwxvHFT2Fg=",
}
"""Go's own checksums of them, as sum.golang.org has them: of the names and contents of the files in the archive."""
DEFAULT_PROXY: Final = "https://proxy.golang.org"
_MACHINES: Final = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_RUN: Final = re.compile(r"bin/[^/]+|pkg/tool/.+")
_FETCH_SECONDS: Final = 120.0

Version = tuple[int, ...]


def provide(needed: Version, say: Callable[[str], None]) -> Path:
    """Path of a Go of at least the version needed; nobody else may ask at the same time. Raises Missing."""
    found = shutil.which("go")
    if found is not None and version(_says(found)) >= needed:
        return Path(found)
    target = cache_directory() / f"cluster-go-{PINNED}"
    if not target.is_dir():
        _fetch(target, say)
    return target / "bin" / "go"


def version(text: str) -> Version:
    """The version in what `go version` says; () where there is none, as of a development version."""
    found = re.search(r"\bgo(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def proxies(environment: Mapping[str, str]) -> list[str]:
    """The proxies that GOPROXY names, in its order; `direct` and `off` are none."""
    words = re.split("[,|]", environment.get("GOPROXY") or DEFAULT_PROXY)
    return [word.strip().rstrip("/") for word in words if word.strip().startswith(("https://", "http://", "file://"))]


def checksum(archive: ZipFile) -> str:
    """Go's h1 of a module's archive: SHA-256 of the lines `sha256  name`, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(archive.namelist()):
        one = hashlib.sha256()
        with archive.open(name) as file:
            while block := file.read(1 << 20):
                one.update(block)
        total.update(f"{one.hexdigest()}  {name}\n".encode())
    return f"h1:{base64.b64encode(total.digest()).decode()}"


def unpack(archive: ZipFile, target: Path) -> None:
    """Unpack a toolchain's archive; checked before. Archives of modules have no modes, and no go.mod inside."""
    for name in archive.namelist():
        inside = PurePosixPath(*PurePosixPath(name).parts[2:])  # after golang.org/toolchain@VERSION
        if inside.name == "_go.mod":
            inside = inside.with_name("go.mod")
        path = target / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as file, path.open("wb") as copy:
            shutil.copyfileobj(file, copy)
        if _RUN.fullmatch(str(inside)):
            path.chmod(0o755)


def _says(program: str) -> str:
    # "local": an older Go would otherwise fetch the version that it is asked to be.
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    done = subprocess.run([program, "version"], capture_output=True, text=True, env=environment, cwd="/", check=False)
    return done.stdout


def _fetch(target: Path, say: Callable[[str], None]) -> None:
    here = f"{sys.platform}-{_MACHINES.get(platform.machine(), platform.machine())}"
    hint = f"Or put Go {PINNED} or newer on the PATH; then the same make again."
    if here not in SUMS:
        raise Missing(f"No Go toolchain is pinned for {here}. {hint}")
    say(f"Fetching Go {PINNED} ...")
    target.parent.mkdir(parents=True, exist_ok=True)
    tried = []
    for proxy in proxies(os.environ):
        url = f"{proxy}/golang.org/toolchain/@v/v0.0.1-go{PINNED}.{here}.zip"
        with tempfile.TemporaryDirectory(dir=target.parent) as directory:
            file = Path(directory) / "go.zip"
            try:
                with urlopen(url, timeout=_FETCH_SECONDS) as answer, file.open("wb") as copy:  # noqa: S310
                    shutil.copyfileobj(answer, copy)
            except OSError as error:
                tried.append(f"{url}: {error}")
                continue
            with ZipFile(file) as archive:
                if checksum(archive) != SUMS[here]:
                    raise Missing(f"{url} is not what is pinned ({SUMS[here]}): not used. {hint}")
                unpack(archive, Path(directory) / "go")
            (Path(directory) / "go").rename(target)
            return
    raise Missing("\n".join([f"Go {PINNED} could not be fetched from GOPROXY.", *tried, hint]))
