"""The consumer's speed, beside a bare consume-decode-fold loop on the same topic in the same run.

    make bench-consumer [FLOWS=2000000] [KEYS=100000] [ZIPF=0]

A real Kafka and a real Redis on this machine; one consumer process that owns all 6 partitions. The
bare loop consumes with the same client properties, decodes and folds, and stores nothing: what is
left of the machine for exactly-once is the distance to it. Both are timed from their first record
to their last; CPU is the process's own, Redis's is shown apart.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from flowagg.flow import encode_key, encode_value
from flowagg.view import meta_key, partitions_key
from flowagg_consumer.records import decode_values
from flowagg_load.generator import Ledger, Shape, flows
from flowagg_stack import provision
from flowagg_stack.apache_kafka import start_kafka
from flowagg_stack.embedded import start_redis_binary
from flowagg_stack.processes import Processes, wait_until
from flowagg_stack.services import start_service
from flowagg_stack.topics import ensure_topic

PARTITIONS: Final = 6
BAR_FLOWS_A_SECOND: Final = 150_000
RESULTS: Final = Path(__file__).parents[1] / "results"


def main() -> None:
    """Run the benchmark and print the table; the exit status says whether the bar holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=2_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--zipf", type=float, default=0.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flow-aggregator-bench-") as name, Processes(Path(name)) as processes:
        kafka = start_kafka(processes, Path(name))
        server = start_redis_binary(processes, provision.redis_server())
        ensure_topic(AdminClient({"bootstrap.servers": kafka.address}), "flows", PARTITIONS)
        ledger = fill(kafka.address, given.flows, Shape(keys=given.keys, zipf=given.zipf))
        with redis.Redis.from_url(f"redis://{server.address}/0") as client:
            rows = [measure_bare(kafka.address, ledger), measure_consumer(processes, kafka.address, client, ledger)]
            exact = is_exact(client, ledger)
    report(rows, exact, given)
    sys.exit(0 if exact and rows[1]["flows_a_second"] >= BAR_FLOWS_A_SECOND else 1)


def fill(address: str, count: int, shape: Shape) -> Ledger:
    """Put flows into the topic as the writer would; their ledger."""
    print(f"producing {count:,} flows over {shape.keys:,} flow keys ...", flush=True)
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
    ledger = Ledger()
    source = flows(shape, seed=1)
    for number in range(count):
        flow = next(source)
        ledger.add(flow)
        key = encode_key(flow.src_app, flow.dest_app, flow.vpc_id, flow.hour)
        producer.produce("flows", encode_value(flow.bytes_tx, flow.bytes_rx), key)
        if number % 10_000 == 0:
            producer.poll(0)
            while len(producer) > 500_000:
                producer.poll(0.05)
    assert producer.flush(120) == 0
    return ledger


def measure_bare(address: str, ledger: Ledger) -> dict[str, Any]:
    """Consume, decode and fold into a dictionary; store nothing."""
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "bare",
            "auto.offset.reset": "error",
            "queued.min.messages": 40_000,
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.assign([TopicPartition("flows", number, 0) for number in range(PARTITIONS)])
    sums: dict[bytes | None, tuple[int, int]] = {}
    folded = 0
    messages = consumer.consume(1, 30)
    began, cpu_began = time.perf_counter(), time.process_time()
    while True:
        keys = [message.key() for message in messages]
        for key, counts in zip(keys, decode_values([message.value() for message in messages]).counts, strict=True):
            bytes_tx, bytes_rx = sums.get(key, (0, 0))
            sums[key] = (bytes_tx + counts.bytes_tx, bytes_rx + counts.bytes_rx)
        folded += len(messages)
        if folded == ledger.flows:
            break
        messages = consumer.consume(10_000, 0.005)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    consumer.close()
    assert len(sums) == len(ledger.totals)
    return row("bare consume-decode-fold", ledger.flows, wall, cpu, peak_rss_mib("self"))


