"""Fresh means fresh: POST-then-GET pairs over many connections while Redis fails over and consumers end.

    make bench-fresh [PAIRS=100000] [FAILOVERS=6]

A real Kafka, a Sentinel set, a writer, a reader and two consumers. Each worker has a connection to each and
hours of its own among 2,000, so that it knows exactly what an hour must hold. It posts one flow of a new
src_app and then asks for the hour, with the tag of its last answer, again after a 503. An answer that says that
it is fresh must hold exactly all that was acknowledged: one that lacks something or has too much is a miss. A
stale answer that says so is allowed.

Meanwhile others post too, and there are FAILOVERS, evenly spread over the pairs: in turn the Redis master is killed
with -9 and comes back as a replica, or it is stopped, and goes on as if it were the master still when another
node is. Each time a consumer is ended too (in turn by SIGTERM and by -9) and started again.
"""

import argparse
import asyncio
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec
from common import JSON, Bars, Connection, Reply, kafka_here, percentile
from flowagg.flow import Flow
from flowagg_stack.processes import Processes, ProcessFailed, wait_until
from flowagg_stack.sentinel import SentinelSet, start_sentinel_set
from flowagg_stack.services import Stack

HOURS: Final = 2_000
_FIRST_HOUR: Final = 1_000_000
_SHOWN_MISSES: Final = 5
_AGAIN_SECONDS: Final = 0.1
_END_SECONDS: Final = 60
_INGEST: Final = Path(__file__).with_name("ingest.py")

Rows = dict[str, tuple[int, int]]
"""src_app -> bytes_tx, bytes_rx"""


@dataclass(slots=True)
class Hour:
    """What an hour must hold, and the last answer that had a tag.

    flawed: a POST was not acknowledged, so that nobody knows.
    """

    number: int
    rows: Rows = field(default_factory=dict)
    tag: str = ""
    tagged: Rows = field(default_factory=dict)
    flawed: bool = False


@dataclass(slots=True)
class Seen:
    """What the workers have seen so far; filled by their thread alone."""

    pairs: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    misses: list[str] = field(default_factory=list)
    fresh_ms: list[float] = field(default_factory=list)
    inexact_hours: int = 0


class Workers:
    """The pairs, in a thread with an event loop of its own: processes are started by the main thread alone."""

    def __init__(self, stack: Stack, pairs: int, workers: int) -> None:
        self.seen = Seen()
        self._writer_url, self._reader_url = stack.writer.url, stack.reader.url
        self._pairs = pairs
        self._enough = threading.Event()
        self._count = workers
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait_pairs(self, count: int) -> None:
        """Wait for so many pairs. Raises what a worker has raised."""
        while self.seen.pairs < count and self._thread.is_alive():
            time.sleep(0.05)
        if self._failure is not None:
            raise self._failure

    def join(self) -> None:
        """Wait for the last pair, now that nothing else is to come. Raises what a worker has raised."""
        self._enough.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseException as error:
            self._failure = error

    async def _work(self) -> None:
        owned = [
            [Hour(_FIRST_HOUR + number) for number in range(worker, HOURS, self._count)]
            for worker in range(self._count)
        ]
        await asyncio.gather(*(self._worker(hours) for hours in owned))
        await asyncio.gather(*(self._check_end(hours) for hours in owned))

    async def _worker(self, hours: list[Hour]) -> None:
        writer, reader = Connection(self._writer_url), Connection(self._reader_url)
        turn = 0
        while self.seen.pairs < self._pairs or not self._enough.is_set():
            hour = hours[turn % len(hours)]
            turn += 1
            began = time.perf_counter()
            if not hour.flawed and await self._post(writer, hour):
                await self._get(reader, hour, began)
            self.seen.pairs += 1

    async def _post(self, writer: Connection, hour: Hour) -> bool:
        number = len(hour.rows)
        flow = Flow(f"{hour.number}-{number}", "bar", "vpc-0", hour.number, number, 2 * number + 1)
        try:
            reply = await writer.request("POST", "/flows", msgspec.json.encode([flow]), JSON)
        except (OSError, EOFError, TimeoutError):
            hour.flawed = True
        else:
            hour.flawed = reply.status != 200
        if hour.flawed:
            self.seen.kinds["POST failed"] += 1
            return False
        hour.rows[flow.src_app] = (flow.bytes_tx, flow.bytes_rx)
        return True

    async def _get(self, reader: Connection, hour: Hour, began: float) -> None:
        headers = {"If-None-Match": hour.tag} if hour.tag else {}
        while True:
            try:
                reply = await reader.request("GET", f"/flows?hour={hour.number}", headers=headers)
            except (OSError, EOFError, TimeoutError):
                self.seen.kinds["GET failed"] += 1
                return
            if reply.status in {200, 304}:
                break
            self.seen.kinds[f"GET {reply.status}"] += 1
            await asyncio.sleep(_AGAIN_SECONDS)
        rows = hour.tagged if reply.status == 304 else rows_of(reply)
        if not reply.fresh:
            self.seen.kinds["stale"] += 1
        elif rows == hour.rows:
            self.seen.kinds["fresh"] += 1
            self.seen.fresh_ms.append((time.perf_counter() - began) * 1000)
        else:
            self.seen.misses.append(
                f"hour {hour.number}: {reply.status} {dict(reply.headers)}: of {len(hour.rows)} rows it lacks "
                f"{sorted(hour.rows.items() - rows.items())} and has {sorted(rows.items() - hour.rows.items())} beside"
            )
        if "etag" in reply.headers:
            hour.tag, hour.tagged = reply.headers["etag"], rows

    async def _check_end(self, hours: list[Hour]) -> None:
        """In the end each hour holds exactly what was acknowledged."""
        reader = Connection(self._reader_url)
        deadline = time.monotonic() + _END_SECONDS
        for hour in hours:
            reply = await reader.request("GET", f"/flows?hour={hour.number}&consistency=strict")
            while reply.status == 503 and time.monotonic() < deadline:
                await asyncio.sleep(0.2)
                reply = await reader.request("GET", f"/flows?hour={hour.number}&consistency=strict")
            exact = reply.status == 200 and rows_of(reply) == hour.rows
            self.seen.inexact_hours += not exact and not hour.flawed


