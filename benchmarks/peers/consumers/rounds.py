"""One peer on one log: how fast it is, and whether it is exact after kills with -9 on its way."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from confluent_kafka import KafkaException
from flowagg.errors import FlowaggError
from flowagg_stack.processes import Child, ProcessFailed, wait_until
from msgspec import MsgspecError
from redis import RedisError

from benchmarks.hot_paths.consumer import peak_rss_mib
from benchmarks.peers.consumers.data import FilledLog
from benchmarks.peers.consumers.exactness import Difference, compare
from benchmarks.peers.consumers.peers import Job, Peer, new_job
from benchmarks.peers.consumers.site import Site, cpu_seconds, machine_cpu_seconds
from benchmarks.peers.consumers.speed import Snapshot, Speed, between, second_half

_PAUSE_SECONDS: Final = 0.005
_LOOK_SECONDS: Final = 0.05
_START_SECONDS: Final = 90
_IDLE_SECONDS: Final = 4.0
_END_SECONDS: Final = 240
_COMMIT_LOOK_SECONDS: Final = 0.5
_MOST_JITTER_SECONDS: Final = 0.05
_ORDERLY_ENDS: Final = 3
_TROUBLES: Final = (FlowaggError, KafkaException, RedisError, MsgspecError, OSError)
"""What may be wrong with one peer, and is said in its row, while the others go on."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A peer on a log. whole, second: rates over all of it and over its second half.

    difference: of its totals in the end; None where the time was over before it had applied everything.
    trouble: why there are no rates, or no end in order.
    """

    peer: str
    family: str
    shape: str
    whole: Speed | None = None
    second: Speed | None = None
    rss_mib: float = 0.0
    difference: Difference | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Struck:
    """A peer that was killed and started again. applied: flows so far at each kill, as the peer counts them: ours of
    all, the others of the process that was killed."""

    peer: str
    family: str
    applied: Sequence[int]
    flows: int
    difference: Difference | None = None
    trouble: str = ""


def measure(site: Site, peer: Peer, program: str, log: FilledLog, seconds: float) -> Measured:
    """Time a peer from its first applied flow (ours from before it reads) to the last, or for so many seconds."""
    job = new_job(site, log)
    child = None
    try:
        child = peer.start(site, job, program)
        pid = child.process.pid

        def look() -> Snapshot:
            return Snapshot(
                at=time.perf_counter(),
                applied=peer.applied(site, job),
                cpu=cpu_seconds(pid),
                redis=site.redis_cpu(),
                kafka=site.kafka_cpu(),
                machine=machine_cpu_seconds(),
                rss_mib=peak_rss_mib(str(pid)),
            )

        wait_until(partial(peer.is_timed, site, job), "it has begun", _START_SECONDS, [child], _PAUSE_SECONDS)
        seen = [look()]
        last = _look_until(partial(peer.applied, site, job), log.ledger.flows, seconds, child, look, seen)
        whole, second = between(seen[0], last), second_half(seen)
        difference, trouble = None, "" if whole else "all was applied in one step: --flows must be more"
        if last.applied >= log.ledger.flows:
            trouble = _end(site, peer, job, child) or trouble
            difference = compare(peer.totals(site, job), log.ledger.totals)
        return Measured(peer.name, peer.family, log.shape.name, whole, second, last.rss_mib, difference, trouble)
    except _TROUBLES as error:
        return Measured(peer.name, peer.family, log.shape.name, trouble=str(error))
    finally:
        _kill(site, child)


def strike(site: Site, peer: Peer, program: str, log: FilledLog, kills: int) -> Struck:
    """Kill -9 a peer at even distances on its way, start it again each time, and compare when it is at the end.

    Each kill comes a little later than the count says, by another time each (the same ones for all): the count moves
    as something has just been finished, and a kill would else never meet what comes before.
    """
    job = new_job(site, log)
    flows = log.ledger.flows
    child = None
    applied: list[int] = []
    trouble = ""
    jitter = random.Random(kills)
    try:
        child = peer.start(site, job, program)
        for _ in range(kills):
            target = peer.applied(site, job) + flows // (kills + 1)
            there = partial(_is_past, site, peer, job, target, _Over(site, peer, job))
            wait_until(there, "the place of the kill is reached", _END_SECONDS, [child], _PAUSE_SECONDS)
            time.sleep(jitter.uniform(0, _MOST_JITTER_SECONDS))
            _kill(site, child)
            applied.append(peer.applied(site, job))
            child = peer.start(site, job, program)
        for _ in range(_ORDERLY_ENDS):
            wait_until(_Over(site, peer, job).is_so, "the log's end is reached", _END_SECONDS, [child], _PAUSE_SECONDS)
            trouble = _end(site, peer, job, child)
            if not trouble:
                break
            child = peer.start(site, job, program)
        else:
            return Struck(peer.name, peer.family, applied, flows, None, trouble)
        difference = compare(peer.totals(site, job), log.ledger.totals)
        return Struck(peer.name, peer.family, applied, flows, difference)
    except _TROUBLES as error:
        return Struck(peer.name, peer.family, applied, flows, None, str(error))
    finally:
        _kill(site, child)


def _look_until(
    applied: Callable[[], int],
    flows: int,
    seconds: float,
    child: Child,
    look: Callable[[], Snapshot],
    seen: list[Snapshot],
) -> Snapshot:
    """Look now and then until so many flows are applied, or the time is over; what is seen then. seen: all of it."""
    deadline = time.perf_counter() + seconds
    while applied() < flows and (now := time.perf_counter()) < deadline:
        if child.ended:
            raise ProcessFailed(f"{child.name} ended with status {child.process.returncode}:\n{child.last_lines()}")
        if now - seen[-1].at > _LOOK_SECONDS:
            seen.append(look())
        time.sleep(_PAUSE_SECONDS)
    seen.append(look())
    return seen[-1]


class _Over:
    """Whether a peer is at the end: everything is committed, or nothing has moved for a while though something had.

    The second is for those that commit rarely, or not to Kafka: an end in order commits what they have.
    """

    def __init__(self, site: Site, peer: Peer, job: Job) -> None:
        self._site, self._peer, self._job = site, peer, job
        self._before, self._since = peer.applied(site, job), time.monotonic()
        self._moved = False
        self._next_look = 0.0

    def is_so(self) -> bool:
        """Look."""
        now, applied = time.monotonic(), self._peer.applied(self._site, self._job)
        if applied != self._before:
            self._before, self._since, self._moved = applied, now, True
        if self._moved and now - self._since > _IDLE_SECONDS:
            return True
        if now < self._next_look:
            return False
        self._next_look = now + _COMMIT_LOOK_SECONDS
        return _is_committed(self._site, self._peer, self._job)


def _is_past(site: Site, peer: Peer, job: Job, target: int, over: _Over) -> bool:
    return peer.applied(site, job) >= target or over.is_so()


def _end(site: Site, peer: Peer, job: Job, child: Child) -> str:
    """End a peer in order; what is wrong if that left something uncommitted, else nothing."""
    site.processes.stop(child, signal.SIGTERM)
    if peer.group and not _is_committed(site, peer, job):
        return f"ended in order before it had committed everything: {child.last_lines(3)}"
    return ""


def _is_committed(site: Site, peer: Peer, job: Job) -> bool:
    return bool(peer.group) and site.is_committed(peer.group.format(name=job.name), job.log)


def _kill(site: Site, child: Child | None) -> None:
    if child is not None and child in site.processes.children:
        site.processes.stop(child, signal.SIGKILL)
