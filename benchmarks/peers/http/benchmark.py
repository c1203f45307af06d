"""The whole comparison: measure, print, keep, judge."""

import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from flowagg_stack.provision import Missing, provision, provision_wrk

from benchmarks.http.common import OTHER_CORES, RESULTS, SERVER_CORE, on_cores
from benchmarks.peers.bars import Bar
from benchmarks.peers.http import programs
from benchmarks.peers.http.machine import foreign_share, usage
from benchmarks.peers.http.readers import Readers, measure_readers
from benchmarks.peers.http.report import reader_bars, reader_tables, writer_bars, writer_tables
from benchmarks.peers.http.writers import Writers, measure_writers

PLOT: Final = Path(__file__).parents[3] / "docs" / "assets" / "peers-http.png"
RESULT: Final = RESULTS / "peers-http.json"
WRITERS, READERS = "writers", "readers"
_MOST_FOREIGN: Final = 0.05
"""share of the machine that others may use; with more the figures are not to be trusted"""
_SHOWN_MODULES: Final = ("github.com/twmb/franz-go", "github.com/bytedance/sonic", "github.com/goccy/go-json")


@dataclass(frozen=True, slots=True)
class Options:
    """seconds: of each measurement of a writer. read_seconds: of a reader. libraries: JSON libraries of the Go
    services. only: writers or readers, None for both. plot, result: files that are written; None: not."""

    seconds: int = 3
    read_seconds: int = 2
    rounds: int = 3
    libraries: Sequence[str] = ("std", "sonic")
    only: str | None = None
    plot: Path | None = PLOT
    result: Path | None = RESULT


def run(options: Options | None = None, say: Callable[[str], None] = print) -> list[Bar]:
    """Measure what is asked for, print the tables, and write the files; the bars.

    Raises Missing where a program is missing, BuildFailed, Unlike where a service does not do the same work.
    """
    options = options or Options()
    if options.plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise Missing("the picture needs matplotlib: uv sync --group plots, or --no-plot")
    provision(say)
    provision_wrk(say)
    built = programs.build(say)
    bars: list[Bar] = []
    writers: Writers | None = None
    readers: Readers | None = None
    before = usage()
    with on_cores(OTHER_CORES):
        if options.only != READERS:
            writers = measure_writers(built, options.libraries, options.seconds, options.rounds, say)
            bars += writer_bars(writers)
        if options.only != WRITERS:
            readers = measure_readers(built, options.libraries, options.read_seconds, options.rounds, say)
            bars += reader_bars(readers)
    foreign = foreign_share(before, usage(), os.cpu_count() or 1)
    say(_head(options, built.versions, foreign))
    if writers is not None:
        say(f"\n{writer_tables(writers)}")
    if readers is not None:
        say(f"\n{reader_tables(readers)}")
    if options.result is not None:
        options.result.parent.mkdir(parents=True, exist_ok=True)
        document = _document(options, built.versions, foreign, writers, readers, bars)
        options.result.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if options.plot is not None:
        from benchmarks.peers.http.plot import plot  # noqa: PLC0415 (matplotlib takes a second, and may be missing)

        plot(writers, readers, options.plot)
    return bars


def _head(options: Options, versions: Mapping[str, str], foreign: float) -> str:
    modules = ", ".join(f"{name.rsplit('/', 1)[1]} {versions.get(name, '?')}" for name in _SHOWN_MODULES)
    shared = "wrk, the open-loop generator, Kafka and Redis share the other"
    if OTHER_CORES == SERVER_CORE:
        shared = "and there is no other: wrk, the open-loop generator, Kafka and Redis share it"
    return (
        f"\n{options.rounds} rounds, medians. {versions['go']}, {modules}. One core for the servers; {shared}. "
        f"CPU seconds are those of the server's process. Others used {foreign:.0%} of the machine meanwhile"
        f"{': measure again when it is free.' if foreign > _MOST_FOREIGN else '.'}"
    )


def _document(
    options: Options,
    versions: Mapping[str, str],
    foreign: float,
    writers: Writers | None,
    readers: Readers | None,
    bars: Sequence[Bar],
) -> dict[str, Any]:
    return {
        "seconds": options.seconds,
        "read_seconds": options.read_seconds,
        "rounds": options.rounds,
        "libraries": list(options.libraries),
        "server_cores": len(SERVER_CORE),
        "other_cores": len(OTHER_CORES),
        "versions": dict(versions),
        "foreign_share": foreign,
        "writers": writers and asdict(writers),
        "readers": readers and asdict(readers),
        "bars": [asdict(bar) | {"holds": bar.holds} for bar in bars],
    }
