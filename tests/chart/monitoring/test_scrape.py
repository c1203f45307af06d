"""The chart's PodMonitors as a Prometheus without an operator reads them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.monitoring.files import promtool
from tests.chart.monitoring.scrape import NotKnown, Panel, panels, prometheus_config, rule_file

MONITOR: dict[str, Any] = {
    "kind": "PodMonitor",
    "metadata": {"name": "main", "namespace": "flows"},
    "spec": {
        "selector": {
            "matchLabels": {"app.kubernetes.io/name": "flow-aggregator"},
            "matchExpressions": [{"key": "part", "operator": "In", "values": ["writer", "reader"]}],
        },
        "podMetricsEndpoints": [
            {
                "port": "http",
                "interval": "5s",
                "scrapeTimeout": "3s",
                "honorLabels": True,
                "relabelings": [{"sourceLabels": ["__meta_kubernetes_pod_label_part"], "targetLabel": "component"}],
                "metricRelabelings": [{"sourceLabels": ["name"], "regex": "(.+)", "targetLabel": "flowaggregator"}],
            }
        ],
    },
}


def changed(**endpoint: Any) -> dict[str, Any]:
    spec = MONITOR["spec"]
    return MONITOR | {"spec": spec | {"podMetricsEndpoints": [spec["podMetricsEndpoints"][0] | endpoint]}}


def test_a_pod_monitor_becomes_a_job_that_finds_its_pods() -> None:
    (job,) = prometheus_config([{"kind": "Service"}, MONITOR])["scrape_configs"]
    assert job["kubernetes_sd_configs"] == [
        {
            "role": "pod",
            "namespaces": {"names": ["flows"]},
            "selectors": [
                {"role": "pod", "label": "app.kubernetes.io/name=flow-aggregator,part in (writer,reader)"},
            ],
        }
    ]
    assert (job["scrape_interval"], job["scrape_timeout"], job["honor_labels"]) == ("5s", "3s", True)
    assert job["relabel_configs"][-1] == {
        "source_labels": ["__meta_kubernetes_pod_label_part"],
        "target_label": "component",
    }
    assert job["metric_relabel_configs"] == [
        {"source_labels": ["name"], "regex": "(.+)", "target_label": "flowaggregator"}
    ]


@pytest.mark.parametrize("discovered", [False, True])
def test_prometheus_takes_the_configuration(discovered: bool, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule_file([])), encoding="utf-8")
    (tmp_path / "kubeconfig").write_text("{}", encoding="utf-8")
    config = prometheus_config([MONITOR], kubeconfig=str(tmp_path / "kubeconfig"), rule_files=["rules.yaml"])
    if not discovered:
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": []} for _ in job.pop("kubernetes_sd_configs")]
    file = tmp_path / "prometheus.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    try:
        printed = promtool("check", "config", file, directory=tmp_path)
    except AssertionError as error:
        if discovered and "field kubernetes_sd_configs not found" in str(error):
            pytest.skip("this promtool was built without the discovery of Kubernetes, as Debian 12's is")
        raise
    assert "is valid prometheus config file syntax" in printed


@pytest.mark.parametrize(
    "monitor",
    [
        changed(basicAuth={}),
        changed(relabelings=[{"targetLabel": "a", "sourceLabel": "b"}]),
        MONITOR | {"spec": MONITOR["spec"] | {"podTargetLabels": ["a"]}},
        MONITOR | {"spec": MONITOR["spec"] | {"selector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}},
    ],
)
def test_what_is_not_known_is_not_left_out(monitor: dict[str, Any]) -> None:
    with pytest.raises(NotKnown):
        prometheus_config([monitor])


def test_the_groups_of_all_rules_come_into_one_file() -> None:
    rules = [{"kind": "PrometheusRule", "spec": {"groups": [{"name": name, "rules": []}]}} for name in ("a", "b")]
    assert [group["name"] for group in rule_file([MONITOR, *rules])["groups"]] == ["a", "b"]


def test_the_variables_of_a_panel_are_filled_in() -> None:
    board = {
        "panels": [
            {"title": "Now", "panels": [{"title": "In a row", "targets": [{"expr": 'up{pod="$instance"}'}]}]},
            {"title": "Rate", "targets": [{"expr": 'rate(a{namespace="${namespace}"}[$__rate_interval])'}]},
        ]
    }
    assert panels(board, "flows", "main", "2m") == [
        Panel("In a row", 'up{pod="main"}'),
        Panel("Rate", 'rate(a{namespace="flows"}[2m])'),
    ]


def test_a_variable_that_nobody_fills_in_is_an_error() -> None:
    with pytest.raises(NotKnown, match="cluster"):
        panels({"panels": [{"title": "A", "targets": [{"expr": 'up{cluster="$cluster"}'}]}]}, "flows", "main")
