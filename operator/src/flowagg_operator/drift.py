"""Whether an object is as it was applied, and what others added to it. Pure.

Server-side apply sets the fields that it is given back to their values, and takes away fields that it was given
before. Fields that somebody else added stay: they are found by who owns them, and taken away by a merge patch.

https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from flowagg_operator.spec import MANAGER

APPLIED: Final = "flowaggregator.io/applied"
"""Annotation with the digest of what was last applied: another one means that a field may have been taken out."""

_LEFT_TO_OTHERS: Final = frozenset({("spec", "template", "metadata")})
"""`kubectl rollout restart` writes an annotation there."""


def stamped(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its digest as an annotation."""
    digest = hashlib.sha256(msgspec.json.encode(manifest, order="sorted")).hexdigest()[:16]
    metadata = dict(manifest["metadata"])
    metadata["annotations"] = {**(metadata.get("annotations") or {}), APPLIED: digest}
    return {**manifest, "metadata": metadata}


def applied_digest(found: Mapping[str, Any]) -> str:
    """The digest of what was last applied; empty where nothing was."""
    return str((found["metadata"].get("annotations") or {}).get(APPLIED, ""))


def holds(wanted: Any, found: Any) -> bool:
    """Whether found has everything that is wanted; it may have more, such as defaults.

    A False may be wrong, where the API server writes a value in another way ("1000m" as "1"): then it is applied once
    more, which changes nothing.
    """
    if isinstance(wanted, Mapping):
        return isinstance(found or {}, Mapping) and all(
            holds(value, (found or {}).get(k)) for k, value in wanted.items()
        )
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        found = found or []
        return (
            isinstance(found, Sequence)
            and len(found) == len(wanted)
            and all(holds(one, other) for one, other in zip(wanted, found, strict=True))
        )
    if isinstance(wanted, bool) or isinstance(found, bool) or wanted is None or found is None:
        return wanted is found
    return str(wanted) == str(found)


def additions(wanted: Mapping[str, Any], found: Mapping[str, Any], manager: str = MANAGER) -> dict[str, Any]:
    """A merge patch that takes away what others than the manager added to spec; empty where there is nothing."""
    ours: Mapping[str, Any] = {}
    theirs: list[Mapping[str, Any]] = []
    for entry in found["metadata"].get("managedFields") or []:
        fields = entry.get("fieldsV1") or {}
        if entry.get("manager") == manager and entry.get("operation") == "Apply":
            ours = fields
        elif not entry.get("subresource"):
            theirs.append(fields)
    patch: dict[str, Any] = {}
    for fields in theirs:
        if "f:spec" in fields:
            removed = _foreign(fields["f:spec"], ours.get("f:spec") or {}, wanted.get("spec") or {}, ("spec",))
            patch = _merged(patch, removed)
    return {"spec": patch} if patch else {}


def _foreign(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], wanted: Mapping[str, Any], path: tuple[str, ...]
) -> dict[str, Any]:
    """The fields that they own and we do not. Keys: f:NAME a field, k:... and v:... items of a list, . itself."""
    patch: dict[str, Any] = {}
    for key, below in theirs.items():
        name = key[2:]
        if not key.startswith("f:") or (*path, name) in _LEFT_TO_OTHERS:
            continue
        if key not in ours:
            patch[name] = wanted.get(name)
        elif _is_list(below):
            if _list_differs(below, ours[key]):
                patch[name] = wanted.get(name)
        elif deeper := _foreign(below, ours[key], _mapping(wanted.get(name)), (*path, name)):
            patch[name] = deeper
    return patch


def _is_list(fields: Mapping[str, Any]) -> bool:
    return any(key.startswith(("k:", "v:")) for key in fields)


def _list_differs(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Whether they own an item that we do not, or a field in one of ours."""
    for key, below in theirs.items():
        if key == ".":
            continue
        if key not in ours or _list_differs(below, ours[key]):
            return True
    return False


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(one)
    for key, value in other.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if both else value
    return result


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
