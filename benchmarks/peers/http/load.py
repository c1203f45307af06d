"""Load on a writer: as fast as it answers (wrk, a closed loop), or at a constant rate (an open loop)."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.http.common import cpu_seconds, run_wrk
from benchmarks.peers.http.peers import Peer, Variant
from benchmarks.peers.http.programs import Programs

WARMUP_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 60
_NICENESS: Final = -10


@dataclass(frozen=True, slots=True)
class Kind:
    """Flows a POST. connections: that wrk keeps busy. bound: most POSTs on their way in an open loop."""

    flows: int
    connections: int
    bound: int


KINDS: Final = (Kind(1, 64, 256), Kind(10, 64, 256), Kind(100, 32, 128), Kind(1000, 16, 64))


@dataclass(frozen=True, slots=True)
class Throughput:
    """A server that is kept saturated. CPU seconds are of its process."""

    variant: Variant
    flows: int
    round: int
    requests_a_second: float
    flows_a_second: float
    requests_a_cpu_second: float
    flows_a_cpu_second: float
    errors: int


@dataclass(frozen=True, slots=True)
class Latency:
    """From when each POST was meant to be sent to its answer. share: of the capacity that was measured.

    late_p99_ms: how late the generator itself was; it is in the latencies too.
    """

    variant: Variant
    flows: int
    round: int
    share: float
    rate: float
    sent: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    late_p99_ms: float
    errors: int


def saturate(peer: Peer, kind: Kind, file: Path, seconds: int, number: int) -> Throughput:
    """POSTs as fast as they are answered. file: bodies, one a line."""
    before = cpu_seconds(peer.pid)
    seen = run_wrk(f"{peer.url}/flows", seconds, kind.connections, str(file))
    cpu = cpu_seconds(peer.pid) - before
    return Throughput(
        peer.variant,
        kind.flows,
        number,
        seen.requests / seen.seconds,
        seen.requests * kind.flows / seen.seconds,
        seen.requests / cpu,
        seen.requests * kind.flows / cpu,
        seen.errors,
    )


def at_rate(
    programs: Programs, peer: Peer, kind: Kind, file: Path, seconds: int, number: int, share: float, capacity: float
) -> Latency:
    """POSTs at a share of the capacity, given in requests a second."""
    rate = share * capacity
    # Before Kafka on the core that they share, where the system allows it: else its turns would count as latency.
    command = ["nice", "-n", str(_NICENESS), str(programs.load)]
    command += ["-url", f"{peer.url}/flows", "-bodies", str(file), "-rate", f"{rate:.3f}"]
    command += ["-seconds", str(seconds), "-warmup", str(WARMUP_SECONDS), "-connections", str(kind.bound)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + WARMUP_SECONDS + _PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    return Latency(
        peer.variant,
        kind.flows,
        number,
        share,
        rate,
        seen["sent"],
        seen["p50_ms"],
        seen["p99_ms"],
        seen["p999_ms"],
        seen["max_ms"],
        seen["late_p99_ms"],
        seen["errors"],
    )
