"""The gateway: the rendered configuration in a real nginx, before two services of the test's own."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from flowagg_stack.processes import Processes, wait_until

from tests.chart.charts import one, render
from tests.chart.gateways import (
    DOMAIN,
    Gateway,
    Names,
    arguments_of_nginx,
    nginx,
    run_start,
    started,
    write_configuration,
)
from tests.contract.flows import assert_problem
from tests.contract.wire import Connection, request

pytestmark = pytest.mark.skipif(
    nginx() is None, reason="there is no nginx on this machine: apt-get install nginx-light"
)

LIMIT = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("gateway")
    with Processes(directory) as processes, started(processes, directory) as found:
        yield found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Starts a gateway of the test's own; arguments are those of helm template."""
    opened = []
    with Processes(tmp_path) as processes:

        def begin(*arguments: str, appear: bool = True) -> Gateway:
            context = started(processes, tmp_path, *arguments, appear=appear)
            opened.append(context)
            return context.__enter__()

        yield begin
        for context in opened:
            context.__exit__(None, None, None)


def test_nginx_takes_the_configuration(tmp_path: Path) -> None:
    names = Names()
    config, *_ = write_configuration(tmp_path, names)
    with Processes(tmp_path) as processes:
        checked = processes.start("nginx-t", [str(nginx()), "-t", *arguments_of_nginx(config)])
        wait_until(lambda: checked.ended, "nginx -t ends", 20)
        assert "test is successful" in checked.last_lines()
        processes.forget(checked)
    names.close()


RESOLV_CONFS = {
    "nameserver 10.0.0.10\nsearch flows.svc.cluster.local svc.cluster.local\n": ("10.0.0.10", "cluster.local"),
    "search flows.svc.corp.example. svc.corp.example\nnameserver 10.0.0.10\n": ("10.0.0.10", "corp.example"),
    "search corp.example flows.svc.k8s.local\nnameserver fd00::a%eth0\n": ("[fd00::a]", "k8s.local"),
    "nameserver 10.0.0.10\nnameserver 10.0.0.11\noptions ndots:5": ("10.0.0.10 10.0.0.11", "cluster.local"),
}


@pytest.mark.parametrize("text", RESOLV_CONFS)
def test_names_are_resolved_as_the_pod_resolves_them(tmp_path: Path, text: str) -> None:
    resolver, domain = RESOLV_CONFS[text]
    given = tmp_path / "resolv.conf"
    given.write_text(text, encoding="utf-8")
    script = one(render("default"), "ConfigMap", "flow-aggregator-gateway")["data"]["start.sh"]
    shown = run_start(tmp_path, script, given, tmp_path / "nginx.conf")
    assert shown == f"-e stderr -c {tmp_path}/nginx.conf\n"
    written = (tmp_path / "resolver.conf").read_text(encoding="utf-8")
    assert f"resolver {resolver} valid=1s;" in written
    assert f"default flows.svc.{domain};" in written


@pytest.mark.parametrize(("method", "to"), [("POST", "writer"), ("GET", "reader"), ("HEAD", "reader")])
def test_flows_goes_by_method(gateway: Gateway, method: str, to: str) -> None:
    target = "/flows" if method == "POST" else "/flows?hour=1&after=a%2Fb"
    reply = httpx.request(method, gateway.url + target, content=b"[]" if method == "POST" else None)
    assert reply.status_code == 200
    seen = getattr(gateway, to).seen[-1]
    assert (seen.method, seen.target) == (method, target)


@pytest.mark.parametrize("target", ["/hours", "/docs", "/openapi.json", "/ui", "/ui/", "/ui/a.js?b"])
def test_pages_come_from_the_reader(gateway: Gateway, target: str) -> None:
    assert httpx.get(gateway.url + target).status_code == 200
    assert gateway.reader.seen[-1].target == target


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_another_method_is_not_allowed(gateway: Gateway, method: str) -> None:
    reply = httpx.request(method, gateway.url + "/flows")
    assert_problem(reply, 405)
    assert reply.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    "path",
    ["/flow", "/flows/", "/flows/1", "//flows", "/Flows", "/flows;a=1", "/flows%2f", "/%2fflows", "/uix", "/livez",
     "/readyz", "/metrics", "/docs/"],
)  # fmt: skip
def test_another_path_is_nothing(gateway: Gateway, path: str) -> None:
    before = len(gateway.writer.seen), len(gateway.reader.seen)
    with Connection(gateway.url) as connection:
        for sent in (request("GET", path), request("POST", path, body=b"[]")):
            assert_problem(connection.ask(sent), 404)
    assert (len(gateway.writer.seen), len(gateway.reader.seen)) == before


