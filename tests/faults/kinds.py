"""The kinds of faults: what each does to the world. World.mend undoes all of them."""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from flowagg_stack.processes import ProcessFailed

from tests.faults.proxy import Condition, Proxy
from tests.faults.schedule import Fault, Kind
from tests.faults.world import COUNTS, World

_KAFKA: Final = ("broker-1", "broker-2", "broker-3")
_SENTINELS: Final = ("sentinel-0", "sentinel-1", "sentinel-2")
_CONSUMERS: Final = tuple(f"consumer-{number + 1}" for number in range(COUNTS["consumer"]))
_REPLICAS: Final = ("redis replica 0", "redis replica 1")
_DUTY_SECONDS: Final = (0.16, 0.04)
"""Of a slowed process: stopped, running."""

Heal = Callable[[], None]
Strike = Callable[[World, Fault], Heal | None]
"""Does it; what is to be done, beside World.mend and before it, to heal it."""

KILL_CONSUMER: Final = "kill -9 consumer"
KILL_BROKER: Final = "kill -9 broker"
KILL_MASTER: Final = "kill -9 redis master"
STALE_MASTER: Final = "stale redis master"
NEEDS_DISKS: Final = frozenset({"full disk redis", "full disk broker"})
NEEDS_CLOCKS: Final = frozenset({"wrong clock broker"})
_MOST_WRONG_SECONDS: Final = 7200.0
"""Within the dedupe window, which is one of the log's time."""


def part(world: World, victim: str) -> str:
    """The name of the part that a victim is now: roles move. Raises ProcessFailed where no sentinel knows."""
    if victim == "redis master":
        return world.redis_master()
    if victim.startswith("redis replica"):
        master = world.redis_master()
        replicas = [name for name in world.names() if name.startswith("redis-") and name != master]
        return replicas[int(victim.rpartition(" ")[2])]
    how, _, service = victim.partition(" ")
    return world.of_service(service, how == "active") if how in {"active", "other"} else victim


def _kill(world: World, fault: Fault) -> None:
    world.end(part(world, fault.victim))


def _stop(world: World, fault: Fault) -> None:
    world.send(part(world, fault.victim), signal.SIGSTOP)


def _terminate(world: World, fault: Fault) -> None:
    world.end(part(world, fault.victim), signal.SIGTERM)


def _stop_master_until_replaced(world: World, fault: Fault) -> Heal:
    """It goes on, believing that it is the master, once another node is."""
    name = world.redis_master()
    world.send(name, signal.SIGSTOP)

    def wait_replaced() -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with suppress(ProcessFailed):
                if world.redis_master() != name:
                    return
            time.sleep(0.05)

    return wait_replaced


def _crash(world: World, fault: Fault) -> None:
    world.crash()


def _slow(world: World, fault: Fault) -> Heal:
    """Run a fifth of the time."""
    names = [name for name in world.names() if fault.victim == "everything" or name in world.services]
    ends = threading.Event()

    def duty() -> None:
        while not ends.is_set():
            for number, seconds in zip((signal.SIGSTOP, signal.SIGCONT), _DUTY_SECONDS, strict=True):
                for name in names:
                    world.send(name, number)
                time.sleep(seconds)

    thread = threading.Thread(target=duty, daemon=True)
    thread.start()

    def heal() -> None:
        ends.set()
        thread.join()

    return heal


def _set_clock(world: World, fault: Fault) -> None:
    world.clock(fault.victim).set((2 * fault.force - 1) * _MOST_WRONG_SECONDS)


def _fill_disk(world: World, fault: Fault) -> None:
    world.disks[fault.victim].fill()


def _ways(world: World, victim: str) -> list[Proxy]:
    """The proxies before Kafka, one broker's or all, or those between a group of services and Redis with sentinels."""
    if victim.startswith("broker-"):
        return [world.proxies[victim.replace("broker", "kafka")]]
    prefix = {"all brokers": ("kafka-",), "services": ("consumers", "readers")}.get(victim, (victim,))
    return [proxy for name, proxy in world.proxies.items() if name.startswith(prefix)]


def _worsened(condition: Callable[[Fault], Condition]) -> Strike:
    def strike(world: World, fault: Fault) -> None:
        for proxy in _ways(world, fault.victim):
            proxy.condition = condition(fault)

    return strike


def _reset(world: World, fault: Fault) -> None:
    world.network.reset(_ways(world, fault.victim))


_black_hole = _worsened(lambda _: Condition(black_hole=True))
_delay = _worsened(lambda fault: Condition(delay_seconds=0.02 + 0.28 * fault.force))
_throttle = _worsened(lambda fault: Condition(bytes_per_second=round(1_000 + 19_000 * fault.force)))


@dataclass(frozen=True, slots=True)
class _Part:
    """A part that is killed, stopped and restarted. seconds: down or stopped for. kills: weight of kill -9."""

    name: str
    victims: tuple[str, ...]
    seconds: tuple[float, float]
    kills: int = 1


_PARTS: Final = (
    _Part("writer", ("active writer", "active writer", "other writer"), (1, 5)),
    _Part("consumer", _CONSUMERS, (4, 8), kills=4),
    _Part("reader", ("active reader", "active reader", "other reader"), (1, 5)),
    _Part("broker", _KAFKA, (4, 9), kills=3),
    _Part("redis master", ("redis master",), (3, 7), kills=3),
    _Part("redis replica", _REPLICAS, (1, 5)),
    _Part("sentinel", _SENTINELS, (1, 5)),
)


def _of_parts() -> dict[str, tuple[Kind, Strike]]:
    found: dict[str, tuple[Kind, Strike]] = {}
    for one in _PARTS:
        stopped = (0.2, 0.8) if one.name == "redis master" else one.seconds  # longer, it is another kind
        for how, strike, seconds, weight in (
            ("kill -9", _kill, one.seconds, one.kills),
            ("SIGSTOP", _stop, stopped, 1),
            ("SIGTERM", _terminate, (0.0, 2.0), 1),
        ):
            name = f"{how} {one.name}"
            found[name] = (Kind(name, one.victims, seconds, weight), strike)
    return found


def _of_all() -> dict[str, tuple[Kind, Strike]]:
    groups, brokers = ("consumers", "readers", "services"), (*_KAFKA, "all brokers")
    others: Sequence[tuple[Kind, Strike]] = (
        (Kind(STALE_MASTER, ("redis master",), (1.5, 6), 3), _stop_master_until_replaced),
        (Kind("crash of everything", ("everything",), (0, 2)), _crash),
        (Kind("slow services", ("services",), (3, 7)), _slow),
        (Kind("slow everything", ("everything",), (3, 7)), _slow),
        (Kind("black hole to redis", groups, (1, 6)), _black_hole),
        (Kind("delay to redis", groups, (3, 7)), _delay),
        (Kind("throttle to redis", groups, (3, 7)), _throttle),
        (Kind("resets to redis", groups, (0, 1)), _reset),
        (Kind("black hole to kafka", brokers, (1, 6)), _black_hole),
        (Kind("delay to kafka", brokers, (3, 7)), _delay),
        (Kind("throttle to kafka", brokers, (3, 7)), _throttle),
        (Kind("resets to kafka", brokers, (0, 1)), _reset),
        (Kind("full disk redis", ("redis",), (3, 7)), _fill_disk),
        (Kind("full disk broker", _KAFKA, (3, 7)), _fill_disk),
        (Kind("wrong clock broker", _KAFKA, (3, 7)), _set_clock),
    )
    return _of_parts() | {kind.name: (kind, strike) for kind, strike in others}


KINDS: Final = _of_all()
"""name -> the kind, and how it strikes."""
