"""Stand-ins for upstream images where no registry is reached: the same real programs, names, users and paths."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flowagg_stack.provision import KAFKA_VERSION, kafka_jars, provision

from flowagg_cluster.images import BOOKWORM, TRIXIE, debian_base, digest, hand_over, make, names
from flowagg_cluster.layout import Layout

SOURCES: Final = Path(__file__).parents[2] / "standins"


@dataclass(frozen=True, slots=True)
class Standin:
    """A folder of dev/cluster/standins with a Dockerfile, the image that it stands in for, and what is below it.

    The tag is the version that the Debian release (suite) has, so that the name tells the truth.
    """

    name: str
    image: str
    suite: str
    packages: tuple[str, ...]


KAFKA: Final = Standin("kafka", f"docker.io/apache/kafka:{KAFKA_VERSION}", BOOKWORM, ("openjdk-17-jre-headless",))
REDIS: Final = Standin("redis", "docker.io/library/redis:7.0.15", BOOKWORM, ("redis-server", "redis-sentinel"))
NGINX: Final = Standin("nginx", "docker.io/nginxinc/nginx-unprivileged:1.26.3", TRIXIE, ("nginx",))
PROMETHEUS: Final = Standin("prometheus", "docker.io/prom/prometheus:v2.53.3", TRIXIE, ("prometheus",))
STANDINS: Final = (KAFKA, REDIS, NGINX, PROMETHEUS)


def provide(layout: Layout, say: Callable[[str], None]) -> None:
    """Make all of them and hand them to the node. Raises Missing, ImageFailed or ClusterFailed."""
    names(layout)  # refuses at once where no cluster is up
    provision(say)
    for standin in STANDINS:
        base = debian_base(standin.name, standin.suite, standin.packages, say)
        source = SOURCES / standin.name
        inputs = digest([base, standin.image], source.iterdir(), source)
        context = kafka_jars() if standin is KAFKA else source
        make(source / "Dockerfile", context, standin.image, {"BASE": base}, inputs, say)
        hand_over(layout, standin.image)
