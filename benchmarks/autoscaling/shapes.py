"""The loads that policies are compared on, as data: the same seed gives the same arrivals to all policies.

Volumes are those of network flow logs: a consumer applies RATE records a second, so the P partitions of a topic hold
P times that. Loads are named by their share of it. Moments are moved by up to a minute by the seed, so that no
policy's pace happens to fit.
"""

import math
import random
from dataclasses import dataclass
from typing import Final

RATE: Final = 20_000.0
"""Records a second that one replica applies."""
HOUR: Final = 3_600
_NOISE: Final = 0.05
_UNEVEN: Final = 0.05

Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A load on a topic, and what goes wrong meanwhile.

    rates: (second, records a second), straight lines between; two points at one second are a step. weights: how the
    arrivals spread over the partitions, evenly where None. dead: (partition, second from which its owner does not
    apply it). sink: (from second, until second, records a second that can be applied by all together). failing: share
    of look-ups that fail; outages: (from, until) in which all do. growth: (second, partitions from then on).
    constant: it counts for the bar of changes. steps: seconds at which the load doubles, for the bar of lag.
    """

    name: str
    seconds: int
    rates: Points
    partitions: int = 6
    weights: tuple[float, ...] | None = None
    dead: tuple[int, int] | None = None
    sink: tuple[int, int, float] | None = None
    commit_seconds: int = 5
    startup_seconds: float = 10.0
    rebalance_seconds: int = 3
    failing: float = 0.0
    outages: tuple[tuple[int, int], ...] = ()
    growth: tuple[int, int] | None = None
    constant: bool = False
    steps: tuple[int, ...] = ()


def shapes(seed: int) -> tuple[Shape, ...]:
    """All of them."""
    rng = random.Random(f"shapes-{seed}")

    def moment(second: int) -> int:
        return second + rng.randrange(60)

    return (
        *(_constant(share) for share in (0.1, 0.3, 0.5, 0.7, 0.9)),
        *(_step(share, moment(HOUR)) for share in (0.15, 0.3, 0.45)),
        _ramp(moment(600)),
        _wave(),
        _bursts("bursts out of silence", 0.0, 0.6, [moment(at) for at in range(600, 2 * HOUR, 1_800)]),
        _bursts("bursts on a base", 0.2, 0.7, [moment(at) for at in range(600, 2 * HOUR, 1_800)]),
        Shape("dead partition", 2 * HOUR, _flat(0.3, 2 * HOUR), dead=(2, moment(1_800))),
        _slow_sink(moment(2_400)),
        *(
            Shape(f"commits each {seconds} s", HOUR, _flat(0.4, HOUR), commit_seconds=seconds, constant=True)
            for seconds in (1, 5, 10, 30)
        ),
        Shape("look-ups fail, 20 %", 2 * HOUR, _hills(), failing=0.2),
        Shape("look-ups fail, 5 min", 2 * HOUR, _hills(), outages=((at := moment(1_700), at + 300),)),
        Shape("slow rebalances, 45 s", 2 * HOUR, _hills(), rebalance_seconds=45),
        _growth(moment(HOUR)),
        Shape("skewed, one has 40 %", 2 * HOUR, _hills(0.1, 0.35), weights=(0.4, *[0.12] * 5)),
        Shape("1 partition", HOUR, _flat(0.6, HOUR, 1), 1, constant=True),
        _step(0.3, moment(HOUR), 12),
        _step(0.3, moment(HOUR), 100),
    )


def arrivals(shape: Shape, seed: int) -> list[float]:
    """Records that arrive in each second, all partitions together, with noise."""
    rng = random.Random(f"arrivals-{shape.name}-{seed}")
    return [_at(shape.rates, second) * (1 + rng.uniform(-_NOISE, _NOISE)) for second in range(shape.seconds)]


def spread(shape: Shape, seed: int, partitions: int) -> list[float]:
    """The share of the arrivals that each partition gets; keys never spread quite evenly."""
    rng = random.Random(f"spread-{shape.name}-{partitions}-{seed}")
    even = shape.weights if shape.weights and len(shape.weights) == partitions else (1.0,) * partitions
    uneven = [weight * (1 + rng.uniform(-_UNEVEN, _UNEVEN)) for weight in even]
    return [weight / sum(uneven) for weight in uneven]


def failures(shape: Shape, seed: int) -> list[bool]:
    """Whether a look-up fails, by second."""
    rng = random.Random(f"failures-{shape.name}-{seed}")
    found = [rng.random() < shape.failing for _ in range(shape.seconds)]
    for start, end in shape.outages:
        found[start:end] = [True] * (end - start)
    return found


def _at(points: Points, second: int) -> float:
    before = points[0]
    for after in points:
        if after[0] > second:
            share = (second - before[0]) / (after[0] - before[0])
            return before[1] + share * (after[1] - before[1])
        before = after
    return before[1]


def _flat(share: float, seconds: int, partitions: int = 6) -> Points:
    rate = share * partitions * RATE
    return ((0, rate), (seconds, rate))


def _constant(share: float) -> Shape:
    return Shape(f"constant {share:g}", 2 * HOUR, _flat(share, 2 * HOUR), constant=True)


def _step(share: float, at: int, partitions: int = 6) -> Shape:
    low, high = share * partitions * RATE, 2 * share * partitions * RATE
    name = f"step {share:g} to {2 * share:g}" + (f", {partitions} partitions" if partitions != 6 else "")
    points = ((0, low), (at, low), (at, high), (2 * HOUR, high))
    return Shape(name, 2 * HOUR, points, partitions, steps=(at,))


def _ramp(at: int) -> Shape:
    low, high = 0.1 * 6 * RATE, 0.85 * 6 * RATE
    points = ((0, low), (at, low), (at + 2_400, high), (at + 3_000, high), (at + 5_400, low), (2 * HOUR, low))
    return Shape("ramp up and down", 2 * HOUR, points)


def _wave() -> Shape:
    day, tenth = 24 * HOUR, 600
    shares = [0.45 - 0.35 * math.cos(2 * math.pi * second / day) for second in range(0, day + 1, tenth)]
    return Shape("day", day, tuple((number * tenth, share * 6 * RATE) for number, share in enumerate(shares)))


def _bursts(name: str, base: float, peak: float, starts: list[int]) -> Shape:
    low, high = base * 6 * RATE, peak * 6 * RATE
    points = [(0, low)]
    for start in starts:
        points += [(start, low), (start, high), (start + 300, high), (start + 300, low)]
    return Shape(name, 2 * HOUR, (*points, (2 * HOUR, low)))


def _hills(low: float = 0.15, high: float = 0.6) -> Points:
    """A load that changes all the time: twice up and down again in two hours."""
    shares = [low, low, high, high, low, low, high, high, low]
    return tuple((number * 900, share * 6 * RATE) for number, share in enumerate(shares))


def _slow_sink(at: int) -> Shape:
    """What all replicas write to takes less than what arrives, for twenty minutes."""
    return Shape("slow sink", 2 * HOUR, _flat(0.4, 2 * HOUR), sink=(at, at + 1_200, 0.3 * 6 * RATE))


def _growth(at: int) -> Shape:
    low, high = 0.4 * 6 * RATE, 0.7 * 12 * RATE
    points = ((0, low), (at - 900, low), (at + 1_500, high), (2 * HOUR, high))
    return Shape("growth, 6 to 12 partitions", 2 * HOUR, points, growth=(at, 12))
