"""The faults of a run: which ones strike a system that stays in use, whom, and at what pace."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tests.faults.driver import Driver, Stuck
from tests.faults.kinds import KINDS
from tests.faults.measure import Watch
from tests.faults.schedule import Fault, Kind, draw
from tests.faults.world import World
from tests.soak.calm import Calm
from tests.soak.clients import PassingClients
from tests.soak.sampler import Repeated

SPARED: Final = {"writer": "writer-2", "consumer": "consumer-3", "reader": "reader-2"}
"""Never ended, though struck by all else: a leak is told from processes that live long. Clients go there by default."""
_ENDED: Final = {"writer": ("writer-1",), "consumer": ("consumer-1", "consumer-2"), "reader": ("reader-1",)}
_LIKE: Final = ("kill -9 ", "SIGTERM ", "SIGSTOP ", "stale ", "black hole ", "delay ", "throttle ", "resets ")
"""Parts end, hang and lose their master; ways are cut and slow. Not everything at once, and no full disks."""
_ENDS: Final = ("kill -9 ", "SIGTERM ")
_PAUSE_SECONDS: Final = (15.0, 45.0)
_STEERED_SECONDS: Final = 1.0
_SETTLE_SECONDS: Final = 5.0
_MOST_WRONG: Final = 100


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was. began: of time.monotonic(). healed: seconds from the strike until all was well."""

    fault: Fault
    began: float
    healed: float


def kinds() -> list[Kind]:
    """Those of make faults that a production system meets, with the spared processes left alive."""
    found = []
    for name, (kind, _) in KINDS.items():
        if not name.startswith(_LIKE):
            continue
        service = name.rpartition(" ")[2]
        ends_service = name.startswith(_ENDS) and service in _ENDED
        found.append(replace(kind, victims=_ENDED[service]) if ends_service else kind)
    return found


def faults(seed: int) -> Iterator[Fault]:
    """Without end, drawn from a seed. pause_seconds: the calm before each."""
    rng = random.Random(f"{seed} pauses")
    count = 0
    while True:
        for fault in draw(seed, count + 100, kinds())[count:]:
            yield replace(fault, pause_seconds=rng.uniform(*_PAUSE_SECONDS))
        count += 100


class Pace:
    """Strikes until a time.

    measuring: what must go on meanwhile. say: prints a line. ended_alone: who ended though nobody ended it.
    """

    def __init__(
        self,
        world: World,
        clients: PassingClients,
        watch: Watch,
        calm: Calm,
        measuring: Sequence[Repeated],
        say: Callable[[str], None],
    ) -> None:
        self._world = world
        self._clients = clients
        self._watch = watch
        self._driver = Driver(world, clients, watch, say)
        self._calm = calm
        self._measuring = measuring
        self._say = say
        self.struck: list[Struck] = []
        self.ended_alone: list[str] = []

    def run(self, drawn: Iterator[Fault], until: float) -> None:
        """Strike, heal, wait; nothing strikes any more shortly before the end. Raises Stuck, ProcessFailed."""
        start = time.monotonic()
        self._settle(start)
        for fault in drawn:
            if time.monotonic() + fault.pause_seconds + fault.seconds + _PAUSE_SECONDS[0] > until:
                break
            self._wait(fault.pause_seconds)
            self._strike(fault, start)
        self._wait(max(0.0, until - time.monotonic()))
        self._world.ended_alone.clear()
        self._world.mend()
        self.ended_alone += self._world.ended_alone

    def _strike(self, fault: Fault, start: float) -> None:
        _, strike = KINDS[fault.kind]
        began = time.monotonic()
        self._calm.ends(began)
        self._world.ended_alone.clear()
        if fault.kind.startswith(_ENDS) and fault.victim in self._world.services:
            self._clients.go_to(self._world.services[fault.victim].url)  # so that those in use are ended, too
            time.sleep(_STEERED_SECONDS)
        self._say(f"{began - start:8.1f} s  {fault.number} {fault}")
        since = time.monotonic()
        heal = strike(self._world, fault)
        try:
            time.sleep(max(0.0, since + fault.seconds - time.monotonic()))
        finally:
            if heal is not None:
                heal()
        self._world.mend()
        well = time.monotonic()
        self._driver.wait_flowing(well)
        self.struck.append(Struck(fault, began, well - since))
        self.ended_alone += self._world.ended_alone
        self._settle(time.monotonic())
        notes = "".join(f"\n    ended: {one}" for one in self._world.ended_alone)
        self._say(f"{well - start:8.1f} s  well again{notes}")

    def _settle(self, now: float) -> None:
        """What the fault did is over shortly after."""
        self._go_home()
        if self._calm.storms:
            self._calm.begins(now + _SETTLE_SECONDS)
        self._watch.forget(now)

    def _wait(self, seconds: float) -> None:
        """Let the load run. Raises Stuck where it or the measuring ended, or where too much is wrong to go on."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not self._clients.alive:
                raise Stuck("the load has ended")
            wrong = len(self._clients.false_fresh) + len(self._clients.others)
            if wrong > _MOST_WRONG:
                raise Stuck(f"{wrong} answers are wrong")
            for one in self._measuring:
                if one.failure is not None:
                    raise Stuck(f"the measuring has failed: {one.failure!r}")
            self._go_home()  # a hiccup may have sent them elsewhere
            time.sleep(min(left, 0.5))

    def _go_home(self) -> None:
        """Clients go to the spared writer and reader."""
        for service in ("writer", "reader"):
            self._clients.go_to(self._world.services[SPARED[service]].url)
