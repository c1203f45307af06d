"""Metrics of one thread show what prometheus-client's own would."""

from flowagg.loop_metrics import LoopCounter, LoopHistogram
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

BUCKETS = (0.5, 1, 2.5)


def shown(registry: CollectorRegistry) -> list[str]:
    """Lines, without when the metric was made."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0, 2.5, 2.6, 100.0])))
def test_a_histogram_shows_the_same(amounts: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    one = LoopHistogram("seconds", "Of it.", buckets=BUCKETS, registry=ours)
    other = Histogram("seconds", "Of it.", buckets=BUCKETS, registry=theirs)
    for amount in amounts:
        one.observe(amount)
        other.observe(amount)
        assert shown(ours) == shown(theirs)


@given(st.lists(st.tuples(st.sampled_from(["200", "503"]), st.integers(0, 5))))
def test_a_counter_with_labels_shows_the_same(counts: list[tuple[str, int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    one, other = (
        LoopCounter("posts", "Of it.", ["status"], registry=ours),
        Counter("posts", "Of it.", ["status"], registry=theirs),
    )
    for status, count in counts:
        one.labels(status).inc(count)
        other.labels(status).inc(count)
        assert shown(ours) == shown(theirs)


def test_a_counter_counts_by_one() -> None:
    registry = CollectorRegistry()
    counter = LoopCounter("flows", "Of it.", registry=registry)
    counter.inc()
    counter.inc(2)
    assert registry.get_sample_value("flows_total") == 3
