"""The alerts: promtool reads them, each fires for what it is about and clears after it, each has a runbook."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.chart.monitoring.files import (
    ROOT,
    RULES,
    RUNBOOKS,
    TARGET_LABELS,
    Alert,
    Record,
    alerts,
    grouped,
    known_metrics,
    promtool,
    records,
    selectors,
)

PLACE: Final = 'namespace="NAMESPACE", flowaggregator="NAME"'
ALERTS: Final = {alert.name: alert for alert in alerts()}
_EVERY_ALERT: Final = pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS.keys())


@dataclass(frozen=True, slots=True)
class Case:
    """An alert on series of a sample every so many minutes (sampled), with its rules evaluated as often (evaluated).

    series: metric and labels beside those of the place -> values as promtool writes them: 0x5 is 0 six times, 1+2x5
    grows by 2, _x5 is no sample five times, stale ends a series. quiet, firing: minutes at which it does not and does
    fire. labels: of the one that fires, beside those of the place.
    """

    alert: str
    series: Mapping[str, str]
    quiet: tuple[int, ...]
    firing: tuple[int, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    place: Mapping[str, str] = field(default_factory=lambda: {"namespace": "NAMESPACE", "flowaggregator": "NAME"})
    about: str = ""
    sampled: int = 1
    evaluated: int = 1


WRITER: Final = 'component="writer", pod="writer-{}"'.format
READER: Final = 'component="reader", pod="reader-{}"'.format
CONSUMER: Final = 'component="consumer", pod="consumer-{}"'.format
_BOTH_ACTIVE: Final = {
    f"flowagg_active|{WRITER(1)}": "1x40",
    f"flowagg_active|{WRITER(2)}": "0x40",
    f"flowagg_active|{READER(1)}": "0x40",
    f"flowagg_active|{READER(2)}": "1x40",
}
_PARTITION: Final = 'name="NAME", partition="3", component="operator", pod="operator-1"'
_OWNS: Final = {f'flowagg_consumer_partitions|state="running", {CONSUMER(1)}': "6x40"}

_BUDGETS: Final = (
    ("Post", "flowagg_writer_posts_total", "flowagg_writer_in_flight_bytes", WRITER),
    ("Get", "flowagg_reader_gets_total", "flowagg_reader_body_cache_bytes", READER),
)

CASES: Final = [
    Case(
        "FlowAggregatorLagging",
        {'flowagg_operator_lag_seconds|name="NAME"': "60x5 61x10 3x10"},
        quiet=(5, 9, 18),
        firing=(12, 15),
    ),
    Case(
        "FlowAggregatorLagUnknown",
        {'flowagg_operator_lag_seconds|name="NAME"': "0x5 _x19 0x5"},
        quiet=(5, 12, 26),
        firing=(22, 24),
    ),
    Case(
        "FlowAggregatorLagUnknown",
        {'flowagg_operator_lag_seconds|name="NAME"': "0x5" + " NaN" * 15 + " 0x10"},
        quiet=(5, 14, 24),
        firing=(18, 20),
        about="not a number is no lag",
    ),
    Case(
        "FlowAggregatorPartitionStopped",
        {f'flowagg_consumer_partition_stopped|partition="3", reason="TopicChanged", {CONSUMER(1)}': "_x4 1x5 stale"},
        quiet=(3, 4, 12),
        firing=(5, 9),
        labels={"partition": "3", "reason": "TopicChanged"},
    ),
    Case(
        "FlowAggregatorPartitionStalled",
        {
            f"flowagg_operator_lag|{_PARTITION}": "0x5 9x20 0x5",
            f"flowagg_operator_committed_offset|{_PARTITION}": "0+7x5 42x20 51x5",
        },
        quiet=(5, 9, 27),
        firing=(18, 26),
        labels={"partition": "3"},
    ),
    Case(
        "FlowAggregatorPartitionStalled",
        {
            f"flowagg_operator_lag|{_PARTITION}": "9x30",
            f"flowagg_operator_committed_offset|{_PARTITION}": "0+7x30",
        },
        quiet=(5, 15, 30),
        firing=(),
        about="a partition with lag that is being applied",
    ),
    Case(
        "FlowAggregatorPartitionNotApplied",
        {
            f'flowagg_consumer_partitions|state="loading", {CONSUMER(1)}': "0x2 1x14 0x5",
            f'flowagg_consumer_partitions|state="loading", {CONSUMER(2)}': "0x30",
        },
        quiet=(2, 10, 20),
        firing=(14, 16),
    ),
    Case(
        "FlowAggregatorViewIncomplete",
        {f'flowagg_consumer_partition_incomplete|partition="0", {CONSUMER(1)}': "0x2 1x5 0x5"},
        quiet=(2, 9),
        firing=(3, 7),
        labels={"partition": "0"},
    ),
    Case(
        "FlowAggregatorDeadLetters",
        {f'flowagg_consumer_dead_letters_total|reason="InvalidKey", {CONSUMER(1)}': "0x20 2x40"},
        quiet=(20, 38),
        firing=(22, 30),
        labels={"reason": "InvalidKey"},
    ),
    Case(
        "FlowAggregatorDeadLetters",
        {f'flowagg_consumer_dead_letters_total|reason="InvalidKey", {CONSUMER(1)}': "_x20 1x40"},
        quiet=(19, 36),
        firing=(20, 30),
        labels={"reason": "InvalidKey"},
        about="a consumer that is new wrote one before it was scraped",
    ),
    Case(
        "FlowAggregatorTopicMisconfigured",
        {f'flowagg_consumer_topic_misconfigured|setting="cleanup.policy", {CONSUMER(1)}': "1x10 stale"},
        quiet=(3, 12),
        firing=(6, 10),
        labels={"setting": "cleanup.policy"},
    ),
    Case(
        "FlowAggregatorNoActive",
        _BOTH_ACTIVE | {f"flowagg_active|{WRITER(1)}": "1x5 0x5 1x5"},
        quiet=(5, 6, 12),
        firing=(7, 10),
        labels={"component": "writer"},
        about="none says that it is",
    ),
    Case(
        "FlowAggregatorNoActive",
        _BOTH_ACTIVE
        | {f"flowagg_active|{READER(1)}": "0x5 stale _x8 0x5", f"flowagg_active|{READER(2)}": "1x5 stale _x8 1x5"},
        quiet=(5, 6, 16),
        firing=(8, 13),
        labels={"component": "reader"},
        about="none is scraped",
    ),
    Case(
        "FlowAggregatorNoActive",
        _BOTH_ACTIVE | {f"flowagg_active|{WRITER(1)}": "1x5 0x30", f"flowagg_active|{WRITER(2)}": "0x6 1x30"},
        quiet=(5, 6, 7, 8, 20),
        firing=(),
        about="a hand-over",
    ),
    Case(
        "FlowAggregatorTwoActive",
        _BOTH_ACTIVE | {f"flowagg_active|{READER(1)}": "0x5 1x10 0x5"},
        quiet=(5, 7, 17),
        firing=(9, 16),
        labels={"component": "reader"},
    ),
    Case(
        "FlowAggregatorPostsRefused",
        {
            f'flowagg_writer_posts_total|status="200", {WRITER(1)}': "0+94x40",
            f'flowagg_writer_posts_total|status="400", {WRITER(1)}': "0+50x40",
            f'flowagg_writer_posts_total|status="503", {WRITER(1)}': "0x10 0+20x10 200x20",
        },
        quiet=(10, 11, 28),
        firing=(16, 20),
    ),
    Case(
        "FlowAggregatorPostsRefused",
        {
            f'flowagg_writer_posts_total|status="200", {WRITER(1)}': "0x20",
            f'flowagg_writer_posts_total|status="503", {WRITER(1)}': "0x20",
        },
        quiet=(5, 15),
        firing=(),
        about="without POSTs none is refused",
    ),
    *(
        case
        for what, counter, witness, pod in _BUDGETS
        for case in (
            Case(
                f"FlowAggregator{what}BudgetBurnsFast",
                {
                    f'{counter}|status="200", {pod(1)}': "0+980x700",
                    f'{counter}|status="503", {pod(1)}': "0x300 0+20x120 2400x280",
                    f"{witness}|{pod(1)}": "0x700",
                },
                quiet=(300, 330, 460, 700),
                firing=(360, 420),
                about="2 % for two hours",
                evaluated=5,
            ),
            Case(
                f"FlowAggregator{what}BudgetBurnsFast",
                {
                    f'{counter}|status="200", {pod(1)}': "0+990x1200",
                    f'{counter}|status="503", {pod(1)}': "0x400 0+10x600 6000x200",
                    f"{witness}|{pod(1)}": "0x1200",
                },
                quiet=(400, 560, 1080, 1200),
                firing=(640, 1000),
                about="1 % for ten hours",
                evaluated=10,
            ),
            Case(
                f"FlowAggregator{what}BudgetBurnsFast",
                {
                    f'{counter}|status="200", {pod(1)}': "0+995x1200",
                    f'{counter}|status="503", {pod(1)}': "0x200 0+5x1000",
                    f"{witness}|{pod(1)}": "0x1200",
                },
                quiet=(200, 700, 1200),
                firing=(),
                about="0.5 % are for the slow one",
                evaluated=10,
            ),
            Case(
                f"FlowAggregator{what}BudgetBurnsSlowly",
                {
                    f'{counter}|status="200", {pod(1)}': "0+1990x4400",
                    f'{counter}|status="503", {pod(1)}': "0x1000 0+10x750 7500x2650",
                    f"{witness}|{pod(1)}": "0x4400",
                },
                quiet=(2000, 2400, 4000, 8500),
                firing=(2980, 3480),
                about="0.5 % for a day",
                sampled=2,
                evaluated=20,
            ),
            Case(
                f"FlowAggregator{what}BudgetBurnsSlowly",
                {f'{counter}|status="200", {pod(1)}': "0+1x300", f"{witness}|{pod(1)}": "0x300"},
                quiet=(100, 300),
                firing=(),
                about="nothing fails, and there is no series of failures",
                evaluated=10,
            ),
        )
    ),
    Case(
        "FlowAggregatorTopicUnderReplicated",
        {
            'flowagg_operator_topic_partitions|name="NAME", state="all"': "6x60",
            'flowagg_operator_topic_partitions|name="NAME", state="under_replicated"': "0x5 2x20 0x30",
            'flowagg_operator_topic_partitions|name="NAME", state="leaderless"': "0x60",
        },
        quiet=(5, 14, 40),
        firing=(17, 25),
    ),
    Case(
        "FlowAggregatorRedisNearlyFull",
        {
            'flowagg_operator_redis_memory_bytes|name="NAME", kind="used"': "50x5 90x20 60x30",
            'flowagg_operator_redis_memory_bytes|name="NAME", kind="maximum"': "100x60",
        },
        quiet=(5, 9, 40),
        firing=(12, 25),
    ),
    Case(
        "FlowAggregatorRedisNearlyFull",
        {'flowagg_operator_redis_memory_bytes|name="NAME", kind="used"': "5000000x60"},
        quiet=(5, 50),
        firing=(),
        about="a Redis without a bound",
    ),
    Case(
        "FlowAggregatorReadsFailing",
        {
            f'flowagg_reader_gets_total|status="200", {READER(1)}': "0+94x40",
            f'flowagg_reader_gets_total|status="503", {READER(1)}': "0x10 0+20x10 200x20",
        },
        quiet=(10, 11, 28),
        firing=(16, 20),
    ),
    Case(
        "FlowAggregatorReadsStale",
        {
            f'flowagg_reader_gets_total|status="200", {READER(1)}': "0+100x40",
            f"flowagg_reader_stale_total|{READER(1)}": "0x10 0+30x12 360x20",
        },
        quiet=(10, 14, 30),
        firing=(20, 22),
    ),
    Case(
        "FlowAggregatorKafkaAway",
        {'flowagg_operator_condition|name="NAME", type="KafkaReady", status="False"': "0x5 1x5 0x5"},
        quiet=(5, 7, 12),
        firing=(8, 10),
        about="by the operator",
    ),
    Case(
        "FlowAggregatorKafkaAway",
        _OWNS | {f'flowagg_consumer_waiting|source="kafka", {CONSUMER(1)}': "0x5 1x5 0x5"},
        quiet=(5, 7, 12),
        firing=(8, 10),
        about="by a consumer",
    ),
    Case(
        "FlowAggregatorKafkaAway",
        _OWNS
        | {
            f'flowagg_consumer_waiting|source="kafka", {CONSUMER(1)}': "0x40",
            f'flowagg_consumer_partitions|state="running", {CONSUMER(2)}': "0x40",
            f'flowagg_consumer_waiting|source="kafka", {CONSUMER(2)}': "1x40",
        },
        quiet=(5, 30),
        firing=(),
        about="a spare consumer without partitions, which asks Kafka for nothing",
    ),
    Case(
        "FlowAggregatorKafkaAway",
        {
            f'flowagg_consumer_waiting|source="kafka", {CONSUMER(1)}': "1x10 0x5",
            f'flowagg_consumer_waiting|source="kafka", {CONSUMER(2)}': "1x15",
        },
        quiet=(1, 12),
        firing=(3, 10),
        about="by consumers that were never given partitions",
    ),
    Case(
        "FlowAggregatorKafkaAway",
        {
            f'flowagg_reader_end_offset_lookups_total|result="ok", {READER(1)}': "0+9x10 90x10 90+9x20",
            f'flowagg_reader_end_offset_lookups_total|result="failed", {READER(1)}': "0x10 0+9x10 90x20",
        },
        quiet=(10, 12, 23),
        firing=(15, 20),
        about="by readers",
    ),
    Case(
        "FlowAggregatorRedisAway",
        {'flowagg_operator_condition|name="NAME", type="RedisReady", status="False"': "0x5 1x5 0x5"},
        quiet=(5, 7, 12),
        firing=(8, 10),
        about="by the operator",
    ),
    Case(
        "FlowAggregatorRedisAway",
        _OWNS | {f'flowagg_consumer_waiting|source="redis", {CONSUMER(1)}': "0x5 1x5 0x5"},
        quiet=(5, 7, 12),
        firing=(8, 10),
        about="by a consumer",
    ),
    Case(
        "FlowAggregatorRedisAway",
        {
            f'flowagg_reader_waiting|source="redis", {READER(1)}': "1x15",
            f'flowagg_reader_waiting|source="redis", {READER(2)}': "0x5 1x5 0x5",
        },
        quiet=(5, 7, 12),
        firing=(8, 10),
        about="by all readers",
    ),
    Case(
        "FlowAggregatorDeadLetterTopicAway",
        {f'flowagg_consumer_waiting|source="dead_letters", {CONSUMER(1)}': "0x5 1x5 0x5"},
        quiet=(5, 7, 12),
        firing=(8, 10),
    ),
    Case(
        "FlowAggregatorOperatorAway",
        {
            'flowagg_operator_leader|pod="operator-1"': "1x5 0x10 1x5",
            'flowagg_operator_leader|pod="operator-2"': "0x40",
        },
        quiet=(5, 10, 17),
        firing=(11, 15),
        place={"namespace": "NAMESPACE"},
    ),
    Case(
        "FlowAggregatorOperatorAway",
        {'flowagg_operator_leader|pod="operator-1"': "1x5 stale _x10 1x5"},
        quiet=(5, 10, 20),
        firing=(12, 15),
        place={"namespace": "NAMESPACE"},
        about="none is scraped",
    ),
    Case(
        "FlowAggregatorOperatorFailing",
        {
            'flowagg_operator_reconciles_total|result="done"': "0+2x10 20x30 20+2x10",
            'flowagg_operator_reconciles_total|result="failed"': "0x10 0+2x30 60x10",
        },
        quiet=(10, 25, 44),
        firing=(32, 40),
        place={"namespace": "NAMESPACE"},
    ),
    Case(
        "FlowAggregatorNotReady",
        {
            'flowagg_operator_condition|name="NAME", type="Ready", status="True"': "1x2 0x15 1x5",
            'flowagg_operator_condition|name="NAME", type="Ready", status="False"': "0x2 1x15 0x5",
        },
        quiet=(2, 11, 20),
        firing=(14, 17),
    ),
    Case(
        "FlowAggregatorReplicasMissing",
        {
            'flowagg_operator_replicas|name="NAME", component="consumer", state="desired"': "3x40",
            'flowagg_operator_replicas|name="NAME", component="consumer", state="ready"': "3x2 2x15 3x5",
            'flowagg_operator_replicas|name="NAME", component="reader", state="desired"': "2x40",
            'flowagg_operator_replicas|name="NAME", component="reader", state="ready"': "2x40",
        },
        quiet=(2, 11, 20),
        firing=(14, 17),
        labels={"component": "consumer"},
    ),
    Case(
        "FlowAggregatorNotScraped",
        {f'up|job="flows/main", {READER(1)}': "1x2 0x10 1x5"},
        quiet=(2, 6, 15),
        firing=(9, 12),
        labels={"component": "reader", "pod": "reader-1", "job": "flows/main"},
    ),
    Case(
        "FlowAggregatorPartitionsExhausted",
        {'flowagg_operator_scaling_held|name="NAME", reason="PartitionsExhausted"': "_x4 1x6 _x2 1x20 stale"},
        quiet=(4, 18, 40),
        firing=(21, 30),
        about="a rebalance in between is no end",
    ),
    Case(
        "FlowAggregatorPartitionsExhausted",
        {'flowagg_operator_scaling_held|name="NAME", reason="Unsettled"': "1x40"},
        quiet=(5, 20, 40),
        firing=(),
        about="another reason",
    ),
    Case(
        "FlowAggregatorScalingIneffective",
        {'flowagg_operator_scaling_held|name="NAME", reason="ScalingIneffective"': "_x4 1x14 stale _x3 1x14 stale"},
        quiet=(4, 18, 50),
        firing=(21, 26, 35),
        about="a hold, a scale-up in between, and the next hold",
    ),
    Case(
        "FlowAggregatorViewNotReady",
        {
            'flowagg_operator_condition|name="NAME", type="ViewReady", status="False"': "0x4 1x70 0x30",
            'flowagg_operator_condition|name="NAME", type="Scaling", status="False"': "1x105",
        },
        quiet=(4, 60, 80),
        firing=(66, 74),
        about="a view that is built for an hour, then is there",
    ),
]


def _text(labels: Mapping[str, str]) -> str:
    return ", ".join(f'{name}="{value}"' for name, value in labels.items())


def _fires(case: Case, firing: bool) -> list[dict[str, object]]:
    """What ALERTS holds of the alert then."""
    if not firing:
        return []
    labels = {**case.place, **case.labels, "alertstate": "firing", "severity": ALERTS[case.alert].severity}
    return [{"labels": f'ALERTS{{alertname="{case.alert}", {_text(labels)}}}', "value": 1}]


def unit_test(case: Case) -> dict[str, object]:
    """The case as promtool's file of unit tests."""
    series = []
    for key, values in case.series.items():
        name, _, labels = key.partition("|")
        series.append({"series": f"{name}{{{PLACE}{', ' if labels else ''}{labels}}}", "values": values})
    minutes = sorted([(minute, False) for minute in case.quiet] + [(minute, True) for minute in case.firing])
    return {
        "rule_files": [str(ALERTS[case.alert].path)],
        "evaluation_interval": f"{case.evaluated}m",
        "tests": [
            {
                "interval": f"{case.sampled}m",
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}',
                        "eval_time": f"{minute}m",
                        "exp_samples": _fires(case, firing),
                    }
                    for minute, firing in minutes
                ],
            }
        ],
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}{case.about and ': ' + case.about}")
def test_an_alert_fires_for_what_it_is_about_and_clears_after_it(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(unit_test(case)), encoding="utf-8")
    promtool("test", "rules", file, directory=tmp_path)


