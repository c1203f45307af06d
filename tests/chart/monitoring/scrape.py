"""From what the chart renders to a Prometheus without its operator: configuration, rules and panels. Pure.

PodMonitors and PrometheusRules become what the Prometheus Operator makes of them, as far as the chart uses them:
a field that is not known here is an error, not left out.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Manifest = Mapping[str, Any]

_RELABELINGS: Final = {
    "sourceLabels": "source_labels",
    "targetLabel": "target_label",
    "separator": "separator",
    "regex": "regex",
    "modulus": "modulus",
    "replacement": "replacement",
    "action": "action",
}
_OPERATORS: Final = {"In": "in", "NotIn": "notin"}


class NotKnown(Exception):
    """A manifest has a field that this does not turn into configuration."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One query of a dashboard's panel, ready to be asked."""

    title: str
    expr: str


def prometheus_config(
    manifests: Iterable[Manifest], *, kubeconfig: str | None = None, rule_files: Iterable[str] = ()
) -> dict[str, Any]:
    """Configuration that scrapes what the PodMonitors among the manifests select; each must name its namespace.

    kubeconfig: path of one, for a Prometheus outside of the cluster; inside, its pod's service account is used,
    which must be allowed to list and watch pods.
    """
    jobs = [
        _job(monitor, endpoint, number, kubeconfig)
        for monitor in manifests
        if monitor["kind"] == "PodMonitor"
        for number, endpoint in enumerate(monitor["spec"]["podMetricsEndpoints"])
    ]
    return {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": list(rule_files),
        "scrape_configs": jobs,
    }


def rule_file(manifests: Iterable[Manifest]) -> dict[str, Any]:
    """The rules of all PrometheusRules among the manifests, as Prometheus and promtool read them."""
    groups = [group for rule in manifests if rule["kind"] == "PrometheusRule" for group in rule["spec"]["groups"]]
    return {"groups": groups}


def panels(dashboard: Mapping[str, Any], namespace: str, instance: str, rate_interval: str = "1m") -> list[Panel]:
    """Each query of a dashboard with its variables filled in.

    rate_interval: at least four scrape intervals, as Grafana takes for $__rate_interval.
    """
    values = {"namespace": namespace, "instance": instance, "__rate_interval": rate_interval}
    return [
        Panel(panel["title"], _filled_in(target["expr"], values))
        for panel in _panels(dashboard["panels"])
        for target in panel.get("targets", [])
    ]


def _panels(found: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for panel in found:
        yield panel
        yield from _panels(panel.get("panels", []))


def _filled_in(expr: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in values:
            raise NotKnown(f"variable {name} in {expr}")
        return values[name]

    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, expr)


def _job(monitor: Manifest, endpoint: Mapping[str, Any], number: int, kubeconfig: str | None) -> dict[str, Any]:
    name, namespace = monitor["metadata"]["name"], monitor["metadata"]["namespace"]
    _only(monitor["spec"], {"selector", "podMetricsEndpoints"})
    known = {"port", "path", "interval", "scrapeTimeout", "honorLabels", "relabelings", "metricRelabelings"}
    _only(endpoint, known)
    discovery: dict[str, Any] = {
        "role": "pod",
        "namespaces": {"names": [namespace]},
        "selectors": [{"role": "pod", "label": _selector(monitor["spec"]["selector"])}],
    }
    if kubeconfig is not None:
        discovery["kubeconfig_file"] = kubeconfig
    relabelings = [
        {"action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)"},
        {
            "action": "keep",
            "source_labels": ["__meta_kubernetes_pod_container_port_name"],
            "regex": re.escape(endpoint["port"]),
        },
        *(
            {"source_labels": [f"__meta_kubernetes_{source}"], "target_label": target}
            for source, target in (("namespace", "namespace"), ("pod_container_name", "container"), ("pod_name", "pod"))
        ),
        {"target_label": "job", "replacement": f"{namespace}/{name}"},
        *(_relabeling(each) for each in endpoint.get("relabelings", [])),
    ]
    job = {
        "job_name": f"podMonitor/{namespace}/{name}/{number}",
        "kubernetes_sd_configs": [discovery],
        "metrics_path": endpoint.get("path", "/metrics"),
        "honor_labels": endpoint.get("honorLabels", False),
        "relabel_configs": relabelings,
        "metric_relabel_configs": [_relabeling(each) for each in endpoint.get("metricRelabelings", [])],
    }
    times = (("interval", "scrape_interval"), ("scrapeTimeout", "scrape_timeout"))
    return job | {ours: endpoint[theirs] for theirs, ours in times if theirs in endpoint}


def _selector(selector: Mapping[str, Any]) -> str:
    """A label selector as the API takes it in a query."""
    _only(selector, {"matchLabels", "matchExpressions"})
    parts = [f"{label}={value}" for label, value in selector.get("matchLabels", {}).items()]
    for each in selector.get("matchExpressions", []):
        if each["operator"] not in _OPERATORS:
            raise NotKnown(f"operator {each['operator']}")
        parts.append(f"{each['key']} {_OPERATORS[each['operator']]} ({','.join(each['values'])})")
    return ",".join(parts)


def _relabeling(relabeling: Mapping[str, Any]) -> dict[str, Any]:
    _only(relabeling, _RELABELINGS.keys())
    return {ours: relabeling[theirs] for theirs, ours in _RELABELINGS.items() if theirs in relabeling}


def _only(fields: Mapping[str, Any], known: Iterable[str]) -> None:
    unknown = fields.keys() - set(known)
    if unknown:
        raise NotKnown(", ".join(sorted(unknown)))
