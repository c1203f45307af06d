"""How long applies stand still when the Redis master is killed, and whether totals stay exact.

    make bench-failover [ROUNDS=20] [HANG=1]

A real Sentinel set (down-after 1 s), a real Kafka, one writer, one consumer and one reader. Flows are
posted all the time; each round kills the master with -9 (HANG: stops it, so that it takes connections
and does not answer), times from then to the first position that has moved on the new master, and
brings the node back as a replica.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Final

import httpx
import msgspec
import redis
from confluent_kafka.admin import AdminClient
from flowagg.view import meta_key
from flowagg_load.generator import Ledger, Shape, flows
from flowagg_stack.apache_kafka import start_kafka
from flowagg_stack.processes import Processes, wait_until
from flowagg_stack.sentinel import SentinelSet, client, start_sentinel_set
from flowagg_stack.services import Stack
from flowagg_stack.topics import ensure_topic

PARTITIONS: Final = 6
BAR_P50_SECONDS, BAR_MAX_SECONDS = 2.5, 5.0
RESULTS: Final = Path(__file__).parent / "results"


class Load:
    """A thread that posts small batches until it is stopped; every one must be acknowledged."""

    def __init__(self, stack: Stack, ledger: Ledger) -> None:
        self._stack = stack
        self._ledger = ledger
        self._source = flows(Shape(keys=500, hours=3), seed=3)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the batch in hand."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._stack.writer.url, timeout=30) as posting:
            while not self._stopping.wait(0.02):
                batch = list(islice(self._source, 20))
                body = msgspec.json.encode(batch)
                reply = posting.post("/flows", content=body, headers={"Content-Type": "application/json"})
                assert reply.status_code == 200, reply.text
                for flow in batch:
                    self._ledger.add(flow)


def applied(address: str) -> int:
    """The sum of the view's positions on a node; -1 where it does not answer as a master."""
    try:
        with client(address) as node:
            role = node.execute_command("ROLE")[0]
            positions = [node.hget(meta_key("bench", number), "position") for number in range(PARTITIONS)]
    except redis.RedisError:
        return -1
    return sum(int(position or 0) for position in positions) if role in (b"master", "master") else -1


def fail_over(sentinels: SentinelSet, *, hang: bool = False) -> float:
    """Kill or stop the master; seconds until a position moves on another node. The node comes back."""
    master = sentinels.master()
    others = [address for address in sentinels.nodes if address != master]
    before: dict[str, int] = {}
    if hang:
        sentinels.nodes[master].process.send_signal(signal.SIGSTOP)
    else:
        sentinels.kill(master)
    began = time.monotonic()

    def moves() -> bool:
        for address in others:
            now = applied(address)
            if now >= 0 and before.setdefault(address, now) < now:
                return True
        return False

    wait_until(moves, "applies go on", 60, pause=0.01)
    seconds = time.monotonic() - began
    if hang:
        sentinels.nodes[master].process.send_signal(signal.SIGCONT)
    else:
        sentinels.restart(master)
    sentinels.wait_ready(60)
    return seconds


def main() -> None:
    """Run the rounds; the exit status says whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--hang", action="store_true", help="stop the master in place of killing it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flow-aggregator-bench-") as name, Processes(Path(name)) as processes:
        kafka = start_kafka(processes, Path(name))
        sentinels = start_sentinel_set(processes, Path(name))
        ensure_topic(AdminClient({"bootstrap.servers": kafka.address}), "flows", PARTITIONS)
        settings = {"FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": kafka.address, "FLOWAGG_VIEW": "bench"}
        stack = Stack(processes, settings | sentinels.environment, consumers=1)
        stack.wait_ready()
        ledger = Ledger()
        load = Load(stack, ledger)
        times = []
        for number in range(given.rounds):
            times.append(fail_over(sentinels, hang=given.hang))
            print(f"round {number + 1}: {times[-1]:.2f} s", flush=True)
        load.stop()
        exact = all(is_exact(stack, ledger, hour) for hour in ledger.hours())
        sentinels.kill_all()
    p50, worst = statistics.median(times), max(times)
    holds = exact and p50 <= BAR_P50_SECONDS and worst <= BAR_MAX_SECONDS
    print(f"applies go on after p50 {p50:.2f} s, max {worst:.2f} s; {ledger.flows:,} flows, exact: {exact}")
    print(
        f"bar, p50 <= {BAR_P50_SECONDS} s, max <= {BAR_MAX_SECONDS} s, exact: {'holds' if holds else 'DOES NOT HOLD'}"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / ("hang.json" if given.hang else "failover.json")).write_text(
        json.dumps({"seconds": times, "exact": exact}, indent=2) + "\n"
    )
    sys.exit(0 if holds else 1)


def is_exact(stack: Stack, ledger: Ledger, hour: int) -> bool:
    """Whether the hour's fresh answer equals the ledger."""
    reply = httpx.Response(0)
    for _ in range(60):
        reply = httpx.get(f"{stack.reader.url}/flows", params={"hour": hour, "consistency": "strict"}, timeout=30)
        if reply.status_code == 200:
            break
        time.sleep(0.5)
    return reply.status_code == 200 and reply.json() == ledger.rows(hour)


if __name__ == "__main__":
    main()
