"""What the tests need beside Python: Java, Maven (once, to fetch Apache Kafka) and redis-server.

What is missing is installed by apt where that is allowed (Debian or Ubuntu, as root); elsewhere the
error says exactly what to install.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from flowagg.errors import FlowaggError

KAFKA_VERSION: Final = "4.1.2"
_POM: Final = Path(__file__).parent / "pom.xml"
_COPY: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_MIN_JAVA: Final = 17
_PACKAGES: Final = {
    "java": ("openjdk-17-jre-headless", "openjdk@17"),
    "mvn": ("maven", "maven"),
    "redis-server": ("redis-server", "redis"),
    "curl": ("curl", "curl"),
    "wrk": ("wrk", "wrk"),
    "promtool": ("prometheus", "prometheus"),
    "nginx": ("nginx-light", "nginx"),
    "faketime": ("faketime", "libfaketime"),
    "chromium": ("chromium", "--cask chromium"),
}
"""program -> its package for apt and for brew"""


class Missing(FlowaggError):
    """A program that the tests need is not there and could not be installed."""


def cache_directory() -> Path:
    """Where downloads and build outputs are kept, outside the checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "flow-aggregator"


def provision(say: Callable[[str], None]) -> None:
    """Bring everything that the tests need. Raises Missing."""
    needed = ["java", "redis-server", "curl", "promtool", "nginx"]
    if not _jars_there():
        needed.append("mvn")
    missing = [program for program in needed if _find(program) is None]
    if missing:
        _install(missing, say)
    if not _jars_there():
        _fetch_kafka(say)


def provision_wrk(say: Callable[[str], None]) -> None:
    """Bring wrk, which the benchmarks over HTTP need and nothing else. Raises Missing."""
    if _find("wrk") is None:
        _install(["wrk"], say)


def provision_chromium(say: Callable[[str], None]) -> str:
    """Bring Chromium, with which the page is tried; its path. Raises Missing."""
    if _find("chromium") is None:
        _install(["chromium"], say)
    return _found("chromium")


def provision_faketime(say: Callable[[str], None]) -> None:
    """Bring libfaketime, with which clocks are set wrong. Raises Missing."""
    if _find("faketime") is None:
        _install(["faketime"], say)


def java() -> str:
    """Path of a Java 17 or newer. Raises Missing."""
    return _found("java")


def redis_server() -> str:
    """Path of redis-server. Raises Missing."""
    return _found("redis-server")


def kafka_jars() -> Path:
    """Folder of Apache Kafka's jars. Raises Missing."""
    if not _jars_there():
        raise Missing(f"Apache Kafka {KAFKA_VERSION} is not fetched yet: make test does it")
    return _jars()


def _jars() -> Path:
    return cache_directory() / f"kafka-{KAFKA_VERSION}"


def _jars_there() -> bool:
    return _jars().is_dir()


def _found(program: str) -> str:
    path = _find(program)
    if path is None:
        raise Missing(_what_to_install([program]))
    return path


@cache
def _find(program: str) -> str | None:
    if program == "java" and (home := os.environ.get("JAVA_HOME")):
        candidates = [f"{home}/bin/java", shutil.which("java")]
    else:
        candidates = [shutil.which(program)]
    for candidate in candidates:
        if candidate is not None and Path(candidate).is_file() and (program != "java" or _java_is_new(candidate)):
            return candidate
    return None


def _java_is_new(java_path: str) -> bool:
    try:
        text = subprocess.run([java_path, "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    except OSError:
        return False
    match = re.search(r'version "(\d+)', text)
    return match is not None and int(match[1]) >= _MIN_JAVA


def _install(programs: list[str], say: Callable[[str], None]) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(_what_to_install(programs))
    packages = [_PACKAGES[program][0] for program in programs]
    say(f"Installing {', '.join(packages)} by apt ...")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0:
            raise Missing(f"{' '.join(command)} failed:\n{done.stderr.strip()}\n{_what_to_install(programs)}")
    _find.cache_clear()
    still = [program for program in programs if _find(program) is None]
    if still:
        raise Missing(_what_to_install(still))


def _what_to_install(programs: list[str]) -> str:
    apt = " ".join(_PACKAGES[program][0] for program in programs)
    brew = " ".join(_PACKAGES[program][1] for program in programs)
    return (
        f"The tests need {', '.join(programs)} (Java {_MIN_JAVA} or newer). Install:\n"
        f"  sudo apt-get install {apt}      (Debian, Ubuntu)\n"
        f"  brew install {brew}      (macOS)\n"
        "then the same make again; make test-unit needs none of them."
    )


def _fetch_kafka(say: Callable[[str], None]) -> None:
    say(f"Fetching Apache Kafka {KAFKA_VERSION} from Maven Central ...")
    target = _jars()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    command = ["mvn", "-q", "-B", "-f", str(_POM), _COPY, f"-DoutputDirectory={partial}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        raise Missing(f"Maven could not fetch Apache Kafka {KAFKA_VERSION}:\n{(done.stdout + done.stderr)[-2000:]}")
    try:
        partial.rename(target)
    except OSError:  # another run was first
        shutil.rmtree(partial, ignore_errors=True)
