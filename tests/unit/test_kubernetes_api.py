"""The client of the Kubernetes API against a small server of HTTP: errors, time-outs, tokens, certificates, watches."""

import json
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

import pytest
import yaml
from flowagg.kubernetes import (
    AlreadyExists,
    Api,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    InvalidKubeconfig,
    KubernetesError,
    NotFound,
    Unauthorized,
    Unreachable,
    path,
)
from flowagg_stack.certificates import Authority

LEASE = path("coordination.k8s.io/v1", "leases", "flows", "main")
TOKEN = "given"
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Answers as `answer` says; keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []
        self.answer: Answer = lambda handler: reply(handler, 200, {})
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # without HTTPServer's question to DNS
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def hang(self, _: BaseHTTPRequestHandler) -> None:
        """An answer that never comes."""
        self.released.wait(20)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(
            {
                "method": self.command,
                "path": self.path,
                "token": self.headers.get("Authorization"),
                "type": self.headers.get("Content-Type"),
                "body": json.loads(body) if body else None,
                "from": self.client_address,
            }
        )
        self.server.answer(self)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


def reply(handler: BaseHTTPRequestHandler, status: int, body: Any) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def chunk(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
    handler.wfile.flush()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.01,))
        thread.start()
        yield one
        one.released.set()
        one.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("v1", "pods", "ns", "p"), "/api/v1/namespaces/ns/pods/p"),
        (("v1", "namespaces", None, "ns"), "/api/v1/namespaces/ns"),
        (("apps/v1", "deployments", "ns", "d", "scale"), "/apis/apps/v1/namespaces/ns/deployments/d/scale"),
        (("apps/v1", "deployments"), "/apis/apps/v1/deployments"),
        (("v1", "pods", "../x", "a/b?c"), "/api/v1/namespaces/..%2Fx/pods/a%2Fb%3Fc"),
    ],
)
def test_a_path_is_built_of_its_parts(arguments: tuple[str, ...], expected: str) -> None:
    assert path(*arguments) == expected


@pytest.mark.parametrize(
    ("call", "method", "where", "kind"),
    [
        (lambda api: api.get(LEASE, {"a": "b c"}), "GET", LEASE + "?a=b+c", None),
        (lambda api: api.create("/x", {"a": 1}), "POST", "/x", "application/json"),
        (lambda api: api.replace(LEASE, {"a": 1}), "PUT", LEASE, "application/json"),
        (
            lambda api: api.apply(LEASE, {"a": 1}, field_manager="me", force=True),
            "PATCH",
            LEASE + "?fieldManager=me&force=true",
            "application/apply-patch+yaml",
        ),
        (lambda api: api.merge(LEASE, {"a": 1}), "PATCH", LEASE, "application/merge-patch+json"),
        (lambda api: api.delete(LEASE), "DELETE", LEASE, None),
    ],
    ids=["get", "create", "replace", "apply", "merge", "delete"],
)
def test_a_call_is_sent_as_the_api_wants_it(
    server: Server, call: Callable[[Api], Any], method: str, where: str, kind: str | None
) -> None:
    assert call(Api(server.url, token=TOKEN)) == {}
    (asked,) = server.asked
    assert (asked["method"], asked["path"], asked["type"]) == (method, where, kind)
    assert asked["body"] == ({"a": 1} if kind else None)
    assert asked["token"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadRequest", Invalid),
        (401, "Unauthorized", Unauthorized),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (410, "Expired", Gone),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", Unreachable),
        (500, "InternalError", Unreachable),
        (504, "Timeout", Unreachable),
    ],
)
def test_a_status_is_raised_with_the_servers_own_words(
    server: Server, status: int, reason: str, kind: type[KubernetesError]
) -> None:
    said = {"kind": "Status", "message": "spec.replicas: must not be negative", "reason": reason, "code": status}
    server.answer = lambda handler: reply(handler, status, said)
    with pytest.raises(KubernetesError, match=r"GET .*: spec\.replicas: must not be negative") as raised:
        Api(server.url).get(LEASE)
    assert type(raised.value) is kind
    assert (raised.value.status, raised.value.reason) == (status, reason)


