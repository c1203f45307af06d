"""What the benchmarks over HTTP share: cores, processes, flows, wrk, a small client, bars."""

import asyncio
import contextlib
import gc
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from confluent_kafka.admin import AdminClient
from flowagg.flow import Flow
from flowagg_load.generator import Shape, flows
from flowagg_stack.apache_kafka import start_kafka
from flowagg_stack.embedded import Server
from flowagg_stack.processes import Processes
from flowagg_stack.topics import ensure_topic

PARTITIONS: Final = 6
RESULTS: Final = Path(__file__).parents[1] / "results"
JSON: Final = {"Content-Type": "application/json"}
_CORES: Final = sorted(os.sched_getaffinity(0))
SERVER_CORE: Final = {_CORES[-1]}
OTHER_CORES: Final = set(_CORES[:-1]) or SERVER_CORE
_LUA: Final = Path(__file__).with_name("load.lua")
_POSTS_OF_1000: Final = 16
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_ANSWER_SECONDS: Final = 60
_CHUNK_BYTES: Final = 2**20


@contextlib.contextmanager
def kafka_here() -> Iterator[tuple[Processes, Server, Path]]:
    """A real Kafka with the topic, and a directory; both go in the end."""
    with tempfile.TemporaryDirectory(prefix="flow-aggregator-bench-") as name, Processes(Path(name)) as processes:
        kafka = start_kafka(processes, Path(name))
        ensure_topic(AdminClient({"bootstrap.servers": kafka.address}), "flows", PARTITIONS)
        gc.collect()  # a client that is still there would complain about a broker that has gone
        yield processes, kafka, Path(name)


@contextlib.contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """What is started here stays on these cores, with all of its threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, its own and the kernel's for it."""
    numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / _TICKS


def memory_mib(pid: int, which: str = "VmRSS") -> float:
    """Resident memory of a process; which: VmRSS for now, VmHWM for the most so far."""
    match = re.search(rf"^{which}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert match is not None
    return int(match[1]) / 1024


def batches(size: int) -> list[list[Flow]]:
    """Batches of flows over 10,000 flow keys and 24 hours, the same ones each time."""
    source = flows(Shape(keys=10_000), seed=1)
    count = max(_POSTS_OF_1000, 1000 // size)
    return [list(islice(source, size)) for _ in range(count)]


def bodies(size: int) -> list[bytes]:
    """The batches as bodies of POSTs."""
    return [msgspec.json.encode(batch) for batch in batches(size)]


class Wrk(msgspec.Struct, frozen=True):
    """What a run of wrk has seen. bytes: of answers, heads included."""

    requests: int
    seconds: float
    bytes: int
    p50_ms: float
    p99_ms: float
    errors: int


def run_wrk(url: str, seconds: int, connections: int, *arguments: str, headers: Mapping[str, str] | None = None) -> Wrk:
    """Run wrk with load.lua on one thread; see there for the arguments. headers: of each request."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(_LUA)]
    command += [f"-H{name}: {value}" for name, value in (headers or {}).items()]
    command += [url, "--"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=seconds + 60, check=False)
    match = re.search(r"^result (.*)$", done.stdout, re.M)
    assert match is not None, done.stdout + done.stderr
    return msgspec.json.decode(match[1], type=Wrk)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def fresh(self) -> bool:
        """Whether it says that it is fresh."""
        return self.headers.get("flowagg-fresh") == "true"


class Connection:
    """A connection that is kept; opened by the first request, and anew after an error or `Connection: close`."""

    def __init__(self, url: str) -> None:
        self._host, self._port = urlsplit(url).hostname, urlsplit(url).port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request and its answer. Raises OSError, EOFError (the connection ended) or TimeoutError."""
        await self.send(method, target, body, headers)
        return await self.receive(method)

    async def send(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """The first half of a request."""
        lines = [f"{method} {target} HTTP/1.1", "Host: bench"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=_CHUNK_BYTES)
        self._streams[1].write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def receive(self, method: str) -> Reply:
        """The second half."""
        assert self._streams is not None, "nothing was sent"
        reader = self._streams[0]
        whole = False
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                pairs = (line.partition(":") for line in lines if line)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                status = int(first.split()[1])
                bare = method == "HEAD" or status == 304
                body = b"" if bare else await reader.readexactly(int(headers["content-length"]))
            whole = headers.get("connection") != "close"
            return Reply(status, headers, body)
        finally:
            if not whole:
                self.close()

    def close(self) -> None:
        """Close it; a further request opens it again."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else float("nan")


def median_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of each number of the rows; errors are added up."""
    found = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    return found | {"errors": sum(row["errors"] for row in rows)}


@dataclass(slots=True)
class Bars:
    """What must hold, and whether it does."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def at_least(self, name: str, value: float, bound: float) -> None:
        """A bar from below."""
        self._add(f"{name} >= {bound:g}", value, value >= bound)

    def at_most(self, name: str, value: float, bound: float) -> None:
        """A bar from above."""
        self._add(f"{name} <= {bound:g}", value, value <= bound)

    def _add(self, name: str, value: float, holds: bool) -> None:
        self.rows.append({"bar": name, "value": value, "holds": holds})

    def end(self, result: str, document: Mapping[str, Any]) -> None:
        """Print the bars, keep everything as results/RESULT.json, and end: 0 where all bars hold."""
        RESULTS.mkdir(exist_ok=True)
        kept = {"cores": len(_CORES), **document, "bars": self.rows}
        (RESULTS / f"{result}.json").write_text(json.dumps(kept, indent=2) + "\n")
        print()
        for row in self.rows:
            print(f"{row['bar']:52} {row['value']:>10,.2f}  {'holds' if row['holds'] else 'DOES NOT HOLD'}")
        failed = [row["bar"] for row in self.rows if not row["holds"]]
        print(f"bars that do not hold: {'; '.join(failed)}" if failed else f"all {len(self.rows)} bars hold")
        sys.exit(1 if failed else 0)
