"""The readers: what is asked, how fast it is answered, whether answers are fresh."""

from typing import Final

from flowagg_dashboards.boards import panels
from flowagg_dashboards.model import Board, Panel, Query, Row, of, per, per_or_none, quantiles, rate

_CACHES: Final = (
    ("flowagg_reader_body_cache_bytes", "bodies: {{pod}}"),
    ("flowagg_reader_table_cache_bytes", "tables: {{pod}}"),
)


def _made_of(counter: str) -> Query:
    there = f"sum({of('flowagg_reader_body_cache_bytes')})"
    return Query(per_or_none("result", rate(counter), there), "{{result}}")


BOARD: Final = Board(
    "reads",
    "Reads",
    "The readers: what is asked, how fast it is answered, whether answers are fresh, what is made and kept.",
    [
        Row("Error budget", panels.burn("flowagg_reader_gets", "GET")),
        Row(
            "GETs",
            [
                panels.GETS_BY_STATUS,
                panels.GET_LATENCY,
                Panel(
                    "GETs that fail",
                    "Shares of the GETs: 4xx are the clients' mistakes, 5xx say why in their problem document.",
                    "percentunit",
                    panels.failures("flowagg_reader_gets_total"),
                ),
                Panel(
                    "Rows",
                    "Rows in answers a second, by reader.",
                    "cps",
                    [Query(per("pod", rate("flowagg_reader_rows_total")), "{{pod}}")],
                ),
                panels.connections("reader"),
                panels.refused("reader"),
            ],
        ),
        Row(
            "Freshness",
            [
                panels.FRESH_AND_STALE,
                panels.END_OFFSETS,
                Panel(
                    "Redis by the readers",
                    "Readers that get no answer from Redis, looked at every second.",
                    "none",
                    [Query(per("pod", of("flowagg_reader_waiting", source="redis"), "max"), "{{pod}}")],
                ),
            ],
        ),
        Row(
            "Bodies and tables",
            [
                Panel(
                    "Bodies",
                    "Bodies of whole hours: found in the cache, missed there, rendered.",
                    "ops",
                    [_made_of("flowagg_reader_bodies_total")],
                ),
                Panel(
                    "Time to render a body",
                    "Without the pauses in which others had the event loop.",
                    "s",
                    quantiles("flowagg_reader_render_seconds", 50, 99),
                ),
                Panel(
                    "Tables",
                    "Tables of hours, for queries: found in the cache, missed there, made.",
                    "ops",
                    [_made_of("flowagg_reader_tables_total")],
                ),
                Panel(
                    "Time to make a table",
                    "Without the pauses in which others had the event loop.",
                    "s",
                    quantiles("flowagg_reader_table_seconds", 50, 99),
                    width=12,
                ),
                Panel(
                    "Caches",
                    "Memory of the bodies and tables that are kept, by reader.",
                    "bytes",
                    [Query(per("pod", of(name), "max"), legend) for name, legend in _CACHES],
                    width=12,
                ),
            ],
        ),
        Row(
            "Processes",
            [
                panels.cpu("reader"),
                panels.cpu_each("reader", "flowagg_reader_gets_total", "CPU a GET", "each GET answered"),
                panels.memory("reader"),
            ],
        ),
    ],
)
