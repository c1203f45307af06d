"""The writer's speed on one core, beside a bare produce loop on that core in the same run.

    make bench-writer [SECONDS=10]

A real Kafka. The writer has one core to itself; wrk and Kafka have the others. Each kind of POST is measured
ROUNDS times, each time after the bare loop (bare.py): the ratios are of neighbours, the table shows medians.
Memory is measured on a writer that was just started.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from common import (
    JSON,
    OTHER_CORES,
    SERVER_CORE,
    Bars,
    Connection,
    bodies,
    cpu_seconds,
    kafka_here,
    median_of,
    memory_mib,
    on_cores,
    run_wrk,
)
from flowagg_stack.embedded import Server
from flowagg_stack.processes import Processes
from flowagg_stack.provision import provision_wrk
from flowagg_stack.services import Service, start_service

IDLE, WAITING = 4_096, 1_024
BAR_RATIO, BAR_KEYED_RATIO, BAR_SINGLE_A_SECOND = 0.6, 0.4, 6_000
_SETTLE_SECONDS: Final = 3
_BARE: Final = Path(__file__).with_name("bare.py")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of POST, and over how many connections it is sent."""

    flows: int
    connections: int
    keyed: bool = False

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.flows:,} flow{'s' if self.flows > 1 else ''}{', keyed' if self.keyed else ''}"


KINDS: Final = (Kind(1, 64), Kind(100, 32), Kind(1000, 16), Kind(1000, 16, keyed=True))


def main() -> None:
    """Run the benchmark; the exit status says whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    provision_wrk(print)
    os.sched_setaffinity(0, OTHER_CORES)
    with kafka_here() as (processes, kafka, directory):
        files = {kind.flows: directory / f"{kind.flows}.bodies" for kind in KINDS}
        for size, file in files.items():
            file.write_bytes(b"\n".join(bodies(size)) + b"\n")
        writer = start_writer(processes, kafka)
        seen: dict[Kind, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        bare: list[dict[str, Any]] = []
        for number in range(given.rounds):
            print(f"round {number + 1} of {given.rounds} ...", flush=True)
            for kind in KINDS:
                bare.append(measure_bare(kafka.address, given.seconds))
                row = measure(writer, kind, files[kind.flows], given.seconds, f"round-{number}")
                seen[kind].append(row | {"ratio": row["flows_a_cpu_second"] / bare[-1]["flows_a_cpu_second"]})
        processes.stop(writer.child)
        memory = asyncio.run(measure_memory(start_writer(processes, kafka), kafka.child.process.pid))
    rows = {kind.name: median_of(rounds) for kind, rounds in seen.items()}
    report(rows, median_of(bare), memory, given)


def start_writer(processes: Processes, kafka: Server) -> Service:
    """A writer that has the server's core."""
    with on_cores(SERVER_CORE):
        writer = start_service(processes, "writer", {"FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": kafka.address})
    writer.wait_ready()
    return writer


def measure_bare(address: str, seconds: int) -> dict[str, Any]:
    """The bare loop in a process of its own, on the server's core."""
    with on_cores(SERVER_CORE):
        command = [sys.executable, str(_BARE), address, str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 90, check=True)
    seen = json.loads(done.stdout)
    return {
        "flows_a_second": seen["flows"] / seen["seconds"],
        "flows_a_cpu_second": seen["flows"] / seen["cpu_seconds"],
        "cpu_seconds": seen["cpu_seconds"],
        "errors": seen["errors"],
    }


def measure(writer: Service, kind: Kind, file: Path, seconds: int, name: str) -> dict[str, Any]:
    """POSTs of one kind as fast as they are answered."""
    pid = writer.child.process.pid
    before = cpu_seconds(pid)
    keys = [f"{name}-{time.time_ns()}"] if kind.keyed else []
    seen = run_wrk(f"{writer.url}/flows", seconds, kind.connections, str(file), *keys)
    cpu = cpu_seconds(pid) - before
    return {
        "requests_a_second": seen.requests / seen.seconds,
        "flows_a_second": seen.requests * kind.flows / seen.seconds,
        "p50_ms": seen.p50_ms,
        "p99_ms": seen.p99_ms,
        "cpu_seconds": cpu,
        "requests_a_cpu_second": seen.requests / cpu,
        "flows_a_cpu_second": seen.requests * kind.flows / cpu,
        "errors": seen.errors,
    }


