"""X-Request-Id: a sane one comes back, else a new one; each answer has one."""

import re
import string

import httpx
import pytest
from flowagg_stack.services import Service

from tests.contract.flows import GZIP, JSON, NDJSON
from tests.contract.wire import Connection, Reply, head, request

NAME = "X-Request-Id"
SANE = re.compile(r"[A-Za-z0-9._-]{1,128}")


def the_id(reply: httpx.Response | Reply) -> str:
    """The reply's one request id."""
    ids = reply.headers.get_list(NAME)
    assert len(ids) == 1
    assert SANE.fullmatch(ids[0])
    return ids[0]


@pytest.mark.parametrize(
    "given",
    ["a", "0", "-", ".", "_", "abc-1.2_3", "1" * 128, string.ascii_letters, "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"],
)
def test_a_sane_id_comes_back(client: httpx.Client, given: str) -> None:
    assert the_id(client.get("/flows", params={"hour": 1}, headers={NAME: given})) == given
    assert the_id(client.post("/flows", content=b"[]", headers=JSON | {NAME: given})) == given


@pytest.mark.parametrize(
    "given",
    ["", "a" * 129, "a b", "a,b", "a/b", "a:b", "<b>", '"a"', "{}", "a\tb", "é".encode(), b"\xff", "a\\n"],
    ids=repr,
)
def test_an_id_that_is_not_sane_is_replaced(client: httpx.Client, given: str | bytes) -> None:
    headers = [(NAME.encode(), given if isinstance(given, bytes) else given.encode())]
    assert the_id(client.get("/flows", params={"hour": 1}, headers=headers)) != given
    media = [(name.encode(), value.encode()) for name, value in JSON.items()]
    assert the_id(client.post("/flows", content=b"[]", headers=headers + media)) != given


def test_no_two_new_ids_are_the_same(client: httpx.Client) -> None:
    ids = [the_id(client.get("/flows", params={"hour": 1})) for _ in range(20)]
    ids += [the_id(client.post("/flows", content=b"[]", headers=JSON)) for _ in range(20)]
    assert len(set(ids)) == 40


ANSWERS = [
    (200, "GET", "/flows?hour=1", {}, b""),
    (200, "HEAD", "/flows?hour=1", {}, b""),
    (304, "GET", "/flows?hour=1", {"If-None-Match": "*"}, b""),
    (400, "GET", "/flows?hour=x", {}, b""),
    (400, "HEAD", "/flows", {}, b""),
    (410, "GET", "/flows?hour=1&after=eyJ0IjoiQSIsInAiOnt9fQ", {}, b""),
    (404, "GET", "/nothing", {}, b""),
    (405, "DELETE", "/flows", {}, b""),
    (200, "POST", "/flows", JSON, b"[]"),
    (200, "POST", "/flows", NDJSON, b""),
    (400, "POST", "/flows", JSON, b"[1]"),
    (400, "POST", "/flows", JSON | GZIP, b"[]"),
    (400, "POST", "/flows?x=1", JSON, b"[]"),
    (413, "POST", "/flows", JSON, b" " * (8 * 2**20 + 1)),
    (415, "POST", "/flows", {}, b"[]"),
]


@pytest.mark.parametrize(("status", "method", "target", "headers", "body"), ANSWERS, ids=lambda value: str(value)[:40])
def test_each_answer_has_an_id(
    client: httpx.Client, status: int, method: str, target: str, headers: dict[str, str], body: bytes
) -> None:
    reply = client.request(method, target, headers=headers | {NAME: "id-of-mine"}, content=body)
    assert (reply.status_code, the_id(reply)) == (status, "id-of-mine")
    assert the_id(client.request(method, target, headers=headers, content=body)) != "id-of-mine"


REFUSALS = {
    "garbage": (b"garbage\r\n\r\n", {400}),
    "no Host": (head("GET /livez HTTP/1.1", f"{NAME}: mine"), {400}),
    "a head too large": (request("GET", "/livez", ["X: " + "a" * 70_000]), {431}),
    "too many header lines": (request("GET", "/livez", ["X: a"] * 150), {431}),
    "a bad chunk": (head("POST /flows HTTP/1.1", "Host: x", "Content-Type: application/json",
                         "Transfer-Encoding: chunked") + b"zz\r\n", {400}),
    "an unknown method": (request("BREW", "/flows"), {400, 405, 501}),
    "a length past the limit": (head("POST /flows HTTP/1.1", "Host: x", "Content-Type: application/json",
                                     "Content-Length: 67108864"), {413}),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_each_refusal_has_an_id(service: Service, name: str) -> None:
    sent, statuses = REFUSALS[name]
    with Connection(service.url) as connection:
        reply = connection.ask(sent)
    if service.name == "reader" and name in {"a bad chunk", "a length past the limit"}:
        statuses = statuses | {405}
    assert reply.status_code in statuses
    the_id(reply)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_operational_answers_have_an_id(service: Service, path: str) -> None:
    assert the_id(httpx.get(service.url + path, headers={NAME: "id-of-mine"})) == "id-of-mine"
