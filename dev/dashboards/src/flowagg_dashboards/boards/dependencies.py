"""Kafka and Redis: how they are, by the operator's looks and by those who use them."""

from typing import Final

from flowagg_dashboards.boards import panels
from flowagg_dashboards.model import Board, Panel, Query, Row, at_least_zero, of, per, rate

_PARTITIONS: Final = "flowagg_operator_topic_partitions"
_MEMORY: Final = "flowagg_operator_redis_memory_bytes"
_USED: Final = f"max({of(_MEMORY, kind='used')})"

BOARD: Final = Board(
    "dependencies",
    "Kafka and Redis",
    "How Kafka and Redis are, by the operator's looks and by those who use them. Exporters of their own say more.",
    [
        Row("Answers", [panels.BY_THE_OPERATOR, panels.BY_THEIR_USERS, panels.END_OFFSETS]),
        Row(
            "Kafka",
            [
                Panel(
                    "Partitions of the topic",
                    "All of them, those with fewer in-sync replicas than replicas, and those without a leader, which "
                    "take and give nothing.",
                    "none",
                    [Query(per("state", of(_PARTITIONS), "max"), "{{state}}")],
                ),
                Panel(
                    "Brokers in sync",
                    "Brokers that have an in-sync replica of a partition of the topic.",
                    "none",
                    [Query(f"max({of('flowagg_operator_topic_brokers')})", "brokers")],
                ),
                panels.COMMITTED,
            ],
        ),
        Row(
            "Redis",
            [
                Panel(
                    "Redis memory",
                    "Memory of the master, and its maxmemory where it has one. Full, it refuses writes: nothing is "
                    "applied, nothing lost.",
                    "bytes",
                    [
                        Query(_USED, "used"),
                        Query(f"max({of(_MEMORY, kind='maximum')}) or NaN * {_USED}", "maximum"),
                    ],
                ),
                Panel(
                    "Redis replicas",
                    "Replicas that the master writes through to. Without one a lost master takes its tail along, which "
                    "consumers then apply again from the log.",
                    "none",
                    [Query(f"max({of('flowagg_operator_redis_replicas')})", "replicas")],
                ),
                Panel(
                    "Replica lag",
                    "Bytes that the slowest replica has not acknowledged: what a fail-over would have consumers apply "
                    "again.",
                    "bytes",
                    [
                        Query(
                            f"max({of('flowagg_operator_redis_replica_lag_bytes')}) or NaN * {_USED}",
                            "behind",
                        )
                    ],
                ),
            ],
        ),
        Row(
            "Looks",
            [
                panels.LOOK_TIME,
                panels.LOOKS_FAILED,
                Panel(
                    "Positions read anew",
                    "Positions that consumers read from Redis after a rebalance, a fail-over or a doubt.",
                    "ops",
                    [
                        Query(
                            at_least_zero(
                                f"sum({rate('flowagg_consumer_loads_total', outcome='read')})",
                                f"sum({of('flowagg_consumer_cached_bytes')})",
                            ),
                            "loads",
                        )
                    ],
                ),
            ],
        ),
    ],
)
