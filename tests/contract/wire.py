"""A strict HTTP/1.1 client over a bare socket.

It sends exactly the bytes that it is given, and takes nothing for a reply that RFC 9112 does not allow.
"""

import json
import re
import select
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2}) [\t\x20-\x7e]*")
_HEADER_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*"
    rb"((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[\t ]*"
)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_MAX_HEAD = 64 * 1024
_READ_BYTES = 256 * 1024
SECONDS = 10.0
"""How long a reply may take where a test does not say otherwise."""


class Closed(Exception):
    """The server closed the connection in an orderly way, before or within a reply."""


class Reset(Exception):
    """The server reset the connection: a client may lose what was sent to it before."""


class Silence(Exception):
    """The server neither answered nor closed in time."""


class Malformed(Exception):
    """The reply is not HTTP/1.1."""


@dataclass(frozen=True)
class Reply:
    """One reply, interim ones (1xx) too. Named as httpx.Response names its parts."""

    status_code: int
    headers: httpx.Headers
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def closes(self) -> bool:
        """Whether it says that the connection ends with it."""
        return "close" in self.headers.get("connection", "").lower()


def request(
    method: str = "POST",
    target: str = "/flows",
    headers: Iterable[str | bytes] = (),
    body: bytes = b"",
    version: str = "1.1",
) -> bytes:
    """A request's bytes. Content-Length is given where there is a body or the method is POST."""
    lines = [f"{method} {target} HTTP/{version}", "Host: flows.test", *headers]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return head(*lines) + body


def head(*lines: str | bytes) -> bytes:
    """Lines of a head, in Latin-1 where they are text, with the empty line after them."""
    return b"".join((line if isinstance(line, bytes) else line.encode("latin-1")) + b"\r\n" for line in (*lines, ""))


class Connection:
    """One connection to a server; a context manager.

    receive_buffer: bytes that the kernel takes in for it, for a client that does not read.
    """

    def __init__(self, url: str, receive_buffer: int | None = None) -> None:
        address = urlsplit(url)
        assert address.scheme == "http", url
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(SECONDS)
        self._socket.connect((address.hostname, address.port or 80))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._end: type[Closed] | type[Reset] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes, seconds: float = SECONDS) -> None:
        """Send, taking in what arrives meanwhile. Ends early, without an error, where the server has closed.

        Raises Silence when the server does not take the bytes in time.
        """
        rest = memoryview(data)
        deadline = time.monotonic() + seconds
        while rest and self._end is None:
            if not self._wait(deadline, sending=True):
                raise Silence(f"{len(rest)} bytes were not taken within {seconds:g} s")
            self._take_in()
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                return

    def send_unread(self, data: bytes, seconds: float) -> int:
        """Send for a time without ever reading; how many bytes were taken."""
        rest = memoryview(data)
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        while rest and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            try:
                rest = rest[self._socket.send(rest) :]
            except (BrokenPipeError, ConnectionResetError):
                break
        return len(data) - len(rest)

    def dribble(self, data: bytes, pause: float) -> None:
        """Send byte by byte with pauses, until all is sent or the server says something or closes."""
        for place in range(len(data)):
            self.send(data[place : place + 1])
            if self._wait(time.monotonic() + pause):
                return

    def half_close(self) -> None:
        """Say that nothing more will be sent; go on reading."""
        if self._end is None:
            self._socket.shutdown(socket.SHUT_WR)

    def reply(self, seconds: float = SECONDS, to_head: bool = False) -> Reply:
        """The next reply. to_head: the request was HEAD, so no body follows.

        Raises Closed, Reset or Silence where none comes, Malformed where what comes is none.
        """
        deadline = time.monotonic() + seconds
        while (found := parse_reply(bytes(self._received), self._end is not None, to_head)) is None:
            if self._end is not None:
                raise self._end(f"after {bytes(self._received[:200])!r}")
            if not self._wait(deadline):
                raise Silence(f"no whole reply within {seconds:g} s: {bytes(self._received[:200])!r}")
            self._take_in()
        reply, length = found
        del self._received[:length]
        return reply

    def ask(self, data: bytes, seconds: float = SECONDS, to_head: bool = False) -> Reply:
        """Send and return the next reply."""
        self.send(data, seconds)
        return self.reply(seconds, to_head)

    def wait_closed(self, seconds: float = SECONDS) -> None:
        """Wait for the server to close in an orderly way. Raises Reset, Silence, or Malformed for bytes before it."""
        deadline = time.monotonic() + seconds
        while self._end is None:
            if not self._wait(deadline):
                raise Silence(f"not closed within {seconds:g} s")
            self._take_in()
        if self._received:
            raise Malformed(f"bytes after the last reply: {bytes(self._received[:200])!r}")
        if self._end is Reset:
            raise Reset

    def _wait(self, deadline: float, sending: bool = False) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if sending else 0))
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))

    def _take_in(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self._end = Reset
            return
        self._received += data
        if not data:
            self._end = Closed


def parse_reply(data: bytes, ended: bool, to_head: bool) -> tuple[Reply, int] | None:
    """The reply at the start of data and its length, None while it is not whole. Raises Malformed."""
    raw_head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        if len(data) > _MAX_HEAD:
            raise Malformed("a head without an end")
        return None
    first, *lines = raw_head.split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise Malformed(f"a status line of {first[:100]!r}")
    status = int(status_line[1])
    fields = [_HEADER_LINE.fullmatch(line) for line in lines]
    if None in fields:
        raise Malformed(f"a header line of {lines[fields.index(None)][:100]!r}")
    headers = httpx.Headers([(field[1], field[2]) for field in fields if field is not None])
    found = _body(rest, status, headers, ended, to_head)
    if found is None:
        return None
    body, length = found
    return Reply(status, headers, body), len(raw_head) + len(separator) + length


def _body(data: bytes, status: int, headers: httpx.Headers, ended: bool, to_head: bool) -> tuple[bytes, int] | None:
    """The body at the start of data and the length of its transfer (RFC 9112, section 6.3)."""
    lengths, codings = headers.get_list("content-length"), headers.get_list("transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Malformed(f"framed more than once: {lengths} {codings}")
    if (status < 200 or status == 204) and (lengths or codings):
        raise Malformed(f"a body announced with {status}")
    if to_head or status < 200 or status in {204, 304}:
        return b"", 0
    if codings:
        if codings[0].lower() != "chunked":
            raise Malformed(f"a transfer coding of {codings[0]}")
        return _chunks(data)
    if not lengths:
        if "close" not in headers.get("connection", "").lower():
            raise Malformed("neither a length nor a close")
        return (data, len(data)) if ended else None
    if re.fullmatch(r"[0-9]{1,12}", lengths[0]) is None:
        raise Malformed(f"a length of {lengths[0]}")
    length = int(lengths[0])
    return (data[:length], length) if len(data) >= length else None


def _chunks(data: bytes) -> tuple[bytes, int] | None:
    parts: list[bytes] = []
    place = 0
    while True:
        line = _CHUNK_SIZE.match(data, place)
        if line is None:
            if b"\r\n" in data[place : place + 16] or len(data) - place > 16:
                raise Malformed(f"a chunk that begins with {data[place : place + 16]!r}")
            return None
        size = int(line[1], 16)
        end = line.end() + size
        if len(data) < end + 2:
            return None
        if data[end : end + 2] != b"\r\n":
            raise Malformed("a chunk without its end")
        if size == 0:
            return b"".join(parts), end + 2
        parts.append(data[line.end() : end])
        place = end + 2
