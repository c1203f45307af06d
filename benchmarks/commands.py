"""`flowagg post`: its speed, and whether each flow counts once though it is killed again and again; and queries' times.

    make bench-post [ROUNDS=20]

A real Kafka and Redis, a writer, two consumers and a reader, all on this machine with the command itself. First files
of NDJSON, each of 3 million flows, one to warm up and three that count (their median), from nothing to acknowledged,
while consumers apply them. Then rounds: a file of its own, in hours of its own, whose
command is killed (-9, SIGTERM, SIGINT) at random points and begun again until it ends well; the totals of its hours
must be the true ones. Last, an hour of 200,000 flow keys is asked for its top 10 and for pages, cold (the hour has
changed since) and warm; and browsers that have never seen the page open it on that hour.
"""

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
from flowagg.flow import Flow
from flowagg_load.generator import Ledger, Shape, flows
from flowagg_stack import provision
from flowagg_stack.embedded import start_redis_binary
from flowagg_stack.services import Stack

from benchmarks.browser import chromium, seconds_until_usable
from benchmarks.http.common import RESULTS, kafka_here, percentile
from benchmarks.peers.bars import Bar, summary

_FLOWS: Final = 3_000_000
_FILES: Final = 3
_ROUND_FLOWS: Final = 400_000
_ROUND_HOUR: Final = 1000
_KEYS: Final = 200_000
_KEYS_HOUR: Final = 900_000
_WARM: Final = 200
_COLD: Final = 12
_LOADS: Final = 10


