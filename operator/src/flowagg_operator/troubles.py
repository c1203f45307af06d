"""What keeps a pod from being ready, in one line. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_NOT_A_TROUBLE: Final = frozenset({"ContainerCreating", "PodInitializing"})
_LAST_LINE_CHARACTERS: Final = 400


@dataclass(frozen=True, slots=True)
class Trouble:
    """A pod's complaint. lasting: it does not go by itself, unlike what a pod says that has just begun."""

    text: str
    lasting: bool


def trouble(pod: Mapping[str, Any]) -> str:
    """What a pod's status complains of; empty: nothing."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"pod {name} finds no node: {condition.get('message', '')}"
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting and waiting.get("reason") not in _NOT_A_TROUBLE:
            last = ((container.get("lastState") or {}).get("terminated") or {}).get("message") or waiting.get(
                "message", ""
            )
            return f"pod {name}: {waiting.get('reason')}: {_shortened(last)}"
        terminated = (container.get("state") or {}).get("terminated") or {}
        if terminated and not pod["metadata"].get("deletionTimestamp"):
            said = terminated.get("message") or f"exit code {terminated.get('exitCode')}"
            return f"pod {name}: {terminated.get('reason', 'Terminated')}: {_shortened(said)}"
    return ""


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def is_running(pod: Mapping[str, Any]) -> bool:
    """Whether a pod has an address, and its container runs."""
    status = pod.get("status") or {}
    return (
        bool(status.get("podIP")) and status.get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")
    )


def _shortened(text: str) -> str:
    """The end of a log: the last lines say why."""
    text = " ".join(text.split())
    return text if len(text) <= _LAST_LINE_CHARACTERS else "... " + text[-_LAST_LINE_CHARACTERS:]
