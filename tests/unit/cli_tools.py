"""What tests of the command line share: a server that answers by a function, and a run of the command."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from flowagg_cli.__main__ import main

Reply = tuple[int, Mapping[str, str], bytes] | None
"""Status, headers and body; None: the connection ends without an answer."""


@contextmanager
def serving(reply: Callable[[BaseHTTPRequestHandler, bytes], Reply]) -> Iterator[str]:
    """A server of HTTP/1.1 that answers GET and POST by this function of request and body; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            given = reply(self, self.rfile.read(int(self.headers["Content-Length"] or 0)))
            if given is None:
                self.close_connection = True
                return
            status, headers, body = given
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer  # noqa: N815 - the server's names

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(captured: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The command's exit code, output and errors."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    said = captured.readouterr()
    code = caught.value.code
    assert isinstance(code, int)
    return code, said.out, said.err
