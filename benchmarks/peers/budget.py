"""A budget for the hot loops: CPU per flow and step, beside the floor, which is the I/O and the JSON alone.

    python -m benchmarks.peers.budget [--seconds N]

A real Kafka and a real Redis on this machine; each service has one core, as have the floors. CPU is that of the whole
process, librdkafka's threads and the kernel's work for it included; of Redis it is shown apart. What no step explains
is in the last one of each loop. Steps are measured alone, with other things in the caches: it may be less than nothing.

consumer: a log of 6 partitions, 100,000 flow keys. Floor: consume the records and do not look at them, and send Redis
    the same fields and totals in HSETs of 10,000 records, packed before, reading the replies.
writer: POSTs of 1,000 flows. Floor: decode the bodies, and produce the same records, encoded before.
reader: GETs of an hour of 10,000 flow keys. Warm, floor: a server that sends the same bytes to whoever asks. Cold,
    floor: HGETALL of the same totals, encoding the rows, and sending them.
"""

import argparse
import gc
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import hiredis
import httpx
import msgspec
import redis
from confluent_kafka import Consumer, TopicPartition
from flowagg.flow import Flow, encode_key
from flowagg.view import encode_totals, totals_field
from flowagg_load.generator import Shape, flows
from flowagg_native.client import with_plugin
from flowagg_native.intake import Intake
from flowagg_stack import provision
from flowagg_stack.embedded import start_redis_binary
from flowagg_stack.ports import free_port
from flowagg_stack.processes import Processes, wait_until
from flowagg_stack.services import Service, start_service

from benchmarks import guard
from benchmarks.hot_paths.consumer import fill, measure_consumer
from benchmarks.http.common import (
    JSON,
    OTHER_CORES,
    PARTITIONS,
    RESULTS,
    SERVER_CORE,
    bodies,
    kafka_here,
    on_cores,
    run_wrk,
)
from benchmarks.peers.bars import Bar, summary

BAR: Final = 3.0
"""Times the floor that a loop may take, unless its profile says why."""
FLOWS: Final = 2_000_000
KEYS: Final = 100_000
HOUR: Final = 1_000_000
HOUR_KEYS: Final = 10_000
_BATCH: Final = 10_000
_SAMPLE: Final = 60_000
_TURNS: Final = 9
_POST_CONNECTIONS: Final = 16
_GET_CONNECTIONS: Final = 4
_COLD: Final = 40
_BARE_PRODUCER: Final = Path(__file__).parents[1] / "http" / "bare.py"


@dataclass(frozen=True, slots=True)
class Budget:
    """Of one loop. unit: what is counted. floor, steps: names and microseconds of CPU for each. redis: CPU of Redis."""

    name: str
    unit: str
    floor: Sequence[tuple[str, float]]
    steps: Sequence[tuple[str, float]]
    redis: tuple[float, float] | None = None

    @property
    def ratio(self) -> float:
        """What is taken by the floor."""
        return _sum(self.steps) / _sum(self.floor)


def main() -> None:
    """Run and end: 0 where every loop is within its bar."""
    found = run(sys.argv[1:])
    sys.exit(0 if all(bar.holds for bar in found) else 1)