def measure_consumer(processes: Processes, address: str, client: "redis.Redis", ledger: Ledger) -> dict[str, Any]:
    """Start a consumer and watch the view's positions until it has applied everything."""
    environment = {
        "FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": address,
        "FLOWAGG_REDIS_URL": "redis://{host}:{port}/0".format(**client.connection_pool.connection_kwargs),
        "FLOWAGG_VIEW": "bench",
    }
    service = start_service(processes, "consumer", environment)

    def applied() -> int:
        with client.pipeline(transaction=False) as pipeline:
            for number in range(PARTITIONS):
                pipeline.hget(meta_key("bench", number), "position")
            return sum(int(position or 0) for position in pipeline.execute())

    wait_until(lambda: client.scard(partitions_key("bench")) == PARTITIONS, "assigned", 60, [service.child], 0.001)
    began = time.perf_counter()
    cpu_began, redis_began = cpu_seconds(service.url), redis_cpu_seconds(client)
    wait_until(lambda: applied() == ledger.flows, "applied", 600, [service.child], 0.01)
    wall = time.perf_counter() - began
    cpu, redis_cpu = cpu_seconds(service.url) - cpu_began, redis_cpu_seconds(client) - redis_began
    result = row("consumer, exactly once", ledger.flows, wall, cpu, peak_rss_mib(str(service.child.process.pid)))
    return result | {"redis_cpu_seconds": redis_cpu}


def is_exact(client: "redis.Redis", ledger: Ledger) -> bool:
    """Whether every total in Redis equals the true one."""
    found = {}
    for name in client.scan_iter("flowagg:{bench:*:hour:*", count=1000):
        hour = int(name.rsplit(b":", 1)[1])
        for field, value in client.hgetall(name).items():
            found[(*json.loads(field), hour)] = tuple(map(int, value.split()))
    return found == ledger.totals


def row(name: str, count: int, wall: float, cpu: float, rss_mib: float) -> dict[str, Any]:
    """One line of the table."""
    return {
        "name": name,
        "flows_a_second": count / wall,
        "flows_a_cpu_second": count / cpu,
        "seconds": wall,
        "peak_rss_mib": rss_mib,
    }


def cpu_seconds(url: str) -> float:
    """CPU time of a service so far."""
    match = re.search(r"^process_cpu_seconds_total (\S+)$", httpx.get(f"{url}/metrics").text, re.M)
    assert match is not None
    return float(match[1])


def redis_cpu_seconds(client: "redis.Redis") -> float:
    """CPU time of Redis so far."""
    info: dict[str, float] = client.info("cpu")
    return info["used_cpu_user"] + info["used_cpu_sys"]


def peak_rss_mib(pid: str) -> float:
    """Largest resident memory of a process so far."""
    match = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert match is not None
    return int(match[1]) / 1024


def report(rows: list[dict[str, Any]], exact: bool, given: argparse.Namespace) -> None:
    """Print the table and keep it as JSON."""
    print(f"\n{given.flows:,} flows, {given.keys:,} flow keys, zipf {given.zipf:g}")
    print(f"{os.cpu_count()} cores, shared with Kafka and Redis")
    print(f"{'':28}{'flows/s':>10}{'per CPU-s':>11}{'seconds':>9}{'RSS MiB':>9}")
    for line in rows:
        speeds = f"{line['flows_a_second']:>10,.0f}{line['flows_a_cpu_second']:>11,.0f}"
        print(f"{line['name']:28}{speeds}{line['seconds']:>9.1f}{line['peak_rss_mib']:>9.0f}")
    bare, ours = rows
    ratio: Callable[[str], float] = lambda name: ours[name] / bare[name]  # noqa: E731
    print(
        f"consumer / bare: {ratio('flows_a_second'):.2f} in flows/s, {ratio('flows_a_cpu_second'):.2f} per CPU second; "
        f"Redis used {ours['redis_cpu_seconds']:.1f} CPU s; totals exact: {'yes' if exact else 'NO'}"
    )
    holds = exact and ours["flows_a_second"] >= BAR_FLOWS_A_SECOND
    print(f"bar, >= {BAR_FLOWS_A_SECOND:,} flows/s and exact: {'holds' if holds else 'DOES NOT HOLD'}")
    RESULTS.mkdir(exist_ok=True)
    document = {"flows": given.flows, "keys": given.keys, "zipf": given.zipf, "exact": exact, "rows": rows}
    (RESULTS / "consumer.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
