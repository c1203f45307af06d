"""How long things stand still: acknowledged writes, applied records and fresh reads, as they come."""

import itertools
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import redis
from flowagg.view import meta_key
from flowagg_stack import sentinel

_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Stalls:
    """Longest times without an acknowledged write, an applied record and a fresh read, in seconds."""

    write: float
    apply: float
    read: float


def longest(times: Iterable[float], since: float, until: float) -> float:
    """Longest stretch from since to until without any of times, in seconds."""
    marks = [since, *sorted(moment for moment in times if since <= moment <= until), until]
    return max(later - earlier for earlier, later in itertools.pairwise(marks))


@dataclass(slots=True)
class Watch:
    """When things moved, of time.monotonic(); filled by any thread.

    Applied is a record when its partition's stored position passes all that it has ever been: one that a failover
    took back, and that is applied again, is none. moves: of each partition.
    """

    partitions: int
    writes: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    moves: dict[int, list[float]] = field(default_factory=dict)
    highest: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.moves = {number: [] for number in range(self.partitions)}

    def applied(self, positions: Sequence[int], moment: float) -> None:
        """The stored positions by partition, as they were read."""
        with self._lock:
            for number, position in enumerate(positions):
                if position > self.highest.get(number, -1):
                    self.highest[number] = position
                    self.moves[number].append(moment)

    def stalls(self, since: float, until: float) -> Stalls:
        """The longest stand-stills; of applies, that of the partition that stood longest."""
        with self._lock:
            apply = max(longest(times, since, until) for times in self.moves.values())
        return Stalls(longest(tuple(self.writes), since, until), apply, longest(tuple(self.reads), since, until))

    def lacking(self, since: float) -> list[str]:
        """What has not moved since then."""
        found = {"no write is acknowledged": self.writes, "no read is fresh": self.reads}
        found |= {f"partition {number} is not applied": times for number, times in self.moves.items()}
        return [name for name, times in found.items() if not times or times[-1] < since]

    def forget(self, before: float) -> None:
        """Keep no more than is needed: a run may be long."""
        with self._lock:
            for times in (self.writes, self.reads, *self.moves.values()):
                while len(times) > 1 and times[0] < before:
                    del times[: max(1, next((at for at, one in enumerate(times) if one >= before), len(times) - 1))]


class Positions:
    """Reads the stored positions from every Redis node that says it is a master, all the time; a context manager.

    Not through the sentinels, whose answers may themselves be late.
    """

    def __init__(self, nodes: Iterable[str], view: str, watch: Watch) -> None:
        self._ends = threading.Event()
        self._keys = [meta_key(view, number) for number in range(watch.partitions)]
        self._watch = watch
        self._threads = [threading.Thread(target=self._poll, args=(node,), daemon=True) for node in nodes]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _poll(self, node: str) -> None:
        with sentinel.client(node) as asked:
            while not self._ends.wait(_POLL_SECONDS):
                try:
                    with asked.pipeline(transaction=True) as pipe:
                        pipe.execute_command("ROLE")
                        for key in self._keys:
                            pipe.hget(key, "position")
                        role, *found = pipe.execute()
                except redis.RedisError:
                    continue  # it is down, stopped or starting: what the faults are for
                if role[0] == b"master":
                    self._watch.applied([int(position or -1) for position in found], time.monotonic())
