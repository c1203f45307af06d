"""What strikes when: drawn from a seed alone, so that a run is told again from its seed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

_PAUSE_SECONDS: Final = (1.0, 3.0)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    victims: whom it may strike, one of them each time. seconds: shortest and longest time until it is healed.
    weight: how often it stands in the deck.
    """

    name: str
    victims: tuple[str, ...]
    seconds: tuple[float, float]
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Fault:
    """One strike. seconds: until it is healed. pause_seconds: from when all is well again to the next one.

    force: how strong it is, from 0 to 1, where a kind has a strength.
    """

    number: int
    kind: str
    victim: str
    seconds: float
    pause_seconds: float
    force: float

    def __str__(self) -> str:
        return f"{self.kind} ({self.victim}) for {self.seconds:.1f} s"


def draw(seed: int, count: int, kinds: Sequence[Kind]) -> list[Fault]:
    """The faults of a run, in order. A shorter run of the seed is the beginning of a longer one.

    Kinds come as cards from a shuffled deck, so that each one has come after as many faults as the deck has cards.
    """
    return list(islice(_faults(random.Random(seed), kinds), count))


def cards(kinds: Sequence[Kind]) -> int:
    """How many faults have every kind among them."""
    return sum(kind.weight for kind in kinds)


def _faults(rng: random.Random, kinds: Sequence[Kind]) -> Iterator[Fault]:
    number = 0
    while True:
        deck = [kind for kind in kinds for _ in range(kind.weight)]
        rng.shuffle(deck)
        for kind in deck:
            number += 1
            victim, seconds = rng.choice(kind.victims), rng.uniform(*kind.seconds)
            yield Fault(number, kind.name, victim, seconds, rng.uniform(*_PAUSE_SECONDS), rng.random())
