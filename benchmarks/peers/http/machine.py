"""Whether the machine was free while something was measured."""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_TAKEN: Final = (0, 1, 2, 5, 6, 7)
"""columns of /proc/stat: user, nice, system, irq, softirq, steal (what the hypervisor took)"""


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds so far: on the clock; of CPU that is not idle; of CPU that this process and its ended children used."""

    clock: float
    taken: float
    own: float


def usage() -> Usage:
    """As it is now. Children count once they have ended: none may be running."""
    columns = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    own = 0.0
    for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(whose)
        own += used.ru_utime + used.ru_stime
    return Usage(time.monotonic(), sum(int(columns[place]) for place in _TAKEN) / _TICKS, own)


def foreign_share(before: Usage, after: Usage, cores: int) -> float:
    """The share of the cores' time that others used in between."""
    foreign = (after.taken - before.taken) - (after.own - before.own)
    return max(0.0, foreign / ((after.clock - before.clock) * cores))