def test_every_alert_has_a_case_in_which_it_fires_and_clears() -> None:
    shown = {case.alert for case in CASES if case.firing and max(case.quiet) > max(case.firing)}
    assert shown == ALERTS.keys()
    assert len(ALERTS) == len(alerts()), "two alerts have the same name"


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_promtool_reads_the_rules(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    count = text.count("- alert:") + text.count("- record:")
    assert f"SUCCESS: {count} rules found" in promtool("check", "rules", "--lint-fatal", path, directory=tmp_path)


@_EVERY_ALERT
def test_an_alert_is_on_series_that_there_are_and_on_labels_that_these_have(alert: Alert) -> None:
    known, has = known_metrics(), set(TARGET_LABELS)
    for name, labels in selectors(alert.expr):
        assert name in known, f"there is no {name}"
        assert labels <= known[name] | TARGET_LABELS
        assert "namespace" in labels
        has |= known[name]
    assert grouped(alert.expr) <= has


@pytest.mark.parametrize("record", records(), ids=lambda record: record.name)
def test_a_record_is_of_series_that_there_are_and_is_named_by_its_labels_metric_and_operation(record: Record) -> None:
    known, has = known_metrics(), set(TARGET_LABELS)
    level, metric, operation = record.name.split(":")
    assert level == "flowaggregator"
    assert operation
    named = {name for name in known if name.startswith(metric)}
    assert named, f"there is no {metric}"
    for name, labels in selectors(record.expr):
        assert name in known, f"there is no {name}"
        assert labels <= known[name] | TARGET_LABELS
        assert "namespace" in labels
        has |= known[name]
    assert {"namespace", "flowaggregator"} <= grouped(record.expr) <= has


def test_two_records_have_not_the_same_name() -> None:
    assert len({record.name for record in records()}) == len(records())


@_EVERY_ALERT
def test_an_alert_says_how_bad_it_is_what_is_wrong_and_what_to_do(alert: Alert) -> None:
    assert alert.severity in ("critical", "warning")
    assert alert.annotations.keys() == {"summary", "description", "runbook"}
    assert alert.annotations["summary"].endswith(".")
    assert alert.annotations["description"].endswith(".")
    (case, *_) = [case for case in CASES if case.alert == alert.name and case.firing]
    used = set(re.findall(r"\$labels\.(\w+)", "".join(alert.annotations.values())))
    assert used <= case.place.keys() | case.labels.keys()


@_EVERY_ALERT
def test_an_alert_has_a_runbook_with_what_it_means_and_what_to_do(alert: Alert) -> None:
    page = ROOT / alert.annotations["runbook"]
    assert page == RUNBOOKS / f"{alert.name}.md"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {alert.name}\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## What it means", "## What to do"]
    assert f"Severity: {alert.severity}." in text
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert (RUNBOOKS / target).resolve().is_file(), f"{target} is not there"


def test_there_is_no_runbook_without_its_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == ALERTS.keys()


def test_the_list_of_runbooks_has_them_all() -> None:
    listed = re.findall(r"\[(\w+)\]\(\1\.md\)", (RUNBOOKS / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(ALERTS)
