"""The objects of a FlowAggregator in the cluster: what is there, and having one be as its manifest says."""

from collections.abc import Mapping
from typing import Final

from flowagg.kubernetes import Api, Conflict, Invalid, NotFound, path

from flowagg_operator.drift import APPLIED, additions, applied_digest, holds
from flowagg_operator.elections import SERVICE_LABEL
from flowagg_operator.resources import PLURALS, Object
from flowagg_operator.services import service_name
from flowagg_operator.spec import INSTANCE, MANAGED_BY, MANAGER, SERVERS, Owner

_LISTED: Final = (
    "Deployment",
    "Service",
    "ServiceAccount",
    "PodDisruptionBudget",
    "Role",
    "RoleBinding",
    "Lease",
    "Job",
)
_KEPT_PURE: Final = frozenset({"Deployment", "Service", "PodDisruptionBudget"})
"""Kinds whose spec is the operator's alone. A Lease's is its holder's."""


_WITH_ALL_BELOW: Final = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
"""As is the default for all kinds but Jobs, whose pods would stay."""


class Refused(Exception):
    """An object cannot be made; the text says what to do."""


class Objects:
    """The objects of one owner, for one pass. Methods raise KubernetesError.

    slices: component -> the slices of its Service, whoever made them. changes: what was done -> kinds and names.
    """

    def __init__(self, api: Api, owner: Owner) -> None:
        self._api = api
        self._owner = owner
        self._live: dict[tuple[str, str], Object] = {}
        self.slices: dict[str, list[Object]] = {component: [] for component in SERVERS}
        self.changes: dict[str, list[str]] = {}

    def read(self) -> None:
        """Look at what there is, by our labels."""
        query = {"labelSelector": f"{INSTANCE}={self._owner.name},{MANAGED_BY}={MANAGER}"}
        for kind in _LISTED:
            for found in self._list(kind, query):
                self._live[kind, found["metadata"]["name"]] = found
        components = {service_name(self._owner, component): component for component in SERVERS}
        for found in self._list("EndpointSlice", {"labelSelector": f"{SERVICE_LABEL} in ({','.join(components)})"}):
            self._live["EndpointSlice", found["metadata"]["name"]] = found
            self.slices[components[found["metadata"]["labels"][SERVICE_LABEL]]].append(found)

    def get(self, kind: str, name: str) -> Object | None:
        """An object as it is; None: there is none."""
        return self._live.get((kind, name))

    def all(self, kind: str) -> list[Object]:
        """All objects of a kind that are ours."""
        return [found for (of, _), found in self._live.items() if of == kind]

    def apply(self, manifest: Object) -> Object:
        """Have an object as the manifest says; what it is then. Raises Refused where it belongs to somebody else."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        where = self._path(kind, name)
        before = self.get(kind, name) or self._unlabelled(where, kind, name)
        same = before is not None and applied_digest(before) == manifest["metadata"]["annotations"][APPLIED]
        if before is not None and same and holds(manifest, before) and not _additions(manifest, before):
            return before
        try:
            after = self._api.apply(where, manifest, field_manager=MANAGER, force=True)
        except Invalid:
            if before is None or kind not in _KEPT_PURE:
                raise
            # Lists are merged by their keys: an entry whose key somebody changed stays beside ours, and both may not
            # be (two ports of one name). A merge patch puts lists in the place of what is there.
            self._api.merge(where, {"spec": manifest["spec"]}, field_manager=MANAGER)
            after = self._api.apply(where, manifest, field_manager=MANAGER, force=True)
        if added := _additions(manifest, after):
            after = self._api.merge(where, added, field_manager=MANAGER)
        self._live[kind, name] = after
        if before is None:
            self._note("created", kind, name)
        elif before["metadata"]["resourceVersion"] != after["metadata"]["resourceVersion"]:
            self._note("repaired" if same else "updated", kind, name)
        return after

    def delete(self, kind: str, name: str) -> None:
        """Have an object gone."""
        try:
            self._api.delete(self._path(kind, name), body=_WITH_ALL_BELOW)
        except (NotFound, Conflict):
            return
        self._live.pop((kind, name), None)
        self._note("removed", kind, name)

    def _list(self, kind: str, query: Mapping[str, str]) -> list[Object]:
        # Items of a list have neither version nor kind.
        about = {"apiVersion": PLURALS[kind][0], "kind": kind}
        return [{**found, **about} for found in self._api.list(self._path(kind), query)]

    def _unlabelled(self, where: str, kind: str, name: str) -> Object | None:
        """An object of the name that lacks our labels: taken over unless it has another owner."""
        try:
            found = self._api.get(where)
        except NotFound:
            return None
        for reference in found["metadata"].get("ownerReferences") or []:
            if reference.get("controller") and reference["uid"] != self._owner.uid:
                taken = f"{kind} {name} belongs to {reference['kind']} {reference['name']}"
                raise Refused(f"{taken}: delete one of them, or give this FlowAggregator another name")
        return found

    def _path(self, kind: str, name: str = "") -> str:
        version, plural = PLURALS.get(kind, ("v1", f"{kind.lower()}"))
        return path(version, plural, self._owner.namespace, name)

    def _note(self, action: str, kind: str, name: str) -> None:
        self.changes.setdefault(action, []).append(f"{kind} {name}")


def _additions(manifest: Object, found: Object) -> Object:
    return additions(manifest, found) if manifest["kind"] in _KEPT_PURE else {}
