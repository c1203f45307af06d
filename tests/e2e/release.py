"""A release of the chart: installed, upgraded and removed by Helm, as users do it."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tests.e2e.kube import Kube, KubectlFailed, Object
from tests.e2e.pods import ELECTED, SERVICES, Pods, condition, is_ready
from tests.e2e.target import Target

CHART: Final = Path(__file__).parents[2] / "charts" / "flow-aggregator"
HEALTHY_SECONDS: Final = 180.0
_HELM_SECONDS: Final = 300
_PAUSE_SECONDS: Final = 0.5

Values = dict[str, Any]


class HelmFailed(Exception):
    """Helm ended with an error; what it printed."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release in a namespace of its own. name: Helm's; more: values over those for the target."""

    target: Target
    kube: Kube
    name: str
    more: Values = field(default_factory=dict)

    @property
    def fullname(self) -> str:
        """Name of the FlowAggregator and stem of all other names."""
        return self.name if "flow-aggregator" in self.name else f"{self.name}-flow-aggregator"

    @property
    def pods(self) -> Pods:
        """Pods of the services."""
        return Pods(self.kube, self.fullname)

    @property
    def chart_labels(self) -> dict[str, str]:
        """The label that all objects of the chart have."""
        return {"app.kubernetes.io/instance": self.name}

    def values(self) -> Values:
        """Values for this target: its images, its ingress, small requests."""
        small = {"requests": {"cpu": "5m", "memory": "64Mi"}}
        values: Values = {
            "image": {"registry": self.target.registry, "tag": self.target.tag, "pullPolicy": "IfNotPresent"},
            "ingress": {"enabled": True, "className": self.target.ingress_class, "hosts": [self.target.host]},
            "operator": {"resources": small},
            "flowAggregator": {part: {"resources": small} for part in SERVICES},
            "gateway": {"resources": small},
            "kafka": {"resources": small, "persistence": {"size": "2Gi"}},
            "redis": {"resources": small, "sentinel": {"resources": small}, "persistence": {"size": "1Gi"}},
        }
        return merged(values, self.more)

    def is_installed(self) -> bool:
        """Whether the namespace has the release."""
        return self.name in self.helm("list", "--short").split()

    def install(self) -> None:
        """helm install. Raises HelmFailed."""
        self._with_values("install", self.values())

    def upgrade(self, more: Mapping[str, Any] | None = None, *, keep: bool = False) -> None:
        """helm upgrade, with values over the release's; keep: for later upgrades, too. Raises HelmFailed."""
        self._with_values("upgrade", merged(self.values(), more or {}))
        if keep:
            self.more.update(merged(self.more, more or {}))

    def uninstall(self) -> None:
        """helm uninstall; it is well where there is no release. Raises HelmFailed."""
        self.helm("uninstall", self.name, "--ignore-not-found", "--wait", "--timeout=3m")

    def test(self) -> str:
        """helm test; what it printed. Raises HelmFailed."""
        return self.helm("test", self.name, "--logs", "--timeout=2m")

    def render(self, more: Mapping[str, Any], *options: str) -> list[Object]:
        """helm template, with values over the release's: the objects. Raises HelmFailed."""
        values = json.dumps(merged(self.values(), more))
        text = self.helm("template", self.name, str(CHART), "--values=-", *options, text=values)
        return [one for one in yaml.safe_load_all(text) if one is not None]

    def helm(self, *arguments: str, text: str | None = None) -> str:
        """Run helm; what it printed. Raises HelmFailed."""
        command = [self.target.program("helm"), *arguments]
        command += [f"--kubeconfig={self.kube.kubeconfig}", f"--namespace={self.kube.namespace}"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=_HELM_SECONDS)
        if done.returncode != 0:
            raise HelmFailed(f"helm {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def custom_resource(self) -> Object:
        """The FlowAggregator."""
        return self.kube.get("flowaggregator", self.fullname)

    def patch(self, spec: Object) -> None:
        """Merge into the FlowAggregator's spec: null removes."""
        self.kube.merge("flowaggregator", self.fullname, {"spec": spec})

    @contextmanager
    def patched(self, spec: Object) -> Iterator[None]:
        """Merge into the spec for a while; what was there before is put back."""
        before = inverse(self.custom_resource()["spec"], spec)
        self.patch(spec)
        try:
            yield
        finally:
            self.patch(before)

    def troubles(self) -> list[str]:
        """What is not yet as the FlowAggregator says; empty where all is well."""
        return [*self._custom_resource_troubles(), *self._workload_troubles(), *self._routing_troubles()]

    def wait_healthy(self, seconds: float = HEALTHY_SECONDS) -> None:
        """Wait until nothing is wrong. Raises AssertionError with what still is."""
        self.wait(lambda: not self.troubles(), "all is well", seconds, lambda: "; ".join(self.troubles()))

    def wait(
        self,
        holds: Callable[[], bool],
        what: str,
        seconds: float,
        why: Callable[[], str] = lambda: "",
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> float:
        """Wait until something holds, past errors of the API server; how long it took, in seconds."""
        began = time.monotonic()
        said = ""
        while True:
            try:
                if holds():
                    return time.monotonic() - began
                said = ""
            except KubectlFailed as error:
                said = str(error)
            if time.monotonic() > began + seconds:
                raise AssertionError(f"{what}: not within {seconds:g} s: {said or why()}")
            time.sleep(pause_seconds)

    def wait_condition(self, kind: str, seconds: float = HEALTHY_SECONDS, **wanted: str) -> Object:
        """Wait until a condition of the FlowAggregator has these members (status, reason); the condition."""

        def found() -> Object:
            return condition(self.custom_resource(), kind)

        self.wait(
            lambda: wanted.items() <= found().items(), f"condition {kind} {wanted}", seconds, lambda: str(found())
        )
        return found()

    def _with_values(self, command: str, values: Values) -> None:
        options = ["--values=-", f"--timeout={_HELM_SECONDS - 10}s"]
        self.helm(command, self.name, str(CHART), *options, text=json.dumps(values))

    def _custom_resource_troubles(self) -> list[str]:
        resource = self.custom_resource()
        ready = condition(resource, "Ready")
        if ready.get("status") != "True":
            return [f"Ready is {ready.get('status')}: {ready.get('reason')}: {ready.get('message')}"]
        seen, now = resource["status"].get("observedGeneration"), resource["metadata"]["generation"]
        return [] if seen == now else [f"the operator has seen generation {seen} of {now}"]

    def _workload_troubles(self) -> list[str]:
        found = []
        for kind in ("deployments", "statefulsets"):
            for one in self.kube.list(kind):
                name, wanted, status = one["metadata"]["name"], one["spec"]["replicas"], one["status"]
                if status.get("observedGeneration") != one["metadata"]["generation"]:
                    found.append(f"{name} has not been seen by its controller")
                counts = {n: status.get(n, 0) for n in ("replicas", "readyReplicas", "updatedReplicas")}
                if set(counts.values()) != {wanted}:
                    found.append(f"{name} has {counts}, not {wanted}")
        for pod in self.kube.list("pods"):
            owner = pod["metadata"].get("ownerReferences", [{}])[0].get("kind")
            if owner in {"ReplicaSet", "StatefulSet"} and not is_ready(pod):
                found.append(f"pod {pod['metadata']['name']} is not ready, or on its way out")
        return found

    def _routing_troubles(self) -> list[str]:
        found = []
        for component in ELECTED:
            if self.custom_resource()["spec"][component].get("mode", "ActivePassive") != "ActivePassive":
                continue
            ready = {pod["metadata"]["name"] for pod in self.pods.of(component) if is_ready(pod)}
            try:
                active = self.pods.active(component)
            except AssertionError as error:  # nobody for a moment, as where the slice was made anew
                found.append(str(error))
                continue
            if active not in ready:
                found.append(f"the Service of {component} leads to {active}, which is not ready")
        return found


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """Values laid over others, mappings member by member."""
    values = dict(base)
    for name, value in over.items():
        below = values.get(name)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        values[name] = merged(below, value) if both else value  # type: ignore[arg-type]
    return values


def inverse(spec: Object, patch: Object) -> Object:
    """The merge patch that undoes a merge patch on a spec."""
    undo: Object = {}
    for name, value in patch.items():
        if isinstance(value, dict) and isinstance(spec.get(name), dict):
            undo[name] = inverse(spec[name], value)
        else:
            undo[name] = spec.get(name)
    return undo
