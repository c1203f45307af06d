"""The CustomResourceDefinition that this operator goes with; the chart's crds/ holds a copy of it."""

from importlib.resources import files
from typing import Any, Final

import yaml
from flowagg.kubernetes import Api, NotFound, path

from flowagg_operator.drift import additions
from flowagg_operator.spec import GROUP, PLURAL

NAME: Final = f"{PLURAL}.{GROUP}"
_MANAGER: Final = "helm"
"""Helm's own: Helm 4 applies crds/ server-side at each install, and would be refused what another manager owns."""


def load() -> dict[str, Any]:
    """The definition."""
    found: dict[str, Any] = yaml.safe_load((files(__package__) / "crd.yaml").read_text(encoding="utf-8"))
    return found


def apply(api: Api) -> str:
    """Bring the cluster's definition up to this one; what was done. Raises KubernetesError.

    What it holds beyond this one goes too, such as a field of an older version: Helm, which made it, still owns that,
    so server-side apply alone would leave it.
    """
    where = path("apiextensions.k8s.io/v1", "customresourcedefinitions", None, NAME)
    wanted = load()
    try:
        before = api.get(where)["metadata"]["resourceVersion"]
    except NotFound:
        before = ""
    after = api.apply(where, wanted, field_manager=_MANAGER, force=True)
    if added := additions(wanted, after, _MANAGER):
        after = api.merge(where, added, field_manager=_MANAGER)
    if not before:
        return f"created {NAME}"
    same = before == after["metadata"]["resourceVersion"]
    return f"{NAME} is up to date" if same else f"updated {NAME}"