def run(argv: Sequence[str]) -> list[Bar]:
    """Measure, print, keep, and return the bars. Raises provision.Missing, ProcessFailed."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.peers.budget", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement over HTTP")
    parser.add_argument("--json", type=Path, default=RESULTS / "peers-budget.json")
    given = parser.parse_args(argv)
    provision.provision(print)
    provision.provision_wrk(print)
    budgets = []
    gc.set_threshold(100_000, 50, 100)  # as the services do
    with on_cores(OTHER_CORES):
        for measure in (consumer, partial(writer, given.seconds), partial(reader, given.seconds)):
            for budget in measure():
                budgets.append(budget)
                print(table(budget), "", sep="\n", flush=True)
    found = [Bar(f"{budget.name} / its floor", budget.ratio, BAR, at_least=False) for budget in budgets]
    given.json.parent.mkdir(parents=True, exist_ok=True)
    kept = {"budgets": list(map(asdict, budgets)), "bars": [asdict(bar) | {"holds": bar.holds} for bar in found]}
    given.json.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    print(*(bar.text for bar in found), summary(found), sep="\n")
    return found


def table(budget: Budget) -> str:
    """For a terminal."""
    whole, floor = _sum(budget.steps), _sum(budget.floor)
    lines = [f"{budget.name}: us of CPU {budget.unit}"]
    lines += [f"  {name:60}{took:>9.3f}{took / whole:>7.0%}" for name, took in budget.steps]
    lines += [f"  {'in all':60}{whole:>9.3f}", f"  {'floor: ' + ' + '.join(name for name, _ in budget.floor):60}"]
    lines[-1] += f"{floor:>9.3f}   {budget.ratio:.2f} times the floor"
    if budget.redis is not None:
        lines.append(f"  Redis meanwhile {budget.redis[0]:.3f}, at the floor {budget.redis[1]:.3f}")
    return "\n".join(lines)


def consumer() -> Iterator[Budget]:
    """Of a consumer that works off a log."""
    sample = list(itertools.islice(flows(Shape(keys=KEYS), seed=1), _SAMPLE))
    with kafka_here() as (processes, kafka, _):
        server = start_redis_binary(processes, provision.redis_server())
        ledger = fill(kafka.address, FLOWS, Shape(keys=KEYS))
        gc.freeze()  # else each collection would go through all of the ledger
        with redis.Redis.from_url(f"redis://{server.address}/0") as client, on_cores(SERVER_CORE):
            consumed = _consume(kafka.address)
            sent, redis_floor = _hset(client, sample)
            folded = _median(guard.consumer(sample)[0].hot) / len(sample)
            client.flushall()
            row = measure_consumer(processes, kafka.address, client, ledger)
    whole, redis_took = 1 / row["flows_a_cpu_second"], row["redis_cpu_seconds"] / FLOWS
    steps = [("consume", consumed), ("read, fold and pack, of known flow keys", folded), ("send", sent)]
    steps.append(("wait for memory, keep positions, look at Redis", whole - _sum(steps)))
    floor = [("consume", consumed), ("send", sent)]
    yield Budget("consumer", "a flow", _us(floor), _us(steps), (redis_took * 1e6, redis_floor * 1e6))


def writer(seconds: int) -> Iterator[Budget]:
    """Of a writer that is kept saturated."""
    sample = list(itertools.islice(flows(Shape(keys=HOUR_KEYS), seed=1), _SAMPLE))
    with kafka_here() as (processes, kafka, directory):
        file = directory / "bodies"
        file.write_bytes(b"\n".join(bodies(1_000)) + b"\n")
        with on_cores(SERVER_CORE):
            loop = guard.parcels(sample)
            decoded, made = (_median(run) / len(sample) for run in (loop.bare, loop.hot))
            command = [sys.executable, str(_BARE_PRODUCER), kafka.address, str(seconds)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 90, check=True)
            service = start_service(processes, "writer", {"FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": kafka.address})
        service.wait_ready()
        whole = _served(service, f"{service.url}/flows", seconds, _POST_CONNECTIONS, str(file)) / 1_000
    bare = json.loads(done.stdout)
    produced = bare["cpu_seconds"] / bare["flows"]
    steps = [("read the body, write the records", made), ("librdkafka, HTTP", whole - made)]
    yield Budget("writer", "a flow", _us([("decode", decoded), ("produce", produced)]), _us(steps))


def reader(seconds: int) -> Iterator[Budget]:
    """Of a reader: warm and cold GETs."""
    with kafka_here() as (processes, kafka, directory):
        server = start_redis_binary(processes, provision.redis_server())
        settings = {
            "FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": kafka.address,
            "FLOWAGG_REDIS_URL": f"redis://{server.address}/0",
            "FLOWAGG_VIEW": "bench",
        }
        others = [start_service(processes, name, settings) for name in ("writer", "consumer")]
        with on_cores(SERVER_CORE):
            service = start_service(processes, "reader", settings)
        for one in (*others, service):
            one.wait_ready()
        rows = [Flow(f"application-{n}", f"svc-{n % 50}", f"vpc-{n % 10}", HOUR, n, n) for n in range(HOUR_KEYS)]
        url = f"{service.url}/flows?hour={HOUR}&consistency=eventual"

        def post(some: Sequence[Flow]) -> None:
            content = msgspec.json.encode(some)
            after = httpx.post(f"{others[0].url}/flows", content=content, headers=JSON, timeout=60).json()["position"]
            seen = f"{service.url}/flows?hour={HOUR}&consistency=strict&after={after}"
            wait_until(lambda: httpx.head(seen, timeout=60).is_success, "it is in the view", 60, pause=0.01)

        post(rows)
        body = httpx.get(url).content
        tag = httpx.get(url).headers["etag"]
        with _sender(processes, directory, body) as bare:
            sent = _served(bare, bare.url, seconds, _GET_CONNECTIONS)
        unchanged = _served(service, url, seconds, _GET_CONNECTIONS, headers={"If-None-Match": tag})
        warm = _served(service, url, seconds, _GET_CONNECTIONS)
        steps = [("send", sent), ("HTTP and a look at Redis: a 304", unchanged)]
        steps.append(("more for a client that is still reading", warm - _sum(steps)))
        yield Budget("reader, warm", "a GET", _us([("send", sent)]), _us(steps))
        cold = []
        for _ in range(_COLD):
            post(rows[:1])
            before = _ran(service)
            httpx.get(url, timeout=60)
            cold.append(_ran(service) - before)
        with redis.Redis.from_url(f"redis://{server.address}/0") as client, on_cores(SERVER_CORE):
            names = list(client.scan_iter(f"flowagg:{{bench:*:hour:{HOUR}", count=1_000))
            read = _median(lambda: [client.hgetall(name) for name in names])
            rendered = guard.reader(rows)[0]
            encoded, made = (_median(run) for run in (rendered.bare, rendered.hot))
        steps = [("read the totals", read), ("render", made), ("send", sent)]
        steps.append(("in the event loop, in slices, on fresh pages; HTTP", statistics.median(cold) - _sum(steps)))
        floor = [("read", read), ("encode", encoded), ("send", sent)]
        yield Budget("reader, cold", "a GET", _us(floor), _us(steps))


def _consume(address: str) -> float:
    """CPU seconds a record of a loop that looks at no record, and makes no object of one."""
    options = {"bootstrap.servers": address, "group.id": "bare", "auto.offset.reset": "error"}
    fetch = {"queued.min.messages": 40_000, "queued.max.messages.kbytes": 4096, "fetch.message.max.bytes": 128 * 1024}
    consumer = Consumer(with_plugin({**options, **fetch, "fetch.queue.backoff.ms": 5}))  # all as the service's
    intake = Intake()
    consumer.assign([TopicPartition("flows", number, 0) for number in range(PARTITIONS)])
    for number in range(PARTITIONS):
        intake.lead("flows", number)
    seen = len(intake.take(1, 30, 0))
    began = time.process_time()
    while seen < FLOWS:
        seen += len(intake.take(4_000, 0.1, 0.005))
    took = time.process_time() - began
    intake.close()
    consumer.close()
    return took / FLOWS


def _hset(client: "redis.Redis", sample: Sequence[Flow]) -> tuple[float, float]:
    """CPU seconds a flow of sending totals that are packed already; and of Redis."""
    batches = []
    for start in range(0, len(sample), _BATCH):
        hours: dict[int, Any] = {}
        for flow in sample[start : start + _BATCH]:
            field = totals_field(encode_key(flow.src_app, flow.dest_app, flow.vpc_id, flow.hour))
            hours.setdefault(flow.hour, []).extend((field, encode_totals(flow.bytes_tx, flow.bytes_rx)))
        batches.append([hiredis.pack_command(("HSET", f"bare:{hour}", *pairs)) for hour, pairs in hours.items()])
    connection: Any = client.connection_pool.get_connection()

    def send() -> None:
        for commands in batches:
            connection.send_packed_command(commands)
            for _ in commands:
                connection.read_response()

    before = _redis_cpu(client)
    took = _median(send)
    after = _redis_cpu(client)
    client.connection_pool.release(connection)
    return took / len(sample), (after - before) / (_TURNS + 1) / len(sample)


_SENDER: Final = """
import asyncio, sys, uvloop
body = open(sys.argv[2], "rb").read()
answer = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body) + body
class Sender(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(answer)
async def main():
    server = await asyncio.get_running_loop().create_server(Sender, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
uvloop.run(main())
"""
"""Sends the same bytes for whatever comes: a GET is one segment here."""


@contextmanager
def _sender(processes: Processes, directory: Path, body: bytes) -> Iterator[Service]:
    """The server of the warm floor, on the services' core."""
    (directory / "body").write_bytes(body)
    port = free_port()
    with on_cores(SERVER_CORE):
        child = processes.start("sender", [sys.executable, "-c", _SENDER, str(port), str(directory / "body")])
    service = Service("sender", f"http://127.0.0.1:{port}", child)
    wait_until(partial(_answers, service.url), "it answers", 30, [child], 0.05)
    yield service
    processes.stop(child)


def _ran(service: Service) -> float:
    """CPU seconds of a service so far, to the nanosecond: a GET takes two of the ticks that others count by."""
    threads = Path(f"/proc/{service.child.process.pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).is_success
    except httpx.TransportError:
        return False


def _served(service: Service, url: str, seconds: int, connections: int, *arguments: str, **options: Any) -> float:
    """CPU seconds an answer of a server that is kept saturated."""
    run_wrk(url, 1, connections, *arguments, **options)
    before = _ran(service)
    seen = run_wrk(url, seconds, connections, *arguments, **options)
    assert not seen.errors, seen
    return (_ran(service) - before) / seen.requests


def _median(work: Callable[[], object]) -> float:
    """CPU seconds of this process, after a first turn that does not count."""
    work()
    took = []
    for _ in range(_TURNS):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return statistics.median(took)


def _redis_cpu(client: "redis.Redis") -> float:
    found: dict[str, float] = client.info("cpu")
    return found["used_cpu_user"] + found["used_cpu_sys"]


def _sum(parts: Sequence[tuple[str, float]]) -> float:
    return sum(took for _, took in parts)


def _us(parts: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(name, took * 1e6) for name, took in parts]


if __name__ == "__main__":
    main()
