"""Our consumer beside Kafka Streams, Quix Streams, Faust, Bytewax and a plain loop, on the same topics in one run.

    python -m benchmarks.peers.consumers [--flows N] [--shape SUBSTRING] [--only NAME]... [--whole]

A real Kafka and a real Redis on this machine. Each topic is filled once; every peer reads it from the beginning, alone,
and is timed from its first applied flow (ours from before it reads the first; peers.py says more) to its last, with the
CPU time of its process, of Redis and of Kafka over the same span. Then its totals are read back and compared with the
true ones. One that is not at the end after --seconds has the rate until then. For the last table each is killed with -9
--kills times on its way through a topic, and started again. The exit status says whether the bars hold.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from flowagg_stack import provision

from benchmarks.peers.bars import Bar, summary
from benchmarks.peers.consumers.data import FilledLog, LogShape, fill, source
from benchmarks.peers.consumers.peers import OURS, STREAMS_LEAST, STREAMS_ONCE, Peer, peers
from benchmarks.peers.consumers.report import bars, document, measured_head, measured_row, struck_head, struck_row
from benchmarks.peers.consumers.rounds import Measured, Struck, measure, strike
from benchmarks.peers.consumers.site import Site, open_site

ROOT: Final = Path(__file__).parents[3]
RESULT: Final = ROOT / "benchmarks" / "results" / "peers-consumers.json"
PICTURE: Final = ROOT / "docs" / "assets" / "peers-consumers.png"
MAIN_SHAPE: Final = LogShape(partitions=6, keys=100_000)
SHORT_SHAPES: Final = (
    LogShape(partitions=1, keys=10_000, zipf=1.1),
    LogShape(partitions=6, keys=1_000_000),
    LogShape(partitions=6, keys=0),
)
"""Those that a default run adds, with the peers of SHORT_PEERS alone."""
SHORT_PEERS: Final = (OURS, f"{STREAMS_LEAST}, 1 thread", f"{STREAMS_ONCE}, 1 thread")
WHOLE_SHAPES: Final = tuple(
    LogShape(partitions, keys, zipf)
    for partitions in (1, 6)
    for keys, zipf in (*((keys, zipf) for keys in (10_000, 100_000, 1_000_000) for zipf in (0.0, 1.1)), (0, 0.0))
)


def main() -> None:
    """Run and end: 0 where all bars hold."""
    found = run(sys.argv[1:])
    sys.exit(0 if found and all(bar.holds for bar in found) else 1)


def run(argv: Sequence[str]) -> list[Bar]:
    """Run the comparison, print it, keep it, and return the bars. Raises provision.Missing, ProcessFailed."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.peers.consumers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flows", type=int, default=6_000_000, help="in each topic")
    parser.add_argument("--kill-flows", type=int, default=300_000, help="in the topic of the kills; 0: none")
    parser.add_argument("--seconds", type=float, default=20.0, help="longest time for one peer on one topic")
    parser.add_argument("--kills", type=int, default=3, help="of each peer with one thread")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is timed")
    parser.add_argument("--shape", default="", help="only topics whose description holds this")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        help="only the peer of this name, else those whose name holds it; repeatable",
    )
    parser.add_argument("--whole", action="store_true", help="all topics with all peers: some hours")
    parser.add_argument("--json", type=Path, help=f"default: {RESULT.relative_to(ROOT)}, of a run without a filter")
    parser.add_argument("--plot", type=Path, help=f"default: {PICTURE.relative_to(ROOT)}, of a run without a filter")
    parser.add_argument("--no-plot", action="store_true")
    given = parser.parse_args(argv)
    chosen = meant(peers(), given.only)
    plan = [(shape, who) for shape, who in planned(chosen, given.whole) if given.shape in shape.name and who]
    if not plan:
        parser.error("no topic, or no peer, is named so")
    measured: list[Measured] = []
    struck: list[Struck] = []
    with open_site() as site:
        programs = _prepare(chosen)
        for shape, who in plan:
            log = _filled(site, shape, given.flows, counted=False)
            print(measured_head(shape.name), flush=True)
            for peer in (peer for _ in range(given.rounds) for peer in who):
                measured.append(_measured(site, peer, programs, log, given.seconds))
                print(measured_row(measured[-1]), flush=True)
        if given.kill_flows:
            log = _filled(site, MAIN_SHAPE, given.kill_flows, counted=True)
            print(struck_head(given.kill_flows), flush=True)
            for peer in chosen:
                if "2 threads" not in peer.name:
                    struck.append(_struck(site, peer, programs, log, given.kills))
                    print(struck_row(struck[-1]), flush=True)
    found = bars(measured, struck)
    whole = not (given.only or given.shape)
    result, picture = given.json or (RESULT if whole else None), given.plot or (PICTURE if whole else None)
    if result is not None:
        kept = {"cores": os.cpu_count(), "flows": given.flows, "kill_flows": given.kill_flows}
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps(kept | document(measured, struck, found), indent=2) + "\n")
    if picture is not None and not given.no_plot:
        from benchmarks.peers.consumers.plot import plot  # noqa: PLC0415 (matplotlib takes a second, and may be missing)

        picture.parent.mkdir(parents=True, exist_ok=True)
        plot(measured, picture)
    print(*(bar.text for bar in found), summary(found), sep="\n")
    return found


def meant(all_peers: Sequence[Peer], names: Sequence[str]) -> list[Peer]:
    """The peers that are meant: of each name the one that has it, else those in whose name it is; all without names."""
    exact = {peer.name for peer in all_peers}
    return [
        peer
        for peer in all_peers
        if not names or any(name == peer.name or (name not in exact and name in peer.name) for name in names)
    ]


def planned(chosen: Sequence[Peer], whole: bool) -> list[tuple[LogShape, list[Peer]]]:
    """Which peers read which topic."""
    if whole:
        return [(shape, list(chosen)) for shape in WHOLE_SHAPES]
    short = [peer for peer in chosen if peer.family in SHORT_PEERS or peer.name in SHORT_PEERS]
    return [(MAIN_SHAPE, list(chosen)), *((shape, short) for shape in SHORT_SHAPES)]


def _prepare(chosen: Sequence[Peer]) -> dict[str, str | provision.Missing]:
    """Each peer's program, or why there is none."""
    programs: dict[str, str | provision.Missing] = {}
    for peer in chosen:
        try:
            programs[peer.name] = peer.prepare(print)
        except provision.Missing as error:
            programs[peer.name] = error
    return programs


def _filled(site: Site, shape: LogShape, flows: int, counted: bool) -> FilledLog:
    print(f"filling a topic: {flows:,} flows, {shape.name} ...", flush=True)
    topic = f"{shape.topic}-counted" if counted else shape.topic
    return fill(site.kafka.address, shape, topic, source(shape, flows, counted))


def _measured(
    site: Site, peer: Peer, programs: dict[str, str | provision.Missing], log: FilledLog, seconds: float
) -> Measured:
    program = programs[peer.name]
    if isinstance(program, provision.Missing):
        return Measured(peer.name, peer.family, log.shape.name, trouble=str(program))
    return measure(site, peer, program, log, seconds)


def _struck(site: Site, peer: Peer, programs: dict[str, str | provision.Missing], log: FilledLog, kills: int) -> Struck:
    program = programs[peer.name]
    if isinstance(program, provision.Missing):
        return Struck(peer.name, peer.family, (), log.ledger.flows, trouble=str(program))
    return strike(site, peer, program, log, kills)


if __name__ == "__main__":
    main()
