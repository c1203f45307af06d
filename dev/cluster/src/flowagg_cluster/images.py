"""Images without a registry: built by buildah from Dockerfiles, handed to the node's containerd as an archive.

An image that is made here carries a digest of what it was made of as a label, so that nothing is made or handed over
twice.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from flowagg.errors import FlowaggError
from flowagg_stack.provision import cache_directory

from flowagg_cluster.configuration import CONTAINERD_SOCKET
from flowagg_cluster.layout import Layout
from flowagg_cluster.locks import alone
from flowagg_cluster.namespaces import enter_command
from flowagg_cluster.tools import COREDNS, PAUSE, TRAEFIK, ToolModule

BOOKWORM: Final = "bookworm"
TRIXIE: Final = "trixie"
"""Debian releases of base images that are made here."""
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_INPUTS: Final = "flow-aggregator.inputs"


class ImageFailed(FlowaggError):
    """An image could not be built or handed to the node."""


def provide_platform(layout: Layout, say: Callable[[str], None]) -> None:
    """Hand the images of the cluster's own pods to the node, those that it does not have."""
    present = names(layout)
    for module in (PAUSE, COREDNS, TRAEFIK):
        if module.image not in present:
            say(f"Making the image of {module.name} ...")
            _provide_program(layout, module)


def make(
    dockerfile: Path, context: Path, name: str, arguments: Mapping[str, str], inputs: str, say: Callable[[str], None]
) -> None:
    """Build an image, or name one of the same inputs (a digest: see digest) so. Raises ImageFailed."""
    with alone(_store().with_suffix(".lock")):
        replaced = _id(name) if _exists(name) else None
        same = _buildah("images", "--no-trunc", "--quiet", "--filter", f"label={_INPUTS}={inputs}").split()
        if same and replaced not in same:
            _buildah("tag", same[0], name)
        if same:
            return
        say(f"Building {name} ...")
        given = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        _buildah("rm", "--all")  # what a build that was killed has left
        _buildah(
            "build", "--isolation", "chroot", "--network", "host", "--format", "docker",
            *given, "--label", f"{_INPUTS}={inputs}", "--file", str(dockerfile), "--tag", name, str(context),
        )  # fmt: skip
        if replaced in _buildah("images", "--no-trunc", "--quiet", "--filter", "dangling=true").split():
            _buildah("rmi", replaced)


def hand_over(layout: Layout, name: str) -> None:
    """Give a built image to the node's containerd, under the same name, unless it has it. Raises ImageFailed."""
    with alone(_store().with_suffix(".lock")):
        replaced = _targets(layout).get(name)
        if replaced is not None and _id_on_node(layout, replaced) == _id(name):
            return
        with tempfile.TemporaryDirectory(dir=layout.state) as directory:
            archive = f"{directory}/image.tar"
            _buildah("push", name, f"docker-archive:{archive}:{name}")
            load_archive(layout, archive)
        # Kubernetes' side of containerd has named the old one by its digest, too, and would keep it for ever.
        for reference, target in _targets(layout).items():
            if target == replaced and reference.startswith("sha256:"):
                _ctr(layout, "images", "remove", reference)


def load_archive(layout: Layout, archive: str) -> None:
    """Hand an archive, as docker save writes it, to the node's containerd. Raises ImageFailed."""
    _ctr(layout, "images", "import", archive)


def names(layout: Layout) -> set[str]:
    """Names of the images that the node has. Raises ClusterFailed where no cluster is up."""
    return set(_targets(layout))


def debian_base(name: str, suite: str, packages: Sequence[str], say: Callable[[str], None]) -> str:
    """Name of a local base image of Debian packages, made when it is not there. DEBIAN_MIRROR names another mirror."""
    image = f"localhost/flow-aggregator/base-{name}:{suite}-{digest([suite, *packages])[:8]}"
    if _exists(image):
        return image
    say(f"Making a base image of {', '.join(packages)} ({suite}) ...")
    with tempfile.TemporaryDirectory(dir=cache_directory()) as directory:
        mirror = [os.environ["DEBIAN_MIRROR"]] if "DEBIAN_MIRROR" in os.environ else []
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", suite]
        _run([*command, f"{directory}/base.tar", *mirror])
        lines = ["FROM scratch", "ADD base.tar /"]
        if _CERTIFICATES.is_file():
            # A build trusts whom this machine trusts: a company's proxy may speak for the registries.
            shutil.copyfile(_CERTIFICATES, f"{directory}/certificates.crt")
            lines.append(f"COPY certificates.crt {_CERTIFICATES}")
        dockerfile = Path(f"{directory}/Dockerfile")
        dockerfile.write_text("\n".join([*lines, ""]), encoding="utf-8")
        make(dockerfile, Path(directory), image, {}, image, lambda _: None)
    return image


def digest(words: Iterable[str], files: Iterable[Path] = (), root: Path = Path("/")) -> str:
    """A digest of words and of files: their names below root, whether they can be run, what is in them."""
    found = hashlib.sha256(json.dumps(list(words)).encode())
    for file in sorted(files):
        head = [str(file.relative_to(root)), os.access(file, os.X_OK), hashlib.sha256(file.read_bytes()).hexdigest()]
        found.update(json.dumps(head).encode())
    return found.hexdigest()


def _provide_program(layout: Layout, module: ToolModule) -> None:
    program = module.programs[0]
    with tempfile.TemporaryDirectory() as directory:
        dockerfile = Path(directory) / "Dockerfile"
        dockerfile.write_text(f'FROM scratch\nCOPY {program} /{program}\nENTRYPOINT ["/{program}"]\n', encoding="utf-8")
        make(dockerfile, module.directory, module.image, {}, module.tag, lambda _: None)
    hand_over(layout, module.image)


def _exists(name: str) -> bool:
    return bool(_buildah("images", "--quiet", "--filter", f"reference={name}").strip())


def _id(name: str) -> str:
    """The digest of a local image's configuration: it names the content, whatever archive carries it."""
    return "sha256:" + _buildah("inspect", "--type", "image", "--format", "{{.FromImageID}}", name).strip()


def _targets(layout: Layout) -> dict[str, str]:
    """The node's images: name -> digest of what it names."""
    lines = _ctr(layout, "images", "list").splitlines()[1:]
    return {words[0]: words[2] for words in map(str.split, lines)}


def _id_on_node(layout: Layout, target: str) -> str | None:
    """What _id says, of the node's image; None for one of several platforms."""
    found: str | None = json.loads(_ctr(layout, "content", "get", target)).get("config", {}).get("digest")
    return found


def _ctr(layout: Layout, *arguments: str) -> str:
    command = ["ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", *arguments]
    return _run(enter_command(layout, command))


def _buildah(*arguments: str) -> str:
    return _run(["buildah", "--root", str(_store() / "root"), "--runroot", str(_store() / "run"), *arguments])


def _store() -> Path:
    return cache_directory() / "cluster-buildah"


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImageFailed(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout
