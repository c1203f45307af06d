"""Images without a registry: built by buildah from Dockerfiles, handed to the node's containerd as an archive."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from flowagg.errors import FlowaggError
from flowagg_stack.provision import cache_directory

from flowagg_cluster.configuration import CONTAINERD_SOCKET
from flowagg_cluster.layout import Layout
from flowagg_cluster.namespaces import enter_command
from flowagg_cluster.tools import COREDNS, PAUSE, TRAEFIK, ToolModule

CHECKOUT: Final = Path(__file__).parents[4]
SUITE: Final = "bookworm"
"""The Debian release of base images that are made here: its Python is 3.11."""
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_PYTHON_PACKAGES: Final = ("python3", "python3-venv", "ca-certificates")


class ImageFailed(FlowaggError):
    """An image could not be built or handed to the node."""


def service_image(service: str) -> str:
    """Name of a service's image, as the chart has it by default for a checkout."""
    return f"docker.io/flow-aggregator/{service}:dev"


def services() -> list[str]:
    """The services of this checkout."""
    return sorted(path.parent.name for path in (CHECKOUT / "services").glob("*/pyproject.toml"))


def provide_platform(layout: Layout, say: Callable[[str], None]) -> None:
    """Hand the images of the cluster's own pods to the node, those that it does not have."""
    present = names(layout)
    for module in (PAUSE, COREDNS, TRAEFIK):
        if module.image not in present:
            say(f"Making the image of {module.name} ...")
            _provide_program(layout, module)


def provide_services(layout: Layout, names_wanted: Sequence[str], base: str | None, say: Callable[[str], None]) -> None:
    """Build services' images from the project's Dockerfile and hand them to the node.

    base: an image with Python; None: one of Debian packages is made here, once.
    """
    names(layout)  # refuses at once where no cluster is up
    if base is None:
        base = debian_base("python", _PYTHON_PACKAGES, say)
    for service in names_wanted:
        say(f"Building {service_image(service)} ...")
        build(CHECKOUT / "Dockerfile", CHECKOUT, service_image(service), {"SERVICE": service, "BASE": base})
        load(layout, service_image(service))


def build(dockerfile: Path, context: Path, name: str, arguments: Mapping[str, str] | None = None) -> None:
    """Build an image. Raises ImageFailed."""
    given = [word for key, value in (arguments or {}).items() for word in ("--build-arg", f"{key}={value}")]
    _buildah(
        "build", "--isolation", "chroot", "--network", "host", "--layers", "--format", "docker",
        *given, "--file", str(dockerfile), "--tag", name, str(context),
    )  # fmt: skip


def load(layout: Layout, name: str) -> None:
    """Hand a built image to the node's containerd, under the same name. Raises ImageFailed."""
    with tempfile.TemporaryDirectory(dir=layout.state) as directory:
        archive = f"{directory}/image.tar"
        _buildah("push", name, f"docker-archive:{archive}:{name}")
        load_archive(layout, archive)


def load_archive(layout: Layout, archive: str) -> None:
    """Hand an archive, as docker save writes it, to the node's containerd. Raises ImageFailed."""
    _ctr(layout, "images", "import", archive)


def names(layout: Layout) -> set[str]:
    """Names of the images that the node has."""
    return set(_ctr(layout, "images", "list", "--quiet").split())


def _provide_program(layout: Layout, module: ToolModule) -> None:
    program = module.programs[0]
    with tempfile.TemporaryDirectory() as directory:
        dockerfile = Path(directory) / "Dockerfile"
        dockerfile.write_text(f'FROM scratch\nCOPY {program} /{program}\nENTRYPOINT ["/{program}"]\n', encoding="utf-8")
        build(dockerfile, module.directory, module.image)
    load(layout, module.image)


def debian_base(name: str, packages: Sequence[str], say: Callable[[str], None]) -> str:
    """Name of a local base image of Debian packages, made when it is not there. DEBIAN_MIRROR names another mirror."""
    image = f"localhost/flow-aggregator/base-{name}:{SUITE}"
    if _buildah("images", "--quiet", "--filter", f"reference={image}").strip():
        return image
    say(f"Making a base image of {', '.join(packages)} ...")
    with tempfile.TemporaryDirectory(dir=cache_directory()) as directory:
        mirror = [os.environ["DEBIAN_MIRROR"]] if "DEBIAN_MIRROR" in os.environ else []
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", SUITE]
        _run([*command, f"{directory}/base.tar", *mirror])
        lines = ["FROM scratch", "ADD base.tar /"]
        if _CERTIFICATES.is_file():
            # A build trusts whom this machine trusts: a company's proxy may speak for the registries.
            shutil.copyfile(_CERTIFICATES, f"{directory}/certificates.crt")
            lines.append(f"COPY certificates.crt {_CERTIFICATES}")
        Path(f"{directory}/Dockerfile").write_text("\n".join([*lines, ""]), encoding="utf-8")
        build(Path(f"{directory}/Dockerfile"), Path(directory), image)
    return image


def _ctr(layout: Layout, *arguments: str) -> str:
    command = ["ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", *arguments]
    return _run(enter_command(layout, command))


def _buildah(*arguments: str) -> str:
    store = cache_directory() / "cluster-buildah"
    return _run(["buildah", "--root", str(store / "root"), "--runroot", str(store / "run"), *arguments])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImageFailed(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout
