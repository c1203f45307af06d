"""Which moments are calm, and what answers took in them."""

from tests.e2e.traffic import Attempt
from tests.soak.calm import Calm
from tests.soak.latencies import LEAST_ANSWERS, Latencies


def attempt(started: float, seconds: float = 0.01, outcome: int | str = 200) -> Attempt:
    return Attempt("POST", 1, 1, started, started + seconds, outcome)


def test_calm_is_what_no_fault_touches() -> None:
    calm = Calm()
    assert calm.between(0, 100)
    calm.ends(10)
    assert calm.between(0, 9)
    assert not calm.between(0, 10)
    assert not calm.between(50, 60)
    calm.begins(20)
    calm.ends(30)
    calm.begins(35)
    assert calm.between(21, 29)
    assert calm.between(36, 37)
    for since, until in ((5, 12), (12, 15), (15, 25), (0, 100), (29, 36), (33, 34)):
        assert not calm.between(since, until), (since, until)


def test_answers_are_counted_by_slices_of_calm() -> None:
    calm = Calm([(10.0, 20.0)])
    latencies = Latencies(calm, slice_seconds=10)
    latencies.take([attempt(number / 100, 0.001 + number / 1_000_000) for number in range(1000)])
    latencies.take([attempt(15, 3.0), attempt(9.9, 0.5), attempt(19, 2.0)])
    latencies.take([attempt(25, 0.5, outcome=503), attempt(26, 0.5, outcome="ReadTimeout"), attempt(14, outcome=503)])
    assert latencies.slices["POST"] == []  # answers to what was asked then may still come
    latencies.take([attempt(20.5 + number / 200, 0.1) for number in range(LEAST_ANSWERS)])
    first = latencies.slices["POST"][0]
    assert (first.at, first.answers) == (5.0, 1000)
    assert (round(first.p50, 2), round(first.p99, 2)) == (1.5, 1.99)
    latencies.take([attempt(31)], to_the_end=True)
    assert [(one.at, one.answers) for one in latencies.slices["POST"]] == [(5.0, 1000), (25.0, LEAST_ANSWERS)]
    assert [(one.started, one.outcome) for one in latencies.failed] == [(25, 503), (26, "ReadTimeout")]
    assert (latencies.failures, latencies.tries) == (2, 1000 + 2 + LEAST_ANSWERS + 1)
