"""The operator: what it keeps, how it scales the consumers, who is elected."""

from dataclasses import replace
from typing import Final

from flowagg_dashboards.boards import panels
from flowagg_dashboards.boards.panels import LOOKED
from flowagg_dashboards.model import (
    ACTIVE,
    HELD,
    YES_NO,
    Board,
    Panel,
    Query,
    Row,
    at_least_zero,
    of,
    per,
    per_or_none,
    quantiles,
    rate,
)

_ACTED: Final = f"sum({rate('flowagg_operator_reconciles_total')})"


def _scalings(direction: str) -> Query:
    changed = f"sum(increase({of('flowagg_operator_scalings_total', direction=direction)}[$__rate_interval]))"
    return Query(at_least_zero(changed, LOOKED), direction)


BOARD: Final = Board(
    "operator",
    "Operator and scaling",
    "The operator: what it keeps, how it scales the consumers and why, who is elected.",
    [
        Row(
            "What the operator says",
            [
                Panel(
                    "Conditions",
                    "The conditions of the FlowAggregator: kubectl describe fa says what each means when it is no.",
                    "none",
                    [Query(per("type", of("flowagg_operator_condition", status="True"), "max"), "{{type}}")],
                    kind="state-timeline",
                    width=16,
                    height=10,
                    steps=((None, "red"), (1, "green")),
                    words=YES_NO,
                ),
                replace(panels.REPLICAS, height=10),
            ],
        ),
        Row(
            "Scaling",
            [
                Panel(
                    "Arrivals and capacity",
                    "Records that arrive a second, and what the present consumers can apply; capacity is there once it "
                    "was measured.",
                    "cps",
                    [
                        Query(f"max({of('flowagg_operator_arrival_rate')})", "arrivals"),
                        Query(f"max({of('flowagg_operator_capacity')}) or NaN * {LOOKED}", "capacity"),
                    ],
                ),
                Panel(
                    "Consumers wanted and ready",
                    "Consumers that the autoscaler asks for, or the spec without one, and those that are ready.",
                    "none",
                    [
                        Query(f"max({of('flowagg_operator_consumers_wanted')}) or {LOOKED}", "wanted"),
                        Query(
                            f"max({of('flowagg_operator_replicas', component='consumer', state='ready')})",
                            "ready",
                        ),
                    ],
                ),
                Panel(
                    "Scalings",
                    "Times that the autoscaler changed the number of consumers.",
                    "none",
                    [_scalings("up"), _scalings("down")],
                ),
                Panel(
                    "Scaling held",
                    "Why the operator leaves the number of consumers as it is, as the reasons of the condition Scaling "
                    "have it.",
                    "none",
                    [
                        Query(
                            per_or_none("reason", of("flowagg_operator_scaling_held"), LOOKED, "max"),
                            "{{reason}}",
                        )
                    ],
                    kind="state-timeline",
                    width=16,
                    height=8,
                    steps=((None, "green"), (1, "orange")),
                    words=HELD,
                ),
                panels.LAG_SECONDS,
            ],
        ),
        Row(
            "Passes and looks",
            [
                Panel(
                    "Reconciles",
                    "Passes over FlowAggregators a second, by result.",
                    "ops",
                    [Query(per("result", rate("flowagg_operator_reconciles_total")), "{{result}}")],
                ),
                Panel(
                    "Time of a reconcile",
                    "Time of a pass over a FlowAggregator.",
                    "s",
                    quantiles("flowagg_operator_reconcile_seconds", 50, 99),
                ),
                Panel(
                    "Objects changed",
                    "Objects a second by what was done: created, updated, repaired after drift, removed.",
                    "ops",
                    [
                        Query(
                            per_or_none("action", rate("flowagg_operator_objects_total"), _ACTED),
                            "{{action}}",
                        )
                    ],
                ),
                panels.LOOK_TIME,
                panels.LOOKS_FAILED,
                Panel(
                    "Events",
                    "Kubernetes events a second: sent, left out to stay within the bound, failed.",
                    "ops",
                    [
                        Query(
                            per_or_none("result", rate("flowagg_operator_events_total"), _ACTED),
                            "{{result}}",
                        )
                    ],
                ),
            ],
        ),
        Row(
            "Who acts",
            [
                Panel(
                    "Acting operator",
                    "Which replica of the operator acts.",
                    "none",
                    [Query(per("pod", of("flowagg_operator_leader"), "max"), "{{pod}}")],
                    kind="state-timeline",
                    steps=((None, "blue"), (1, "green")),
                    words=ACTIVE,
                ),
                panels.ACTIVE_POD,
                Panel(
                    "Elections",
                    "Times that a writer or reader became the active one, and calls to the API server for it that "
                    "failed.",
                    "none",
                    [
                        Query(
                            per("component", f"increase({of('flowagg_election_transitions_total')}[$__rate_interval])"),
                            "{{component}}: became active",
                        ),
                        Query(
                            at_least_zero(
                                per(
                                    "component",
                                    f"increase({of('flowagg_election_failures_total')}[$__rate_interval])",
                                ),
                                per(
                                    "component",
                                    f"increase({of('flowagg_election_transitions_total')}[$__rate_interval])",
                                ),
                            ),
                            "{{component}}: failures",
                        ),
                    ],
                ),
            ],
        ),
        Row(
            "Processes",
            [
                replace(panels.cpu("operator"), width=12),
                replace(panels.memory("operator"), width=12),
            ],
        ),
    ],
)