@pytest.mark.parametrize("path", ["/./flows", "/x/../flows", "/flo%77s"])
def test_a_path_is_passed_on_as_it_came(gateway: Gateway, path: str) -> None:
    with Connection(gateway.url) as connection:
        assert connection.ask(request("GET", path)).status_code == 200
    assert gateway.reader.seen[-1].target == path


def test_the_first_page_says_where_things_are(gateway: Gateway) -> None:
    reply = httpx.get(gateway.url)
    assert reply.headers["content-type"] == "text/plain"
    assert "GET  /flows?hour=1" in reply.text
    assert_problem(httpx.post(gateway.url), 405)


def test_what_a_request_says_is_passed_on(gateway: Gateway) -> None:
    headers = {
        "Content-Type": "application/json", "Content-Encoding": "gzip", "Idempotency-Key": "k: 1",
        "Authorization": "Bearer t", "If-None-Match": 'W/"a"', "x_underscore": "dropped",
    }  # fmt: skip
    httpx.post(gateway.url + "/flows", content=b"\x1f\x8b\0", headers=headers)
    seen = gateway.writer.seen[-1]
    assert seen.body == b"\x1f\x8b\0"
    kept = {name.lower(): value for name, value in headers.items() if name != "x_underscore"}
    assert kept.items() <= seen.headers.items()


def test_what_a_service_answers_is_passed_on(start: Callable[..., Gateway]) -> None:
    gateway = start()
    headers = {
        "Content-Type": "application/problem+json",
        "Retry-After": "7",
        "ETag": 'W/"a"',
        "Flowagg-Fresh": "false",
    }
    for status in (304, 400, 410, 413, 422, 502, 503, 504):
        gateway.reader.reply = (status, headers, b"" if status == 304 else b'{"status":1}')
        reply = httpx.get(gateway.url + "/flows?hour=1")
        assert (reply.status_code, reply.content) == (status, gateway.reader.reply[2])
        assert {name: reply.headers[name] for name in headers} == headers


def test_each_request_has_a_connection_of_its_own(gateway: Gateway) -> None:
    with httpx.Client(base_url=gateway.url) as client:
        for _ in range(5):
            client.get("/flows?hour=1")
    last = gateway.reader.seen[-5:]
    assert len({seen.peer for seen in last}) == 5
    assert {seen.headers["connection"] for seen in last} == {"close"}


def test_a_connection_of_a_client_is_kept(gateway: Gateway) -> None:
    with Connection(gateway.url) as connection:
        replies = [connection.ask(request("GET", "/flows?hour=1")) for _ in range(3)]
    assert [(reply.status_code, reply.closes) for reply in replies] == [(200, False)] * 3


@pytest.mark.parametrize("given", ["abc-1.2_3", "a" * 128])
def test_a_sane_request_id_is_passed_on(gateway: Gateway, given: str) -> None:
    for method, path in (("GET", "/flows?hour=1"), ("GET", "/nothing"), ("PUT", "/flows")):
        reply = httpx.request(method, gateway.url + path, headers={"X-Request-Id": given})
        assert reply.headers.get_list("x-request-id") == [given]
    assert gateway.reader.seen[-1].headers["x-request-id"] == given


