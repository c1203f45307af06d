"""Panels that stand on more than one dashboard."""

from typing import Final

from flowagg_dashboards.model import ACTIVE, WAITS, YES_NO, Panel, Query, of, per, per_or_none, quantiles, rate, share

_READY: Final = ((None, "red"), (1, "green"))
_WAITING: Final = ((None, "green"), (1, "red"))
_CONSUMERS: Final = of("flowagg_operator_replicas", component="consumer", state="desired")
LOOKED: Final = f"max({_CONSUMERS})"
"""There once the operator has looked at the FlowAggregator."""

FLOWS_ACKNOWLEDGED: Final = Panel(
    "Flows acknowledged",
    "Flows a second that Kafka has acknowledged, by writer.",
    "cps",
    [Query(per("pod", rate("flowagg_writer_flows_total")), "{{pod}}")],
)
POSTS_BY_STATUS: Final = Panel(
    "POSTs by status",
    "Answers to POST /flows a second, by status.",
    "reqps",
    [Query(per("status", rate("flowagg_writer_posts_total")), "{{status}}")],
)
POST_LATENCY: Final = Panel(
    "POST latency",
    "From a POST's headers to its answer, the wait for Kafka's acknowledgement included.",
    "s",
    quantiles("flowagg_writer_post_seconds"),
)
LAG_SECONDS: Final = Panel(
    "Lag in seconds",
    "How far the view is behind the log, as time.",
    "s",
    [Query(f"max({of('flowagg_operator_lag_seconds')})", "lag")],
)
LAG_RECORDS: Final = Panel(
    "Lag in records",
    "Records that the view has not applied yet, by partition.",
    "short",
    [Query(per("partition", of("flowagg_operator_lag")), "{{partition}}")],
)
FLOWS_APPLIED: Final = Panel(
    "Flows applied",
    "Flows a second that consumers apply to the view; repeats of keyed POSTs, which change no total, are among them.",
    "cps",
    [Query(per("pod", rate("flowagg_consumer_flows_total")), "{{pod}}")],
)
GETS_BY_STATUS: Final = Panel(
    "GETs by status",
    "Answers to GET /flows a second, by status.",
    "reqps",
    [Query(per("status", rate("flowagg_reader_gets_total")), "{{status}}")],
)
GET_LATENCY: Final = Panel(
    "GET latency",
    "From a GET's headers to its answer, the wait until the view is fresh included.",
    "s",
    quantiles("flowagg_reader_get_seconds"),
)
_GETS: Final = f"sum({rate('flowagg_reader_gets_total')})"
_STALE: Final = f"sum({rate('flowagg_reader_stale_total')})"
FRESH_AND_STALE: Final = Panel(
    "Fresh and stale answers",
    "Answers that could not be shown to be fresh (Flowagg-Fresh: false), and all others.",
    "reqps",
    [Query(f"{_GETS} - {_STALE}", "others"), Query(_STALE, "stale")],
)
REPLICAS: Final = Panel(
    "Replicas desired and ready",
    "Pods of each component by the operator: how many there should be and how many are ready.",
    "none",
    [Query(per("component, state", of("flowagg_operator_replicas"), "max"), "{{component}} {{state}}")],
)
PARTITIONS_BY_STATE: Final = Panel(
    "Partitions by state",
    "Partitions that consumers own: running, loading their position, stopped until somebody mends the cause.",
    "none",
    [Query(per("state", of("flowagg_consumer_partitions")), "{{state}}")],
)
ACTIVE_POD: Final = Panel(
    "Active pod",
    "Which pod of writers and readers is the active one.",
    "none",
    [Query(per("component, pod", of("flowagg_active"), "max"), "{{component}}: {{pod}}")],
    kind="state-timeline",
    steps=((None, "blue"), (1, "green")),
    words=ACTIVE,
)
BY_THE_OPERATOR: Final = Panel(
    "Kafka and Redis by the operator",
    "The conditions KafkaReady and RedisReady.",
    "none",
    [
        Query(
            per("type", of("flowagg_operator_condition", type="~KafkaReady|RedisReady", status="True"), "max"),
            "{{type}}",
        )
    ],
    kind="state-timeline",
    steps=_READY,
    words=YES_NO,
)
BY_THEIR_USERS: Final = Panel(
    "Kafka and Redis by those who use them",
    "What any writer, consumer or reader waits for at the moment.",
    "none",
    [
        Query(per("source", of("flowagg_writer_waiting"), "max"), "writer: {{source}}"),
        Query(per("source", of("flowagg_consumer_waiting"), "max"), "consumer: {{source}}"),
        Query(per("source", of("flowagg_reader_waiting"), "max"), "reader: {{source}}"),
    ],
    kind="state-timeline",
    steps=_WAITING,
    words=WAITS,
)
END_OFFSETS: Final = Panel(
    "Look-ups of the log's end",
    "Readers ask Kafka where the log ends, by result. Without an answer no GET can be shown to be fresh.",
    "ops",
    [Query(per("result", rate("flowagg_reader_end_offset_lookups_total")), "{{result}}")],
)
COMMITTED: Final = Panel(
    "Committed offsets",
    "How fast the committed offsets move on, by partition.",
    "cps",
    [Query(per("partition", rate("flowagg_operator_committed_offset")), "{{partition}}")],
)
LOOK_TIME: Final = Panel(
    "Time of a look",
    "Time of an operator's look at a FlowAggregator's Kafka, Redis and consumers.",
    "s",
    quantiles("flowagg_operator_look_seconds", 50, 99),
)
LOOKS_FAILED: Final = Panel(
    "Looks that failed",
    "Looks at Kafka or Redis a second that did not succeed.",
    "ops",
    [
        Query(
            per_or_none("target", rate("flowagg_operator_looks_failed_total"), LOOKED),
            "{{target}}",
        )
    ],
)
CONNECTIONS_OF: Final = "Open HTTP connections, by pod."


