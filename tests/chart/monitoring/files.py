"""The chart's monitoring files, and promtool, which checks them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[3]
CHART: Final = ROOT / "charts" / "flow-aggregator"
RULES: Final = sorted((CHART / "rules").glob("*.yaml"))
DASHBOARDS: Final = sorted((CHART / "dashboards").glob("*.json"))
RUNBOOKS: Final = ROOT / "docs" / "runbooks"
_REFERENCE: Final = ROOT / "docs" / "reference" / "metrics.md"
_ROW: Final = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", re.MULTILINE)
_SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {"histogram": ("_bucket", "_sum", "_count")}

TARGET_LABELS: Final = frozenset({"namespace", "pod", "container", "job", "instance", "component", "flowaggregator"})
"""Labels that a scrape by the chart's PodMonitors gives to every series."""

SHARED: Final[Mapping[str, frozenset[str]]] = {
    # The election's, in writer and reader.
    "flowagg_active": frozenset(),
    "flowagg_election_transitions_total": frozenset(),
    "flowagg_election_failures_total": frozenset({"reason"}),
    # Of every service.
    "flowagg_http_connections": frozenset(),
    "flowagg_http_refused_total": frozenset({"status"}),
    # The operator's.
    "flowagg_operator_reconciles_total": frozenset({"result"}),
    "flowagg_operator_reconcile_seconds_bucket": frozenset({"le"}),
    "flowagg_operator_condition": frozenset({"name", "type", "status"}),
    "flowagg_operator_replicas": frozenset({"name", "component", "state"}),
    "flowagg_operator_leader": frozenset(),
    "flowagg_operator_lag": frozenset({"name", "partition"}),
    "flowagg_operator_lag_sum": frozenset({"name"}),
    "flowagg_operator_lag_seconds": frozenset({"name"}),
    "flowagg_operator_committed_offset": frozenset({"name", "partition"}),
    "flowagg_operator_group_members": frozenset({"name"}),
    "flowagg_operator_arrival_rate": frozenset({"name"}),
    "flowagg_operator_capacity": frozenset({"name"}),
    "flowagg_operator_consumers_wanted": frozenset({"name"}),
    "flowagg_operator_scalings_total": frozenset({"name", "direction"}),
    "flowagg_operator_scaling_held": frozenset({"name", "reason"}),
    # The process's, and Prometheus's own.
    "process_cpu_seconds_total": frozenset(),
    "process_resident_memory_bytes": frozenset(),
    "up": frozenset(),
    "ALERTS": frozenset({"alertname", "alertstate", "severity"}),
}


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert of the chart's rules, and the file that it is in."""

    path: Path
    name: str
    expr: str
    severity: str
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Record:
    """A recording rule of the chart's rules."""

    name: str
    expr: str


def _rules() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from ((path, rule) for rule in group["rules"])


def alerts() -> list[Alert]:
    """Every alert of the chart's rule files."""
    return [
        Alert(path, rule["alert"], rule["expr"], rule["labels"]["severity"], rule["annotations"])
        for path, rule in _rules()
        if "alert" in rule
    ]


def records() -> list[Record]:
    """Every recording rule of the chart's rule files."""
    return [Record(rule["record"], rule["expr"]) for _, rule in _rules() if "record" in rule]


def dashboard(path: Path) -> dict[str, Any]:
    """A dashboard as Grafana takes it."""
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


def known_metrics() -> dict[str, frozenset[str]]:
    """Series that there are -> their labels beside the target's."""
    known = dict(SHARED) | {record.name: frozenset[str]() for record in records()}
    for name, kind, labels in _ROW.findall(_REFERENCE.read_text(encoding="utf-8")):
        own = frozenset(re.findall(r"\w+", labels))
        for suffix in _SUFFIXES.get(kind, ("",)):
            known[name + suffix] = own | ({"le"} if suffix == "_bucket" else set())
    return known


_SELECTOR: Final = re.compile(r"([A-Za-z_:][\w:]*)\s*\{([^{}]*)\}")
_MATCHER: Final = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')


def selectors(expr: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Metric and labels of each selector with braces in an expression."""
    for name, matchers in _SELECTOR.findall(expr):
        yield name, frozenset(_MATCHER.findall(matchers))


def grouped(expr: str) -> frozenset[str]:
    """Labels that an expression groups or joins by."""
    lists = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^()]*)\)", expr)
    return frozenset(label for each in lists for label in re.findall(r"\w+", each))


def promtool(*arguments: str | Path, directory: Path) -> str:
    """What promtool prints. Raises AssertionError with it where something is wrong, or promtool is not there."""
    program = shutil.which("promtool")
    assert program is not None, "promtool is missing: apt-get install prometheus, or brew install prometheus"
    done = subprocess.run(
        [program, *map(str, arguments)], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