def main() -> None:
    """Run the benchmark and print the table; the exit status says whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    provision.provision(print)
    with kafka_here() as (processes, kafka, directory):
        redis = start_redis_binary(processes, provision.redis_server())
        settings = {
            "FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": kafka.address,
            "FLOWAGG_REDIS_URL": f"redis://{redis.address}/0",
            "FLOWAGG_VIEW": "bench",
        }
        stack = Stack(processes, settings)
        stack.wait_ready()
        measure_speed(stack, directory, _FLOWS)  # Kafka compiles itself on the way
        speed = statistics.median(measure_speed(stack, directory, _FLOWS) for _ in range(_FILES))
        exact = sum(kill_round(stack, directory, number) for number in range(given.rounds))
        queries = measure_queries(stack)
    bars = [
        Bar("flowagg post, NDJSON, flows/s", speed, 150_000, at_least=True),
        Bar(f"rounds with kills that end exact, of {given.rounds}", exact, given.rounds, at_least=True),
        Bar(f"top 10 of {_KEYS:,} flow keys, warm, p99 ms", queries["top warm"], 100, at_least=False),
        Bar(f"top 10 of {_KEYS:,} flow keys, cold, p99 ms", queries["top cold"], 400, at_least=False),
        Bar("a filtered page of 100 rows, warm, p99 ms", queries["page warm"], 50, at_least=False),
        Bar(f"the page at /ui on that hour usable, slowest of {2 * _LOADS}, s", queries["ui"], 1, at_least=False),
    ]
    print(*(bar.text for bar in bars), sep="\n")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "commands.json").write_text(json.dumps({"flows_a_second": speed, **queries}, indent=2) + "\n")
    print(summary(bars))
    sys.exit(0 if all(bar.holds for bar in bars) else 1)


def _write(path: Path, made: Sequence[Flow]) -> None:
    with path.open("wb") as file:
        for start in range(0, len(made), 10_000):
            file.write(b"".join(msgspec.json.encode(flow) + b"\n" for flow in made[start : start + 10_000]))


def _command(stack: Stack, path: Path) -> list[str]:
    return [sys.executable, "-m", "flowagg_cli", "post", str(path), "--url", stack.writer.url]


def measure_speed(stack: Stack, directory: Path, count: int) -> float:
    """Flows a second from a file of so many to acknowledged, the command's own start included."""
    path = directory / "speed.ndjson"
    part = list(islice(flows(Shape(keys=100_000), seed=1), 300_000))
    with path.open("wb") as file:
        raw = b"".join(msgspec.json.encode(flow) + b"\n" for flow in part)
        for _ in range(count // len(part)):
            file.write(raw)
    began = time.monotonic()
    subprocess.run(_command(stack, path), check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    print(f"{count:,} flows ({path.stat().st_size / 1e6:,.0f} MB) in {seconds:.1f} s: {count / seconds:,.0f} flows/s")
    path.unlink()
    return count / seconds


def kill_round(stack: Stack, directory: Path, number: int) -> bool:
    """Post a file though the command is killed on its way; whether the totals of its hours are the true ones."""
    rng = random.Random(number)
    path = directory / f"round-{number}.ndjson"
    hour = _ROUND_HOUR + 2 * number
    ledger = Ledger()
    made = []
    for flow in islice(flows(Shape(keys=2000, hours=2), seed=number), _ROUND_FLOWS):
        moved = Flow(flow.src_app, flow.dest_app, flow.vpc_id, hour + flow.hour, flow.bytes_tx, flow.bytes_rx)
        ledger.add(moved)
        made.append(moved)
    _write(path, made)
    state = path.with_name(path.name + ".flowagg-post")
    kills = 0
    command = [*_command(stack, path), "--batch", "2000"]
    while True:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if kills < 5:
            while process.poll() is None and not state.exists():
                time.sleep(0.002)
            time.sleep(rng.random() * 0.7)
            process.send_signal(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        if process.wait() == 0:
            break
        kills += 1
    path.unlink()
    exact = all(_rows(stack, each) == ledger.rows(each) for each in ledger.hours())
    print(f"round {number}: {kills} kills, {'exact' if exact else 'NOT EXACT'}", flush=True)
    return exact


def _rows(stack: Stack, hour: int) -> Any:
    for _ in range(60):
        reply = httpx.get(f"{stack.reader.url}/flows", params={"hour": hour, "consistency": "strict"}, timeout=60)
        if reply.status_code == 200:
            return reply.json()
        time.sleep(1)
    raise AssertionError(f"hour {hour} does not become fresh")


def measure_queries(stack: Stack) -> dict[str, float]:
    """Times of queries of a large hour, in milliseconds: p99."""
    made = [
        Flow(f"application-{n % 20_011}", f"svc-{n // 20_011}", f"vpc-{n % 10}", _KEYS_HOUR, n * 17, n * 31)
        for n in range(_KEYS)
    ]
    with httpx.Client(timeout=60) as client:

        def post(part: Sequence[Flow]) -> None:
            headers = {"Content-Type": "application/json"}
            reply = client.post(f"{stack.writer.url}/flows", content=msgspec.json.encode(part), headers=headers)
            reply.raise_for_status()

        def change(turn: int) -> None:
            """Have the hour change; back once that is applied, for the wait is not what is measured."""
            post(made[turn : turn + 1])
            strict: dict[str, str | int] = {"hour": _KEYS_HOUR - 1, "consistency": "strict"}
            client.get(f"{stack.reader.url}/flows", params=strict).raise_for_status()

        for start in range(0, _KEYS, 10_000):
            post(made[start : start + 10_000])
        _rows(stack, _KEYS_HOUR)
        queries: dict[str, dict[str, str | int]] = {
            "top": {"hour": _KEYS_HOUR, "top": 10},
            "top of sources": {"hour": _KEYS_HOUR, "group_by": "src_app", "top": 10},
            "page": {"hour": _KEYS_HOUR, "src_app": "application-1*", "dest_app": "svc-?", "limit": 100},
        }
        found: dict[str, float] = {}
        for name, query in queries.items():
            for kind, count in (("cold", _COLD), ("warm", _WARM)):
                times = []
                for turn in range(count):
                    if kind == "cold":
                        change(turn)
                    began = time.perf_counter()
                    reply = client.get(f"{stack.reader.url}/flows", params=query)
                    times.append(1e3 * (time.perf_counter() - began))
                    assert reply.headers["flowagg-fresh"] == "true"
                p50, p99 = percentile(times, 50), percentile(times, 99)
                print(f"{name}, {kind}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
                found[f"{name} {kind}"] = p99
        found["ui"] = max(_page_loads(stack, change))
    return found


def _page_loads(stack: Stack, change: Callable[[int], None]) -> list[float]:
    """Seconds until the page on the large hour is usable, right after the hour has changed and when it has not."""
    url = f"{stack.reader.url}/ui/?hour={_KEYS_HOUR}"
    times: dict[str, list[float]] = {"cold": [], "warm": []}
    with chromium() as browser:
        for turn in range(_LOADS):
            change(turn)
            for took in times.values():
                took.append(seconds_until_usable(browser, url))
    for kind, took in times.items():
        print(f"page at /ui, {kind}: p50 {percentile(took, 50):.2f} s, slowest {max(took):.2f} s")
    return times["cold"] + times["warm"]


if __name__ == "__main__":
    main()
