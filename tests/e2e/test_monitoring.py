"""A real Prometheus on the cluster: each panel of the dashboards and each rule has data, and no alert fires."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.chart.monitoring.files import alerts, selectors
from tests.chart.monitoring.scrape import panels, prometheus_config, rule_file
from tests.e2e.kube import Object
from tests.e2e.pods import is_ready
from tests.e2e.release import Release
from tests.e2e.traffic import Traffic

NAME = "prometheus"
IMAGE = "docker.io/prom/prometheus:v2.53.3"
PORT = 9090
SCRAPE = {"scrape_interval": "3s", "scrape_timeout": "3s"}
RATE_INTERVAL = "15s"
LOAD_SECONDS = 30.0
FIRING = 'ALERTS{alertstate="firing"}'
IN_TROUBLE_ONLY = {
    "flowagg_consumer_partition_stopped",
    "flowagg_consumer_topic_misconfigured",
    "flowagg_operator_scaling_held",
}
"""Series that alerts are on and that a system without trouble does not have: Prometheus knows what they are."""
OF_THE_BUNDLED = (
    "flowagg_operator_redis_replica_lag_bytes",
    'flowagg_operator_redis_memory_bytes{kind="maximum"}',
)
"""Series that a Redis without replicas or bound does not have; their panels do without."""
MONITORING = {"monitoring": {part: {"enabled": True} for part in ("podMonitor", "rules", "dashboards")}}


def with_pods(release: Release, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the pods that its discovery finds now as fixed targets.

    Prometheus may be built without discovery in Kubernetes; the labels that relabelling reads are the same.
    """
    for job in config["scrape_configs"]:
        found = []
        for discovery in job.pop("kubernetes_sd_configs"):
            for selector in discovery["selectors"]:
                text = release.kube.run("get", "pods", f"--selector={selector['label']}", "--output=json")
                found += [_target(pod) for pod in json.loads(text)["items"] if is_ready(pod)]
        assert found, f"{job['job_name']} finds no pod"
        job.update(SCRAPE, static_configs=found)
    return config


def _target(pod: Object) -> Object:
    meta, spec = pod["metadata"], pod["spec"]
    [port] = [port for one in spec["containers"] for port in one.get("ports", []) if port["name"] == "http"]
    labels = {
        "namespace": meta["namespace"],
        "pod_name": meta["name"],
        "pod_phase": pod["status"]["phase"],
        "pod_node_name": spec["nodeName"],
        "pod_container_name": spec["containers"][0]["name"],
        "pod_container_port_name": port["name"],
        **{f"pod_label_{_sane(name)}": value for name, value in meta.get("labels", {}).items()},
    }
    return {
        "targets": [f"{pod['status']['podIP']}:{port['containerPort']}"],
        "labels": {f"__meta_kubernetes_{name}": value for name, value in labels.items()},
    }


def _sane(label: str) -> str:
    return "".join(one if one.isalnum() else "_" for one in label)


@pytest.fixture
def manifests(release: Release) -> list[Object]:
    """What the chart renders with monitoring on, where the Prometheus Operator's kinds are known."""
    kinds = ("PodMonitor", "PrometheusRule")
    found = release.render(MONITORING, *(f"--api-versions=monitoring.coreos.com/v1/{kind}" for kind in kinds))
    for one in found:
        one["metadata"].setdefault("namespace", release.kube.namespace)
    return found


@pytest.fixture
def prometheus(release: Release, manifests: list[Object]) -> Iterator[Callable[[str], Any]]:
    """A Prometheus that scrapes the release; asks it: path and query in, data out."""
    config = with_pods(release, prometheus_config(manifests, rule_files=["rules.yaml"]))
    config["global"] = {"evaluation_interval": "3s"}
    files = {"prometheus.yaml": yaml.safe_dump(config), "rules.yaml": yaml.safe_dump(rule_file(manifests))}
    release.kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": files}, _pod())

    def ask(path: str) -> Any:
        proxy = f"/api/v1/namespaces/{release.kube.namespace}/pods/{NAME}:{PORT}/proxy/api/v1/{path}"
        answer = json.loads(release.kube.run("get", "--raw", proxy))
        assert answer["status"] == "success", answer
        return answer["data"]

    try:
        release.wait(lambda: is_ready(release.kube.get("pod", NAME)), "Prometheus is ready", 60)
        yield ask
    finally:
        release.kube.delete("pod", NAME, wait=True)
        release.kube.delete("configmap", NAME)


def _pod() -> Object:
    container = {
        "name": NAME,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/prometheus"],
        "args": ["--config.file=/etc/prometheus/prometheus.yaml", "--storage.tsdb.path=/data"],
        "ports": [{"name": "web", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": PORT}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "config", "mountPath": "/etc/prometheus"}, {"name": "data", "mountPath": "/data"}],
    }
    security = {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": security,
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": NAME}}, {"name": "data", "emptyDir": {}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME}, "spec": spec}


def unknown(prometheus: Callable[[str], Any]) -> list[str]:
    """Alerts whose series have no data, though they should, or which no pod has ever named."""
    described = prometheus("metadata")
    found = []
    for alert in alerts():
        for name in {name for name, _ in selectors(alert.expr)}:
            if prometheus(f"query?query={quote(f'count({name})')}")["result"]:
                continue
            if name not in IN_TROUBLE_ONLY or not {name, name.removesuffix("_total")} & described.keys():
                found.append(f"{alert.name}: {name}")
    return found


def test_prometheus_sees_each_pod_each_panel_and_rule_has_data_and_no_alert_fires(
    release: Release, load: Callable[..., Traffic], manifests: list[Object], prometheus: Callable[[str], Any]
) -> None:
    texts = [
        text
        for one in manifests
        if one["kind"] == "ConfigMap"
        for name, text in one["data"].items()
        if name.endswith(".json")
    ]
    assert texts, "the chart renders no dashboard"
    asked = [
        panel
        for text in texts
        for panel in panels(json.loads(text), release.kube.namespace, release.fullname, RATE_INTERVAL)
    ]
    with load() as traffic:
        traffic.wait_flowing()
        traffic.watch(LOAD_SECONDS)
        empty = [one for one in asked if not prometheus(f"query?query={quote(one.expr)}")["result"]]
        unseen = unknown(prometheus)
        without = [expr for expr in OF_THE_BUNDLED if not prometheus(f"query?query={quote(expr)}")["result"]]
    targets = prometheus("targets?state=active")["activeTargets"]
    assert [f"{one['scrapeUrl']}: {one['lastError']}" for one in targets if one["health"] != "up"] == []
    rules = [rule for group in prometheus("rules")["groups"] for rule in group["rules"]]
    assert rules, "no rule is loaded"
    assert [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] != "ok"] == []
    records = [rule["name"] for rule in rules if rule["type"] == "recording"]
    assert records, "no recording rule is loaded"
    assert [name for name in records if not prometheus(f"query?query={quote(name)}")["result"]] == []
    firing = prometheus(f"query?query={quote(FIRING)}")["result"]
    assert [one["metric"] for one in firing] == []
    print(f"{len(asked)} queries of panels, {len(targets)} targets, {len(rules)} rules")
    assert unseen == []
    assert without == []
    assert [f"{panel.title}: {panel.expr}" for panel in empty] == []