@pytest.mark.parametrize("given", [None, "", "a" * 129, "a b", "a,b", '"a"'])
def test_another_request_id_is_replaced(gateway: Gateway, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-Id": given}
    (made,) = httpx.get(gateway.url + "/flows?hour=1", headers=headers).headers.get_list("x-request-id")
    assert made != given
    assert gateway.reader.seen[-1].headers["x-request-id"] == made


def test_a_body_may_be_as_large_as_the_writer_takes(gateway: Gateway) -> None:
    body = b" " * LIMIT
    assert httpx.post(gateway.url + "/flows", content=body).status_code == 200
    assert gateway.writer.seen[-1].body == body
    before = len(gateway.writer.seen)
    for sent in (body + b" ", iter([body, b" "])):
        reply = httpx.post(gateway.url + "/flows", content=sent)
        assert_problem(reply, 413)
        assert f"larger than {LIMIT} bytes" in reply.json()["detail"]
    assert len(gateway.writer.seen) == before


def test_the_writer_hears_of_a_post_when_it_is_there_whole(gateway: Gateway) -> None:
    before = len(gateway.writer.seen)
    sent = request("POST", "/flows", body=b"x" * 200_000)
    with Connection(gateway.url) as slow, httpx.Client(base_url=gateway.url) as others:
        slow.send(sent[:100_000])
        others.get("/flows?hour=1")
        assert len(gateway.writer.seen) == before
        assert slow.ask(sent[100_000:]).status_code == 200
    assert len(gateway.writer.seen) == before + 1


def test_a_chunked_body_is_passed_on_with_its_length(gateway: Gateway) -> None:
    assert httpx.post(gateway.url + "/flows", content=iter([b"[", b"]"])).status_code == 200
    seen = gateway.writer.seen[-1]
    assert (seen.body, seen.headers["content-length"]) == (b"[]", "2")
    assert "transfer-encoding" not in seen.headers


REFUSED = {
    "garbage": (b"garbage\r\n\r\n", 400),
    "no Host": (b"GET /flows HTTP/1.1\r\n\r\n", 400),
    "a bad chunk": (b"POST /flows HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "two lengths": (b"POST /flows HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "headers too large": (request("GET", "/flows", ["X: " + "a" * 40_000]), 431),
    "a target too long": (request("GET", "/flows?hour=" + "1" * 40_000), 414),
    "an unknown coding": (b"POST /flows HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: zip\r\n\r\n", 501),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nginx_refuses_itself_is_a_problem_document_with_an_id(gateway: Gateway, name: str) -> None:
    sent, status = REFUSED[name]
    with Connection(gateway.url) as connection:
        reply = connection.ask(sent)
    assert_problem(reply, status)
    assert len(reply.headers.get_list("x-request-id")) == 1
    assert "nginx/" not in reply.headers["server"]


def test_the_answer_to_a_refused_head_request_has_no_body(gateway: Gateway) -> None:
    with Connection(gateway.url) as connection:
        for _ in range(2):
            reply = connection.ask(request("HEAD", "/nothing"), to_head=True)
            assert (reply.status_code, reply.headers["content-type"]) == (404, "application/problem+json")


def test_it_starts_before_the_services_are_there_and_finds_them(start: Callable[..., Gateway]) -> None:
    gateway = start(appear=False)
    assert httpx.get(gateway.health + "/readyz").status_code == 200
    for reply in (httpx.get(gateway.url + "/flows?hour=1"), httpx.post(gateway.url + "/flows", content=b"[]")):
        assert_problem(reply, 503)
        assert reply.headers["retry-after"] == "1"
    gateway.appear()
    wait_until(lambda: httpx.get(gateway.url + "/flows?hour=1").status_code == 200, "the reader is found", 10)


def test_it_follows_a_service_that_has_another_address(start: Callable[..., Gateway]) -> None:
    gateway = start()
    assert httpx.get(gateway.url + "/flows?hour=1").status_code == 200
    gateway.names.addresses["flow-aggregator-reader"] = gateway.writer.address
    before = len(gateway.writer.seen)

    def moved() -> bool:
        httpx.get(gateway.url + "/flows?hour=1")
        return len(gateway.writer.seen) > before

    wait_until(moved, "the new address is used", 10)


def test_a_service_that_is_gone_is_a_503(start: Callable[..., Gateway]) -> None:
    gateway = start()
    gateway.writer.stop()
    reply = httpx.post(gateway.url + "/flows", content=b"[]")
    assert_problem(reply, 503)
    assert reply.headers["retry-after"] == "1"
    assert "Idempotency-Key" in reply.json()["detail"]
    assert httpx.get(gateway.url + "/flows?hour=1").status_code == 200


def test_a_service_that_is_silent_is_a_503(start: Callable[..., Gateway]) -> None:
    gateway = start("--set", "gateway.timeouts.readSeconds=1")
    gateway.reader.hold = threading.Event()
    reply = httpx.get(gateway.url + "/flows?hour=1", timeout=10)
    assert_problem(reply, 503)
    assert reply.headers["retry-after"] == "1"


def test_past_the_limit_of_posts_the_answer_is_503_at_once(start: Callable[..., Gateway]) -> None:
    gateway = start("--set", "gateway.maxPosts=1")
    sent = request("POST", "/flows", body=b"[]")
    with Connection(gateway.url) as first:
        first.send(sent[:-1])

        def refused() -> bool:
            return httpx.post(gateway.url + "/flows", content=b"[]").status_code == 503

        wait_until(refused, "the first POST is in hand", 10)
        reply = httpx.post(gateway.url + "/flows", content=b"[]")
        assert_problem(reply, 503)
        assert reply.headers["retry-after"] == "1"
        assert httpx.get(gateway.url + "/flows?hour=1").status_code == 200
        assert first.ask(sent[-1:]).status_code == 200
    assert httpx.post(gateway.url + "/flows", content=b"[]").status_code == 200


def test_the_probes_have_a_port_of_their_own(gateway: Gateway) -> None:
    for path in ("/livez", "/readyz"):
        assert httpx.get(gateway.health + path).text == "ok\n"
    assert httpx.get(gateway.health + "/flows").status_code == 404


def test_it_finishes_what_it_has_in_hand(start: Callable[..., Gateway]) -> None:
    gateway = start()
    gateway.reader.hold = threading.Event()
    with Connection(gateway.url) as waiting, Connection(gateway.url) as idle:
        assert idle.ask(request("GET", "/nothing")).status_code == 404
        waiting.send(request("GET", "/flows?hour=1"))
        wait_until(lambda: len(gateway.reader.seen) == 1, "the request is in hand", 10)
        gateway.process.process.send_signal(signal.SIGQUIT)
        idle.wait_closed()
        wait_until(lambda: _refuses(gateway.port), "no new connection is taken", 10)
        gateway.reader.hold.set()
        assert waiting.ask(b"").status_code == 200
    wait_until(lambda: gateway.process.ended, "nginx ends", 10)


def _refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_log_line_is_json(start: Callable[..., Gateway]) -> None:
    gateway = start("--set", "gateway.accessLog=true")
    began = time.time()
    httpx.get(gateway.url + '/flows?hour="\\', headers={"X-Request-Id": "mine"})
    lines: list[str] = []

    def logged() -> bool:
        lines[:] = [line for line in gateway.process.last_lines(50).splitlines() if '"mine"' in line]
        return bool(lines)

    wait_until(logged, "the request is logged", 10)
    line = json.loads(lines[-1])
    assert (line["method"], line["status"], line["request_id"]) == ("GET", 200, "mine")
    assert 0 <= line["seconds"] <= time.time() - began + 1


def test_the_name_server_of_these_tests_knows_what_it_is_told() -> None:
    names = Names()
    names.addresses["flow-aggregator-writer"] = "127.0.0.2"
    name = b"".join(bytes([len(part)]) + part.encode() for part in f"flow-aggregator-writer.{DOMAIN}".split("."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(b"\0\1\1\0\0\1\0\0\0\0\0\0" + name + b"\0\0\1\0\1", ("127.0.0.1", names.port))
        assert client.recv(512)[-4:] == socket.inet_aton("127.0.0.2")
        client.sendto(b"\0\1\1\0\0\1\0\0\0\0\0\0" + b"\1x" + name + b"\0\0\1\0\1", ("127.0.0.1", names.port))
        assert client.recv(512)[3] & 15 == 3
    names.close()
