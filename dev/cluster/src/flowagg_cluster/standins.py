"""Stand-ins for upstream images where no registry is reached: the same real programs, names and paths.

apache/kafka: Apache Kafka's own jars, on Debian's Java. redis: Debian's Redis and Sentinel.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flowagg_stack.provision import KAFKA_VERSION, kafka_jars, provision

from flowagg_cluster.images import build, debian_base, load, names
from flowagg_cluster.layout import Layout


@dataclass(frozen=True, slots=True)
class Standin:
    """An image's name, the Debian packages below it and its Dockerfile's lines after FROM."""

    image: str
    packages: tuple[str, ...]
    lines: tuple[str, ...]


KAFKA: Final = Standin(
    f"docker.io/apache/kafka:{KAFKA_VERSION}",
    ("openjdk-17-jre-headless",),
    ("COPY *.jar /opt/kafka/libs/", "WORKDIR /", "USER 1000:1000"),
)
REDIS: Final = Standin(
    "docker.io/library/redis:7.0.15",
    ("redis-server", "redis-sentinel"),
    (
        "RUN ln -s /usr/bin/redis-server /usr/bin/redis-cli /usr/bin/redis-sentinel /usr/local/bin/",
        "RUN mkdir -p /data && chown 999:999 /data",
        "WORKDIR /data",
        "USER 999:999",
        'CMD ["redis-server"]',
    ),
)


def provide(layout: Layout, say: Callable[[str], None]) -> None:
    """Make both and hand them to the node."""
    names(layout)  # refuses at once where no cluster is up
    provision(say)
    for standin, context in ((KAFKA, kafka_jars()), (REDIS, None)):
        base = debian_base(standin.image.rpartition("/")[2].partition(":")[0], standin.packages, say)
        say(f"Making {standin.image} ...")
        with tempfile.TemporaryDirectory() as directory:
            dockerfile = Path(directory) / "Dockerfile"
            dockerfile.write_text("\n".join([f"FROM {base}", *standin.lines, ""]), encoding="utf-8")
            build(dockerfile, context or Path(directory), standin.image)
        load(layout, standin.image)
