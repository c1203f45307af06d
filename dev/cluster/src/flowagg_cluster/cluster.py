"""The cluster as a whole: up, down, status."""

import json
import os
import shutil
import string
import subprocess
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from flowagg_stack.processes import wait_until

from flowagg_cluster import configuration, credentials, images, packages, tools
from flowagg_cluster.layout import HOST_LINK, NODE_IP, NODE_NAME, Layout, direct
from flowagg_cluster.locks import alone
from flowagg_cluster.namespaces import ClusterFailed, end_node, node_process, start_node

_MANIFESTS: Final = Path(__file__).parent / "manifests"
_API_SECONDS: Final = 60.0
_PODS_SECONDS: Final = 120.0
_HTTP_SECONDS: Final = 2.0
_DEPLOYMENTS: Final = (("kube-system", "coredns"), ("traefik", "traefik"))


def up(layout: Layout, say: Callable[[str], None]) -> None:
    """Bring the cluster up, from any state. Raises a FlowaggError that says what to do."""
    prepare(layout, say)
    started = time.monotonic()
    with alone(layout.lock):
        if is_up(layout):
            say("The cluster is up already.")
        else:
            _tear_down(layout)
            _start(layout, say)
            say(f"Up in {time.monotonic() - started:.0f} s.")
    say(f"Ingress: http://{NODE_IP}   kubectl: export KUBECONFIG={layout.kubeconfig}")


def prepare(layout: Layout, say: Callable[[str], None]) -> None:
    """Install and build what is missing; the first time takes a while. Raises Missing or BuildFailed."""
    packages.require_linux_root()
    with alone(layout.lock):
        packages.provision(say)
        tools.build(tools.MODULES, say)


def down(layout: Layout, *, with_images: bool = False) -> None:
    """Take everything away but what is cached; with_images: the node's images, too."""
    packages.require_linux_root()
    with alone(layout.lock):
        _tear_down(layout)
        if with_images:
            shutil.rmtree(layout.images, ignore_errors=True)


def is_up(layout: Layout) -> bool:
    """Whether the node runs, is Ready, and the cluster's own pods are available."""
    return (
        node_process(layout) is not None and _node_is_ready(layout) and _pods_are_ready(layout) and _ingress_answers()
    )


def status(layout: Layout, say: Callable[[str], None]) -> bool:
    """Say how the cluster is; whether it is up."""
    if node_process(layout) is None:
        left = [str(path) for path in (layout.state, Path("/sys/class/net") / HOST_LINK) if path.exists()]
        say("The cluster is down." + (f" Left over: {', '.join(left)}; make e2e-down removes it." if left else ""))
        return False
    say(kubectl(layout, "get", "nodes,pods", "--all-namespaces", "--output=wide", check=False).stdout.rstrip())
    return is_up(layout)


def kubectl(
    layout: Layout, *arguments: str, check: bool = True, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run kubectl as the administrator. Raises ClusterFailed when check is true and it fails."""
    command = [str(tools.program("kubectl")), f"--kubeconfig={layout.kubeconfig}", "--request-timeout=10s", *arguments]
    environment = direct(os.environ)
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, check=False)
    if check and done.returncode != 0:
        raise ClusterFailed(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done


def _start(layout: Layout, say: Callable[[str], None]) -> None:
    for directory in (layout.pki, layout.configuration, layout.logs, layout.images):
        directory.mkdir(parents=True, exist_ok=True)
    layout.state.chmod(0o700)
    credentials.issue(layout)
    configuration.write(layout)
    try:
        start_node(layout)
        _wait(lambda: _api_answers(layout), "the API server", _API_SECONDS)
        images.provide_platform(layout, say)
        _wait(lambda: _succeeds(layout, "get", "namespace", "kube-system"), "namespace kube-system", _API_SECONDS)
        kubectl(layout, "apply", "--server-side", f"--filename={tools.TRAEFIK.directory / tools.GATEWAY_CRDS}")
        for manifest in sorted(_MANIFESTS.glob("*.yaml")):
            text = string.Template(manifest.read_text(encoding="utf-8")).substitute(configuration.values())
            # Again and again, since a kind is known a moment after its definition.
            _wait(partial(_applies, layout, text), f"applying {manifest.name}", _API_SECONDS)
        _wait(lambda: _node_is_ready(layout), "the node to be Ready", _PODS_SECONDS)
        _wait(lambda: _pods_are_ready(layout), "CoreDNS and Traefik", _PODS_SECONDS)
        _wait(_ingress_answers, f"http://{NODE_IP}", _PODS_SECONDS)
    except Exception as error:
        error.add_note(kubectl(layout, "get", "nodes,pods,events", "--all-namespaces", check=False).stdout)
        error.add_note(f"Logs: {layout.logs}. The next make e2e-up starts anew.")
        raise


def _tear_down(layout: Layout) -> None:
    end_node(layout)
    if layout.state.exists():
        shutil.rmtree(layout.state)


def _wait(condition: Callable[[], bool], what: str, seconds: float) -> None:
    wait_until(condition, what, seconds, pause=0.2)


def _api_answers(layout: Layout) -> bool:
    if node_process(layout) is None:
        log = (layout.logs / "node.log").read_text(encoding="utf-8", errors="replace")
        raise ClusterFailed(f"the node ended while it started:\n{log[-2000:]}")
    return _succeeds(layout, "get", "--raw=/readyz")


def _succeeds(layout: Layout, *arguments: str) -> bool:
    return kubectl(layout, *arguments, check=False).returncode == 0


def _applies(layout: Layout, text: str) -> bool:
    return kubectl(layout, "apply", "--server-side", "--filename=-", check=False, text=text).returncode == 0


def _node_is_ready(layout: Layout) -> bool:
    done = kubectl(layout, "get", "node", NODE_NAME, "--output=json", check=False)
    conditions = json.loads(done.stdout)["status"].get("conditions", []) if done.returncode == 0 else []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _pods_are_ready(layout: Layout) -> bool:
    for namespace, name in _DEPLOYMENTS:
        done = kubectl(layout, "get", "deployment", name, f"--namespace={namespace}", "--output=json", check=False)
        if done.returncode != 0 or not json.loads(done.stdout)["status"].get("availableReplicas"):
            return False
    return True


def _ingress_answers() -> bool:
    """Whether Traefik's Service is there in the node's rules, too: they follow a moment after the pod."""
    connection = HTTPConnection(NODE_IP, timeout=_HTTP_SECONDS)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status > 0
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
