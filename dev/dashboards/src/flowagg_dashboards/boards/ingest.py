"""The writers: what comes in, what is refused, what they hold."""

from typing import Final

from flowagg_dashboards.boards import panels
from flowagg_dashboards.model import Board, Panel, Query, Row, of, per, rate

_POSTS: Final = "flowagg_writer_posts_total"

BOARD: Final = Board(
    "ingest",
    "Ingest",
    "The writers: what comes in, what is refused and why, what they hold.",
    [
        Row("Error budget", panels.burn("flowagg_writer_posts", "POST")),
        Row(
            "POSTs",
            [
                panels.FLOWS_ACKNOWLEDGED,
                panels.POSTS_BY_STATUS,
                panels.POST_LATENCY,
                Panel(
                    "POSTs refused",
                    "Shares of the POSTs: 4xx are the clients' mistakes, 5xx are to be sent again.",
                    "percentunit",
                    panels.failures(_POSTS),
                ),
                Panel(
                    "Flows in a POST",
                    "Flows acknowledged for each POST that was answered 200. Large batches cost less a flow.",
                    "short",
                    [
                        Query(
                            f"sum({rate('flowagg_writer_flows_total')}) / sum({rate(_POSTS, status='200')})",
                            "flows",
                        )
                    ],
                ),
                panels.refused("writer"),
            ],
        ),
        Row(
            "What the writers hold",
            [
                Panel(
                    "Bytes in flight to Kafka",
                    "Records that wait for Kafka's acknowledgement; at the bound FLOWAGG_MAX_IN_FLIGHT_BYTES POSTs are "
                    "refused.",
                    "bytes",
                    [Query(per("pod", of("flowagg_writer_in_flight_bytes"), "max"), "{{pod}}")],
                ),
                Panel(
                    "POSTs in hand",
                    "Requests that are being answered.",
                    "none",
                    [Query(per("pod", of("flowagg_writer_waiting_requests"), "max"), "{{pod}}")],
                ),
                panels.connections("writer"),
                panels.cpu("writer"),
                panels.cpu_each("writer", "flowagg_writer_flows_total", "CPU a flow", "each flow acknowledged"),
                panels.memory("writer"),
            ],
        ),
    ],
)
