"""Hours go by: each is checked when it is over, and forgotten."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.traffic import Manners
from tests.faults.clients import Totals
from tests.faults.measure import Watch
from tests.soak.clients import PassingClients

MANNERS = Manners(posts=50, gets=50, flows_a_post=4, hours=2, keys=10, patience_seconds=5)


class View(ThreadingHTTPServer):
    """A writer and a reader in one, in memory. hidden: bytes that answers leave out of each row."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.totals: dict[int, dict[tuple[str, str, str], list[int]]] = defaultdict(dict)
        self.strict: list[int] = []
        self.hidden = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: View

    def do_POST(self) -> None:
        flows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            for flow in flows:
                key = (flow["src_app"], flow["dest_app"], flow["vpc_id"])
                totals = self.server.totals[flow["hour"]].setdefault(key, [0, 0])
                totals[0] += flow["bytes_tx"]
                totals[1] += flow["bytes_rx"]
        self._answer({"accepted": len(flows)})

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        hour = int(query["hour"][0])
        if "consistency" in query:
            self.server.strict.append(hour)
        with self.server.lock:
            rows = [
                {"src_app": src, "dest_app": dest, "vpc_id": vpc, "hour": hour}
                | {"bytes_tx": totals[0] - self.server.hidden, "bytes_rx": totals[1]}
                for (src, dest, vpc), totals in self.server.totals[hour].items()
            ]
        self._answer(rows)

    def _answer(self, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Flowagg-Fresh", "true")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def view() -> Iterator[View]:
    with View() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def run(view: View, hours: int, hidden: int = 0) -> PassingClients:
    """Let so many hours be checked."""
    clients = PassingClients([view.url], [view.url], Watch(1), MANNERS, seed=1, hour_seconds=0.3)
    clients.start()
    view.hidden = hidden
    deadline = time.monotonic() + 30
    while clients.hours_checked < hours:
        assert clients.alive
        assert time.monotonic() < deadline
        time.sleep(0.02)
    clients.stop()
    return clients


def test_every_hour_is_checked_once_it_is_over_and_forgotten(view: View) -> None:
    clients = run(view, hours=6)
    assert clients.others == clients.false_fresh == []
    assert max(view.strict[:6]) < min(clients.ledger.hours())
    sent = sum(flow[0] for hour in view.totals.values() for flow in hour.values())
    assert sent > 0
    assert clients.totals() == Totals(clients.ledger.flows, 0, 0, 0)
    assert set(view.strict) >= {hour for hour, rows in view.totals.items() if rows}


def test_what_is_lost_in_an_hour_that_is_over_is_told_in_the_end(view: View) -> None:
    clients = run(view, hours=2, hidden=1)
    view.hidden = 0
    totals = clients.totals()
    assert 0 < totals.rows == totals.lost_bytes
    assert totals.doubled_bytes == 0


def test_tries_are_taken_once(view: View) -> None:
    clients = run(view, hours=1)
    taken = clients.take_attempts()
    assert {"POST", "GET"} == {one.method for one in taken}
    assert clients.take_attempts() == []


def test_clients_go_where_they_are_sent() -> None:
    clients = PassingClients(["http://a:1", "http://b:1"], ["http://c:1", "http://d:1"], Watch(1), MANNERS, 1, 1)
    clients.go_to("http://d:1")
    assert (clients.addresses["POST"].current, clients.addresses["GET"].current) == ("http://a:1", "http://d:1")
    clients.go_to("http://b:1")
    assert (clients.addresses["POST"].current, clients.addresses["GET"].current) == ("http://b:1", "http://d:1")
