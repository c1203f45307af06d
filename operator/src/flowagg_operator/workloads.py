"""Deployments, PodDisruptionBudgets and ServiceAccounts. Pure."""

from collections.abc import Sequence
from typing import Any, Final

from flowagg_operator.pods import Platform, account_name, part_of, pod_template
from flowagg_operator.spec import Owner, Spec

_PROGRESS_SECONDS: Final = 120
"""Without a pod that becomes ready, until a roll-out counts as failed."""


def deployment(
    owner: Owner,
    spec: Spec,
    component: str,
    platform: Platform,
    secrets_digest: str,
    slices: Sequence[str],
    view: str = "",
) -> dict[str, Any]:
    """A component's Deployment. For secrets_digest, slices and view: pod_template."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owner.metadata(account_name(owner, component), component),
        "spec": {
            "replicas": part_of(spec, component).replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": _PROGRESS_SECONDS,
            "selector": {"matchLabels": owner.selector(component)},
            # A new pod is ready before an old one goes.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": pod_template(owner, spec, component, platform, secrets_digest, slices, view),
        },
    }


def disruption_budget(owner: Owner, component: str) -> dict[str, Any]:
    """Nodes are drained one pod of a component at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": owner.metadata(account_name(owner, component), component),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": owner.selector(component)}},
    }


def service_account(owner: Owner, component: str) -> dict[str, Any]:
    """A component's identity; its token is mounted only where the pod says so, for the election."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": owner.metadata(account_name(owner, component), component),
        "automountServiceAccountToken": False,
    }
