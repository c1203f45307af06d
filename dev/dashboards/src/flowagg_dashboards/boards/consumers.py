"""The consumers: how far the view is, how fast it goes on, what stands in the way."""

from typing import Final

from flowagg_dashboards.boards import panels
from flowagg_dashboards.model import Board, Panel, Query, Row, at_least_zero, of, per, per_or_none, quantiles, rate

_ALL: Final = "~consumer|view-consumer"
"""Components: those of further views are among them."""
_THERE: Final = f"sum({of('flowagg_consumer_partitions')})"
_OWNED: Final = f"sum by (pod) ({of('flowagg_consumer_partitions')})"


BOARD: Final = Board(
    "consumers",
    "Consumers and lag",
    "The consumers: how far the view is behind the log, how fast it goes on, what stands in the way.",
    [
        Row(
            "Lag",
            [
                panels.LAG_SECONDS,
                panels.LAG_RECORDS,
                Panel(
                    "Lag of each view",
                    "Records that each view has not applied yet, by its positions in Redis.",
                    "short",
                    [Query(per("view", of("flowagg_operator_view_lag"), "max"), "{{view}}")],
                ),
            ],
        ),
        Row(
            "Applies",
            [
                panels.FLOWS_APPLIED,
                Panel(
                    "Batches applied",
                    "Batches a second: one script call in Redis each.",
                    "ops",
                    [Query(per("pod", rate("flowagg_consumer_batches_total")), "{{pod}}")],
                ),
                Panel(
                    "Flows in a batch",
                    "Flows for each batch. Under load they grow, and each flow costs less.",
                    "short",
                    [
                        Query(
                            f"sum({rate('flowagg_consumer_flows_total')}) / "
                            f"sum({rate('flowagg_consumer_batches_total')})",
                            "flows",
                        )
                    ],
                ),
                Panel(
                    "Round of the main loop",
                    "Time of one round that brought records: decode, fold, send. Many rounds near the session time-out "
                    "would cost the consumer its partitions.",
                    "s",
                    quantiles("flowagg_consumer_turn_seconds"),
                ),
                Panel(
                    "Positions",
                    "How fast the applied positions move on, by partition.",
                    "cps",
                    [Query(per("partition", rate("flowagg_consumer_position"), "max"), "{{partition}}")],
                ),
                panels.COMMITTED,
            ],
        ),
        Row(
            "Partitions",
            [
                panels.PARTITIONS_BY_STATE,
                Panel(
                    "Partitions of each consumer",
                    "Partitions that each consumer applies.",
                    "none",
                    [Query(per("pod", of("flowagg_consumer_partitions", state="running")), "{{pod}}")],
                ),
                Panel(
                    "Members of the group",
                    "Consumers that are members of the view's group, as Kafka sees them.",
                    "none",
                    [Query(f"max({of('flowagg_operator_group_members')})", "members")],
                ),
                Panel(
                    "Partitions stopped, and why",
                    "Reason of each stop: the runbook of FlowAggregatorPartitionStopped says what to do for it.",
                    "none",
                    [
                        Query(
                            per_or_none("reason", of("flowagg_consumer_partition_stopped"), _THERE),
                            "{{reason}}",
                        )
                    ],
                ),
                Panel(
                    "View incomplete",
                    "Partitions whose view lacks records that the log had lost. Answers say so.",
                    "none",
                    [
                        Query(
                            at_least_zero(f"sum({of('flowagg_consumer_partition_incomplete')})", _THERE),
                            "partitions",
                        )
                    ],
                ),
                Panel(
                    "Topic misconfigured",
                    "Settings of the topic that risk records or stop their being applied.",
                    "none",
                    [
                        Query(
                            per_or_none("setting", of("flowagg_consumer_topic_misconfigured"), _THERE, "max"),
                            "{{setting}}",
                        )
                    ],
                ),
            ],
        ),
        Row(
            "Doubts",
            [
                Panel(
                    "Dead letters",
                    "Records a second that are no flows and went to the dead-letter topic, by reason.",
                    "cps",
                    [
                        Query(
                            per_or_none("reason", rate("flowagg_consumer_dead_letters_total"), _THERE),
                            "{{reason}}",
                        )
                    ],
                ),
                Panel(
                    "Loads of positions",
                    "Positions read anew from Redis, or kept after a look: after rebalances, fail-overs and doubts.",
                    "ops",
                    [
                        Query(
                            per_or_none("outcome", rate("flowagg_consumer_loads_total"), _THERE),
                            "{{outcome}}",
                        )
                    ],
                ),
                Panel(
                    "Fetched again, joined anew",
                    "Gaps in the log that were fetched again, and members of the group that a new one took the place "
                    "of.",
                    "cps",
                    [
                        Query(f"sum({rate('flowagg_consumer_refetches_total')})", "fetched again"),
                        Query(f"sum({rate('flowagg_consumer_rejoins_total')})", "joined anew"),
                    ],
                ),
            ],
        ),
        Row(
            "Processes",
            [
                panels.cpu(_ALL),
                panels.cpu_each(_ALL, "flowagg_consumer_flows_total", "CPU a flow", "each flow applied"),
                panels.memory(_ALL),
                Panel(
                    "Totals and marks in memory",
                    "Memory that each consumer estimates for the totals and marks that it keeps.",
                    "bytes",
                    [Query(per("pod", of("flowagg_consumer_cached_bytes"), "max"), "{{pod}}")],
                    width=12,
                ),
                Panel(
                    "Consumers that own nothing",
                    "Consumers without a partition: more than there are partitions, or a group in disagreement.",
                    "none",
                    [Query(at_least_zero(f"count({_OWNED} == 0)", f"count({_OWNED})"), "consumers")],
                    width=12,
                ),
            ],
        ),
    ],
)