def rows_of(reply: Reply) -> Rows:
    """The rows of an answer."""
    return {row["src_app"]: (row["bytes_tx"], row["bytes_rx"]) for row in msgspec.json.decode(reply.body)}


def main() -> None:
    """Run the benchmark; the exit status says whether nothing was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--failovers", type=int, default=6)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--rate", type=float, default=10_000, help="flows a second that others post meanwhile")
    given = parser.parse_args()
    with kafka_here() as (processes, kafka, directory):
        sentinels = start_sentinel_set(processes, directory)
        settings = {"FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": kafka.address, "FLOWAGG_VIEW": "bench"}
        stack = Stack(processes, settings | sentinels.environment)
        stack.wait_ready()
        load = processes.start("ingest", [sys.executable, str(_INGEST), stack.writer.url, str(given.rate)])
        began = time.monotonic()
        workers = Workers(stack, given.pairs, given.workers)
        for number in range(given.failovers):
            workers.wait_pairs(given.pairs * (number + 1) // (given.failovers + 1))
            fail_over(processes, sentinels, stack, number)
            print(f"{number + 1} failovers, {workers.seen.pairs:,} pairs: {dict(workers.seen.kinds)}", flush=True)
        workers.join()
        seconds = time.monotonic() - began
        if load.ended:
            raise ProcessFailed(f"the load has ended: {load.last_lines()}")
        sentinels.kill_all()
    report(workers.seen, seconds, given)


def fail_over(processes: Processes, sentinels: SentinelSet, stack: Stack, number: int) -> None:
    """Kill or stop the master, end a consumer; both come back. Raises ProcessFailed."""
    master = sentinels.master()
    node = sentinels.nodes[master]
    stopped = number % 2 == 1
    if stopped:
        node.process.send_signal(signal.SIGSTOP)
    else:
        sentinels.kill(master)
    place = number // 2 % len(stack.consumers)
    service = stack.consumers[place]
    child = service.child
    processes.stop(child, signal.SIGKILL if stopped else signal.SIGTERM)
    stack.consumers[place] = replace(service, child=processes.start(child.name, child.command, child.environment))
    wait_until(lambda: sentinels.master() != master, "the sentinels make another node the master", 60, pause=0.05)
    if stopped:
        node.process.send_signal(signal.SIGCONT)
    else:
        sentinels.restart(master)
    sentinels.wait_ready(60)
    stack.wait_settled()


def report(seen: Seen, seconds: float, given: argparse.Namespace) -> None:
    """Print what was seen and the bars, and end."""
    print(f"\n{seen.pairs:,} pairs over {given.workers} workers in {seconds:.0f} s; {given.failovers} failovers")
    for kind, number in sorted(seen.kinds.items()):
        print(f"  {kind:12} {number:>9,}  {number / seen.pairs:>7.2%}")
    p50, p99 = percentile(seen.fresh_ms, 50), percentile(seen.fresh_ms, 99)
    print(f"POST to fresh answer: p50 {p50:.1f} ms, p99 {p99:.1f} ms; misses: {len(seen.misses)}")
    for miss in seen.misses[:_SHOWN_MISSES]:
        print(f"  miss: {miss}")
    bars = Bars()
    bars.at_least("pairs", seen.pairs, given.pairs)
    bars.at_most("misses", len(seen.misses), 0)
    bars.at_most("hours that are not exact in the end", seen.inexact_hours, 0)
    bars.at_most("POSTs and GETs that failed", seen.kinds["POST failed"] + seen.kinds["GET failed"], 0)
    kept = {"pairs": seen.pairs, "workers": given.workers, "failovers": given.failovers, "seconds": seconds}
    kept |= {"answers": dict(seen.kinds), "misses": len(seen.misses), "p50_ms": p50, "p99_ms": p99}
    bars.end("visible", kept)


if __name__ == "__main__":
    main()
