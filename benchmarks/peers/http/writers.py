"""Writers side by side: ours, the durable ones in Go and those in memory.

Each round measures each size of POST on all of them, one right after the other, in an order that turns with the round.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from flowagg_stack.processes import Processes

from benchmarks.http.common import bodies, kafka_here, run_wrk
from benchmarks.peers.http.contract import check_logs, check_posts
from benchmarks.peers.http.held import Held, hold
from benchmarks.peers.http.load import KINDS, Latency, Throughput, at_rate, saturate
from benchmarks.peers.http.logged import Tail
from benchmarks.peers.http.peers import DURABLE, MEMORY, OURS, Peer, Variant, start_go, start_ours
from benchmarks.peers.http.programs import Programs

SHARES: Final = (0.5, 0.9)
_WARM_SECONDS: Final = 2
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Writers:
    """What was measured."""

    throughput: Sequence[Throughput]
    latency: Sequence[Latency]
    held: Sequence[Held]


def turned(items: Sequence[_T], number: int) -> list[_T]:
    """The items, beginning with another one in each round."""
    start = number % len(items)
    return [*items[start:], *items[:start]]


def capacity(rows: Sequence[Throughput], variant: Variant, flows: int) -> float:
    """Requests a second of a saturated server: the median of the rounds."""
    return statistics.median(row.requests_a_second for row in rows if (row.variant, row.flows) == (variant, flows))


def fastest(rows: Sequence[Throughput], role: str, flows: int) -> Variant:
    """The variant of a role with the most flows a CPU second, by the median of the rounds."""
    speeds = {
        variant: statistics.median(
            row.flows_a_cpu_second for row in rows if (row.variant, row.flows) == (variant, flows)
        )
        for variant in {row.variant for row in rows if row.variant.role == role}
    }
    return max(sorted(speeds), key=lambda variant: speeds[variant])


def measure_writers(
    programs: Programs, libraries: Sequence[str], seconds: int, rounds: int, say: Callable[[str], None]
) -> Writers:
    """All of it. Raises Unlike, ProcessFailed."""
    with kafka_here() as (processes, kafka, directory):
        files = _files(directory)
        peers = _start(processes, programs, libraries, kafka.address)
        _check(peers, kafka.address)
        for peer in peers.values():
            run_wrk(f"{peer.url}/flows", _WARM_SECONDS, KINDS[-1].connections, str(files[KINDS[-1].flows]))
        throughput = []
        for number in range(rounds):
            say(f"writers, saturated: round {number + 1} of {rounds} ...")
            for kind in KINDS:
                for peer in turned(list(peers.values()), number):
                    throughput.append(saturate(peer, kind, files[kind.flows], seconds, number))
        latency = _latency(programs, peers, files, throughput, seconds, rounds, say)
        for peer in peers.values():
            processes.stop(peer.child)
        say("writers, connections ...")
        held = []
        for variant in (Variant(OURS), *(fastest(throughput, role, 1) for role in (DURABLE, MEMORY))):
            peer = _start_one(processes, programs, variant, kafka.address)
            run_wrk(f"{peer.url}/flows", _WARM_SECONDS, KINDS[0].connections, str(files[1]))
            held.append(hold(peer, bodies(1)[0]))
            processes.stop(peer.child)
    return Writers(throughput, latency, held)


def _latency(
    programs: Programs,
    peers: Mapping[Variant, Peer],
    files: Mapping[int, Path],
    throughput: Sequence[Throughput],
    seconds: int,
    rounds: int,
    say: Callable[[str], None],
) -> list[Latency]:
    """Ours and the faster durable one in each round; the faster one in memory, that no bar asks for, in the first."""
    latency = []
    for number in range(rounds):
        say(f"writers, open loop: round {number + 1} of {rounds} ...")
        for kind in KINDS:
            variants = [Variant(OURS), fastest(throughput, DURABLE, kind.flows)]
            if number == 0:
                variants.append(fastest(throughput, MEMORY, kind.flows))
            for share in SHARES:
                for variant in turned(variants, number):
                    most = capacity(throughput, variant, kind.flows)
                    file = files[kind.flows]
                    latency.append(at_rate(programs, peers[variant], kind, file, seconds, number, share, most))
    return latency


def _check(peers: Mapping[Variant, Peer], kafka: str) -> None:
    """Raises Unlike where a service does not do the same work."""
    tail = Tail(kafka)
    logged = {}
    for variant, peer in peers.items():
        check_posts(peer)
        if variant.role != MEMORY:
            logged[variant] = tail.read()
    tail.close()
    check_logs(logged)


def _files(directory: Path) -> dict[int, Path]:
    """Files of bodies, one a line, by flows a POST."""
    files = {}
    for kind in KINDS:
        files[kind.flows] = directory / f"{kind.flows}.bodies"
        files[kind.flows].write_bytes(b"\n".join(bodies(kind.flows)) + b"\n")
    return files


def _start(processes: Processes, programs: Programs, libraries: Sequence[str], kafka: str) -> dict[Variant, Peer]:
    variants = [Variant(OURS), *(Variant(role, library) for role in (DURABLE, MEMORY) for library in libraries)]
    return {variant: _start_one(processes, programs, variant, kafka) for variant in variants}


def _start_one(processes: Processes, programs: Programs, variant: Variant, kafka: str) -> Peer:
    if variant.role == OURS:
        return start_ours(processes, "writer", {"FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": kafka})
    return start_go(processes, programs, variant, kafka if variant.role == DURABLE else None)