def failures(counter: str) -> list[Query]:
    """The shares of answers that are 4xx and 5xx."""
    whole = f"sum({rate(counter)})"
    return [
        Query(share(f"sum({rate(counter, status='~' + first + '..')})", whole), f"{first}xx") for first in ("4", "5")
    ]


def burn(counter: str, what: str) -> list[Panel]:
    """How fast the budget of failed answers is used up, by the recording rules of the chart."""
    record = f"flowaggregator:{counter}"
    budget = of(f"{record}:error_budget")

    def burnt(window: str) -> str:
        return f"{of(f'{record}:error_ratio_rate{window}')} / on (namespace, flowaggregator) {budget}"

    return [
        Panel(
            f"{what} budget left",
            f"Of the {what}s that may fail (5xx) by monitoring.rules.thresholds, the share that is left of three days.",
            "percentunit",
            [Query(f"max(1 - ({burnt('3d')}))", "left")],
            kind="stat",
            steps=((None, "red"), (0, "orange"), (0.5, "green")),
        ),
        Panel(
            f"{what} budget burn",
            "How many times as fast as it may the budget is used up. 1 uses it up exactly; alerts are at 14.4 over an "
            "hour, 6 over six hours, 3 over a day and 1 over three days.",
            "short",
            [Query(f"max({burnt(window)})", window) for window in ("5m", "1h", "6h", "1d", "3d")],
            width=16,
        ),
    ]


def cpu_each(component: str, counter: str, title: str, what: str) -> Panel:
    """CPU seconds that one unit of a counter takes."""
    spent = per("pod", rate("process_cpu_seconds_total", component=component))
    done = per("pod", rate(counter))
    return Panel(
        title, f"CPU seconds for {what}, by pod that has any.", "s", [Query(f"{spent} / ({done} > 0)", "{{pod}}")]
    )


def cpu(component: str) -> Panel:
    """CPU of a component's pods; ~ and a pattern for several."""
    spent = per("pod", rate("process_cpu_seconds_total", component=component))
    return Panel("CPU", "Cores in use, by pod.", "none", [Query(spent, "{{pod}}")])


def memory(component: str) -> Panel:
    """Resident memory of a component's pods."""
    held = per("pod", of("process_resident_memory_bytes", component=component), "max")
    return Panel("Memory", "Resident memory, by pod.", "bytes", [Query(held, "{{pod}}")])


def connections(component: str) -> Panel:
    """Open HTTP connections of a component's pods."""
    held = per("pod", of("flowagg_http_connections", component=component), "max")
    return Panel("HTTP connections", CONNECTIONS_OF, "none", [Query(held, "{{pod}}")])


def refused(component: str) -> Panel:
    """Requests that a component's server refused before its code saw them."""
    counted = per("status", rate("flowagg_http_refused_total", component=component))
    there = f"sum by (status) (label_replace({of('flowagg_http_connections', component=component)}, "
    zero = f'{there}"status", "any", "", ""))'
    return Panel(
        "Requests refused early",
        "Requests refused before the service's own code saw them, by status: too large, too slow, too many.",
        "reqps",
        [Query(f"{counted} or on () 0 * {zero}", "{{status}}")],
    )
