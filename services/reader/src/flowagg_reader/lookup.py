"""Look-ups that concurrent requests share, and how long a failed one is remembered."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from flowagg.kafka import KafkaUnavailable
from flowagg.position import Position

_T = TypeVar("_T")
_K = TypeVar("_K")
_REMEMBERED_SECONDS: Final = 0.5


class JoinedLookup(Generic[_T]):
    """Callers share look-ups: each joins the next one to start, never one already under way.

    One under way may have read the log before the caller's own POST was acknowledged; its reply
    would make the promise of a fresh read false. At most one is under way and one waits.
    """

    def __init__(self, look_up: Callable[[], Awaitable[_T]], when_idle: Callable[[], object] | None = None) -> None:
        self._look_up = look_up
        self._when_idle = when_idle
        self._next: asyncio.Future[_T] | None = None
        self._runner: asyncio.Task[None] | None = None

    async def get(self) -> _T:
        """The result of a look-up that starts after this call. Raises what the look-up raises."""
        # Shielded: a caller that gives up must not end the look-up of the others.
        return await asyncio.shield(self.future())

    def future(self) -> "asyncio.Future[_T]":
        """As get, for whoever does not wait: shared, so it must not be cancelled."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            self._next.add_done_callback(_retrieve)
            if self._runner is None:
                self._runner = asyncio.create_task(self._run())
        return self._next

    async def _run(self) -> None:
        try:
            while (future := self._next) is not None:
                self._next = None
                try:
                    future.set_result(await self._look_up())
                except Exception as error:
                    future.set_exception(error)
        finally:
            self._runner = None
            if self._when_idle is not None:
                self._when_idle()


class JoinedLookups(Generic[_K, _T]):
    """Joined look-ups by key; a key of which none is under way takes no memory."""

    def __init__(self, look_up: Callable[[_K], Awaitable[_T]]) -> None:
        self._look_up = look_up
        self._joined: dict[_K, JoinedLookup[_T]] = {}

    async def get(self, key: _K) -> _T:
        """The result of a look-up of the key that starts after this call. Raises what the look-up raises."""
        return await asyncio.shield(self.future(key))

    def future(self, key: _K) -> "asyncio.Future[_T]":
        """As get, for whoever does not wait: shared, so it must not be cancelled."""
        joined = self._joined.get(key)
        if joined is None:
            joined = JoinedLookup(lambda: self._look_up(key), lambda: self._joined.pop(key))
            self._joined[key] = joined
        return joined.future()


class Ends:
    """The log's end, by joined look-ups. After a failed one nobody waits until one has succeeded again.

    Only the failure is remembered, never an end: what is remembered can make an answer not fresh alone.
    """

    def __init__(self, look_up: Callable[[], Awaitable[Position]], clock: Callable[[], float]) -> None:
        self._look_up = look_up
        self._clock = clock
        self._joined = JoinedLookup(self._ask)
        self._away: str | None = None
        self._until = 0.0
        self._retry: asyncio.Task[None] | None = None

    async def get(self) -> Position:
        """The end as of after this call. Raises KafkaUnavailable, at once where the last look-up has failed."""
        return await asyncio.shield(self.future())

    def future(self) -> "asyncio.Future[Position]":
        """As get, for whoever does not wait: shared, so it must not be cancelled."""
        if self._away is None:
            return self._joined.future()
        if self._clock() >= self._until and self._retry is None:
            self._retry = asyncio.create_task(self._try_again())
        raise KafkaUnavailable(self._away)

    async def _try_again(self) -> None:
        try:
            await self._joined.get()
        except KafkaUnavailable:
            pass
        finally:
            self._retry = None

    async def _ask(self) -> Position:
        if self._away is not None and self._clock() < self._until:
            raise KafkaUnavailable(self._away)  # these have waited for the one that failed
        try:
            end = await self._look_up()
        except KafkaUnavailable as error:
            self._away, self._until = str(error), self._clock() + _REMEMBERED_SECONDS
            raise
        self._away = None
        return end


def _retrieve(future: "asyncio.Future[_T]") -> None:
    """Mark an error as seen, also where every caller has given up."""
    if not future.cancelled():
        future.exception()
