"""What the tests measure with: gaps, failures, and patches that are undone. Needs no cluster."""

from typing import Any

import pytest

from tests.e2e.release import inverse, merged
from tests.e2e.target import container_id
from tests.e2e.traffic import Attempt, Record


def record(*tries: tuple[int, float, float, int | str]) -> Record:
    """Tries of POSTs as (request, started, ended, outcome)."""
    return Record([Attempt("POST", request, 1, started, ended, outcome) for request, started, ended, outcome in tries])


STEADY = ((1, 0.0, 0.1, 200), (2, 1.0, 1.1, 200), (3, 2.0, 2.1, 200), (4, 3.0, 3.1, 200))
GAPS: dict[str, tuple[tuple[tuple[int, float, float, int | str], ...], float]] = {
    "steady answers": (STEADY, 1.0),
    "a failure in between": ((*STEADY[:2], (3, 2.0, 2.1, 503), STEADY[3]), 2.0),
    "an answer that comes late": ((*STEADY[:2], (3, 2.0, 2.9, 200), (4, 3.0, 3.9, 200)), 1.8),
    "silence at the end": (STEADY[:2], 2.9),
    "a request from before the fault does not count": (((1, -0.5, 0.6, 200), (2, 1.0, 1.1, 200), *STEADY[2:]), 1.1),
    "no answer at all": ((), 4.0),
}


@pytest.mark.parametrize("name", GAPS)
def test_the_longest_time_without_a_200(name: str) -> None:
    tries, gap = GAPS[name]
    assert record(*tries).gap("POST", 0.0, 4.0) == pytest.approx(gap)


def test_gets_do_not_fill_the_gaps_of_posts() -> None:
    gets = [Attempt("GET", 9, 1, 0.5 * number, 0.5 * number + 0.1, 200) for number in range(8)]
    assert Record([*record(*STEADY[:1]).attempts, *gets]).gap("POST", 0.0, 4.0) == pytest.approx(3.9)


def test_the_first_answer_after_a_fault_is_of_a_request_after_it() -> None:
    assert record((1, 0.9, 1.2, 200), (2, 1.1, 1.5, 503), (3, 1.3, 1.7, 200)).next_ok("POST", 1.0) == pytest.approx(0.7)
    assert record((1, 0.9, 1.2, 200)).next_ok("POST", 1.0) is None


def test_two_failures_of_a_request_are_not_cured_by_one_retry() -> None:
    tries = ((1, 0.0, 0.1, 503), (1, 0.2, 0.3, 200), (2, 0.0, 0.1, 503), (2, 0.2, 0.3, "ReadError"), (2, 0.4, 0.5, 200))
    assert record(*tries).uncured() == [2]


@pytest.mark.parametrize(
    ("patch", "undo"),
    [
        ({"a": 2}, {"a": 1}),
        ({"new": [1]}, {"new": None}),
        ({"b": {"c": 3}}, {"b": {"c": 2}}),
        ({"b": {"d": 3}}, {"b": {"d": None}}),
        ({"b": None}, {"b": {"c": 2}}),
    ],
)
def test_a_patch_is_undone(patch: dict[str, Any], undo: dict[str, Any]) -> None:
    assert inverse({"a": 1, "b": {"c": 2}}, patch) == undo


def test_values_are_laid_over_member_by_member() -> None:
    base = {"a": {"b": 1, "c": [1]}, "d": 1}
    assert merged(base, {"a": {"c": [2]}, "e": 3}) == {"a": {"b": 1, "c": [2]}, "d": 1, "e": 3}
    assert base == {"a": {"b": 1, "c": [1]}, "d": 1}


def test_only_a_runtimes_id_is_a_containers_id() -> None:
    assert container_id("containerd://0123456789abcdef0123") == "0123456789abcdef0123"
    with pytest.raises(ValueError, match="names no container"):
        container_id("")
