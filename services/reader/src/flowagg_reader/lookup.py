"""Look-ups that concurrent requests share."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class JoinedLookup(Generic[_T]):
    """Callers share look-ups: each joins the next one to start, never one already under way.

    One under way may have read the log before the caller's own POST was acknowledged; its reply
    would make the promise of a fresh read false. At most one is under way and one waits.
    """

    def __init__(self, look_up: Callable[[], Awaitable[_T]]) -> None:
        self._look_up = look_up
        self._next: asyncio.Future[_T] | None = None
        self._runner: asyncio.Task[None] | None = None

    async def get(self) -> _T:
        """The result of a look-up that starts after this call. Raises what the look-up raises."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            self._next.add_done_callback(_retrieve)
            if self._runner is None:
                self._runner = asyncio.create_task(self._run())
        # Shielded: a caller that gives up must not end the look-up of the others.
        return await asyncio.shield(self._next)

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


def _retrieve(future: "asyncio.Future[_T]") -> None:
    """Mark an error as seen, also where every caller has given up."""
    if not future.cancelled():
        future.exception()
