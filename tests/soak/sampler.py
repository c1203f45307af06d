"""Looks at processes again and again, and keeps a series of each."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from tests.soak import proc
from tests.soak.calm import Calm
from tests.soak.proc import Reading

MOST_READINGS: Final = 1000
"""Of a process in a run: the pause between two grows with the run's length."""
_LEAST_PAUSE_SECONDS: Final = 2.0


def pause_seconds(run_seconds: float) -> float:
    """Time between two readings of the same thing, so that a run of any length is kept in the same room."""
    return max(_LEAST_PAUSE_SECONDS, run_seconds / MOST_READINGS)


@dataclass(frozen=True, slots=True)
class Sample:
    """A reading. at: of time.monotonic(). calm: no fault was felt."""

    at: float
    calm: bool
    reading: Reading


@dataclass(slots=True)
class Life:
    """The series of one process: a part that is started again begins another. name: the part's, as consumer-1."""

    name: str
    pid: int
    samples: list[Sample] = field(default_factory=list)


class Repeated:
    """Does something again and again in a thread; a context manager. Where that fails, so does its end.

    failure: why it does it no more, if so.
    """

    def __init__(self, name: str, pause: float, work: Callable[[], None]) -> None:
        self._pause = pause
        self._work = work
        self._ends = threading.Event()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        if self.failure is not None and kind is None:
            raise self.failure

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._ends.wait(max(0.0, due - time.monotonic())):
                self._work()
                due = max(due + self._pause, time.monotonic())
        except Exception as error:
            self.failure = error


class Sampler:
    """lives: of all processes that were seen, by part, number and beginning.

    pids: the processes to look at now, by part.
    """

    def __init__(self, pids: Callable[[], Mapping[str, int]], calm: Calm) -> None:
        self._pids = pids
        self._calm = calm
        self._lives: dict[tuple[str, int, int], Life] = {}

    @property
    def lives(self) -> list[Life]:
        """Oldest first."""
        return list(self._lives.values())

    def sample(self) -> None:
        """Look at each once."""
        states = proc.sockets()
        for name, pid in self._pids().items():
            began = time.monotonic()
            born, reading = proc.born(pid), proc.look(pid, states)
            if born is None or reading is None:
                continue
            now = time.monotonic()
            life = self._lives.setdefault((name, pid, born), Life(name, pid))
            life.samples.append(Sample(now, self._calm.between(began, now), reading))
