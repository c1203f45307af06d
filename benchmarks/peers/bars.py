"""What must hold, beside what was found."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """A bound on a figure. value: what was found. at_least: the bound is the least that will do, else the most."""

    name: str
    value: float
    bound: float
    at_least: bool

    @property
    def holds(self) -> bool:
        """Whether it holds; a figure that is no number holds nothing."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def text(self) -> str:
        """One line."""
        sign = ">=" if self.at_least else "<="
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        return f"{self.name:76} {self.value:>10,.2f}  {sign} {self.bound:<8,g} {verdict}"


def summary(bars: Sequence[Bar]) -> str:
    """One line that says which bars hold."""
    if not bars:
        return "no bar was measured"
    failed = [bar.name for bar in bars if not bar.holds]
    return f"bars that do not hold: {'; '.join(failed)}" if failed else f"all {len(bars)} bars hold"
