"""Totals that were found, compared with the true ones."""

from collections.abc import Mapping
from dataclasses import dataclass

from flowagg.flow import FlowKey

Totals = Mapping[FlowKey, tuple[int, int]]
"""(bytes_tx, bytes_rx) by flow key"""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far totals are off. short, over: sums of bytes_rx that are missing and that are too many.

    wrong_keys: flow keys whose totals are not the true ones. In a log whose flows have one byte received each,
    short and over are flows that were lost and flows that were counted twice.
    """

    wrong_keys: int
    short: int
    over: int

    @property
    def exact(self) -> bool:
        """Whether every total is the true one."""
        return self.wrong_keys == 0

    @property
    def text(self) -> str:
        """For a table; of a log whose flows have one byte received each."""
        if self.exact:
            return "exact"
        parts = [f"{count:,} {what}" for count, what in ((self.short, "lost"), (self.over, "double")) if count]
        return ", ".join(parts) or f"{self.wrong_keys:,} keys wrong"


def compare(found: Totals, true: Totals) -> Difference:
    """Compare all totals. A flow key that is missing has zeros; one that should not be there is too many."""
    wrong = short = over = 0
    for key in found.keys() | true.keys():
        have, want = found.get(key, (0, 0)), true.get(key, (0, 0))
        # A key that was found with zeros where there is none is wrong as well.
        if have != want or (key in found) != (key in true):
            wrong += 1
        short += max(0, want[1] - have[1])
        over += max(0, have[1] - want[1])
    return Difference(wrong, short, over)
