"""The objects of views beyond the first one, and the Jobs that clone and remove views. Pure."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from flowagg_operator.pods import Platform, job_environment
from flowagg_operator.spec import Owner, Spec, View
from flowagg_operator.views import JobKind, JobState
from flowagg_operator.workloads import deployment, disruption_budget

VIEW: Final = "flowaggregator.io/view"
"""Label of what belongs to one view, and of its pods."""
SOURCE: Final = "flowaggregator.io/source"
"""Label of a Job that clones, and of its pods: the view that it reads."""
CONSUMER: Final = "view-consumer"
"""The component of their consumers: another one than the first view's, whose selector must not match their pods."""
JOB: Final = "view-job"
_NAME_CHARACTERS: Final = 63  # a Job's name is a label of its pods
_RETRIES: Final = 3
_FINAL_CODES: Final = (2, 3, 4)
"""Exit codes of the command that another try would end with, too: wrong settings, refused, damaged."""
_JOB_KINDS: Final[tuple[JobKind, ...]] = ("clone", "remove")


def consumer_name(owner: Owner, view: str) -> str:
    """Name of a view's Deployment and PodDisruptionBudget."""
    return _name(f"{owner.name}-consumer-{view}")


def job_names(owner: Owner, view: str) -> dict[JobKind, str]:
    """Names of a view's Jobs."""
    return {kind: _name(f"{owner.name}-{kind}-{view}") for kind in _JOB_KINDS}


def view_consumers(owner: Owner, spec: Spec, view: View, platform: Platform, secrets_digest: str) -> dict[str, Any]:
    """The Deployment of a view's consumers: as the first view's, but for names, labels, number and settings."""
    made = deployment(owner, spec, "consumer", platform, secrets_digest, [], view.name)
    made["metadata"] = _metadata(owner, consumer_name(owner, view.name), CONSUMER, view.name)
    made["spec"]["replicas"] = spec.consumer.replicas if view.replicas is None else view.replicas
    selector = _selector(owner, view.name)
    made["spec"]["selector"] = {"matchLabels": selector}
    template = made["spec"]["template"]
    template["metadata"]["labels"] = _labels(owner, CONSUMER, view.name)
    common = {"matchLabels": owner.selector("consumer")}
    for constraint in template["spec"]["topologySpreadConstraints"]:
        if constraint["labelSelector"] == common:
            constraint["labelSelector"] = {"matchLabels": selector}
    return made


def view_budget(owner: Owner, view: str) -> dict[str, Any]:
    """Nodes are drained one of a view's consumers at a time."""
    made = disruption_budget(owner, "consumer")
    made["metadata"] = _metadata(owner, consumer_name(owner, view), CONSUMER, view)
    made["spec"]["selector"] = {"matchLabels": _selector(owner, view)}
    return made


def view_job(owner: Owner, spec: Spec, kind: JobKind, view: str, source: str, platform: Platform) -> dict[str, Any]:
    """The Job that clones source to the view, or removes the view: the command, where the consumers would run."""
    words = ["views", "clone", source, view] if kind == "clone" else ["views", "remove", view, "--yes"]
    pod = deployment(owner, spec, "consumer", platform, "", [], view)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    left_out = ("ports", "startupProbe", "livenessProbe", "readinessProbe")
    container = {name: value for name, value in container.items() if name not in left_out}
    container |= {"name": "cli", "image": platform.images["cli"], "args": words, "env": job_environment(spec)}
    del pod["topologySpreadConstraints"]
    labels = _labels(owner, JOB, view) | ({SOURCE: source} if source else {})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(owner, job_names(owner, view)[kind], JOB, view) | {"labels": labels},
        "spec": {
            "backoffLimit": _RETRIES,
            "activeDeadlineSeconds": platform.job_seconds,
            # What the command refuses, or cannot read, it will again. A pod that a drain has ended is no failure.
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": "cli", "operator": "In", "values": list(_FINAL_CODES)},
                    },
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {
                "metadata": {"labels": labels},
                "spec": pod | {"containers": [container], "restartPolicy": "Never"},
            },
        },
    }


def job_state(job: Mapping[str, Any] | None) -> JobState:
    """How far a Job is; empty: there is none."""
    if job is None:
        return ""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition["status"] == "True" and condition["type"] in ("Complete", "Failed"):
            return "Complete" if condition["type"] == "Complete" else "Failed"
    return "Active"


def is_about(pod: Mapping[str, Any], view: str) -> bool:
    """Whether a pod keeps, reads, clones or removes a view."""
    labels = pod["metadata"].get("labels") or {}
    return view in (view_of(pod), labels.get(SOURCE))


def view_of(pod: Mapping[str, Any]) -> str:
    """The view that a pod, or the pods of a template, are about: by their label, else by their settings; else empty."""
    label = (pod["metadata"].get("labels") or {}).get(VIEW)
    if label:
        return str(label)
    for container in pod["spec"].get("containers") or []:
        for variable in container.get("env") or []:
            if variable["name"] == "FLOWAGG_VIEW":
                return str(variable.get("value", ""))
    return ""


def _selector(owner: Owner, view: str) -> dict[str, str]:
    return {**owner.selector(CONSUMER), VIEW: view}


def _labels(owner: Owner, component: str, view: str) -> dict[str, str]:
    return {**owner.labels(component), VIEW: view}


def _metadata(owner: Owner, name: str, component: str, view: str) -> dict[str, Any]:
    return owner.metadata(name, component) | {"labels": _labels(owner, component, view)}


def _name(text: str) -> str:
    """The name, or where it is too long its beginning and a digest of it."""
    if len(text) <= _NAME_CHARACTERS:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{text[: _NAME_CHARACTERS - 9].rstrip('-')}-{digest}"
