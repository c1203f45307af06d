"""The reader's speed on one core: small and large hours, idle and while flows pour in.

    make bench-reader [SECONDS=10] [RATE=flows a second]

A real Kafka, a real Redis, a writer and a consumer; the reader stays on one core. One connection asks for the
same hour again and again, each time after the answer before: cold (the hour has changed since), warm, and
with the tag of the answer that the client has (304). Under load the writer takes half of the flows that
the system got from POST to view on this machine a moment before (or RATE), in other hours. Then
POST-to-visible: from sending a POST of one flow until there is a fresh answer that holds it.
"""

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
from common import (
    JSON,
    SERVER_CORE,
    Bars,
    Connection,
    Reply,
    cpu_seconds,
    kafka_here,
    memory_mib,
    on_cores,
    percentile,
    run_wrk,
)
from flowagg.flow import Flow
from flowagg_stack import provision
from flowagg_stack.embedded import start_redis_binary
from flowagg_stack.processes import Processes, ProcessFailed
from flowagg_stack.services import Service, start_service

HOURS: Final = {100: 1_000_001, 10_000: 1_000_002, 200_000: 1_000_003}
"""flow keys -> the hour that has so many"""
BAR_COLD_MS, BAR_WARM_MS, BAR_EVENTUAL_304_MS, BAR_MB, BAR_VISIBLE_MS = 25, 12, 3, 200, 100
_BARRED: Final = 10_000
_VISIBLE_HOUR: Final = 1_000_004
_FILL: Final = 10_000
_LARGE_SHARE: Final = 10
_SERVED_OVER: Final = 4
_LONGEST_SECONDS: Final = 60
_APPLY_SECONDS: Final = 5
"""of waiting for the record that makes an hour cold; past it the view cannot keep up with the load"""
_AS_FAST_AS_IT_CAN: Final = 1e9
"""flows a second that nothing reaches"""
_SATURATED_SECONDS: Final = 8
_INGEST: Final = Path(__file__).with_name("ingest.py")


@dataclass(slots=True)
class Times:
    """Times of answers, in milliseconds. stale: those that were not fresh but should have been."""

    ms: list[float] = field(default_factory=list)
    stale: int = 0
    errors: int = 0

    def row(self, **what: Any) -> dict[str, Any]:
        """A line of the table."""
        return what | {
            "p50_ms": percentile(self.ms, 50),
            "p99_ms": percentile(self.ms, 99),
            "requests": len(self.ms),
            "stale": self.stale,
            "errors": self.errors,
        }


@dataclass(frozen=True, slots=True)
class Pair:
    """The writer and the reader, and a connection to each."""

    writer: Service
    reader: Service
    to_writer: Connection
    to_reader: Connection

    async def post(self, flows: list[Flow]) -> str:
        """POST flows; their position."""
        reply = await self.to_writer.request("POST", "/flows", msgspec.json.encode(flows), JSON)
        assert reply.status == 200, reply.body
        position: str = json.loads(reply.body)["position"]
        return position

    async def wait_applied(self, hour: int, position: str, seconds: float = _LONGEST_SECONDS) -> bool:
        """Wait until the view holds a position, without having the reader render the hour; False: not in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            reply = await self.to_reader.request("HEAD", f"{target(hour, 'strict')}&after={position}")
            if reply.status == 200:
                return True
            assert reply.status == 503, reply
            await asyncio.sleep(0.05)
        return False


def main() -> None:
    """Run the benchmark; the exit status says whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="of each run of wrk")
    parser.add_argument("--requests", type=int, default=500, help="a measurement; a tenth of it for the largest hour")
    parser.add_argument("--rate", type=float, default=0, help="flows a second under load")
    given = parser.parse_args()
    provision.provision_wrk(print)
    with kafka_here() as (processes, kafka, _):
        redis = start_redis_binary(processes, provision.redis_server())
        settings = {
            "FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": kafka.address,
            "FLOWAGG_REDIS_URL": f"redis://{redis.address}/0",
            "FLOWAGG_VIEW": "bench",
        }
        writer = start_service(processes, "writer", settings)
        with on_cores(SERVER_CORE):
            reader = start_service(processes, "reader", settings)
        consumer = start_service(processes, "consumer", settings)
        for service in (writer, reader, consumer):
            service.wait_ready()
        measured = asyncio.run(measure(processes, writer, reader, consumer, given))
    report(measured, given)


def target(hour: int, consistency: str = "fresh") -> str:
    """What a GET of an hour asks for."""
    return f"/flows?hour={hour}&consistency={consistency}"


def flow(number: int, hour: int) -> Flow:
    """One flow of an hour, of a flow key of its own."""
    return Flow(f"application-{number}", f"svc-{number % 50}", f"vpc-{number % 10}", hour, number * 17, number * 31)


