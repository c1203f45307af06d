"""How long a restore takes, and what an export costs the consumers, in one run on one machine.

    make bench-backups [KEYS=1000000]

A real Kafka and a real Redis. A view of so many flow keys is restored from a file, then exported alone. Then a
consumer works off a log at full speed on top of that view, while exports of it run in every other stretch of time: what
it applies a second with and without them stands side by side. The one Redis is the master: the worst case, since
with Sentinel exports read a replica.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import redis
from confluent_kafka import Producer, TopicCollection
from confluent_kafka.admin import AdminClient
from flowagg.flow import encode_key, encode_value
from flowagg.view import Meta, meta_key
from flowagg_cli.archive import FORMAT, End, Header, Writer, meta_fields
from flowagg_load.generator import Shape, flows
from flowagg_stack import provision
from flowagg_stack.apache_kafka import start_kafka
from flowagg_stack.embedded import start_redis_binary
from flowagg_stack.processes import Processes, wait_until
from flowagg_stack.services import start_service
from flowagg_stack.topics import ensure_topic

PARTITIONS: Final = 6
HOURS: Final = 240
VIEW: Final = "bench"
BAR_RESTORE_SECONDS: Final = 60
BAR_SLOWER: Final = 0.10
RESULTS: Final = Path(__file__).parent / "results"
_COMMAND_SECONDS: Final = 600


def main() -> None:
    """Run the benchmark and print the table; the exit status says whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000, help="flow keys of the view")
    parser.add_argument("--flows", type=int, default=14_000_000, help="records that the consumer works off")
    parser.add_argument("--stretch", type=float, default=5.0, help="seconds with exports, and then without")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flow-aggregator-bench-") as name, Processes(Path(name)) as processes:
        kafka = start_kafka(processes, Path(name))
        server = start_redis_binary(processes, provision.redis_server())
        admin = AdminClient({"bootstrap.servers": kafka.address})
        ensure_topic(admin, "flows", PARTITIONS)
        topic_id = str(admin.describe_topics(TopicCollection(["flows"]))["flows"].result(20).topic_id)
        environment = {
            "FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": kafka.address,
            "FLOWAGG_REDIS_URL": f"redis://{server.address}/0",
            "FLOWAGG_VIEW": VIEW,
        }
        file = Path(name) / "view"
        write_view(file, topic_id, given.keys)
        print(f"a view of {given.keys:,} flow keys in {HOURS} hours: {file.stat().st_size / 2**20:.1f} MiB", flush=True)
        with redis.Redis.from_url(f"redis://{server.address}/0") as client:
            restored = measure(environment, client, "restore", "import", "--from", str(file))
            exported = measure(environment, client, "export, alone", "export", VIEW, "--to", str(file) + "-2")
            fill(kafka.address, given.flows)
            stretches = drain(processes, environment, client, file, given.flows, given.stretch)
    report(given, restored, exported, stretches)


def write_view(path: Path, topic_id: str, keys: int) -> None:
    """An export of a made-up view at the log's beginning."""
    header = Header(FORMAT, VIEW, "flows", topic_id, "2026-01-01T00:00:00Z", "bench", list(range(PARTITIONS)))
    each = keys // PARTITIONS // HOURS
    with path.open("wb") as file:
        writer = Writer(file, header)
        for number in range(PARTITIONS):
            writer.begin(number)
            for hour in range(1000, 1000 + HOURS):  # hours that the consumer's flows do not touch
                pairs: list[bytes] = []
                for key in range(each):
                    pairs += (
                        b'["app-%d","app-%d","vpc-%d"]' % (key * 7919 % 100_003, number, key % 7),
                        b"%d %d" % (key * 1_234_567, hour * key),
                    )
                writer.hour(hour, pairs)
            meta = Meta(0, topic_id, -1, 0, incomplete=False, incarnation="bench")
            ends = [(hour, b"0", each) for hour in range(1000, 1000 + HOURS)]
            writer.end(End(number, meta_fields(meta), ends, []))
        writer.finish()


