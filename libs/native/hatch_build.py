"""Compiles the C sources into one library beside the Python modules: no header of Python's, so one for all versions."""

import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ["-std=gnu17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-s", "-Wall", "-Wextra", "-Werror"]


class CompiledLibrary(BuildHookInterface):  # type: ignore[misc] # what it is built with is not installed here
    """Run before a wheel is built, an editable one too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Compile, and say that the wheel is of this platform."""
        root = Path(self.root)
        library = root / "src" / "flowagg_native" / "libflowagg.so"
        sources = sorted(map(str, (root / "c").glob("*.c")))
        with tempfile.TemporaryDirectory() as cache:
            # The compiler keeps what it has built of the C library's parts; where there is no home, for this once.
            environment = {"ZIG_LOCAL_CACHE_DIR": cache} | (
                {} if "HOME" in os.environ else {"ZIG_GLOBAL_CACHE_DIR": cache}
            )
            compiled = Path(cache) / library.name
            subprocess.run(  # noqa: S603 - the compiler that the build requires
                [sys.executable, "-m", "ziglang", "cc", "-target", target(), *FLAGS, "-o", str(compiled), *sources],
                check=True,
                env=os.environ | environment,
            )
            # In one step: a process may have the old one open.
            beside = library.with_suffix(".new")
            beside.write_bytes(compiled.read_bytes())
            beside.replace(library)
        build_data["artifacts"] = ["src/flowagg_native/libflowagg.so"]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def target() -> str:
    """This machine as the compiler names it, with a C library that is old enough for any that it may run with."""
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    if sys.platform == "darwin":
        return f"{machine}-macos"
    return f"{machine}-linux-gnu.2.17" if platform.libc_ver()[0] == "glibc" else f"{machine}-linux-musl"
