"""How our consumer scales: with processes, with flow keys, and what a flow and a flow key cost to keep.

    python -m benchmarks.peers.scale [--flows N] [--key-flows N] [--whole]

A real Kafka and a real Redis on this machine. One topic of 6 partitions and 100,000 flow keys is read by 1, 2, 3 and 6
consumers, each time into a new view: the rate is that from when all of them have partitions, and the CPU time over the
same span says what binds. The time to build a view counts from the start of a single consumer. Then one consumer reads
topics of ever more flow keys. Redis's bytes are its used_memory (allocated, without fragmentation) before and after,
Kafka's the topic's segments.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from flowagg_stack.processes import Child, wait_until
from flowagg_stack.services import Service

from benchmarks.hot_paths.consumer import peak_rss_mib
from benchmarks.peers.bars import Bar, summary
from benchmarks.peers.consumers.data import FilledLog, LogShape, fill, source
from benchmarks.peers.consumers.exactness import Difference, compare
from benchmarks.peers.consumers.peers import applied_by_view, new_job, start_consumer, view_totals
from benchmarks.peers.consumers.site import Site, cpu_seconds, machine_cpu_seconds, main_thread_cpu_seconds, open_site

ROOT: Final = Path(__file__).parents[2]
SHAPE: Final = LogShape(partitions=6, keys=100_000)
PROCESSES: Final = (1, 2, 3, 6)
KEYS: Final = (1_000, 10_000, 100_000, 1_000_000)
MORE_KEYS: Final = 10_000_000
FULL: Final = 0.9
"""From this part of a core on a thread is busy, and from this part of all cores a machine."""
STRANGE: Final = 0.3
"""Cores; the looks of this benchmark take less."""
_START_SECONDS: Final = 60
_BUILD_SECONDS: Final = 900
_PAUSE_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Use:
    """CPU in cores (CPU seconds a second). threads: of each consumer's working thread. machine: everything here."""

    consumers: float
    threads: tuple[float, ...]
    redis: float
    kafka: float
    machine: float

    @property
    def others(self) -> float:
        """What is neither of these."""
        return max(0.0, self.machine - self.consumers - self.redis - self.kafka)


@dataclass(frozen=True, slots=True)
class Scaled:
    """Some consumers on one log.

    build_seconds: from the start of their processes until everything was applied. settled: flows that had been applied
    when all had partitions; rates are of what followed. rss_mib: the largest peak of them.
    """

    shape: str
    processes: int
    flows: int
    settled: int
    seconds: float
    build_seconds: float
    use: Use
    rss_mib: float
    redis_bytes: int
    flow_keys: int
    difference: Difference

    @property
    def flows_a_second(self) -> float:
        """Of what followed."""
        return (self.flows - self.settled) / self.seconds

    def microseconds(self, cores: float) -> float:
        """CPU time per flow of something that used so many cores."""
        return 1e6 * cores / self.flows_a_second


def main() -> None:
    """Run and end: 0 where all bars hold."""
    found = run(sys.argv[1:])
    sys.exit(0 if found and all(bar.holds for bar in found) else 1)


