"""Threads that carry out a schedule."""

import logging
import threading
import time
from collections.abc import Callable

from flowagg.errors import FlowaggError

from flowagg_operator.schedule import Pace, Schedule

_log = logging.getLogger(__name__)


class Runner:
    """Calls `work` with the names that are due, in threads of its own.

    work: returns the seconds to the next call where that is soon; an exception is logged and means a failure.
    """

    def __init__(
        self,
        label: str,
        pace: Pace,
        workers: int,
        work: Callable[[str], float | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._work = work
        self._clock = clock
        self._schedule = Schedule(pace)
        self._changed = threading.Condition()
        self._stopping = False
        self._began: dict[str, float] = {}
        self._threads = [
            threading.Thread(target=self._turn, name=f"{label}-{number}", daemon=True) for number in range(workers)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def wish(self, name: str) -> None:
        """Have name done soon."""
        with self._changed:
            self._schedule.wish(name, self._clock())
            self._changed.notify()

    def forget(self, name: str) -> None:
        """Have name not done again."""
        with self._changed:
            self._schedule.forget(name)

    def stop(self, seconds: float) -> bool:
        """End the threads after the work in hand. Returns whether they ended in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline = self._clock() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._clock()))
        return not any(thread.is_alive() for thread in self._threads)

    def longest_seconds(self) -> float:
        """How long the work in hand has taken so far."""
        with self._changed:
            return max((self._clock() - began for began in self._began.values()), default=0.0)

    def _turn(self) -> None:
        while (name := self._next()) is not None:
            soon, failed = None, False
            try:
                soon = self._work(name)
            except Exception as error:
                failed = True
                _log.warning(
                    "failed; it is tried again",
                    extra={"work": self._label, "of": name, "reason": str(error)},
                    exc_info=not isinstance(error, FlowaggError),  # our own say all in their text
                )
            with self._changed:
                del self._began[name]
                self._schedule.done(name, self._clock(), failed=failed, retry=soon)
                self._changed.notify()

    def _next(self) -> str | None:
        """The next name, once it is due; None: stopping."""
        with self._changed:
            while not self._stopping:
                now = self._clock()
                if (name := self._schedule.take(now)) is not None:
                    self._began[name] = now
                    return name
                due = self._schedule.next_due()
                self._changed.wait(None if due is None else max(0.0, due - now))
        return None
