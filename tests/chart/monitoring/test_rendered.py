"""What the chart makes of the monitoring files with its values."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.chart.charts import HELMS, NAMESPACE, RELEASE, HelmRefused, objects, pods, template
from tests.chart.monitoring.files import CHART, DASHBOARDS, RULES, alerts, promtool, records
from tests.chart.monitoring.scrape import Manifest, prometheus_config, rule_file

_KINDS: Final = {"PodMonitor", "PrometheusRule"}
_ON: Final = {part: {"enabled": True} for part in ("podMonitor", "rules", "dashboards")}


def rendered(tmp_path: Path, monitoring: Any = None, helm: str = "helm", **values: Any) -> list[dict[str, Any]]:
    """The objects of the chart with every part of monitoring on, and these values."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"monitoring": monitoring or _ON, **values}), encoding="utf-8")
    return objects(template(helm, "--values", str(file)))


def rules(tmp_path: Path, **values: Any) -> dict[str, dict[str, Any]]:
    """Alert -> its rule, with these values of monitoring.rules."""
    found = rule_file(rendered(tmp_path, {"rules": {"enabled": True} | values}))
    return {rule["alert"]: rule for group in found["groups"] for rule in group["rules"] if "alert" in rule}


def selected(monitor: Manifest, labels: dict[str, str]) -> bool:
    selector = monitor["spec"]["selector"]
    return selector["matchLabels"].items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", [])
    )


def test_all_of_it_is_off_by_default() -> None:
    found = objects(template("helm"))
    assert not [each for each in found if each["kind"] in _KINDS]
    assert not [each for each in found if "-dashboard-" in each["metadata"]["name"]]


@pytest.mark.parametrize("helm", HELMS)
def test_the_rules_are_the_files_with_the_releases_namespace_and_name(helm: str, tmp_path: Path) -> None:
    expected = []
    for path in RULES:
        text = (
            path.read_text(encoding="utf-8").replace('"NAMESPACE"', f'"{NAMESPACE}"').replace('"NAME"', f'"{RELEASE}"')
        )
        expected += yaml.safe_load(text)["groups"]
    assert rule_file(rendered(tmp_path, helm=helm))["groups"] == expected


def test_promtool_reads_the_rules_that_are_rendered(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rule_file(rendered(tmp_path))), encoding="utf-8")
    assert f"SUCCESS: {len(alerts()) + len(records())} rules found" in promtool(
        "check", "rules", file, directory=tmp_path
    )


def test_every_bound_of_the_values_is_in_one_rule_and_the_other_way_round() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    bounds = values["monitoring"]["rules"]["thresholds"]
    exprs = [*(alert.expr for alert in alerts()), *(record.expr for record in records())]
    written = [found for expr in exprs for found in re.findall(r"[>+] ([\d.]+) # (\w+)$", expr, re.MULTILINE)]
    assert sorted((name, float(bound)) for bound, name in written) == sorted(
        (name, float(bound)) for name, bound in bounds.items()
    )


def test_a_bound_of_the_values_takes_the_place_of_that_in_the_file(tmp_path: Path) -> None:
    found = rules(tmp_path, thresholds={"lagSeconds": 90.5})
    assert "> 90.5 # lagSeconds" in found["FlowAggregatorLagging"]["expr"]
    assert "> 0.05 # postsRefusedRatio" in found["FlowAggregatorPostsRefused"]["expr"]


def test_a_budget_of_the_values_takes_the_place_of_that_in_the_file(tmp_path: Path) -> None:
    found = rule_file(rendered(tmp_path, {"rules": {"enabled": True, "thresholds": {"postErrorBudget": 0.02}}}))
    exprs = {rule["record"]: rule["expr"] for group in found["groups"] for rule in group["rules"] if "record" in rule}
    assert "+ 0.02 # postErrorBudget" in exprs["flowaggregator:flowagg_writer_posts:error_budget"]
    assert "+ 0.001 # getErrorBudget" in exprs["flowaggregator:flowagg_reader_gets:error_budget"]


def test_single_alerts_can_be_changed_and_left_out(tmp_path: Path) -> None:
    changes = {
        "FlowAggregatorLagging": {"for": "15m", "severity": "critical"},
        "FlowAggregatorViewIncomplete": {"for": "1h"},
        "FlowAggregatorDeadLetters": {"enabled": False},
    }
    found = rules(tmp_path, alerts=changes, alertLabels={"team": "network"})
    assert found["FlowAggregatorLagging"]["for"] == "15m"
    assert found["FlowAggregatorLagging"]["labels"] == {"severity": "critical", "team": "network"}
    assert found["FlowAggregatorViewIncomplete"]["for"] == "1h"
    assert found.keys() == {alert.name for alert in alerts()} - {"FlowAggregatorDeadLetters"}


