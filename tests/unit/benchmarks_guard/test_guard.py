"""The guard of the hot loops tells one that got slower."""

import time

import pytest
from flowagg_load.generator import Shape, flows

from benchmarks import guard
from benchmarks.guard import Loop, consumer, parcels, reader, within, writer


def busy(milliseconds: float) -> None:
    end = time.process_time() + milliseconds / 1000
    while time.process_time() < end:
        pass


def test_a_loop_that_takes_more_than_its_band_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "REFERENCE", {"slow": 2.0, "as before": 4.0})
    for name, expected in (("slow", False), ("as before", True)):
        assert within(Loop(name, lambda: busy(2), lambda: busy(10)), 5, 1000) is expected


def test_the_loops_do_their_work() -> None:
    source = flows(Shape(keys=500, hours=3), seed=1)
    sample = [next(source) for _ in range(12_000)]
    for loop in (*consumer(sample), parcels(sample), writer(sample), writer(sample, "key")):
        assert loop.bare()
        assert loop.hot()
    assert parcels(sample).hot() == len(sample)
    for rendered in reader(sample):
        assert rendered.bare()
        bodies = rendered.hot()
        assert isinstance(bodies, list)
        assert bodies[0].rows == len({(f.src_app, f.dest_app, f.vpc_id) for f in sample})
