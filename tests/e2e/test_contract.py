"""The contract suite, as it is, against the release behind the ingress and the gateway."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kube import Object
from tests.e2e.release import Release

CHECKOUT = Path(__file__).parents[2]
SECONDS = 480
NAME = "contract"
CLEANED = [
    f"tests/contract/test_routes.py::test_another_path[//flows-{method}]" for method in ("GET", "POST", "DELETE")
]
"""Ingress controllers turn // into / before they pass a request on; the gateway itself answers 404."""


@pytest.fixture
def base_url(release: Release) -> Iterator[str]:
    """An address that needs no Host header: raw clients and curl send the one of the URL."""
    if release.target.names_host:
        yield release.target.url
        return
    others = [one for one in _ingresses(release) if any("host" not in rule for rule in one["spec"].get("rules", []))]
    names = [f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in others]
    assert names == [], f"these answer to every name, as the contract suite's own Ingress would: {names}"
    backend = {"service": {"name": f"{release.fullname}-gateway", "port": {"name": "http"}}}
    spec: Object = {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}
    if release.target.ingress_class:
        spec["ingressClassName"] = release.target.ingress_class
    ingress = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": NAME}, "spec": spec}
    release.kube.apply(ingress)
    try:
        yield release.target.url
    finally:
        release.kube.delete("ingress", NAME)


def test_the_contract_holds_behind_the_ingress(base_url: str) -> None:
    command = [sys.executable, "-m", "pytest", "tests/contract", f"--base-url={base_url}", "--quiet", "-rfE"]
    command += [f"--deselect={case}" for case in CLEANED]
    done = subprocess.run(
        [*command, "--timeout=120"], cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    print(done.stdout[-4000:])
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def _ingresses(release: Release) -> list[Object]:
    text = release.kube.run("get", "ingresses", "--all-namespaces", "--output=json")
    found: list[Object] = json.loads(text)["items"]
    return found
