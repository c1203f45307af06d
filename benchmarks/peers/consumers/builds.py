"""The peers' programs: fetched from their registries and built once, under the user's cache directory.

Each build is keyed by what it is made of, so that a changed pin or source makes another one. A build is either whole or
not there.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from flowagg_stack import provision

ROOT: Final = Path(__file__).parents[3]
"""Of the checkout."""
_STREAMS: Final = Path(__file__).parent / "kafka_streams"
_REQUIREMENTS: Final = Path(__file__).parent / "requirements"
_COPY: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_BUILD_SECONDS: Final = 600
_DONE: Final = ".complete"


class DoesNotBuild(provision.Missing):
    """A peer could not be fetched or built here."""


def kafka_streams(say: Callable[[str], None]) -> str:
    """The class path of the Kafka Streams harness, built where it is not there yet. Raises DoesNotBuild, Missing."""
    sources = sorted(_STREAMS.rglob("*.java"))
    target = _target("peers-kafka-streams", [_STREAMS / "pom.xml", *sources])
    classes, library = target / "classes", target / "lib"
    if not (target / _DONE).exists():
        if shutil.which("mvn") is None:
            raise DoesNotBuild("Maven is needed to fetch Kafka Streams: apt-get install maven, or brew install maven")
        say("Fetching Kafka Streams from Maven Central, and compiling its harness ...")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        run(["mvn", "-q", "-B", "-f", str(_STREAMS / "pom.xml"), _COPY, f"-DoutputDirectory={library}"])
        [compiler] = library.glob("ecj-*.jar")
        jars = os.pathsep.join(map(str, sorted(library.glob("*.jar"))))
        compile_ = [provision.java(), "-jar", str(compiler), "--release", "17", "-nowarn", "-cp", jars]
        run([*compile_, "-d", str(classes), *map(str, sources)])
        (target / _DONE).touch()
    return os.pathsep.join((str(classes), f"{library}/*"))


def python_peer(name: str, say: Callable[[str], None]) -> str:
    """The Python of a peer's own virtual environment, made where it is not there yet. Raises DoesNotBuild."""
    requirements = _REQUIREMENTS / f"{name}.txt"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    target = _target(f"peers-{name}-python{version}", [requirements])
    python = target / "bin" / "python"
    if not (target / _DONE).exists():
        say(f"Making a virtual environment for {name} ...")
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        uv = run([str(ROOT / "dev" / "find-uv.sh")]).strip()
        run([uv, "venv", "--quiet", "--python", sys.executable, str(target)])
        install = [uv, "pip", "install", "--quiet", "--only-binary", ":all:", "--python", str(python)]
        run([*install, "-r", str(requirements)])
        (target / _DONE).touch()
    return str(python)


def _target(name: str, made_of: Iterable[Path]) -> Path:
    digest = hashlib.sha256()
    for path in made_of:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return provision.cache_directory() / f"{name}-{digest.hexdigest()[:8]}"


def run(command: Sequence[str]) -> str:
    """What it prints. Raises DoesNotBuild."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DoesNotBuild(f"{command[0]} did not run: {error}") from error
    if done.returncode != 0:
        words = (done.stderr + done.stdout).strip()
        raise DoesNotBuild(f"{' '.join(command[:4])} failed: {words[-2000:]}")
    return done.stdout
