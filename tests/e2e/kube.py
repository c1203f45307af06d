"""kubectl, as tests use it: objects in, objects out."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Object = dict[str, Any]
_REQUEST_SECONDS: Final = 15


class KubectlFailed(Exception):
    """kubectl ended with an error; its message."""


@dataclass(frozen=True, slots=True)
class Kube:
    """One namespace of a cluster. program: kubectl's path."""

    program: str
    kubeconfig: Path
    namespace: str

    def run(self, *arguments: str, text: str | None = None, seconds: float = 60) -> str:
        """Run kubectl; its output. Raises KubectlFailed."""
        command = [self.program, f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *arguments]
        try:
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise KubectlFailed(f"kubectl {' '.join(arguments)}: not within {seconds:g} s") from None
        if done.returncode != 0:
            raise KubectlFailed(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, kind: str, name: str) -> Object:
        """One object. Raises KubectlFailed where there is none."""
        found: Object = json.loads(self._ask("get", kind, name, "--output=json"))
        return found

    def find(self, kind: str, name: str) -> Object | None:
        """One object, None where there is none."""
        text = self._ask("get", kind, name, "--output=json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, labels: Mapping[str, str] | None = None) -> list[Object]:
        """All objects of a kind with these labels."""
        selector = ",".join(f"{name}={value}" for name, value in (labels or {}).items())
        found: list[Object] = json.loads(self._ask("get", kind, f"--selector={selector}", "--output=json"))["items"]
        return found

    def names(self, kind: str, labels: Mapping[str, str] | None = None) -> set[str]:
        """Names of all objects of a kind with these labels."""
        return {one["metadata"]["name"] for one in self.list(kind, labels)}

    def apply(self, *objects: Object) -> None:
        """Server-side apply. Raises KubectlFailed, with the API server's message, where one is refused."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.run("apply", "--server-side", "--force-conflicts", "--filename=-", text=text)

    def merge(self, kind: str, name: str, patch: Object) -> None:
        """JSON merge patch: null removes."""
        self._ask("patch", kind, name, "--type=merge", f"--patch={json.dumps(patch)}")

    def delete(self, kind: str, *names: str, wait: bool = False, at_once: bool = False) -> None:
        """Delete objects; those that are not there are well. at_once: without any grace."""
        options = [f"--wait={str(wait).lower()}", "--ignore-not-found"]
        if at_once:
            options += ["--grace-period=0", "--force"]
        self.run("delete", kind, *names, *options, seconds=180)

    def exec(self, pod: str, *command: str, container: str | None = None, seconds: float = 30) -> str:
        """Run a command in a container."""
        options = [f"--container={container}"] if container else []
        return self.run("exec", pod, *options, "--", *command, seconds=seconds)

    def everything(self, ignored: Sequence[str] = ()) -> set[str]:
        """All objects of the namespace as kind/name, without the kinds that are ignored."""
        kinds = self._ask("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
        wanted = [kind for kind in kinds if kind not in ignored]
        return set(self._ask("get", ",".join(wanted), "--output=name", "--ignore-not-found").split())

    def _ask(self, *arguments: str) -> str:
        return self.run(f"--request-timeout={_REQUEST_SECONDS}s", *arguments)
