"""The consumers that are compared: how each is started, how far it is, and where its totals are read back.

What counts as applied: for ours what the positions in Redis say, which are written with the totals; for the plain loop
what it has committed; for Bytewax what it has written to Redis; for Kafka Streams, Quix and Faust what has been added
to the state in their process, before it is committed or in the changelog. That favours these, by up to a commit
interval.

Others are timed from their first applied flow. Ours gathers for a quarter of a second before it applies the first ones,
of all partitions at the same time: it is timed from when it has written down where it begins, before it has read
anything.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import msgspec
from flowagg.flow import FlowKey, decode_key
from flowagg.view import decode_field, decode_totals, meta_key, partitions_key
from flowagg_stack import provision
from flowagg_stack.processes import Child
from flowagg_stack.services import Service, start_service

from benchmarks.peers.consumers import builds
from benchmarks.peers.consumers.data import FilledLog, read_latest
from benchmarks.peers.consumers.exactness import Totals
from benchmarks.peers.consumers.python_peers.progress import ProgressFile
from benchmarks.peers.consumers.site import Site

OURS: Final = "ours"
STREAMS_ONCE: Final = "Kafka Streams, exactly once"
STREAMS_LEAST: Final = "Kafka Streams, at least once"
QUIX: Final = "Quix Streams"
FAUST: Final = "Faust"
_CACHE_BYTES: Final = 64 * 2**20
_DEFAULT_CACHE: Final = 10 * 2**20
_HEAP: Final = ("-Xms256m", "-Xmx512m")
_SERVED_COMMIT_MS: Final = 1000
_SCAN: Final = 1000
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Job:
    """One consumer on one log. name: its view, group or application id, used once. directory: for its state."""

    name: str
    log: FilledLog
    directory: Path
    progress: ProgressFile


def new_job(site: Site, log: FilledLog) -> Job:
    """A job of which nothing has been applied yet; Redis is emptied."""
    name = f"bench-{next(_numbers)}"
    directory = site.directory / name
    directory.mkdir()
    site.client.flushall()
    return Job(name, log, directory, ProgressFile(directory / "progress"))


@dataclass(frozen=True, slots=True)
class Peer:
    """A consumer with its settings. family: those whose best is compared with ours.

    prepare: fetches and builds it; what start needs of that. applied: flows so far, of the process that runs; for ours
    of all. group: what it commits under to Kafka, made of the job's name; empty where it does not. begun: whether it is
    to be timed from now on; None: as soon as a flow is applied.
    """

    name: str
    family: str
    prepare: Callable[[Callable[[str], None]], str]
    start: Callable[[Site, Job, str], Child]
    applied: Callable[[Site, Job], int]
    totals: Callable[[Site, Job], Totals]
    group: str = "{name}"
    begun: Callable[[Site, Job], bool] | None = None

    def is_timed(self, site: Site, job: Job) -> bool:
        """Whether it is to be timed from now on."""
        return self.applied(site, job) > 0 if self.begun is None else self.begun(site, job)


def peers() -> list[Peer]:
    """All of them, ours first: what is not warm yet then costs ours."""
    sinks = {False: _changelog_totals, True: _redis_totals}
    streams = [
        Peer(
            name=f"{family}, {threads} thread{'s' if threads > 1 else ''}{' + Redis' if sink else ''}",
            family=family,
            prepare=builds.kafka_streams,
            start=partial(_start_streams, guarantee=guarantee, threads=threads, sink=sink),
            applied=_progress,
            totals=sinks[sink],
        )
        for family, guarantee in ((STREAMS_LEAST, "at_least_once"), (STREAMS_ONCE, "exactly_once_v2"))
        for threads, sink in ((1, False), (2, False), (1, True))
    ]
    # With the default of 10 MB the cache evicts between commits: slower, and what a kill finds is half written.
    streams.insert(
        0,
        Peer(
            name=f"{STREAMS_LEAST}, 1 thread, default cache",
            family=STREAMS_LEAST,
            prepare=builds.kafka_streams,
            start=partial(_start_streams, guarantee="at_least_once", threads=1, sink=False, cache_bytes=_DEFAULT_CACHE),
            applied=_progress,
            totals=_changelog_totals,
        ),
    )
    quix = [
        Peer(
            name=f"{QUIX}, {guarantee.replace('-', ' ')}",
            family=QUIX,
            prepare=partial(builds.python_peer, "quix"),
            start=partial(_start_python, module="quix", more={"PEER_GUARANTEE": guarantee}),
            applied=_progress,
            totals=_quix_totals,
        )
        for guarantee in ("at-least-once", "exactly-once")
    ]
    return [
        Peer(
            name="ours, exactly once, in Redis",
            family=OURS,
            prepare=lambda _: "",
            start=_start_ours,
            applied=applied_by_view,
            totals=view_totals,
            group="flowagg-{name}",
            begun=_begun_view,
        ),
        Peer(
            name="plain loop, MULTI + HINCRBY",
            family="plain loop",
            prepare=lambda _: sys.executable,
            start=partial(_start_python, module="plain"),
            applied=_progress,
            totals=_counter_totals,
        ),
        *streams,
        *quix,
        Peer(
            name="Faust, at least once",
            family=FAUST,
            prepare=partial(builds.python_peer, "faust"),
            start=partial(_start_python, module="faust_app", arguments=("worker", "--without-web", "-l", "warn")),
            applied=_progress,
            totals=_faust_totals,
        ),
        Peer(
            name="Bytewax + Redis",
            family="Bytewax",
            prepare=partial(builds.python_peer, "bytewax"),
            start=_start_bytewax,
            applied=_progress,
            totals=_redis_totals,
            group="",
        ),
    ]


def start_consumer(site: Site, job: Job, name: str = "consumer") -> Service:
    """One consumer of ours, with its defaults."""
    environment = {
        "FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": site.kafka.address,
        "FLOWAGG_KAFKA_TOPIC": job.log.topic,
        "FLOWAGG_REDIS_URL": f"redis://{site.redis.address}/0",
        "FLOWAGG_VIEW": job.name,
    }
    return start_service(site.processes, "consumer", environment, name)


def applied_by_view(site: Site, job: Job) -> int:
    """Flows that the view has applied, by its positions."""
    with site.client.pipeline(transaction=False) as pipeline:
        for number in job.log.ends:
            pipeline.hget(meta_key(job.name, number), "position")
        return sum(int(position or 0) for position in pipeline.execute())


def _begun_view(site: Site, job: Job) -> bool:
    return bool(site.client.exists(partitions_key(job.name)))


def view_totals(site: Site, job: Job) -> Totals:
    """The totals of our view, added up over partitions."""
    found: dict[FlowKey, tuple[int, int]] = {}
    for name in site.client.scan_iter(f"flowagg:{{{job.name}:*:hour:*", count=_SCAN):
        hour = int(name.rsplit(b":", 1)[1])
        for field, raw in site.client.hscan_iter(name, count=_SCAN):
            key = (*decode_field(field), hour)
            bytes_tx, bytes_rx = decode_totals(raw)
            before = found.get(key, (0, 0))
            found[key] = (before[0] + bytes_tx, before[1] + bytes_rx)
    return found


def _progress(_: Site, job: Job) -> int:
    return job.progress.read()


def _start_ours(site: Site, job: Job, _: str) -> Child:
    return start_consumer(site, job).child


def _environment(site: Site, job: Job, more: Mapping[str, str]) -> dict[str, str]:
    job.progress.reset()
    given = {
        "PEER_KAFKA": site.kafka.address,
        "PEER_TOPIC": job.log.topic,
        "PEER_PARTITIONS": str(job.log.shape.partitions),
        "PEER_NAME": job.name,
        "PEER_STATE": str(job.directory / "state"),
        "PEER_PROGRESS": str(job.progress.path),
        "PEER_REDIS": site.redis.address,
        "PYTHONPATH": str(builds.ROOT),
    }
    return dict(os.environ) | given | dict(more)


def _start_streams(
    site: Site,
    job: Job,
    class_path: str,
    guarantee: str,
    threads: int,
    sink: bool,
    cache_bytes: int = _CACHE_BYTES,
) -> Child:
    more = {
        "PEER_GUARANTEE": guarantee,
        "PEER_THREADS": str(threads),
        "PEER_CACHE_BYTES": str(cache_bytes),
    }
    if sink:
        more["PEER_SINK"] = "redis"
        if guarantee == "at_least_once":
            # With the default of 30 s what readers see would be as old as that.
            more["PEER_COMMIT_MS"] = str(_SERVED_COMMIT_MS)
    options = [*_HEAP, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    command = [provision.java(), *options, "-cp", class_path, "io.flowaggregator.peers.Harness"]
    return site.processes.start("kafka-streams", command, _environment(site, job, more))


def _start_python(
    site: Site,
    job: Job,
    python: str,
    module: str,
    more: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> Child:
    command = [python, "-m", f"benchmarks.peers.consumers.python_peers.{module}", *arguments]
    environment = _environment(site, job, {"FAUST_DATADIR": str(job.directory / "state"), **(more or {})})
    return site.processes.start(module, command, environment)


def _start_bytewax(site: Site, job: Job, python: str) -> Child:
    store = job.directory / "recovery"
    environment = _environment(site, job, {})
    if not store.exists():
        store.mkdir()
        builds.run([python, "-m", "bytewax.recovery", str(store), "1"])
    flow = "benchmarks.peers.consumers.python_peers.bytewax_flow:flow"
    command = [python, "-m", "bytewax.run", flow, "-r", str(store), "-s", "1", "-b", "0"]
    return site.processes.start("bytewax", command, environment)


def _redis_totals(site: Site, _: Job) -> Totals:
    """Of hashes totals:HOUR, KEY -> "bytes_tx bytes_rx"."""
    return {
        decode_key(field): decode_totals(raw)
        for name in site.client.scan_iter("totals:*", count=_SCAN)
        for field, raw in site.client.hscan_iter(name, count=_SCAN)
    }


def _counter_totals(site: Site, _: Job) -> Totals:
    """Of hashes totals:HOUR, KEY:tx and KEY:rx -> a number."""
    found: dict[bytes, list[int]] = {}
    for name in site.client.scan_iter("totals:*", count=_SCAN):
        for field, raw in site.client.hscan_iter(name, count=_SCAN):
            found.setdefault(field[:-3], [0, 0])[field.endswith(b":rx")] = int(raw)
    return {decode_key(key): (bytes_tx, bytes_rx) for key, (bytes_tx, bytes_rx) in found.items()}


def _changelog_totals(site: Site, job: Job) -> Totals:
    """Of the store's changelog: two big-endian longs a key."""
    latest = read_latest(site.kafka.address, f"{job.name}-totals-changelog", job.log.shape.partitions)
    return {
        decode_key(key): (int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big"))
        for key, raw in latest.items()
        if raw is not None
    }


def _quix_totals(site: Site, job: Job) -> Totals:
    """Of the store's changelog: KEY|"totals" -> [bytes_tx, bytes_rx]."""
    topic = f"changelog__{job.name}--{job.log.topic}--default"
    latest = read_latest(site.kafka.address, topic, job.log.shape.partitions)
    return {
        decode_key(key.rpartition(b"|")[0]): msgspec.json.decode(raw, type=tuple[int, int])
        for key, raw in latest.items()
        if raw is not None
    }


def _faust_totals(site: Site, job: Job) -> Totals:
    """Of the table's changelog: KEY -> [bytes_tx, bytes_rx]."""
    latest = read_latest(site.kafka.address, f"{job.name}-totals-changelog", job.log.shape.partitions)
    return {
        decode_key(key): msgspec.json.decode(raw, type=tuple[int, int])
        for key, raw in latest.items()
        if raw is not None
    }
