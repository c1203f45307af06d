"""Numbers: whole, 0 to 2^53-1, written in digits alone; totals are exact at any size."""

import httpx
import pytest

from tests.contract.flows import JSON, MAX, NDJSON, assert_problem, flow, post, rows, with_literal

COUNTS = ["bytes_tx", "bytes_rx"]
NUMBERS = ["hour", *COUNTS]

BAD = [
    "9007199254740992", "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616",
    "1" + "0" * 400, "-1", "-9223372036854775809", "1.0", "1.5", "0.0", "-0.0", "1e3", "1E3", "1e0", "0e0", "1e-1",
    "1e400", '"1"', '""', "true", "false", "null", "NaN", "Infinity", "-Infinity", "01", "00", "-01", "+1", ".5", "1.",
    "1e", "0x10", "0b1", "1_000", "1,5", "--1", "-", "[1]", "{}", "１",
]  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2**31 - 1, 2**31, 2**32, 2**52, MAX - 1, MAX])
@pytest.mark.parametrize("field", COUNTS)
def test_a_count_of_bytes_comes_back_exactly(client: httpx.Client, hour: int, field: str, count: int) -> None:
    post(client, flow(hour) | {field: count})
    assert rows(client, hour) == [flow(hour) | {field: count}]


@pytest.mark.parametrize("bound", [0, 1, 2**31, 2**32, MAX - 1, MAX])
def test_an_hour_at_the_bounds_is_an_hour(client: httpx.Client, hour: int, bound: int) -> None:
    name = f"only-{hour}"
    post(client, flow(bound, vpc=name))
    assert [row for row in rows(client, bound) if row["vpc_id"] == name] == [flow(bound, vpc=name)]


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("literal", BAD, ids=lambda literal: literal[:24])
def test_a_bad_number_is_refused(client: httpx.Client, hour: int, field: str, literal: str) -> None:
    raw = with_literal(flow(hour), field, literal)
    assert_problem(client.post("/flows", content=b"[" + raw + b"]", headers=JSON), 400)
    assert_problem(client.post("/flows", content=raw, headers=NDJSON), 400)
    if field != "hour":
        assert rows(client, hour) == []


@pytest.mark.parametrize(
    ("field", "number"),
    [("hour", -1), ("hour", MAX + 1), ("hour", "1"), ("bytes_tx", 1.5), ("bytes_tx", True), ("bytes_rx", None),
     ("bytes_rx", 2**64), ("bytes_rx", [])],
)  # fmt: skip
def test_the_field_of_a_bad_number_is_named(client: httpx.Client, hour: int, field: str, number: object) -> None:
    reply = client.post("/flows", json=[flow(hour), flow(hour) | {field: number}, flow(hour)])
    problem = assert_problem(reply, 400)
    assert (problem["index"], problem["field"]) == (1, field)
    assert problem["rule"]
    assert rows(client, hour) == []


def test_minus_zero_is_zero(client: httpx.Client, hour: int) -> None:
    raw = b"[" + with_literal(flow(hour), "bytes_tx", "-0") + b"]"
    assert client.post("/flows", content=raw, headers=JSON).status_code == 200
    assert rows(client, hour) == [flow(hour, tx=0)]


@pytest.mark.parametrize(("times", "past"), [(2, 2**53), (1025, 2**63), (2049, 2**64)])
def test_totals_are_exact_past(client: httpx.Client, hour: int, times: int, past: int) -> None:
    post(client, *([flow(hour, tx=MAX, rx=MAX - 1)] * times))
    tx, rx = times * MAX, times * (MAX - 1)
    assert min(tx, rx) > past
    assert rows(client, hour) == [flow(hour, tx=tx, rx=rx)]
    text = client.get("/flows", params={"hour": hour}).text
    assert f'"bytes_tx":{tx},"bytes_rx":{rx}' in text.replace(" ", "")


def test_a_total_past_2_to_the_63_goes_on_by_ones(client: httpx.Client, hour: int) -> None:
    post(client, *([flow(hour, tx=MAX, rx=0)] * 1025))
    for number in range(1, 4):
        post(client, flow(hour, tx=1, rx=1))
        assert rows(client, hour) == [flow(hour, tx=1025 * MAX + number, rx=number)]