async def measure(
    processes: Processes, writer: Service, reader: Service, consumer: Service, given: argparse.Namespace
) -> dict[str, Any]:
    """Fill the hours and measure everything."""
    pair = Pair(writer, reader, Connection(writer.url), Connection(reader.url))
    rows, served, memory = [], [], {}
    for keys, hour in HOURS.items():
        print(f"{keys:,} flow keys ...", flush=True)
        for start in range(0, keys, _FILL):
            position = await pair.post([flow(number, hour) for number in range(start, min(start + _FILL, keys))])
            assert await pair.wait_applied(hour, position), "the view does not get on"
        requests = given.requests // _LARGE_SHARE if keys > _BARRED else given.requests
        rows += [row | {"load": "idle"} async for row in times_of_hour(pair, keys, requests)]
        served += [await served_warm(reader, keys, consistency, given.seconds) for consistency in ("eventual", "fresh")]
        pid = reader.child.process.pid
        memory[keys] = {"rss_mib": memory_mib(pid), "peak_rss_mib": memory_mib(pid, "VmHWM")}
    visible = {"idle": (await visible_times(pair, given.requests)).row()}
    rate = given.rate or await half_of_system(processes, pair, consumer)
    print(f"{rate:,.0f} flows a second ...", flush=True)
    with under_load(processes, writer, rate) as ingested:
        await asyncio.sleep(2)
        ingested.restart()
        rows += [row | {"load": "load"} async for row in times_of_hour(pair, _BARRED, given.requests)]
        visible["load"] = (await visible_times(pair, given.requests)).row()
        reached = ingested.flows_a_second()
    return {"rows": rows, "served": served, "memory": memory, "visible": visible, "rate": rate, "reached": reached}


async def times_of_hour(pair: Pair, keys: int, requests: int) -> AsyncIterator[dict[str, Any]]:
    """Cold, warm and 304 answers of an hour, eventual and fresh."""
    hour = HOURS[keys]
    for consistency in ("eventual", "fresh"):
        asked = target(hour, consistency)

        async def cold(asked: str = asked) -> tuple[float, Reply]:
            if not await pair.wait_applied(hour, await pair.post([flow(0, hour)]), _APPLY_SECONDS):
                return _APPLY_SECONDS * 1000.0, Reply(0, {}, b"")  # an error: the hour could not be made cold
            return await timed(pair.to_reader, asked)

        async def warm(asked: str = asked) -> tuple[float, Reply]:
            return await timed(pair.to_reader, asked)

        tag = (await warm())[1].headers["etag"]

        async def unchanged(asked: str = asked, tag: str = tag) -> tuple[float, Reply]:
            return await timed(pair.to_reader, asked, tag)

        for kind, ask, status in (("304", unchanged, 304), ("warm", warm, 200), ("cold", cold, 200)):
            times = await repeated(ask, requests, status, fresh=consistency == "fresh")
            yield times.row(keys=keys, consistency=consistency, kind=kind)


async def timed(connection: Connection, asked: str, tag: str | None = None) -> tuple[float, Reply]:
    """One GET: its milliseconds and the answer."""
    began = time.perf_counter()
    reply = await connection.request("GET", asked, headers=None if tag is None else {"If-None-Match": tag})
    return (time.perf_counter() - began) * 1000, reply


async def repeated(
    ask: Callable[[], Awaitable[tuple[float, Reply]]], requests: int, status: int, *, fresh: bool
) -> Times:
    """Ask so many times, or fewer when it takes too long; any other status is an error."""
    times = Times()
    deadline = time.monotonic() + _LONGEST_SECONDS
    for _ in range(requests):
        if time.monotonic() > deadline:
            break
        took, reply = await ask()
        times.ms.append(took)
        times.errors += reply.status != status
        times.stale += fresh and not reply.fresh
    return times


async def served_warm(reader: Service, keys: int, consistency: str, seconds: int) -> dict[str, Any]:
    """How much of a body that is kept the reader sends for a CPU second."""
    pid = reader.child.process.pid
    before = cpu_seconds(pid)
    seen = await asyncio.to_thread(run_wrk, reader.url + target(HOURS[keys], consistency), seconds, _SERVED_OVER)
    cpu = cpu_seconds(pid) - before
    return {
        "keys": keys,
        "consistency": consistency,
        "requests_a_second": seen.requests / seen.seconds,
        "requests_a_cpu_second": seen.requests / cpu,
        "mb_a_cpu_second": seen.bytes / 1e6 / cpu,
        "errors": seen.errors,
    }


async def visible_times(pair: Pair, requests: int) -> Times:
    """From sending a POST of one flow until there is an answer that holds it."""
    times = Times()
    deadline = time.monotonic() + _LONGEST_SECONDS
    for number in range(requests):
        if time.monotonic() > deadline:
            break
        name = f"visible-{time.time_ns()}"
        hour = _VISIBLE_HOUR + number % 50
        began = time.perf_counter()
        await pair.post([Flow(name, "bar", "vpc-0", hour, 1, 1)])
        while True:
            _, reply = await timed(pair.to_reader, target(hour))
            times.errors += reply.status != 200
            if f'"{name}"'.encode() in reply.body or time.monotonic() > deadline:
                break  # past the deadline its time counts as it is: far beyond the bar
            times.stale += not reply.fresh
            times.errors += reply.fresh  # it says that it is fresh, and lacks the write
        times.ms.append((time.perf_counter() - began) * 1000)
    return times


