"""GET /flows: its parameters, HEAD, conditional requests."""

import re

import httpx
import pytest

from tests.contract.flows import MAX, array, assert_problem, flow, new_hour, post, rows

GONE = "eyJ0IjoiQSIsInAiOnt9fQ"
"""A position of a topic that does not exist."""

GOOD = [
    "hour=0", "hour=1", f"hour={MAX}", "hour=%31", "%68our=1", "hour=1&&", "&hour=1", "&&hour=1&",
    "hour=1&consistency=fresh", "hour=1&consistency=strict", "consistency=eventual&hour=1",
]  # fmt: skip
BAD = {
    "nothing": "",
    "only an ampersand": "&",
    "no value": "hour",
    "an empty value": "hour=",
    "text": "hour=x",
    "a minus": "hour=-1",
    "minus zero": "hour=-0",
    "a plus": "hour=+1",
    "an encoded plus": "hour=%2B1",
    "a point": "hour=1.0",
    "an exponent": "hour=1e3",
    "a hexadecimal number": "hour=0x1",
    "an underscore": "hour=1_0",
    "a zero before": "hour=01",
    "two zeros": "hour=00",
    "a space after": "hour=1%20",
    "a space before": "hour=%201",
    "a line feed": "hour=1%0A",
    "NUL": "hour=%00",
    "quotes": "hour=%221%22",
    "two values and a gap": "hour=1,,2",
    "a range that ends before it begins": "hour=2-1",
    "past the largest": f"hour={MAX + 1}",
    "5,000 digits": "hour=" + "9" * 5000,
    "a full-width digit": "hour=%EF%BC%91",
    "an Arabic digit": "hour=%D9%A1",
    "no UTF-8": "hour=%ff",
    "half an escape": "hour=%3",
    "twice": "hour=1&hour=2",
    "twice the same": "hour=1&hour=1",
    "in another case": "HOUR=1",
    "an array": "hour[]=1",
    "a semicolon": "hour=1;x=2",
    "an unknown parameter": "hour=1&x=2",
    "an unknown parameter without a value": "hour=1&x",
    "an unknown parameter with an empty name": "hour=1&=2",
    "an unknown parameter that is no UTF-8": "hour=1&%ff=2",
    "an unknown consistency": "hour=1&consistency=x",
    "an empty consistency": "hour=1&consistency=",
    "a consistency in another case": "hour=1&consistency=Fresh",
    "a consistency twice": "hour=1&consistency=fresh&consistency=fresh",
    "an after that is no position": "hour=1&after=x",
    "an empty after": "hour=1&after=",
    "an after that is an empty object": "hour=1&after=e30",
    "an after that is too long": "hour=1&after=" + "A" * 16_385,
    "an after that is no Base64": "hour=1&after=%F0%9F%98%80",
    "an after twice": f"hour=1&after={GONE}&after={GONE}",
    "an after that need not be waited for": f"hour=1&consistency=eventual&after={GONE}",
    "an after without an hour": f"after={GONE}",
    "an empty view": "hour=1&view=",
    "a view in capitals": "hour=1&view=Default",
    "a view with a brace": "hour=1&view=%7Bdefault:0%7D",
    "a view with a line feed": "hour=1&view=default%0A",
    "a view of 64 characters": "hour=1&view=" + "a" * 64,
    "a view twice": "hour=1&view=default&view=default",
    "a view without an hour": "view=default",
}


@pytest.mark.parametrize("query", GOOD)
def test_a_query_is_taken(client: httpx.Client, query: str) -> None:
    reply = client.get(f"/flows?{query}")
    assert reply.status_code == 200, reply.text
    assert isinstance(reply.json(), list)


@pytest.mark.parametrize("query", BAD.values(), ids=BAD.keys())
def test_a_bad_query_is_refused(client: httpx.Client, query: str) -> None:
    assert_problem(client.get(f"/flows?{query}"), 400)


def test_get_without_a_query_is_refused(client: httpx.Client) -> None:
    assert "hour" in assert_problem(client.get("/flows"), 400)["detail"]


def test_the_known_parameters_are_listed_to_who_sends_an_unknown_one(client: httpx.Client) -> None:
    detail = assert_problem(client.get("/flows?hour=1&limits=2"), 400)["detail"]
    assert "limit" in detail
    for known in ("hour", "after", "consistency"):
        assert known in detail


