"""A clock that can be set wrong, for one process at a time: libfaketime, where it is installed.

Kafka's brokers alone, whose clocks stamp the log. Not Redis and its sentinels: their jemalloc asks for the time before
libfaketime is ready, and neither starts. Not the services: Python's sleep fails under it (clock_nanosleep, EINVAL), and
they keep no time of day.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from flowagg_stack.processes import Child, Processes

_LIBRARY: Final = "faketime/libfaketimeMT.so.1"
_PLACES: Final = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
_CLOCKED: Final = "kafka-"
_FORMAT: Final = "-format"


def library() -> Path | None:
    """libfaketime for programs with threads; None where it is not installed."""
    found = (path for place in _PLACES for path in sorted(Path(place).glob(f"**/{_LIBRARY}")))
    return next(found, None)


class Clock:
    """The clock of a process, right at first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set(0)

    def set(self, seconds: float) -> None:
        """From now on, or within a second of it, it is so many seconds ahead."""
        written = self.path.with_suffix(".new")
        written.write_text(f"{seconds:+.0f}s\n", encoding="ascii")
        written.rename(self.path)  # never read half


class ClockedProcesses(Processes):
    """Processes whose brokers have clocks of their own. clocks: by name; empty without libfaketime."""

    def __init__(self, directory: Path, preloaded: Path | None) -> None:
        super().__init__(directory)
        self.clocks: dict[str, Clock] = {}
        self._clocks_in = directory
        self._preloaded = preloaded

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """As Processes.start."""
        if self._preloaded is None or not name.startswith(_CLOCKED) or name.endswith(_FORMAT):
            return super().start(name, command, environment)
        if name not in self.clocks:
            self.clocks[name] = Clock(self._clocks_in / f"{name}.clock")
        prefix = [
            "env",
            f"LD_PRELOAD={self._preloaded}",
            f"FAKETIME_TIMESTAMP_FILE={self.clocks[name].path}",
            "FAKETIME_CACHE_DURATION=1",
            "DONT_FAKE_MONOTONIC=1",
            "FAKETIME_FORCE_MONOTONIC_FIX=0",  # else Java's timed waits end at once: brokers spin and never start
        ]
        # One that is started again brings the prefix along.
        return super().start(name, command if command[0] == "env" else [*prefix, *command], environment)
