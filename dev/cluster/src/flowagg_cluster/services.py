"""The images of this checkout's services, built from its Dockerfile."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from flowagg_cluster.images import BOOKWORM, debian_base, digest, hand_over, make, names
from flowagg_cluster.layout import Layout

CHECKOUT: Final = Path(__file__).parents[4]
_PYTHON_PACKAGES: Final = ("python3", "python3-venv", "ca-certificates")
_FOLDERS: Final = ("services", "operator", "cli")
"""Where the services are; libraries that they share are elsewhere."""


def service_image(service: str, tag: str = "dev") -> str:
    """Name of a service's image, as Kubernetes completes the name that the chart has for a checkout."""
    return f"docker.io/flow-aggregator/{service}:{tag}"


def services(checkout: Path = CHECKOUT) -> list[str]:
    """The names of this checkout's services."""
    found = [path.parent.name for path in (checkout / "services").glob("*/pyproject.toml")]
    found += [name for name in ("operator", "cli") if (checkout / name / "pyproject.toml").is_file()]
    return sorted(found)


def provide(
    layout: Layout, wanted: Sequence[str], say: Callable[[str], None], *, base: str | None = None, tag: str = "dev"
) -> None:
    """Build services' images from the project's Dockerfile and hand them to the node.

    base: an image with Python; None: one of Debian packages is made here, once. Raises ImageFailed or ClusterFailed.
    """
    names(layout)  # refuses at once where no cluster is up
    if base is None:
        base = debian_base("python", BOOKWORM, _PYTHON_PACKAGES, say)
    for service in wanted:
        image = service_image(service, tag)
        inputs = digest([service, base], files_of(service, CHECKOUT), CHECKOUT)
        make(CHECKOUT / "Dockerfile", CHECKOUT, image, {"SERVICE": service, "BASE": base}, inputs, say)
        hand_over(layout, image)


def files_of(service: str, checkout: Path) -> Iterator[Path]:
    """The files that a service's image depends on: the build's context without the code of other services.

    The context is what .dockerignore lets through: it ignores all, and names what is not ignored.
    """
    yield checkout / "Dockerfile"
    yield checkout / ".dockerignore"
    lines = (checkout / ".dockerignore").read_text(encoding="utf-8").splitlines()
    ignored = {line.removeprefix("**/") for line in lines if line.startswith("**/")}
    for line in lines:
        if line.startswith("!"):
            for file in _files(checkout / line[1:], ignored):
                place = file.relative_to(checkout).parts
                if place[0] not in _FOLDERS or service in place[:2] or file.name == "pyproject.toml":
                    yield file


def _files(path: Path, ignored: set[str]) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if name not in ignored]
        yield from (Path(folder) / name for name in files if name not in ignored)
