"""The chart rendered by real Helm, and its golden renders: `python -m tests.chart` writes them anew."""

import functools
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from flowagg_cluster.tools import program

CHART: Final = Path(__file__).parents[2] / "charts" / "flow-aggregator"
VALUES: Final = Path(__file__).parent / "values"
GOLDEN: Final = Path(__file__).parent / "golden"
HELMS: Final = (pytest.param("helm3", marks=pytest.mark.cluster), "helm")
"""Helm 3 takes a while to build: its tests are with those of whole clusters."""
RELEASE: Final = "flow-aggregator"
NAMESPACE: Final = "flows"
_PASSWORD: Final = re.compile(r"(?<=^  password: )[A-Za-z0-9+/=]+$", re.MULTILINE)
_DASHBOARD: Final = re.compile(r"(^  [a-z]+\.json: \|-)\n(?:    .*\n)+", re.MULTILINE)
_WORKLOADS: Final = frozenset({"Deployment", "StatefulSet", "Job"})


class HelmRefused(Exception):
    """Helm ended with an error: its words."""


def value_files() -> list[str]:
    """Names of the value files that have a golden render."""
    return sorted(path.stem for path in VALUES.glob("*.yaml"))


@functools.cache
def render(name: str, helm: str = "helm", *arguments: str) -> str:
    """What the chart is with a value file. Raises HelmRefused."""
    return template(helm, "--values", str(VALUES / f"{name}.yaml"), *arguments)


def template(helm: str, *arguments: str) -> str:
    """What helm template prints; passwords that the chart makes up are written alike. Raises HelmRefused."""
    text = run(helm, "template", RELEASE, str(CHART), "--namespace", NAMESPACE, *arguments)
    return _PASSWORD.sub("MADE-UP", text)


def run(helm: str, *arguments: str) -> str:
    """What a helm prints. Raises HelmRefused."""
    done = subprocess.run(
        [program(helm), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"HOME": "/nonexistent"},
    )
    if done.returncode != 0:
        raise HelmRefused(done.stderr)
    return done.stdout


def golden(text: str) -> str:
    """A render as it is kept: Helm's versions order and space documents each in their own way.

    Without the text of the dashboards: tests/chart/monitoring holds that to the chart's files.
    """
    text = _DASHBOARD.sub(r"\1\n", text)
    documents = [f"---\n{part.strip()}\n" for part in re.split(r"^---$", text, flags=re.MULTILINE) if part.strip()]
    return "".join(sorted(documents))


def objects(text: str) -> list[dict[str, Any]]:
    """The objects of a render."""
    return [found for found in yaml.safe_load_all(text) if found is not None]


def one(text: str, kind: str, name: str) -> dict[str, Any]:
    """The object of that kind and name."""
    (found,) = (o for o in objects(text) if (o["kind"], o["metadata"]["name"]) == (kind, name))
    return found


@dataclass(frozen=True)
class Pod:
    """A pod of the chart: the object that it is of, its labels and its spec."""

    owner: str
    labels: Mapping[str, str]
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All of its containers, those that come first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods(text: str) -> Iterator[Pod]:
    """The pods of a render."""
    for found in objects(text):
        owner = f"{found['kind']}/{found['metadata']['name']}"
        if found["kind"] == "Pod":
            yield Pod(owner, found["metadata"]["labels"], found["spec"])
        elif found["kind"] == "CronJob":
            template_ = found["spec"]["jobTemplate"]["spec"]["template"]
            yield Pod(owner, template_["metadata"]["labels"], template_["spec"])
        elif found["kind"] in _WORKLOADS:
            yield Pod(owner, found["spec"]["template"]["metadata"]["labels"], found["spec"]["template"]["spec"])


def write_golden() -> None:
    """Write the golden renders anew."""
    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.glob("*.yaml"):
        old.unlink()
    for name in value_files():
        (GOLDEN / f"{name}.yaml").write_text(golden(render(name)), encoding="utf-8")
