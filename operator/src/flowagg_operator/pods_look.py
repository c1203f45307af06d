"""The pods as the operator sees them: their status, and what their probes and metrics say."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import urllib3
from urllib3.exceptions import HTTPError

from flowagg_operator.consuming import Consumers, read_checks, read_metrics, stops_in
from flowagg_operator.pods import PORT
from flowagg_operator.spec import COMPONENTS
from flowagg_operator.speed import Worked
from flowagg_operator.troubles import Trouble, is_ready, is_running, trouble
from flowagg_operator.view_objects import CONSUMER as VIEW_CONSUMER
from flowagg_operator.view_objects import view_of

_AT_A_TIME: Final = 8
_MOST_BYTES: Final = 4 * 2**20
_SAID_CHARACTERS: Final = 300
_COMPONENT: Final = "app.kubernetes.io/component"


@dataclass(frozen=True, slots=True)
class PodsLook:
    """What was found: component, or key_of a further view, -> what its pods complain of; and what the first view's
    consumers say."""

    troubles: Mapping[str, Sequence[Trouble]]
    consumers: Consumers


@dataclass(frozen=True, slots=True)
class _Said:
    """What a pod's own port says. checks: those of /readyz that fail; None: no answer."""

    checks: Mapping[str, str] | None
    owned: frozenset[int] = frozenset()
    worked: Worked | None = None


class PodClient:
    """Reads pods' ports, several at a time. Close it to end its threads."""

    def __init__(self, timeout_seconds: float) -> None:
        timeout = urllib3.Timeout(connect=timeout_seconds, read=timeout_seconds)
        self._http = urllib3.PoolManager(timeout=timeout, retries=False, maxsize=_AT_A_TIME)
        self._threads = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="pods")

    def look(self, pods: Sequence[Mapping[str, Any]]) -> PodsLook:
        """Ask the pods that run: consumers all, the others where they are not ready."""
        asked = [pod for pod in pods if is_running(pod) and (_component(pod) == "consumer" or not is_ready(pod))]
        said = dict(zip((_name(pod) for pod in asked), self._threads.map(self._ask, asked), strict=True))
        keys = dict.fromkeys((*COMPONENTS, *(_key(pod) for pod in pods if _component(pod) == VIEW_CONSUMER)))
        troubles = {key: _troubles(pods, key, said) for key in keys}
        return PodsLook(troubles, _consumers([pod for pod in asked if _component(pod) == "consumer"], said))

    def close(self) -> None:
        """End the threads; connections go with them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._http.clear()

    def _ask(self, pod: Mapping[str, Any]) -> _Said:
        address = pod["status"]["podIP"]
        base = f"http://[{address}]:{PORT}" if ":" in address else f"http://{address}:{PORT}"
        try:
            checks = read_checks(self._read(f"{base}/readyz"))
            if _component(pod) != "consumer":
                return _Said(checks)
            owned, worked = read_metrics(self._read(f"{base}/metrics").decode("utf-8"))
            return _Said(checks, frozenset(owned), worked)
        except (HTTPError, OSError, ValueError, KeyError):
            return _Said(None)

    def _read(self, url: str) -> bytes:
        response = self._http.request("GET", url, preload_content=False)
        try:
            body: bytes = response.read(_MOST_BYTES)
        finally:
            response.close() if response.status >= 400 and response.status != 503 else response.release_conn()
        return body


def key_of(view: str) -> str:
    """Under which the troubles of a further view's consumers are found."""
    return f"{VIEW_CONSUMER}/{view}"


def _troubles(pods: Sequence[Mapping[str, Any]], key: str, said: Mapping[str, _Said]) -> list[Trouble]:
    found = []
    for pod in pods:
        if _key(pod) != key or is_ready(pod):
            continue
        text = trouble(pod)
        answer = said.get(_name(pod))
        if text:
            found.append(Trouble(text, lasting=True))
        elif answer is not None and answer.checks:
            # Of a further view no other condition tells which partitions are stopped, and why.
            stopped = stops_in(_name(pod), answer.checks) if key in COMPONENTS else []
            others = {f"partition_{stop.partition}" for stop in stopped}
            parts = [f"{name}: {state}" for name, state in answer.checks.items() if name not in others]
            if stopped:
                parts.append(f"{len(stopped)} of its partitions are stopped, see the condition Consuming")
            said_itself = "; ".join(parts)
            if len(said_itself) > _SAID_CHARACTERS:
                said_itself = said_itself[: _SAID_CHARACTERS - 4] + " ..."
            lasting = key not in COMPONENTS and bool(stops_in(_name(pod), answer.checks))
            found.append(Trouble(f"pod {_name(pod)}: {said_itself}", lasting))
    return found


def _consumers(pods: Sequence[Mapping[str, Any]], said: Mapping[str, _Said]) -> Consumers:
    owned: dict[int, str] = {}
    stops, waiting, silent = [], [], []
    for pod in pods:
        name = _name(pod)
        answer = said[name]
        if answer.checks is None:
            silent.append(name)
            continue
        owned |= dict.fromkeys(answer.owned, name)
        found = stops_in(name, answer.checks)
        stops += found
        stopped = {f"partition_{stop.partition}" for stop in found}
        waiting += [f"pod {name}: {check}: {text}" for check, text in answer.checks.items() if check not in stopped]
    well = sum(not said[_name(pod)].checks for pod in pods) - len(silent)
    worked = {name: one.worked for pod in pods if (one := said[name := _name(pod)]).worked is not None}
    return Consumers(owned, stops, waiting, silent, len(pods) - len(silent), well, worked)


def _component(pod: Mapping[str, Any]) -> str:
    return str((pod["metadata"].get("labels") or {}).get(_COMPONENT, ""))


def _key(pod: Mapping[str, Any]) -> str:
    component = _component(pod)
    return key_of(view_of(pod)) if component == VIEW_CONSUMER else component


def _name(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["name"])
