"""The series that alerts and dashboards ask for beside those of docs/reference/metrics.md are in the code."""

import importlib
from collections.abc import Iterator

import pytest
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from tests.chart.monitoring.files import SHARED

_MODULES = ("flowagg.election_thread", "flowagg.http_guard", "flowagg_operator.metrics")
_OF_OTHERS = {"process_cpu_seconds_total", "process_resident_memory_bytes", "up", "ALERTS"}


def _series() -> Iterator[tuple[str, frozenset[str]]]:
    for module in _MODULES:
        for metric in vars(importlib.import_module(module)).values():
            if isinstance(metric, MetricWrapperBase):
                (described,) = metric.describe()
                labels = frozenset(metric._labelnames)
                if isinstance(metric, Histogram):
                    yield f"{described.name}_bucket", labels | {"le"}
                else:
                    yield described.name + ("_total" if isinstance(metric, Counter) else ""), labels


SERIES = dict(_series())


@pytest.mark.parametrize("name", sorted(SHARED.keys() - _OF_OTHERS))
def test_a_series_that_is_asked_for_is_in_the_code_with_its_labels(name: str) -> None:
    assert name in SERIES, f"neither {' nor '.join(_MODULES)} has {name}"
    assert SHARED[name] <= SERIES[name]
