"""A small blocking HTTP/1.1 client: little of the time that it measures is its own."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

JSON: Final = {"Content-Type": "application/json"}
_ANSWER_SECONDS: Final = 60
_CHUNK_BYTES: Final = 2**16


@dataclass(frozen=True, slots=True)
class Answer:
    """Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def connect(url: str) -> socket.socket:
    """A connection to the URL's host and port. Raises OSError."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 80), _ANSWER_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def request(method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """A request as it is sent."""
    lines = [f"{method} {target} HTTP/1.1", "Host: bench", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1") + (body or b"")


def receive(connection: socket.socket, method: str) -> Answer:
    """The answer to one request. Raises OSError, and EOFError where the connection ends before it is whole."""
    got = bytearray()
    while (end := got.find(b"\r\n\r\n")) < 0:
        piece = connection.recv(_CHUNK_BYTES)
        if not piece:
            raise EOFError("the connection ended before an answer's headers were whole")
        got += piece
    first, *lines = got[:end].decode("latin-1").split("\r\n")
    status = int(first.split()[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    size = 0 if method == "HEAD" or status == 304 else int(headers["content-length"])
    body = bytearray(size)
    view, filled = memoryview(body), len(got) - end - 4
    view[:filled] = got[end + 4 :]
    while filled < size:
        count = connection.recv_into(view[filled:])
        if not count:
            raise EOFError("the connection ended before an answer's body was whole")
        filled += count
    return Answer(status, headers, bytes(body))


class Client:
    """One kept connection, opened by the first request, and anew where the server has closed it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: socket.socket | None = None

    def ask(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A request and its answer. Raises OSError, EOFError."""
        if self._connection is None:
            self._connection = connect(self._url)
        try:
            self._connection.sendall(request(method, target, body, headers))
            answer = receive(self._connection, method)
        except (OSError, EOFError):
            self.close()
            raise
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    def close(self) -> None:
        """Close it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