def test_an_error_that_is_no_status_object_is_told_as_it_is(server: Server) -> None:
    server.answer = lambda handler: reply(handler, 502, b"bad gateway")
    with pytest.raises(Unreachable, match="bad gateway"):
        Api(server.url).get(LEASE)


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"a": '])
def test_an_answer_that_is_not_json_is_no_answer(server: Server, content: bytes) -> None:
    server.answer = lambda handler: reply(handler, 200, content)
    with pytest.raises(Unreachable, match="not JSON"):
        Api(server.url).get(LEASE)


def test_a_server_that_is_not_there_is_unreachable(server: Server) -> None:
    with Server() as gone:
        url = gone.url
    with pytest.raises(Unreachable, match="refused"):
        Api(url).get(LEASE)


def test_a_call_ends_at_its_own_time_out(server: Server) -> None:
    server.answer = server.hang
    api = Api(server.url)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        api.get(LEASE, timeout_seconds=0.2)
    assert time.monotonic() - began < 2


def test_an_answer_that_dribbles_is_cut_off(server: Server) -> None:
    def dribble(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while not server.released.wait(0.02):
            chunk(handler, b" ")

    server.answer = dribble
    began = time.monotonic()
    with pytest.raises(Unreachable, match="did not arrive in time"):
        Api(server.url).get(LEASE, timeout_seconds=0.3)
    assert time.monotonic() - began < 3


def test_calls_share_a_connection_until_a_new_one_is_asked_for(server: Server) -> None:
    api = Api(server.url)
    api.get("/1")
    api.get("/2")
    api.on_new_connections().get("/3")
    api.get("/4")
    first, second, third, fourth = (asked["from"] for asked in server.asked)
    assert first == second == fourth != third


def test_a_call_after_a_failure_takes_a_new_connection(server: Server) -> None:
    api = Api(server.url)
    server.answer = server.hang
    with pytest.raises(Unreachable):
        api.get("/1", timeout_seconds=0.1)
    server.answer = lambda handler: reply(handler, 200, {})
    api.get("/2")
    first, second = (asked["from"] for asked in server.asked)
    assert first != second


def test_a_list_is_read_to_its_last_page(server: Server) -> None:
    def pages(handler: BaseHTTPRequestHandler) -> None:
        last = "continue=more" in handler.path
        reply(handler, 200, {"items": [{"n": int(last)}], "metadata": {} if last else {"continue": "more"}})

    server.answer = pages
    assert Api(server.url).list("/pods") == [{"n": 0}, {"n": 1}]


def test_a_token_is_read_again_when_its_file_changes(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n", encoding="utf-8")
    api = Api(server.url, token_file=file)
    api.get("/1")
    # As kubelet does it: another file takes its place.
    (tmp_path / "next").write_text("two\n", encoding="utf-8")
    (tmp_path / "next").rename(file)
    api.get("/2")
    file.unlink()
    api.get("/3")
    assert [asked["token"] for asked in server.asked] == ["Bearer one", "Bearer two", "Bearer two"]


def events(handler: BaseHTTPRequestHandler, *contents: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for content in contents:
        chunk(handler, content)


def test_a_watch_gives_events_as_they_come_however_they_are_cut(server: Server) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        events(handler, b'{"type":"ADDED","object":{"n":1}}\n{"type":"MOD', b'IFIED","object":{"n":2}}\n')
        server.released.wait(20)  # what came so far must not wait for more

    server.answer = answer
    watch = Api(server.url).watch("/pods", {"fieldSelector": "metadata.name=a"}, version="7", seconds=20)
    assert [next(watch)["type"], next(watch)["type"]] == ["ADDED", "MODIFIED"]
    watch.close()  # type: ignore[attr-defined]
    query = "fieldSelector=metadata.name%3Da&watch=true&resourceVersion=7&allowWatchBookmarks=true&timeoutSeconds=20"
    assert server.asked[0]["path"] == f"/pods?{query}"


def test_a_watch_ends_when_the_server_ends_it(server: Server) -> None:
    server.answer = lambda handler: events(handler, b'{"type":"ADDED","object":{}}\n', b"")
    assert len(list(Api(server.url).watch("/pods", version="7", seconds=20))) == 1


def test_a_watch_from_too_long_ago_says_so(server: Server) -> None:
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}
    server.answer = lambda handler: events(handler, json.dumps(gone).encode() + b"\n", b"")
    with pytest.raises(Gone, match="too old"):
        list(Api(server.url).watch("/pods", version="7", seconds=20))


def test_a_watch_that_breaks_is_unreachable(server: Server) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        events(handler, b'{"type":"ADDED","object":{}}\n')
        handler.connection.shutdown(socket.SHUT_RDWR)

    server.answer = answer
    with pytest.raises(Unreachable, match="the watch of /pods broke"):
        list(Api(server.url).watch("/pods", version="7", seconds=20))


def secured(server: Server, tmp_path: Path, client_ca: bool = False) -> Authority:
    authority = Authority(tmp_path)
    certificate = authority.issue("api")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate.ca)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return authority


def test_a_pod_finds_the_api_server_by_its_environment_and_its_mounted_files(server: Server, tmp_path: Path) -> None:
    authority = secured(server, tmp_path)
    (tmp_path / "token").write_text("mounted", encoding="utf-8")
    (tmp_path / "ca.crt").write_bytes(authority.certificate.read_bytes())
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.server_port)}
    Api.in_cluster(tmp_path, environment).get(LEASE)
    assert server.asked[0]["token"] == "Bearer mounted"


