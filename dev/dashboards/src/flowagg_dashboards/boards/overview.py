"""Whether all is well, and where to look when it is not."""

from collections.abc import Mapping, Sequence
from typing import Final

from flowagg_dashboards.boards import panels
from flowagg_dashboards.model import YES_NO, Board, Panel, Query, Row, of, per

_GREEN_THEN_RED: Final = ((None, "green"), (1, "red"))


def _now(
    title: str,
    description: str,
    query: Query,
    steps: Sequence[tuple[float | None, str]],
    *,
    unit: str = "none",
    names: bool = False,
    words: Mapping[int, tuple[str, str]] | None = None,
) -> Panel:
    return Panel(
        title,
        description,
        unit,
        [query],
        kind="stat",
        width=4,
        height=4,
        names=names,
        steps=steps,
        words=dict(words or {}),
    )


def _active(component: str) -> Panel:
    expr = f"{per('pod', of('flowagg_active', component=component), 'max')} == 1"
    return _now(
        f"Active {component}",
        f"The pod that the {component}s' Service leads to; each pod with mode ActiveActive.",
        Query(expr, "{{pod}}"),
        ((None, "green"),),
        names=True,
    )


BOARD: Final = Board(
    "overview",
    "Overview",
    "Whether all is well: ingest, lag, reads, replicas, and what they depend on.",
    [
        Row(
            "Now",
            [
                _now(
                    "Ready",
                    "The condition Ready of the FlowAggregator.",
                    Query(f"max({of('flowagg_operator_condition', type='Ready', status='True')})", "Ready"),
                    ((None, "red"), (1, "green")),
                    words=YES_NO,
                ),
                _active("writer"),
                _active("reader"),
                _now(
                    "Lag",
                    "How far the view is behind the log, as time.",
                    Query(f"max({of('flowagg_operator_lag_seconds')})", "lag"),
                    ((None, "green"), (10, "orange"), (60, "red")),
                    unit="s",
                ),
                _now(
                    "Partitions stopped",
                    "Partitions that wait for somebody to mend what their consumer found.",
                    Query(f"sum({of('flowagg_consumer_partitions', state='stopped')})", "stopped"),
                    _GREEN_THEN_RED,
                ),
                _now(
                    "Alerts firing",
                    "Alerts of the chart that fire for this namespace.",
                    Query(
                        'count(ALERTS{alertname=~"FlowAggregator.+", alertstate="firing", namespace="$namespace"}) '
                        "or vector(0)",
                        "alerts",
                    ),
                    _GREEN_THEN_RED,
                ),
            ],
        ),
        Row("Ingest", [panels.FLOWS_ACKNOWLEDGED, panels.POSTS_BY_STATUS, panels.POST_LATENCY]),
        Row("Lag and applies", [panels.LAG_SECONDS, panels.LAG_RECORDS, panels.FLOWS_APPLIED]),
        Row("Reads", [panels.GETS_BY_STATUS, panels.GET_LATENCY, panels.FRESH_AND_STALE]),
        Row(
            "Replicas",
            [
                panels.REPLICAS,
                panels.ACTIVE_POD,
                Panel(
                    "Pods scraped",
                    "Pods that Prometheus reaches, by component.",
                    "none",
                    [Query(per("component", of("up")), "{{component}}")],
                ),
            ],
        ),
        Row("Kafka and Redis", [panels.BY_THE_OPERATOR, panels.BY_THEIR_USERS, panels.END_OFFSETS]),
    ],
)
