"""What a number of consumers can apply: a group spreads partitions by their count. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate


def share(partitions: int, replicas: int) -> int:
    """Partitions that the busiest of so many consumers has."""
    return -(-partitions // max(1, replicas))


def useful_counts(partitions: int) -> list[int]:
    """Numbers of consumers, ascending, of which each gives the busiest one fewer partitions than the one before."""
    return sorted({share(partitions, of_each) for of_each in range(1, partitions + 1)})


def useful_above(partitions: int, replicas: int, at_least: int = 0) -> int:
    """The smallest useful count above replicas that is at least so large; partitions where there is none."""
    wanted = max(replicas + 1, at_least)
    return next((count for count in useful_counts(partitions) if count >= wanted), partitions)


def useful_below(partitions: int, replicas: int) -> int:
    """The largest count below replicas that is useful; 1 where there is none."""
    return max((count for count in useful_counts(partitions) if count < replicas), default=1)


def needed(loads: Sequence[float], rate: float) -> int | None:
    """The smallest useful count with which no consumer has more than it can apply, however partitions are spread.

    loads: of each partition, records a second; rate: what one consumer applies, records a second. None: not even one
    consumer a partition is enough.
    """
    heaviest = [0.0, *accumulate(sorted(loads, reverse=True))]
    for count in useful_counts(len(loads)):
        if heaviest[share(len(loads), count)] <= rate:
            return count
    return None


def busiest(rates: Mapping[int, float], replicas: int, owners: Mapping[int, str] | None) -> float:
    """Records a second that arrive for the busiest consumer: by who owns what, else as spread at worst."""
    if owners is not None and rates.keys() <= owners.keys():
        return max(totals((owners[partition], rate) for partition, rate in rates.items()).values(), default=0.0)
    return sum(sorted(rates.values(), reverse=True)[: share(len(rates), replicas)])


def totals(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The sum of each name's numbers."""
    found: dict[str, float] = {}
    for name, number in pairs:
        found[name] = found.get(name, 0.0) + number
    return found
