"""The Lease that says who is active: coordination.k8s.io/v1, written as Kubernetes' own components write theirs.

https://kubernetes.io/docs/concepts/architecture/leases/
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

Object = Mapping[str, Any]

_RELEASED_SECONDS = 1  # the shortest that Kubernetes takes


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease as it was last seen.

    holder: the pod's name, empty for nobody. record: what a renewal changes; who waits judges by its change alone,
    never by the times in it, which come from another machine's clock. source: the whole object, to be written back.
    """

    holder: str
    seconds: float
    version: str
    record: tuple[Any, ...]
    source: Object = field(compare=False, repr=False)

    @classmethod
    def read(cls, source: Object, default_seconds: float) -> Self:
        """The lease in an object of the API; default_seconds where it does not say its duration."""
        spec = source.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        seconds = spec.get("leaseDurationSeconds") or default_seconds
        record = (holder, seconds, *(spec.get(name) for name in ("acquireTime", "renewTime", "leaseTransitions")))
        return cls(holder, float(seconds), str(source["metadata"]["resourceVersion"]), record, source)

    @property
    def was_held(self) -> bool:
        """Whether anybody ever held it: a lease just made says nothing of who serves."""
        return bool(self.renewed)

    @property
    def renewed(self) -> str:
        """The renewal's time as its holder wrote it; empty before the first."""
        return (self.source.get("spec") or {}).get("renewTime") or ""

    def taken(self, holder: str, seconds: float, wall: datetime) -> dict[str, Any]:
        """The object by which holder takes the lease, or renews it. wall: aware; for people to read."""
        spec = dict(self.source.get("spec") or {})
        now = micro_time(wall)
        if self.holder != holder:
            changes = spec.get("leaseTransitions") or 0
            spec |= {"acquireTime": now, "leaseTransitions": changes + 1 if self.was_held else changes}
        spec |= {"holderIdentity": holder, "leaseDurationSeconds": max(1, round(seconds)), "renewTime": now}
        return {**self.source, "spec": spec}

    def released(self, wall: datetime) -> dict[str, Any]:
        """The object by which the holder gives the lease up."""
        now = micro_time(wall)
        spec = {
            **(self.source.get("spec") or {}),
            "holderIdentity": "",
            "leaseDurationSeconds": _RELEASED_SECONDS,
            "acquireTime": now,
            "renewTime": now,
        }
        return {**self.source, "spec": spec}


def micro_time(wall: datetime) -> str:
    """Kubernetes' MicroTime: RFC 3339 with six digits of a second."""
    return wall.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
