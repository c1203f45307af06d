"""Conditions of a FlowAggregator: what was found out, and since when. Pure.

https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

Status = Literal["True", "False", "Unknown"]
READY: Final = "Ready"
KAFKA: Final = "KafkaReady"
REDIS: Final = "RedisReady"
CONSUMING: Final = "Consuming"
SCALING: Final = "Scaling"
VIEW_READY: Final = "ViewReady"
_MESSAGE_CHARACTERS: Final = 1500


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out. reason: one word; message: a sentence that says what to do where something is wrong."""

    status: Status
    reason: str
    message: str

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        return self.status == "True"


NOT_LOOKED: Final = Verdict("Unknown", "NotLookedYet", "the operator has not looked yet")


def recalled(verdict: Verdict, before: Sequence[Mapping[str, Any]], kind: str) -> Verdict:
    """The verdict, or where nobody has looked yet the one that the condition holds."""
    if verdict is not NOT_LOOKED:
        return verdict
    for condition in before:
        if condition["type"] == kind:
            return Verdict(condition["status"], condition["reason"], condition["message"])
    return verdict


@dataclass(frozen=True, slots=True)
class Change:
    """A condition that has another status or reason than before."""

    type: str
    verdict: Verdict
    before: str


def updated(
    before: Sequence[Mapping[str, Any]], verdicts: Mapping[str, Verdict], generation: int, now: datetime
) -> tuple[list[dict[str, Any]], list[Change]]:
    """The conditions with what was found out now, and those that changed. Conditions of other types stay.

    lastTransitionTime moves with the status alone.
    """
    old = {str(condition["type"]): condition for condition in before}
    conditions = [dict(condition) for kind, condition in old.items() if kind not in verdicts]
    changes = []
    for kind, verdict in verdicts.items():
        known = old.get(kind)
        moved = known is None or known.get("status") != verdict.status
        since = timestamp(now) if moved or known is None else known["lastTransitionTime"]
        conditions.append(
            {
                "type": kind,
                "status": verdict.status,
                "reason": verdict.reason,
                "message": shortened(verdict.message),
                "lastTransitionTime": since,
                "observedGeneration": generation,
            }
        )
        if moved or known is None or known.get("reason") != verdict.reason:
            changes.append(Change(kind, verdict, str(known.get("status", "")) if known else ""))
    order = {kind: place for place, kind in enumerate((READY, KAFKA, REDIS, CONSUMING, VIEW_READY, SCALING))}
    conditions.sort(key=lambda condition: order.get(condition["type"], len(order)))
    return conditions, changes


def timestamp(now: datetime) -> str:
    """A moment as Kubernetes writes it, to the second."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shortened(message: str) -> str:
    """The message, cut where it is long: status is read by people."""
    return message if len(message) <= _MESSAGE_CHARACTERS else message[: _MESSAGE_CHARACTERS - 4] + " ..."