def test_a_position_of_a_topic_that_is_gone(client: httpx.Client) -> None:
    assert_problem(client.get(f"/flows?hour=1&after={GONE}"), 410)


def test_an_hour_without_flows_is_an_empty_array(client: httpx.Client, hour: int) -> None:
    assert client.get("/flows", params={"hour": hour}).text.strip() == "[]"


@pytest.mark.parametrize("headers", [{"Accept": "application/json"}, {"Accept": "*/*"}, {"Range": "bytes=0-1"}])
def test_a_header_that_changes_nothing(client: httpx.Client, hour: int, headers: dict[str, str]) -> None:
    post(client, flow(hour))
    reply = client.get("/flows", params={"hour": hour}, headers=headers)
    assert (reply.status_code, reply.json()) == (200, [flow(hour)])


def test_a_body_of_a_get_is_ignored(client: httpx.Client, hour: int) -> None:
    reply = client.request("GET", "/flows", params={"hour": hour}, content=array(flow(hour)))
    assert (reply.status_code, reply.json()) == (200, [])
    assert rows(client, hour) == []


def test_head_has_the_headers_of_get(client: httpx.Client, hour: int) -> None:
    post(client, flow(hour))
    get, head = (client.request(method, "/flows", params={"hour": hour}) for method in ("GET", "HEAD"))
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "etag", "flowagg-fresh", "flowagg-lag-records"):
        assert head.headers[name] == get.headers[name]
    assert head.headers.get("content-length", f"{len(get.content)}") == f"{len(get.content)}"


def test_head_of_a_bad_query_is_refused(client: httpx.Client) -> None:
    reply = client.head("/flows?hour=x")
    assert (reply.status_code, reply.content) == (400, b"")
    assert reply.headers["content-type"] == "application/problem+json"


def _tag(client: httpx.Client, hour: int) -> str:
    tag = client.get("/flows", params={"hour": hour}).headers["etag"]
    assert re.fullmatch(r'W/"[!\x23-\x7e]+"', tag)
    return tag


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "template",
    ["{}", "*", '"x", {}', '{}, "x"', 'W/"x",{}', '"a,b", {}', "{strong}", '"x", {strong}'],
    ids=["the tag", "any", "last of a list", "first of a list", "a list without spaces", "after a tag with a comma",
         "the strong form", "the strong form in a list"],
)  # fmt: skip
def test_an_unchanged_hour_is_not_sent_again(client: httpx.Client, hour: int, template: str, method: str) -> None:
    post(client, flow(hour))
    tag = _tag(client, hour)
    headers = {"If-None-Match": template.format(tag, strong=tag.removeprefix("W/"))}
    reply = client.request(method, "/flows", params={"hour": hour}, headers=headers)
    assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", tag)
    assert reply.headers["flowagg-fresh"] == "true"


@pytest.mark.parametrize("given", ['W/"x"', '"x"', '"x", "y"', "x", "", '""', "W/", '"*"', "**", '"'])
def test_an_hour_of_another_tag_is_sent(client: httpx.Client, hour: int, given: str) -> None:
    post(client, flow(hour))
    reply = client.get("/flows", params={"hour": hour}, headers={"If-None-Match": given})
    assert (reply.status_code, reply.json()) == (200, [flow(hour)])


def test_a_tag_changes_with_its_hour_alone(client: httpx.Client, hour: int) -> None:
    other = new_hour()
    post(client, flow(hour), flow(other))
    tag, kept = _tag(client, hour), _tag(client, other)
    for number in range(2, 5):
        post(client, flow(hour))
        assert _tag(client, other) == kept
        reply = client.get("/flows", params={"hour": hour}, headers={"If-None-Match": tag})
        assert (reply.status_code, reply.json()) == (200, [flow(hour, tx=number, rx=2 * number)])
        tag = reply.headers["etag"]
    assert client.get("/flows", params={"hour": other}, headers={"If-None-Match": kept}).status_code == 304


def test_a_bad_query_is_refused_before_a_tag_is_looked_at(client: httpx.Client) -> None:
    assert_problem(client.get("/flows?hour=x", headers={"If-None-Match": "*"}), 400)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_view_that_nobody_keeps_is_not_found(client: httpx.Client, method: str) -> None:
    reply = client.request(method, "/flows", params={"hour": 1, "view": "nobody-keeps-this"})
    assert reply.status_code == 404
    assert reply.headers["flowagg-fresh"] == "false"
    if method == "GET":
        assert "view" in assert_problem(reply, 404)["detail"]