def test_a_group_without_alerts_is_left_out(tmp_path: Path) -> None:
    (first,) = [path for path in RULES if path.stem == "serving"]
    names = [rule["alert"] for rule in yaml.safe_load(first.read_text(encoding="utf-8"))["groups"][0]["rules"]]
    changes = {name: {"enabled": False} for name in names}
    found = rule_file(rendered(tmp_path, {"rules": {"enabled": True, "alerts": changes}}))
    assert len(found["groups"]) == len(RULES) - 1


def test_an_alert_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HelmRefused, match=r"FlowAggregatorLaging: there is no such alert; .*FlowAggregatorLagging"):
        rules(tmp_path, alerts={"FlowAggregatorLaging": {"enabled": False}})


@pytest.mark.parametrize("suffix", [".md", ".html"])
def test_an_alert_has_the_address_of_its_runbook_where_one_is_given(suffix: str, tmp_path: Path) -> None:
    found = rules(tmp_path, runbookBaseUrl="https://docs.example/runbooks/", runbookSuffix=suffix)
    annotations = found["FlowAggregatorLagging"]["annotations"]
    assert annotations["runbook_url"] == f"https://docs.example/runbooks/FlowAggregatorLagging{suffix}"
    assert "runbook" not in annotations


@pytest.mark.parametrize(
    ("writer", "reader", "watched"),
    [
        ("ActivePassive", "ActivePassive", '"writer|reader"'),
        ("ActiveActive", "ActivePassive", '"reader"'),
        ("ActivePassive", "ActiveActive", '"writer"'),
        ("ActiveActive", "ActiveActive", None),
    ],
)
def test_two_active_pods_are_an_alarm_only_where_there_should_be_one(
    writer: str, reader: str, watched: str | None, tmp_path: Path
) -> None:
    parts = {"writer": {"mode": writer}, "reader": {"mode": reader}}
    found = rule_file(rendered(tmp_path, flowAggregator=parts))
    of_all = [rule for group in found["groups"] for rule in group["rules"]]
    exprs = [rule["expr"] for rule in of_all if "TwoActive" in rule.get("alert", "")]
    assert [f"component=~{watched}" in expr for expr in exprs] == ([] if watched is None else [True])


@pytest.mark.parametrize("component", ["writer", "reader", "consumer"])
def test_the_pods_that_the_operator_makes_are_scraped_once(component: str, tmp_path: Path) -> None:
    labels = {
        "app.kubernetes.io/name": "flow-aggregator",
        "app.kubernetes.io/instance": RELEASE,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": "flow-aggregator-operator",
    }
    monitors = [each for each in rendered(tmp_path) if each["kind"] == "PodMonitor"]
    assert [selected(monitor, labels) for monitor in monitors].count(True) == 1


def test_of_the_charts_own_pods_the_operators_alone_are_scraped_at_a_port_that_they_have(tmp_path: Path) -> None:
    found = rendered(tmp_path)
    monitors = [each for each in found if each["kind"] == "PodMonitor"]
    scraped = {}
    for pod in pods(template("helm")):
        for monitor in monitors:
            if selected(monitor, dict(pod.labels)):
                ports = {port["name"] for each in pod.containers for port in each.get("ports", [])}
                scraped[pod.owner] = {end["port"] for end in monitor["spec"]["podMetricsEndpoints"]} <= ports
    assert scraped == {f"Deployment/{RELEASE}-operator": True}


def test_labels_and_times_of_the_pod_monitors_are_values(tmp_path: Path) -> None:
    values = {"enabled": True, "labels": {"release": "kps"}, "interval": "30s", "scrapeTimeout": "20s"}
    found = [each for each in rendered(tmp_path, {"podMonitor": values}) if each["kind"] == "PodMonitor"]
    assert len(found) == 2
    for monitor in found:
        assert monitor["metadata"]["labels"]["release"] == "kps"
    times = {(job["scrape_interval"], job["scrape_timeout"]) for job in prometheus_config(found)["scrape_configs"]}
    assert times == {("30s", "20s")}


def test_grafanas_sidecar_finds_the_dashboards(tmp_path: Path) -> None:
    found = [each for each in rendered(tmp_path) if each["metadata"]["name"].startswith(f"{RELEASE}-dashboard-")]
    assert {each["kind"] for each in found} == {"ConfigMap"}
    assert {each["metadata"]["labels"]["grafana_dashboard"] for each in found} == {"1"}
    assert {each["metadata"]["namespace"] for each in found} == {NAMESPACE}
    assert {name: json.loads(text) for each in found for name, text in each["data"].items()} == {
        path.name: json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS
    }


def test_the_dashboards_can_be_in_another_namespace(tmp_path: Path) -> None:
    values = {"dashboards": {"enabled": True, "namespace": "grafana", "labels": {"my-dashboards": "yes"}}}
    found = [each for each in rendered(tmp_path, values) if "-dashboard-" in each["metadata"]["name"]]
    assert len(found) == len(DASHBOARDS)
    assert {each["metadata"]["namespace"] for each in found} == {"grafana"}
    assert {each["metadata"]["labels"]["my-dashboards"] for each in found} == {"yes"}