def command(environment: Mapping[str, str], *words: str) -> "subprocess.Popen[str]":
    """Start `flowagg views`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLOWAGG_")}
    line = [sys.executable, "-m", "flowagg_cli", "views", *words]
    return subprocess.Popen(
        line, env=kept | dict(environment), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def measure(environment: Mapping[str, str], client: "redis.Redis", name: str, *words: str) -> dict[str, Any]:
    """Run `flowagg views` to its end: wall time, and CPU time of itself and of Redis, in seconds."""
    redis_began, children_began, began = redis_cpu_seconds(client), os.times(), time.perf_counter()
    running = command(environment, *words)
    said, _ = running.communicate(timeout=_COMMAND_SECONDS)
    wall, children = time.perf_counter() - began, os.times()
    if running.returncode != 0:
        sys.exit(f"{name} failed: {said}")
    cpu = children.children_user + children.children_system
    cpu -= children_began.children_user + children_began.children_system
    return {
        "name": name,
        "seconds": wall,
        "cpu_seconds": cpu,
        "redis_cpu_seconds": redis_cpu_seconds(client) - redis_began,
    }


def fill(address: str, count: int) -> None:
    """Put flows into the topic as the writer would."""
    print(f"producing {count:,} flows ...", flush=True)
    producer = Producer(
        {
            "bootstrap.servers": address,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": 0,
        }
    )
    source = flows(Shape(keys=100_000), seed=1)
    for number in range(count):
        flow = next(source)
        key = encode_key(flow.src_app, flow.dest_app, flow.vpc_id, flow.hour)
        producer.produce("flows", encode_value(flow.bytes_tx, flow.bytes_rx), key)
        if number % 10_000 == 0:
            producer.poll(0)
            while len(producer) > 500_000:
                producer.poll(0.05)
    assert producer.flush(120) == 0


def drain(
    processes: Processes,
    environment: Mapping[str, str],
    client: "redis.Redis",
    file: Path,
    flows_: int,
    stretch_seconds: float,
) -> list[dict[str, Any]]:
    """Have a consumer work the log off, with exports in every other stretch; the stretches that it filled."""
    service = start_service(processes, "consumer", environment)
    # Past the first touch of each flow key, which costs more than what follows.
    wait_until(lambda: applied(client) > flows_ / 10, "the consumer is at work", 120, [service.child], 0.01)
    stretches: list[dict[str, Any]] = []
    while True:
        exporting, exports = bool(len(stretches) % 2), 0
        running: subprocess.Popen[str] | None = None
        if exporting:  # past the start of the program, which is no part of reading: its CPU is in the table above
            running = command(environment, "export", VIEW, "--to", f"{file}-live")
            wait_until(lambda: any(file.parent.glob(".*.partial")), "the export reads", 60, [service.child], 0.01)
        began, before = time.perf_counter(), applied(client)
        while time.perf_counter() < began + stretch_seconds:
            if exporting and (running is None or running.poll() is not None):
                if running is not None and running.returncode != 0:
                    sys.exit(f"an export failed: {running.communicate()[0]}")
                exports += running is not None
                running = command(environment, "export", VIEW, "--to", f"{file}-live")
            time.sleep(0.02)
        after, wall = applied(client), time.perf_counter() - began
        if running is not None:
            running.terminate()
            running.communicate(timeout=_COMMAND_SECONDS)
        if after >= flows_ * 0.97:
            return stretches
        rate = (after - before) / wall
        stretches.append({"exporting": exporting, "flows_a_second": rate, "exports_ended": exports})


def applied(client: "redis.Redis") -> int:
    """Records that the view has applied."""
    with client.pipeline(transaction=False) as pipeline:
        for number in range(PARTITIONS):
            pipeline.hget(meta_key(VIEW, number), "position")
        return sum(int(position or 0) for position in pipeline.execute())


def redis_cpu_seconds(client: "redis.Redis") -> float:
    """CPU time of Redis so far."""
    info: Any = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def slower(stretches: Sequence[Mapping[str, Any]]) -> float:
    """By which share exports slow applies: each stretch with them against the two around it, in the median."""
    shares = []
    for place in range(1, len(stretches) - 1, 2):
        around = (stretches[place - 1]["flows_a_second"] + stretches[place + 1]["flows_a_second"]) / 2
        shares.append(1 - stretches[place]["flows_a_second"] / around)
    if not shares:
        sys.exit("the log was worked off too soon: give more --flows, or a shorter --stretch")
    return float(statistics.median(shares))


def report(
    given: argparse.Namespace,
    restored: Mapping[str, Any],
    exported: Mapping[str, Any],
    stretches: Sequence[Mapping[str, Any]],
) -> None:
    """Print the tables and the bars, keep all as JSON, and end: 0 where all bars hold."""
    print(f"{os.cpu_count()} cores, shared by all of it; load average {os.getloadavg()[0]:.1f}")
    print(f"{'':20}{'seconds':>9}{'CPU s':>8}{'Redis CPU s':>13}{'keys/s':>11}")
    for row in (restored, exported):
        speed = given.keys / row["seconds"]
        print(
            f"{row['name']:20}{row['seconds']:>9.1f}{row['cpu_seconds']:>8.1f}{row['redis_cpu_seconds']:>13.1f}{speed:>11,.0f}"
        )
    print("applied a second: " + ", ".join(_shown(stretch) for stretch in stretches))
    share = slower(stretches)
    bars = {
        f"restore of {given.keys:,} flow keys <= {BAR_RESTORE_SECONDS} s": restored["seconds"] <= BAR_RESTORE_SECONDS,
        f"an export slows applies by less than {BAR_SLOWER:.0%}": share < BAR_SLOWER,
    }
    print(f"restore: {restored['seconds']:.1f} s; applies beside an export: {share:+.1%} slower")
    RESULTS.mkdir(exist_ok=True)
    document = {
        "keys": given.keys, "flows": given.flows, "restore": restored, "export": exported,
        "stretches": stretches, "slower": share, "bars": bars,
    }  # fmt: skip
    (RESULTS / "backups.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print("; ".join(f"{bar}: {'holds' if holds else 'DOES NOT HOLD'}" for bar, holds in bars.items()))
    sys.exit(0 if all(bars.values()) else 1)


def _shown(stretch: Mapping[str, Any]) -> str:
    exporting = f" ({stretch['exports_ended']} whole exports)" if stretch["exporting"] else ""
    return f"{stretch['flows_a_second'] / 1000:,.0f} k{exporting}"


if __name__ == "__main__":
    main()
