"""Bodies of hours, or tables: found in the cache, or read and made once for all who want them."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from prometheus_client import Counter, Gauge, Histogram

from flowagg_reader.access import Access
from flowagg_reader.cache import Cache, Entry, Made
from flowagg_reader.core import HourRead, ReadHour
from flowagg_reader.hour import Seen, hour_of

PartitionTotals = tuple[Seen, list[bytes]]
"""What one atomic call has shown of a partition, and its totals of the hour: field, totals, field, totals, ..."""


class Source(Protocol):
    """Where the totals of a view are read."""

    async def read_hour(self, partitions: Iterable[int], hour: int) -> Mapping[int, PartitionTotals]:
        """What the partitions hold of the hour."""


_Key = tuple[str, int, str]
"""View, hour, scope."""
_M = TypeVar("_M", bound=Made)

Make = Callable[[int, Sequence[list[bytes]], Callable[[str], bool] | None], Generator[Any, Any, _M]]
"""Makes something of the totals of an hour: see union.render. What it yields that is a function is called in a thread,
and its result sent back."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Metrics of what is made. found: by result: cached, missed, rendered. kept_bytes: in the cache."""

    found: Counter
    kept_bytes: Gauge
    seconds: Histogram


class Turns:
    """Turns at large hours, of more than large_rows flow keys: most at a time, and one at a time being made."""

    def __init__(self, most: int, large_rows: int) -> None:
        self.large_rows = large_rows
        self.turns = asyncio.Semaphore(most)
        self.making = asyncio.Lock()


@dataclass(slots=True)
class _Flight(Generic[_M]):
    """A read and its rendering. tag: the expected one. rows: by which it is a large one. waiting: for it."""

    source: Source
    tag: str
    partitions: frozenset[int]
    rows: int
    started: bool = False
    waiting: int = 0
    entry: Entry[_M] | None = None
    task: "asyncio.Task[HourRead]" = field(init=False)


class Bodies(Generic[_M]):
    """One reading of an hour at a time: whoever comes meanwhile shares it or the next one.

    A flight that has started is joined only by those who look for the very tag that it is expected to
    have; the others join the next to start, so each gets totals that were read after it asked. Either way
    the core judges what it gets by the reply it was read from.

    All views share the memory: the cache's bytes, and what max_large_reads large hours need while they are read and
    rendered, or sent where the cache has no room for them. Small hours wait for nobody.
    """

    def __init__(
        self, make: Make[_M], cache_bytes: int, turns: Turns, counts: Counts, *, keeps_turns: bool = True
    ) -> None:
        """turns: may be shared with others'. keeps_turns: what the cache has no room for keeps its turn until it is
        released; else whoever holds it must be bounded otherwise."""
        self._keeps_turns = keeps_turns
        self._make = make
        self._cache = Cache[_M](cache_bytes)
        self._turns = turns
        self._counts = counts
        self._flights: dict[_Key, _Flight[_M]] = {}

    def find(self, tag: str) -> Entry[_M] | None:
        """The body of a tag, held for the caller, who releases it; None where it is not there."""
        entry = self._cache.find(tag)
        self._counts.found.labels("missed" if entry is None else "cached").inc()
        return None if entry is None else entry.hold()

    async def read(self, source: Source, view: str, wanted: ReadHour, access: Access) -> HourRead:
        """What the view's partitions hold of the hour, and its body: an Entry held for the caller, None without rows.

        Raises what reading raises, DamagedView.
        """
        partitions, tag, rows = wanted.partitions, wanted.tag, wanted.rows
        key = (view, wanted.hour, access.scope)
        flight = self._flights.get(key)
        if flight is None or (flight.started and flight.tag != tag):
            flight = self._start(key, _Flight[_M](source, tag, partitions, rows), access)
        elif not flight.started:
            flight.partitions |= partitions
            flight.rows = max(flight.rows, rows)
        flight.waiting += 1
        try:
            read = await asyncio.shield(flight.task)
            if flight.entry is not None:
                flight.entry.hold()
            return read
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                self._end(key, flight)

    def _start(self, key: _Key, flight: _Flight[_M], access: Access) -> _Flight[_M]:
        before = self._flights.get(key)
        self._flights[key] = flight
        flight.task = asyncio.create_task(self._fly(key, flight, access, before))
        return flight

    def _end(self, key: _Key, flight: _Flight[_M]) -> None:
        """Nobody waits any more: an abandoned reading must neither be joined nor keep others from their turn."""
        self._forget(key, flight)
        flight.task.cancel()
        if flight.entry is not None:
            flight.entry.release()
            flight.entry = None

    async def _fly(self, key: _Key, flight: _Flight[_M], access: Access, before: _Flight[_M] | None) -> HourRead:
        try:
            if before is not None:
                await asyncio.wait([before.task])
            if flight.rows <= self._turns.large_rows:
                return await self._read_and_render(key, flight, access, None)
            await self._turns.turns.acquire()
            turn = _Turn(self._turns.turns.release)
            try:
                return await self._read_and_render(key, flight, access, turn)
            finally:
                turn.leave()
        finally:
            self._forget(key, flight)

    def _forget(self, key: _Key, flight: _Flight[_M]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _read_and_render(self, key: _Key, flight: _Flight[_M], access: Access, turn: "_Turn | None") -> HourRead:
        view, hour, _ = key
        flight.started = True
        parts = await flight.source.read_hour(flight.partitions, hour)
        seen = {number: part for number, (part, _) in parts.items()}
        totals = [flat for _, flat in parts.values()]
        del parts
        found = hour_of(hour, access.scope, seen, view)
        if not found.rows:
            return HourRead(seen, None)
        # One large hour at a time: several would each take a slice in every round of the event loop.
        async with contextlib.nullcontext() if turn is None else self._turns.making:
            body = await self._made(hour, totals, access)
        self._counts.found.labels("rendered").inc()
        entry, outside = self._cache.add(
            found.tag, body, turn.leave if turn is not None and self._keeps_turns else _nothing
        )
        if outside and turn is not None and self._keeps_turns:
            turn.stay()  # until it is sent
        self._counts.kept_bytes.set(self._cache.bytes)
        flight.entry = entry.hold()  # for those who wait, until the last of them has taken it
        return HourRead(seen, entry)

    async def _made(self, hour: int, totals: list[list[bytes]], access: Access) -> _M:
        """Make it in slices, and let others have the event loop in between."""
        busy = 0.0
        steps = self._make(hour, totals, access.visible)
        reply = None
        while True:
            began = time.perf_counter()
            try:
                step = steps.send(reply)
            except StopIteration as end:
                self._counts.seconds.observe(busy + time.perf_counter() - began)
                made: _M = end.value
                return made
            reply = None
            if step is not None:
                reply = await asyncio.to_thread(step)
            busy += time.perf_counter() - began
            await asyncio.sleep(0)


class _Turn:
    """A turn at large reads, left when neither the reading nor the sending needs it."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._stays = 1

    def stay(self) -> None:
        self._stays += 1

    def leave(self) -> None:
        self._stays -= 1
        if not self._stays:
            self._release()


def _nothing() -> None:
    pass
