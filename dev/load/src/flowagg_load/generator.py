"""Seeded flows and the ledger of their true totals: the oracle of tests and benchmarks."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from flowagg.flow import Flow, FlowKey


@dataclass(slots=True)
class Ledger:
    """True totals per flow key, kept apart from everything that is tested."""

    totals: dict[FlowKey, tuple[int, int]] = field(default_factory=dict)
    flows: int = 0

    def add(self, flow: Flow) -> None:
        """Count one acknowledged flow."""
        key = (flow.src_app, flow.dest_app, flow.vpc_id, flow.hour)
        bytes_tx, bytes_rx = self.totals.get(key, (0, 0))
        self.totals[key] = (bytes_tx + flow.bytes_tx, bytes_rx + flow.bytes_rx)
        self.flows += 1

    def rows(self, hour: int) -> list[dict[str, object]]:
        """What GET /flows?hour= must answer."""
        return [
            {
                "src_app": key[0],
                "dest_app": key[1],
                "vpc_id": key[2],
                "hour": key[3],
                "bytes_tx": bytes_tx,
                "bytes_rx": bytes_rx,
            }
            for key, (bytes_tx, bytes_rx) in sorted(self.totals.items())
            if key[3] == hour
        ]

    def hours(self) -> list[int]:
        """All hours with a flow, ascending."""
        return sorted({key[3] for key in self.totals})


@dataclass(frozen=True, slots=True)
class Shape:
    """keys: number of flow keys. hours: number of hours that they are spread over. zipf: exponent of
    their popularity; 0 for uniform."""

    keys: int = 1000
    hours: int = 24
    zipf: float = 0.0


def flows(shape: Shape, seed: int) -> Iterator[Flow]:
    """An endless, repeatable stream of flows."""
    rng = random.Random(seed)  # noqa: S311 - repeatable on purpose
    weights = [1 / (rank + 1) ** shape.zipf for rank in range(shape.keys)] if shape.zipf else None
    while True:
        for key in rng.choices(range(shape.keys), weights, k=10_000):
            yield Flow(
                src_app=f"app-{key % 1000}",
                dest_app=f"app-{key // 1000}",
                vpc_id=f"vpc-{key % 7}",
                hour=key % shape.hours,
                bytes_tx=rng.randrange(1_000_000),
                bytes_rx=rng.randrange(1_000_000),
            )