class Ingested:
    """What a writer has taken, or a consumer has applied, by its own count."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._metric = re.compile(rf"^flowagg_{service.name}_flows_total (\S+)$", re.M)
        self.restart()

    def restart(self) -> None:
        """Count from now on."""
        self._flows, self._began = self._count(), time.monotonic()

    def flows_a_second(self) -> float:
        """The rate since then."""
        return (self._count() - self._flows) / (time.monotonic() - self._began)

    def _count(self) -> float:
        match = self._metric.search(httpx.get(f"{self._service.url}/metrics").text)
        assert match is not None
        return float(match[1])


async def half_of_system(processes: Processes, pair: Pair, consumer: Service) -> float:
    """Half of the flows a second that this machine takes from POST to view, all of it working as fast as it can."""
    with under_load(processes, pair.writer, _AS_FAST_AS_IT_CAN):
        await asyncio.sleep(2)
        applied = Ingested(consumer)
        await asyncio.sleep(_SATURATED_SECONDS)
        rate = applied.flows_a_second()
    hour = HOURS[_BARRED]
    assert await pair.wait_applied(hour, await pair.post([flow(0, hour)])), "the view does not get on"
    return rate / 2


@contextmanager
def under_load(processes: Processes, writer: Service, rate: float) -> Iterator[Ingested]:
    """So many flows a second are posted meanwhile. Raises ProcessFailed where one was refused."""
    child = processes.start("ingest", [sys.executable, str(_INGEST), writer.url, str(rate)])
    yield Ingested(writer)
    if child.ended:
        raise ProcessFailed(f"the load has ended: {child.last_lines()}")
    processes.stop(child)


def report(measured: dict[str, Any], given: argparse.Namespace) -> None:
    """Print the tables and the bars, and end."""
    print(f"\n{'flow keys':>9} {'':5}{'':9}{'':>5}{'p50 ms':>9}{'p99 ms':>9}{'requests':>9}{'stale':>7}{'errors':>7}")
    for row in measured["rows"]:
        what = f"{row['keys']:>9,} {row['load']:5}{row['consistency']:9}{row['kind']:>5}"
        times = f"{row['p50_ms']:>9.2f}{row['p99_ms']:>9.2f}{row['requests']:>9}"
        print(f"{what}{times}{row['stale']:>7}{row['errors']:>7}")
    print(
        f"\n{'warm, flow keys':>15} {'':9}{'requests/s':>11}{'req/CPU-s':>11}{'MB/CPU-s':>10}{'RSS MiB':>9}{'peak':>7}"
    )
    for row in measured["served"]:
        memory = measured["memory"][row["keys"]]
        costs = (
            f"{row['requests_a_second']:>11,.0f}{row['requests_a_cpu_second']:>11,.0f}{row['mb_a_cpu_second']:>10,.0f}"
        )
        print(
            f"{row['keys']:>15,} {row['consistency']:9}{costs}{memory['rss_mib']:>9.0f}{memory['peak_rss_mib']:>7.0f}"
        )
    print()
    for load, row in measured["visible"].items():
        print(
            f"POST to visible, {load}: p50 {row['p50_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms "
            f"({row['requests']} POSTs, {row['stale']} stale answers, {row['errors']} errors)"
        )
    print(f"load: {measured['reached']:,.0f} flows/s of {measured['rate']:,.0f} wanted")
    judge(measured, given)


def judge(measured: dict[str, Any], given: argparse.Namespace) -> None:
    """The bars."""
    p99 = {(row["keys"], row["load"], row["consistency"], row["kind"]): row["p99_ms"] for row in measured["rows"]}
    bars = Bars()
    for kind, bound in (("cold", BAR_COLD_MS), ("warm", BAR_WARM_MS), ("304", BAR_WARM_MS)):
        bars.at_most(f"10k keys, fresh, idle, {kind}: p99 ms", p99[_BARRED, "idle", "fresh", kind], bound)
    bars.at_most("10k keys, eventual, idle, 304: p99 ms", p99[_BARRED, "idle", "eventual", "304"], BAR_EVENTUAL_304_MS)
    for row in measured["served"]:
        if row["keys"] == _BARRED:
            bars.at_least(f"10k keys, {row['consistency']}, warm: MB a CPU second", row["mb_a_cpu_second"], BAR_MB)
    bars.at_most("POST to visible at half load: p99 ms", measured["visible"]["load"]["p99_ms"], BAR_VISIBLE_MS)
    bars.at_least("load: share of the flows wanted", measured["reached"] / measured["rate"], 0.95)
    every = [*measured["rows"], *measured["served"], *measured["visible"].values()]
    bars.at_most("errors", sum(row["errors"] for row in every), 0)
    bars.end("reader", {"seconds": given.seconds} | measured)


if __name__ == "__main__":
    main()
