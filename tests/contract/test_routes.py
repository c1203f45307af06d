"""Paths and methods."""

import re

import httpx
import pytest
from flowagg_stack.services import Service

from tests.contract.flows import JSON, accepted, array, assert_problem, flow, rows
from tests.contract.wire import Connection, request

JSON_LINE = ["Content-Type: application/json"]


def _allowed(reply: httpx.Response) -> set[str]:
    return {method.strip() for method in reply.headers["allow"].split(",")}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_another_method_on_flows(client: httpx.Client, method: str) -> None:
    reply = client.request(method, "/flows")
    assert_problem(reply, 405)
    assert _allowed(reply) >= {"GET", "HEAD", "POST"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_another_method_on_the_writers_flows(writer_url: str, method: str) -> None:
    reply = httpx.request(method, f"{writer_url}/flows")
    assert (reply.status_code, _allowed(reply)) == (405, {"POST"})
    if method != "HEAD":
        assert_problem(reply, 405)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_another_method_on_the_readers_flows(reader_url: str, method: str) -> None:
    reply = httpx.request(method, f"{reader_url}/flows", params={"hour": 1})
    assert_problem(reply, 405)
    assert _allowed(reply) == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_operational_paths_are_for_get_and_head(service: Service, path: str) -> None:
    url = service.url + path
    get, head = httpx.get(url), httpx.head(url)
    assert (get.status_code, head.status_code, head.content) == (200, 200, b"")
    assert get.content
    assert head.headers["content-type"] == get.headers["content-type"]
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        reply = httpx.request(method, url)
        assert_problem(reply, 405)
        assert _allowed(reply) == {"GET", "HEAD"}


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/flow", "/nothing", "/flows/1", "/flows/", "//flows", "/Flows", "/FLOWS", "/flows;a=1"]
)
def test_another_path(base_url: str, path: str, method: str) -> None:
    reply = httpx.request(method, base_url + path, headers=JSON, content=b"[]" if method == "POST" else b"")
    assert_problem(reply, 404)


@pytest.mark.parametrize(
    "path",
    ["/", "/flow", "/flows/", "//flows", "/flows%2f", "/flows%2F", "/%2fflows", "/flows%00", "/flows%0A", "/./flows",
     "/../flows", "/x/../flows", "/flows/..", "/flows;x=1", "/*", "/livez/"],
)  # fmt: skip
def test_another_path_of_a_service(service: Service, path: str) -> None:
    with Connection(service.url) as connection:
        for sent in (request("POST", path, JSON_LINE, b"[]"), request("GET", path)):
            assert_problem(connection.ask(sent), 404)


@pytest.mark.parametrize("query", ["x=1", "hour=1", "x", "=", "%ff"])
def test_a_post_has_no_query(client: httpx.Client, hour: int, query: str) -> None:
    reply = client.post(f"/flows?{query}", content=array(flow(hour)), headers=JSON)
    assert_problem(reply, 400)
    assert rows(client, hour) == []


def test_an_empty_query_of_a_post_is_no_query(writer_url: str) -> None:
    with Connection(writer_url) as connection:
        accepted(connection.ask(request("POST", "/flows?", JSON_LINE, b"[]")), 0)


@pytest.mark.parametrize("method", ["BREW", "post", "Post", "FLOWS", "POSTS", "M-SEARCH", "PRI"])
def test_an_unknown_method(service: Service, method: str) -> None:
    with Connection(service.url) as connection:
        assert_problem(connection.ask(request(method, "/flows", JSON_LINE, b"[]")), 400, 405, 501)


def test_the_api_is_described(client: httpx.Client) -> None:
    reply = client.get("/openapi.json")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    description = reply.json()
    assert description["openapi"].startswith("3.")
    assert {"get", "post"} <= description["paths"]["/flows"].keys()


def test_there_is_a_page_to_look_at_flows(client: httpx.Client) -> None:
    reply = client.get("/ui", follow_redirects=True)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert reply.url.path.endswith("/ui/")
    files = re.findall(r'(?:src|href)="([a-z]+\.[a-z]+)"', reply.text)
    assert files
    for name in files:
        assert client.get(f"/ui/{name}").status_code == 200


def test_the_api_has_a_page(client: httpx.Client) -> None:
    reply = client.get("/docs")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/html")