def run(argv: Sequence[str]) -> list[Bar]:
    """Measure, print, keep, and return the bars. Raises provision.Missing, ProcessFailed."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.peers.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flows", type=int, default=10_000_000, help="in the topic that several consumers share")
    parser.add_argument(
        "--key-flows", type=int, default=2_000_000, help="in each topic of ever more flow keys, at least"
    )
    parser.add_argument("--whole", action="store_true", help=f"with {MORE_KEYS:,} flow keys, too")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "peers-scale.json")
    given = parser.parse_args(argv)
    cores = os.cpu_count() or 1
    with open_site() as site:
        log = _filled(site, SHAPE, given.flows)
        kafka_bytes = log_bytes(site.directory, log.topic) / log.ledger.flows
        by_processes = [_scaled(site, log, count) for count in PROCESSES]
        print(processes_table(by_processes, cores), "", sep="\n", flush=True)
        by_keys = []
        for keys in (*KEYS, MORE_KEYS) if given.whole else KEYS:
            log = _filled(site, LogShape(6, keys), max(given.key_flows, 2 * keys))
            by_keys.append(_scaled(site, log, 1))
        print(keys_table(by_keys), "", sep="\n")
    build = by_processes[0]
    print(f"Kafka keeps {kafka_bytes:.1f} bytes a flow (lz4, batches as the writer's, one replica)")
    print(f"a view of {build.flows:,} flows is built by one consumer in {build.build_seconds:.1f} s from its start")
    wrong = sum(row.difference.wrong_keys for row in [*by_processes, *by_keys])
    found = [Bar("our wrong totals at any scale", wrong, 0, at_least=False)]
    kept: dict[str, Any] = {"cores": cores, "kafka_bytes_a_flow": kafka_bytes}
    kept |= {"processes": list(map(asdict, by_processes)), "keys": list(map(asdict, by_keys))}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(kept | {"bars": [asdict(bar) for bar in found]}, indent=2) + "\n")
    print(*(bar.text for bar in found), summary(found), sep="\n")
    return found


def binds(use: Use, cores: int) -> str:
    """What keeps the rate from being higher."""
    parts = f"consumers {use.consumers:.2f}, Kafka {use.kafka:.2f}, Redis {use.redis:.2f}, others {use.others:.2f}"
    if use.redis >= FULL:
        return f"Redis's one thread ({parts})"
    if min(use.threads) >= FULL:
        return f"the consumers' one thread each ({parts})"
    if use.others >= STRANGE:
        return f"others on this machine: measure again without them ({parts})"
    if use.machine >= FULL * cores:
        return f"the machine's {cores} cores ({parts})"
    if max(use.threads) >= FULL:
        return f"the busiest consumer's one thread ({parts})"
    return f"waiting, no processor ({parts})"


def processes_table(rows: Sequence[Scaled], cores: int) -> str:
    """For a terminal."""
    lines = [f"{'consumers':>9}{'flows/s':>10}{'/ one':>7}{'built in':>10}{'exact':>7}  what binds (cores used)"]
    for row in rows:
        ratio = row.flows_a_second / rows[0].flows_a_second
        exact = "yes" if row.difference.exact else "NO"
        figures = f"{row.processes:>9}{row.flows_a_second:>10,.0f}{ratio:>7.2f}{row.build_seconds:>8.1f} s{exact:>7}"
        lines.append(f"{figures}  {binds(row.use, cores)}")
    return "\n".join(lines)


def keys_table(rows: Sequence[Scaled]) -> str:
    """For a terminal."""
    head = f"{'flow keys':>11}{'flows':>12}{'flows/s':>10}{'us/flow':>9}{'Redis us':>10}{'Redis bytes/key':>17}"
    lines = [f"{head}{'RSS MiB':>9}{'exact':>7}"]
    for row in rows:
        costs = f"{row.microseconds(row.use.consumers):>9.2f}{row.microseconds(row.use.redis):>10.2f}"
        kept = f"{row.redis_bytes / row.flow_keys:>17.0f}{row.rss_mib:>9.0f}"
        exact = "yes" if row.difference.exact else "NO"
        lines.append(f"{row.flow_keys:>11,}{row.flows:>12,}{row.flows_a_second:>10,.0f}{costs}{kept}{exact:>7}")
    return "\n".join(lines)


def log_bytes(directory: Path, topic: str) -> int:
    """Bytes of a topic's segments under a broker's directory, without indexes, which are laid out before they fill."""
    return sum(file.stat().st_size for file in directory.glob(f"*/logs/{topic}-[0-9]*/*.log"))


def _filled(site: Site, shape: LogShape, flows: int) -> FilledLog:
    print(f"filling a topic: {flows:,} flows, {shape.name} ...", flush=True)
    return fill(site.kafka.address, shape, f"scale-{flows}-{shape.topic}", source(shape, flows))


def _scaled(site: Site, log: FilledLog, count: int) -> Scaled:
    """Let so many consumers build a view. Raises ProcessFailed."""
    job = new_job(site, log)
    memory = _redis_bytes(site)
    began = time.perf_counter()
    services = [start_consumer(site, job, f"consumer-{number}") for number in range(count)]
    children = [service.child for service in services]
    wait_until(lambda: _settled(services, log), "all have partitions", _START_SECONDS, children, _PAUSE_SECONDS)
    first, settled = _look(site, children), applied_by_view(site, job)
    flows = log.ledger.flows
    wait_until(lambda: applied_by_view(site, job) >= flows, "all is applied", _BUILD_SECONDS, children, _PAUSE_SECONDS)
    last = _look(site, children)
    rss = max(peak_rss_mib(str(child.process.pid)) for child in children)
    for child in children:
        site.processes.stop(child)
    assert settled < flows, f"all was applied before {count} consumers had partitions: --flows must be more"
    seconds = last["at"][0] - first["at"][0]
    rates = {name: tuple((b - a) / seconds for a, b in zip(first[name], last[name], strict=True)) for name in first}
    use = Use(sum(rates["consumers"]), rates["threads"], rates["redis"][0], rates["kafka"][0], rates["machine"][0])
    return Scaled(
        shape=log.shape.name,
        processes=count,
        flows=flows,
        settled=settled,
        seconds=seconds,
        build_seconds=last["at"][0] - began,
        use=use,
        rss_mib=rss,
        redis_bytes=_redis_bytes(site) - memory,
        flow_keys=len(log.ledger.totals),
        difference=compare(view_totals(site, job), log.ledger.totals),
    )


def _settled(services: Sequence[Service], log: FilledLog) -> bool:
    """Whether each runs its fair share of the partitions."""
    running = [service.running_partitions() for service in services]
    return sum(running) == len(log.ends) and min(running) >= len(log.ends) // len(running)


def _look(site: Site, children: Sequence[Child]) -> dict[str, tuple[float, ...]]:
    """The time and CPU seconds so far."""
    pids = [child.process.pid for child in children]
    return {
        "at": (time.perf_counter(),),
        "consumers": tuple(map(cpu_seconds, pids)),
        "threads": tuple(map(main_thread_cpu_seconds, pids)),
        "redis": (site.redis_cpu(),),
        "kafka": (site.kafka_cpu(),),
        "machine": (machine_cpu_seconds(),),
    }


def _redis_bytes(site: Site) -> int:
    """What Redis has allocated."""
    used: int = site.client.info("memory")["used_memory"]
    return used


if __name__ == "__main__":
    main()
