"""Kubernetes events about a FlowAggregator: `kubectl describe fa` shows them. The bound on them is pure."""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Final, Literal

from flowagg.election_lease import micro_time
from flowagg.kubernetes import Api, KubernetesError, path

from flowagg_operator import metrics
from flowagg_operator.spec import API_VERSION, KIND, MANAGER, Owner

_log = logging.getLogger(__name__)

_NOTE_CHARACTERS: Final = 1000  # Kubernetes takes 1,024
_REPEAT_SECONDS: Final = 300.0
_REMEMBERED: Final = 256

Kind = Literal["Normal", "Warning"]


@dataclass(slots=True)
class Bound:
    """At most so many a minute, and none that was let through within the last minutes."""

    a_minute: int
    _room: float = field(init=False)
    _at: float = field(default=0.0, init=False)
    _said: dict[tuple[str, ...], float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._room = float(self.a_minute)

    def lets(self, what: tuple[str, ...], now: float) -> bool:
        """Whether it may go out now."""
        self._room = min(float(self.a_minute), self._room + (now - self._at) * self.a_minute / 60)
        self._at = now
        said = self._said.get(what)
        if self._room < 1 or (said is not None and now - said < _REPEAT_SECONDS):
            return False
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said[what] = now
        self._room -= 1
        return True


class Recorder:
    """Sends events. May be used by several threads."""

    def __init__(self, api: Api, instance: str, a_minute: int, clock: Callable[[], float]) -> None:
        self._api = api
        self._instance = instance
        self._bound = Bound(a_minute)
        self._clock = clock
        self._lock = Lock()

    def say(self, owner: Owner, kind: Kind, reason: str, note: str, *, repeats: bool = False) -> None:
        """Log, and send an event unless that is past the bound. repeats: the same may be said again soon."""
        level = logging.WARNING if kind == "Warning" else logging.INFO
        _log.log(level, note, extra={"flow_aggregator": owner.name, "reason": reason})
        now = self._clock()
        what = (owner.uid, reason, note, f"{now}" if repeats else "")
        with self._lock:
            if not self._bound.lets(what, now):
                metrics.EVENTS.labels("left_out").inc()
                return
        try:
            self._api.create(
                path("events.k8s.io/v1", "events", owner.namespace),
                event(owner, kind, reason, note, self._instance, datetime.now(UTC), uuid.uuid4().hex[:16]),
            )
            metrics.EVENTS.labels("sent").inc()
        except KubernetesError as error:
            metrics.EVENTS.labels("failed").inc()
            _log.warning("an event could not be sent", extra={"cause": str(error)})


def event(
    owner: Owner, kind: Kind, reason: str, note: str, instance: str, now: datetime, unique: str
) -> dict[str, Any]:
    """The event as an object of the API."""
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{owner.name}.{unique}", "namespace": owner.namespace},
        "eventTime": micro_time(now),
        "type": kind,
        "reason": reason,
        "note": note[:_NOTE_CHARACTERS],
        "action": "Reconcile",
        "reportingController": MANAGER,
        "reportingInstance": instance[:128],
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": owner.name,
            "namespace": owner.namespace,
            "uid": owner.uid,
        },
    }
