"""Strikes the world with one fault after the other, and times how long things stand still."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.faults.clients import Clients
from tests.faults.kinds import KINDS
from tests.faults.measure import Stalls, Watch
from tests.faults.schedule import Fault
from tests.faults.world import World

_FLOWING_SECONDS: Final = 60.0


class Stuck(Exception):
    """All parts are well and something does not go on."""


@dataclass(frozen=True, slots=True)
class Round:
    """A fault and what it did.

    began: seconds since the start. healed: seconds from the strike until all was well. ended: parts, and how, that
    ended though nobody ended them. repairs: what was done by hand. false_fresh: answers that came meanwhile.
    """

    fault: Fault
    began: float
    healed: float
    stalls: Stalls
    ended: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    false_fresh: int = 0


class Driver:
    """say: prints a line. Times on the lines are seconds since the driver was made."""

    def __init__(self, world: World, clients: Clients, watch: Watch, say: Callable[[str], None]) -> None:
        self._world = world
        self._clients = clients
        self._watch = watch
        self._say = say
        self._start = time.monotonic()
        self.rounds: list[Round] = []

    def run(self, faults: Sequence[Fault]) -> None:
        """All of them, in order. Raises Stuck, ProcessFailed."""
        self.wait_flowing(self._start)
        for fault in faults:
            self.rounds.append(self._round(fault, len(faults)))

    def wait_flowing(self, since: float) -> None:
        """Wait until writes, applies of every partition and fresh reads have moved after since. Raises Stuck."""
        deadline = time.monotonic() + _FLOWING_SECONDS
        while lacking := self._watch.lacking(since):
            if not self._clients.alive:
                raise Stuck("the load has ended")
            if time.monotonic() > deadline:
                raise Stuck(f"within {_FLOWING_SECONDS:g} s: {', '.join(lacking)}")
            time.sleep(0.02)

    def _round(self, fault: Fault, count: int) -> Round:
        _, strike = KINDS[fault.kind]
        since, false_before = time.monotonic(), len(self._clients.false_fresh)
        self._world.ended_alone.clear()
        self._world.repairs.clear()
        self._say(f"{since - self._start:8.1f} s  {fault.number}/{count} {fault}")
        heal = strike(self._world, fault)
        try:
            time.sleep(max(0.0, since + fault.seconds - time.monotonic()))
        finally:
            if heal is not None:
                heal()
        self._world.mend()
        well = time.monotonic()
        self.wait_flowing(well)
        time.sleep(fault.pause_seconds)
        stalls = self._watch.stalls(since, time.monotonic())
        self._watch.forget(time.monotonic())
        ended, repairs = tuple(self._world.ended_alone), tuple(self._world.repairs)
        notes = [*(f"\n    ended: {one}" for one in ended), *(f"\n    {one}" for one in repairs)]
        self._say(
            f"{well - self._start:8.1f} s  well again; without a write {stalls.write:.2f} s, an apply "
            f"{stalls.apply:.2f} s, a fresh read {stalls.read:.2f} s{''.join(notes)}"
        )
        false_fresh = len(self._clients.false_fresh) - false_before
        return Round(fault, since - self._start, well - since, stalls, ended, repairs, false_fresh)
