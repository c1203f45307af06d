"""A cluster of the user's own, such as kind's, that KUBECONFIG names: asked whether it answers, never changed."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from flowagg.errors import FlowaggError
from flowagg_stack.provision import Missing

from flowagg_cluster import tools
from flowagg_cluster.layout import Layout

_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
_REQUEST_SECONDS: Final = 10


class ForeignCluster(FlowaggError):
    """The cluster that KUBECONFIG names does not answer."""


def named(layout: Layout, environment: Mapping[str, str]) -> str | None:
    """KUBECONFIG, where it names another cluster than our own; None otherwise."""
    given = environment.get("KUBECONFIG")
    return None if not given or Path(given).resolve() == layout.kubeconfig.resolve() else given


def look_at(kubeconfig: str, say: Callable[[str], None]) -> None:
    """Say which cluster it is and what it has. Raises ForeignCluster (it does not answer), or Missing (no kubectl)."""
    view = json.loads(kubectl(kubeconfig, "config", "view", "--minify", "--output=json"))
    version = json.loads(kubectl(kubeconfig, "version", "--output=json"))
    classes = json.loads(kubectl(kubeconfig, "get", "storageclasses,ingressclasses", "--output=json"))
    for line in describe(kubeconfig, view, version, classes["items"]):
        say(line)


def describe(
    kubeconfig: str, view: Mapping[str, Any], version: Mapping[str, Any], classes: list[dict[str, Any]]
) -> list[str]:
    """What look_at says, from what kubectl answered."""
    storage = [one["metadata"] for one in classes if one["kind"] == "StorageClass"]
    default = [one["name"] for one in storage if one.get("annotations", {}).get(_DEFAULT_CLASS) == "true"]
    ingress = [one["metadata"]["name"] for one in classes if one["kind"] == "IngressClass"]
    server = view["clusters"][0]["cluster"]["server"]
    return [
        f"KUBECONFIG names a cluster of yours ({kubeconfig}): using that, starting none.",
        f"Context {view['current-context']}, {server}, Kubernetes {version['serverVersion']['gitVersion']}.",
        f"Default StorageClass: {default[0]}."
        if default
        else "It has no default StorageClass: volumes of the bundled Kafka and Redis would wait for ever.",
        f"Ingress classes: {', '.join(ingress)}."
        if ingress
        else "It has no IngressClass: nobody there would serve an Ingress.",
    ]


def images(kubeconfig: str) -> str:
    """How images get into it: not by this machine's node."""
    return (
        f"KUBECONFIG names a cluster of yours ({kubeconfig}): nothing is done, images get there in its own way.\n"
        "For each of writer, consumer, reader and operator: make image SERVICE=writer, then with\n"
        "  kind:      kind load docker-image flow-aggregator/writer:dev\n"
        "  minikube:  minikube image load flow-aggregator/writer:dev\n"
        "  others:    docker push to a registry that it reaches, and the chart's image.registry\n"
        "Kafka's, Redis' and nginx' images are pulled as usual. For this machine's own cluster: unset KUBECONFIG."
    )


def kubectl(kubeconfig: str, *arguments: str) -> str:
    """What kubectl answers. Raises ForeignCluster or Missing."""
    own = tools.KUBERNETES.directory / "kubectl"
    program = shutil.which("kubectl") or (str(own) if own.is_file() else None)
    if program is None:
        raise Missing(
            "kubectl is needed for the cluster that KUBECONFIG names: https://kubernetes.io/docs/tasks/tools/"
        )
    command = [program, f"--request-timeout={_REQUEST_SECONDS}s", *arguments]
    environment = os.environ | {"KUBECONFIG": kubeconfig}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise ForeignCluster(
            f"KUBECONFIG names a cluster of yours ({kubeconfig}), but kubectl {arguments[0]} failed there:\n"
            f"{done.stderr.strip()}\nMend that, or unset KUBECONFIG to use this machine's own cluster."
        )
    return done.stdout
