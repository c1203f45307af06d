"""When faults strike, and when all is calm: only calm moments are compared."""

import threading
from dataclasses import dataclass, field
from math import inf


@dataclass(slots=True)
class Calm:
    """storms: from when to when each fault was felt, of time.monotonic(); the last may still go on. Any thread asks."""

    storms: list[tuple[float, float]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ends(self, moment: float) -> None:
        """A fault strikes right after."""
        with self._lock:
            self.storms.append((moment, inf))

    def begins(self, moment: float) -> None:
        """What the last fault did is over then, which may be later than now."""
        with self._lock:
            self.storms[-1] = (self.storms[-1][0], moment)

    def between(self, since: float, until: float) -> bool:
        """Whether no fault was felt in between, nor at either end; until is not later than now."""
        with self._lock:
            for began, over in reversed(self.storms):
                if over < since:
                    return True
                if began <= until:
                    return False
        return True