def test_a_server_that_another_ca_vouches_for_is_not_spoken_with(server: Server, tmp_path: Path) -> None:
    secured(server, tmp_path)
    (tmp_path / "other").mkdir()
    api = Api(f"https://127.0.0.1:{server.server_port}", token=TOKEN, ca_file=Authority(tmp_path / "other").certificate)
    with pytest.raises(Unreachable, match="certificate verify failed"):
        api.get(LEASE)
    assert server.asked == []


@pytest.mark.parametrize("missing", ["token", "ca.crt", "KUBERNETES_SERVICE_HOST"])
def test_what_a_pod_misses_is_named(tmp_path: Path, missing: str) -> None:
    Authority(tmp_path).certificate.rename(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("t", encoding="utf-8")
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    environment.pop(missing, None)
    (tmp_path / missing).unlink(missing_ok=True)
    with pytest.raises(InvalidKubeconfig, match=missing):
        Api.in_cluster(tmp_path, environment)


def kubeconfig(tmp_path: Path, server: str, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    file = tmp_path / "kubeconfig"
    config = {
        "current-context": "c",
        "contexts": [{"name": "other", "context": {}}, {"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


@pytest.mark.parametrize("inline", [True, False], ids=["data", "files"])
def test_a_kubeconfigs_client_certificate_is_shown(server: Server, tmp_path: Path, inline: bool) -> None:
    authority = secured(server, tmp_path, client_ca=True)
    client = authority.issue("client")
    files = {"client-certificate": client.certificate, "client-key": client.key}
    ca = {"certificate-authority": authority.certificate}

    def entries(given: dict[str, Path]) -> dict[str, str]:
        if inline:
            return {f"{name}-data": b64encode(file.read_bytes()).decode() for name, file in given.items()}
        return {name: file.name for name, file in given.items()}

    file = kubeconfig(tmp_path, f"https://127.0.0.1:{server.server_port}", entries(ca), entries(files))
    assert Api.from_kubeconfig(file).get(LEASE) == {}


def test_a_kubeconfigs_token_is_sent(server: Server, tmp_path: Path) -> None:
    Api.from_kubeconfig(kubeconfig(tmp_path, server.url, {}, {"token": "given"})).get(LEASE)
    assert server.asked[0]["token"] == "Bearer given"


@pytest.mark.parametrize(
    ("user", "cluster", "told"),
    [
        ({"exec": {"command": "aws"}}, {}, "exec"),
        ({"username": "a", "password": "b"}, {}, "password, username"),
        ({"token": "t"}, {"certificate-authority": "not-there.pem"}, "not-there.pem"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidKubeconfig, match=told):
        Api.from_kubeconfig(kubeconfig(tmp_path, "https://127.0.0.1:1", cluster, user))
