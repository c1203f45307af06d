"""What a failure leaves behind: the namespace's objects, events and logs in a folder."""

from pathlib import Path
from typing import Final

from tests.e2e.kube import Kube, KubectlFailed

_LOG_LINES: Final = 400
_SHOWN_LINES: Final = 25


def collect(kube: Kube, folder: Path) -> str:
    """Write all of it into a folder; its path and the last lines of what matters most."""
    folder.mkdir(parents=True, exist_ok=True)
    questions = {
        "pods.txt": ("get", "pods", "--output=wide"),
        "objects.txt": ("get", "deployments,statefulsets,services,endpointslices,leases,ingresses,pvc,jobs"),
        "events.txt": ("get", "events", "--sort-by=.lastTimestamp"),
        "flowaggregators.txt": ("describe", "flowaggregators"),
        "flowaggregators.yaml": ("get", "flowaggregators,endpointslices,leases", "--output=yaml"),
        "pods.yaml": ("get", "pods", "--output=yaml"),
    }
    answers = {name: _ask(kube, *question) for name, question in questions.items()}
    for name, text in answers.items():
        (folder / name).write_text(text, encoding="utf-8")
    for pod in _ask(kube, "get", "pods", "--output=name").split():
        for suffix, options in (("", ()), (".previous", ("--previous",))):
            text = _ask(kube, "logs", pod, "--all-containers", "--prefix", f"--tail={_LOG_LINES}", *options)
            if text:
                (folder / f"{pod.rpartition('/')[2]}{suffix}.log").write_text(text, encoding="utf-8")
    shown = [answers["pods.txt"], _last(answers["events.txt"]), _last(answers["flowaggregators.txt"])]
    return "\n".join([f"Evidence: {folder}", *shown])


def _ask(kube: Kube, *question: str) -> str:
    try:
        return kube.run("--request-timeout=10s", *question, seconds=30)
    except KubectlFailed as error:
        # The previous log of a container that never ended is not there; all else is worth a line.
        return "" if "--previous" in question else f"{error}\n"


def _last(text: str) -> str:
    return "\n".join(text.splitlines()[-_SHOWN_LINES:])
