"""The gateway's real nginx on this machine, with a name server and two services of a test's own."""

import itertools
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from flowagg_stack.ports import free_ports
from flowagg_stack.processes import Child, Processes, wait_until

from tests.chart.charts import NAMESPACE, RELEASE, one, template

DOMAIN: Final = f"{NAMESPACE}.svc.example.internal"
_numbers = itertools.count(1)


def nginx() -> str | None:
    """Path of nginx, where it is installed."""
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin") or shutil.which("nginx")


class Names:
    """A name server for A records, over UDP. addresses: by name, without the domain; any other name does not exist."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                query, sender = self._socket.recvfrom(512)
            except OSError:
                return
            self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        """RFC 1035, section 4: the header, the question again, and the address where there is one."""
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii"))
            at += 1 + query[at]
        question = query[12 : at + 5]
        name, dot, domain = ".".join(labels).partition(".")
        address = self.addresses.get(name) if domain == DOMAIN and dot else None
        wants_ipv4 = question[-4:-2] == b"\0\1"
        code, answers = (0, 1 if wants_ipv4 else 0) if address is not None else (3, 0)
        head = query[:2] + bytes([0x85, 0x80 | code]) + b"\0\1" + bytes([0, answers]) + b"\0\0\0\0"
        if not answers or address is None:
            return head + question
        return head + question + b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(address)


@dataclass(frozen=True)
class Seen:
    """A request as a service has it. peer: the port that it came from."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    peer: int


@dataclass
class Upstream:
    """A service behind the gateway. reply: status, headers and body of its answers; hold: they wait until it is set."""

    name: str
    address: str
    port: int
    reply: tuple[int, dict[str, str], bytes] = (200, {"Content-Type": "application/json"}, b"[]")
    hold: threading.Event | None = None
    seen: list[Seen] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Serve."""
        self.server = ThreadingHTTPServer((self.address, self.port), _handler(self))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


def _handler(upstream: Upstream) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            upstream.seen.append(Seen(self.command, self.path, headers, body, self.client_address[1]))
            if upstream.hold is not None:
                upstream.hold.wait(30)
            status, own, text = upstream.reply
            self.send_response(status)
            for name, value in {**own, "X-Request-Id": headers["x-request-id"]}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the names are the library's

        def log_message(self, *_: object) -> None:
            """Nothing: the requests are kept."""

    return Handler


@dataclass
class Gateway:
    """A gateway that serves. url: its address. health: that of its probes."""

    url: str
    health: str
    port: int
    process: Child
    names: Names
    writer: Upstream
    reader: Upstream

    def appear(self) -> None:
        """The services have names and serve."""
        for upstream in (self.writer, self.reader):
            self.names.addresses[f"{RELEASE}-{upstream.name}"] = upstream.address
            if upstream.server is None:
                upstream.start()


def arguments_of_nginx(config: Path) -> list[str]:
    """As start.sh has them. As root nginx would give its processes to another user, who may not write here."""
    return ["-e", "stderr", "-c", str(config), *(["-g", "user root;"] if os.geteuid() == 0 else [])]


def write_configuration(directory: Path, names: Names, *arguments: str) -> tuple[Path, int, int, int]:
    """Let start.sh and a render make the configuration. The file, and the ports of gateway, probes and services.

    arguments: of helm template.
    """
    port, health, services = free_ports(3)
    data = one(template("helm", *arguments), "ConfigMap", f"{RELEASE}-gateway")["data"]
    config = directory / "nginx.conf"
    text = data["nginx.conf"].replace("/tmp/nginx", str(directory))  # noqa: S108 - a pod's own
    text = text.replace(":80;", f":{services};")
    config.write_text(text, encoding="utf-8")
    resolv_conf = directory / "resolv.conf"
    resolv_conf.write_text(f"search {DOMAIN} svc.example.internal\nnameserver 127.0.0.1\n", encoding="utf-8")
    run_start(directory, data["start.sh"], resolv_conf, config, port, health)
    resolver = directory / "resolver.conf"
    resolver.write_text(resolver.read_text().replace("127.0.0.1 ", f"127.0.0.1:{names.port} "), encoding="utf-8")
    return config, port, health, services


def run_start(
    directory: Path, script: str, resolv_conf: Path, config: Path, port: int = 8080, health: int = 8081
) -> str:
    """Run start.sh with a program in nginx's place that shows its arguments. What that shows."""
    programs = directory / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "nginx").write_text('#!/bin/sh\necho "$@"\n', encoding="utf-8")
    (programs / "nginx").chmod(0o755)
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin", "NAMESPACE": NAMESPACE, "RESOLVE_SECONDS": "1",
        "GATEWAY_DIRECTORY": str(directory), "GATEWAY_RESOLV_CONF": str(resolv_conf), "GATEWAY_CONFIG": str(config),
        "GATEWAY_PORT": str(port), "GATEWAY_HEALTH_PORT": str(health),
    }  # fmt: skip
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout


@contextmanager
def started(processes: Processes, directory: Path, *arguments: str, appear: bool = True) -> Iterator[Gateway]:
    """A gateway with the chart's configuration. arguments: of helm template. appear: whether its services are there."""
    path = nginx()
    assert path is not None
    names = Names()
    config, port, health, services = write_configuration(directory, names, *arguments)
    process = processes.start(f"nginx-{next(_numbers)}", [path, *arguments_of_nginx(config)])
    writer, reader = Upstream("writer", "127.0.0.2", services), Upstream("reader", "127.0.0.3", services)
    gateway = Gateway(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{health}", port, process, names, writer, reader)
    try:
        if appear:
            gateway.appear()
        wait_until(_connects(port), "nginx answers", 20, [process])
        yield gateway
    finally:
        names.close()
        for upstream in (writer, reader):
            if upstream.hold is not None:
                upstream.hold.set()
            upstream.stop()


def _connects(port: int) -> Callable[[], bool]:
    def check() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return check
