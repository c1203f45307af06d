"""What is posted is what is read: the example, freshness, order, all or nothing."""

import subprocess
from pathlib import Path

import httpx
import pytest

from tests.contract.flows import FIELDS, MAX, array, assert_problem, flow, new_hour, post, rows


def test_the_example_of_the_contract(client: httpx.Client, hour: int) -> None:
    later = new_hour()
    post(
        client,
        flow(hour, tx=100, rx=300),
        flow(hour, tx=200, rx=600),
        flow(hour, "baz", "qux", tx=100, rx=500),
        flow(later, "baz", "qux", tx=100, rx=500),
        flow(later, "baz", "qux", "vpc-1", tx=100, rx=500),
    )
    assert rows(client, hour) == [flow(hour, "baz", "qux", tx=100, rx=500), flow(hour, tx=300, rx=900)]
    assert rows(client, later) == [
        flow(later, "baz", "qux", tx=100, rx=500),
        flow(later, "baz", "qux", "vpc-1", tx=100, rx=500),
    ]
    assert rows(client, new_hour()) == []


def test_curl_tests_hold(base_url: str) -> None:
    script = Path(__file__).parents[2] / "examples" / "curl_tests.sh"
    done = subprocess.run([script, base_url], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all hold\n")


def test_a_get_reflects_every_post_acknowledged_before_it(client: httpx.Client, hour: int) -> None:
    for number in range(1, 51):
        post(client, flow(hour))
        assert rows(client, hour) == [flow(hour, tx=number, rx=2 * number)]


def test_after_waits_for_one_post(client: httpx.Client, hour: int) -> None:
    position = post(client, flow(hour))
    reply = client.get("/flows", params={"hour": hour, "after": position})
    assert (reply.status_code, reply.json()) == (200, [flow(hour)])
    assert reply.headers["flowagg-fresh"] == "true"


def test_strict_answers_when_fresh_and_eventual_never_says_fresh(client: httpx.Client, hour: int) -> None:
    post(client, flow(hour))
    strict = client.get("/flows", params={"hour": hour, "consistency": "strict"})
    assert (strict.status_code, strict.json()) == (200, [flow(hour)])
    eventual = client.get("/flows", params={"hour": hour, "consistency": "eventual"})
    assert (eventual.status_code, eventual.headers["flowagg-fresh"]) == (200, "false")
    assert eventual.json() == [flow(hour)]


def test_rows_are_sorted_by_code_point(client: httpx.Client, hour: int) -> None:
    keys = [(a, b, c) for a in ("b", "a", "é", "Z", "\U0001f600", "\uffff") for b in ("y", "x") for c in ("2", "10")]
    post(client, *(flow(hour, *key) for key in keys))
    assert [(row["src_app"], row["dest_app"], row["vpc_id"]) for row in rows(client, hour)] == sorted(keys)


def test_a_row_has_the_six_fields_in_order(client: httpx.Client, hour: int) -> None:
    post(client, flow(hour))
    assert [list(row) for row in rows(client, hour)] == [list(FIELDS)]


@pytest.mark.parametrize("field", ["src_app", "dest_app", "vpc_id"])
def test_flow_keys_that_differ_in_one_name_stay_apart(client: httpx.Client, hour: int, field: str) -> None:
    flows = [flow(hour) | {field: name} for name in ("a", "a ", "A", "á", "a\u0301", "aa")]
    post(client, *flows, *flows)
    expected = [one | {"bytes_tx": 2, "bytes_rx": 4} for one in flows]
    assert rows(client, hour) == sorted(expected, key=lambda row: str(row[field]))


def test_names_do_not_run_together(client: httpx.Client, hour: int) -> None:
    names = [("a", "bc", "d"), ("ab", "c", "d"), ("a", "b", "cd"), ('a","b', "c", "d"), ("a", 'b","c', "d")]
    post(client, *(flow(hour, *key, tx=number) for number, key in enumerate(names)))
    assert rows(client, hour) == [
        flow(hour, *key, tx=number) for key, number in sorted(zip(names, range(5), strict=True))
    ]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_flow_refuses_the_batch_and_its_index_is_named(client: httpx.Client, hour: int, place: int) -> None:
    flows = [flow(hour), flow(hour), flow(hour)]
    flows[place] |= {"bytes_tx": -1}
    problem = assert_problem(client.post("/flows", json=flows), 400)
    assert (problem["title"], problem["index"], problem["field"]) == ("Bad Request", place, "bytes_tx")
    assert problem["rule"]
    assert rows(client, hour) == []


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(client: httpx.Client, hour: int, field: str) -> None:
    broken = {name: value for name, value in flow(hour).items() if name != field}
    problem = assert_problem(client.post("/flows", json=[broken]), 400)
    assert (problem["index"], problem["field"], problem["rule"]) == (0, field, "is missing")


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_in_another_case_is_missing(client: httpx.Client, hour: int, field: str) -> None:
    broken = {name.title() if name == field else name: value for name, value in flow(hour).items()}
    assert assert_problem(client.post("/flows", json=[broken]), 400)["field"] == field


def test_an_empty_array_is_accepted(client: httpx.Client) -> None:
    post(client)


@pytest.mark.parametrize("extra", [None, 1.5, "x", True, [], {"version": [1, {"a": None}]}, 10**30], ids=repr)
def test_an_extra_field_is_ignored(client: httpx.Client, hour: int, extra: object) -> None:
    post(client, flow(hour) | {"agent": extra, "Hour": extra, "": extra})
    assert rows(client, hour) == [flow(hour)]


def test_the_last_of_a_field_given_twice_counts(client: httpx.Client, hour: int) -> None:
    twice = array(flow(hour, tx=5)).replace(b'"bytes_tx": 5', b'"bytes_tx": 9, "bytes_tx": 7')
    reply = client.post("/flows", content=twice, headers={"Content-Type": "application/json"})
    assert reply.status_code == 200, reply.text
    assert rows(client, hour) == [flow(hour, tx=7)]


def test_the_order_of_fields_does_not_matter(client: httpx.Client, hour: int) -> None:
    post(client, dict(reversed(flow(hour).items())))
    assert rows(client, hour) == [flow(hour)]


def test_the_largest_hour_is_an_hour(client: httpx.Client) -> None:
    name = f"only-{new_hour()}"
    post(client, flow(MAX, src=name))
    assert [row for row in rows(client, MAX) if row["src_app"] == name] == [flow(MAX, src=name)]