async def measure_memory(writer: Service, kafka_pid: int) -> dict[str, Any]:
    """Idle connections, and POSTs that wait while Kafka stands still; what each holds in memory."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    pid = writer.child.process.pid
    idle = [Connection(writer.url) for _ in range(IDLE)]
    waiting = [Connection(writer.url) for _ in range(WAITING)]
    body = bodies(1)[0]
    errors = 0

    async def answered(connection: Connection, method: str, target: str, *, sent: bool = False) -> None:
        nonlocal errors
        try:
            if not sent:
                await connection.send(method, target)
            reply = await connection.receive(method)
        except (OSError, EOFError, TimeoutError):
            errors += 1
        else:
            errors += reply.status != 200

    async def probe() -> None:
        await asyncio.gather(*(answered(connection, "GET", "/livez") for connection in idle))

    before = memory_mib(pid)
    await probe()
    held = memory_mib(pid)
    os.kill(kafka_pid, signal.SIGSTOP)
    try:
        await asyncio.gather(*(connection.send("POST", "/flows", body, JSON) for connection in waiting))
        await asyncio.sleep(_SETTLE_SECONDS)
        full = memory_mib(pid)
    finally:
        os.kill(kafka_pid, signal.SIGCONT)
    await asyncio.gather(*(answered(connection, "POST", "/flows", sent=True) for connection in waiting))
    await probe()
    for connection in [*idle, *waiting]:
        connection.close()
    return {
        "idle": IDLE,
        "waiting": WAITING,
        "kib_a_connection": (held - before) * 1024 / IDLE,
        "kib_a_waiting_post": (full - held) * 1024 / WAITING,
        "rss_mib": full,
        "errors": errors,
    }


def report(
    rows: dict[str, dict[str, Any]], bare: dict[str, Any], memory: dict[str, Any], given: argparse.Namespace
) -> None:
    """Print the tables and the bars, and end."""
    print(f"\n{given.rounds} rounds of {given.seconds} s, medians; one core for the server")
    head = (
        f"{'requests/s':>11}{'flows/s':>10}{'p50 ms':>8}{'p99 ms':>8}{'CPU s':>7}{'req/CPU-s':>11}{'flows/CPU-s':>12}"
    )
    print(f"{'a POST of':20}{head}{'/ bare':>8}{'errors':>8}")
    for name, row in rows.items():
        speeds = f"{row['requests_a_second']:>11,.0f}{row['flows_a_second']:>10,.0f}"
        times = f"{row['p50_ms']:>8.1f}{row['p99_ms']:>8.1f}{row['cpu_seconds']:>7.1f}"
        costs = f"{row['requests_a_cpu_second']:>11,.0f}{row['flows_a_cpu_second']:>12,.0f}{row['ratio']:>8.2f}"
        print(f"{name:20}{speeds}{times}{costs}{row['errors']:>8}")
    blank = " " * 16
    costs = f"{'':11}{bare['flows_a_cpu_second']:>12,.0f}{1:>8.2f}{bare['errors']:>8}"
    print(f"{'bare produce loop':20}{'':11}{bare['flows_a_second']:>10,.0f}{blank}{bare['cpu_seconds']:>7.1f}{costs}")
    print(
        f"memory: {memory['kib_a_connection']:.1f} KiB a connection ({IDLE:,} idle), "
        f"{memory['kib_a_waiting_post']:.1f} KiB a waiting POST with its connection ({WAITING:,}); "
        f"RSS {memory['rss_mib']:.0f} MiB; errors {memory['errors']}"
    )
    bars = Bars()
    single, _, plain, keyed = rows.values()
    bars.at_least("1,000 flows a POST / bare, per CPU second", plain["ratio"], BAR_RATIO)
    bars.at_least("the same with keys / bare, per CPU second", keyed["ratio"], BAR_KEYED_RATIO)
    bars.at_least("single-flow POSTs per CPU second", single["requests_a_cpu_second"], BAR_SINGLE_A_SECOND)
    errors = sum(row["errors"] for row in rows.values()) + bare["errors"]
    bars.at_most("errors under load", errors, 0)
    bars.at_most(f"errors of {IDLE:,} connections and {WAITING:,} waiting", memory["errors"], 0)
    kept = {"seconds": given.seconds, "rounds": given.rounds, "posts": rows, "bare": bare, "memory": memory}
    bars.end("writer", kept)


if __name__ == "__main__":
    main()
