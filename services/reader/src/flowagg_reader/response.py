"""An answer on its way to the client."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flowagg_reader.cache import Entry
from flowagg_reader.union import Body

_log = logging.getLogger(__name__)

_FIRST_BYTES: Final = 64 * 2**10
"""Answers up to about so many bytes are written before their headers go out, and have a length."""


class EntryResponse(Response):
    """Sends a held body in its chunks, the same ones to all, and releases it in the end.

    Each chunk is handed over when those before have nearly gone, so a slow client holds two of them and not
    the whole. stall_seconds: longest wait for that; past it the connection is closed.
    """

    def __init__(self, entry: "Entry[Body]", headers: Mapping[str, str], stall_seconds: float) -> None:
        self.status_code = 200
        self.media_type = "application/json"
        self.background = None
        self.body = b""
        self._entry = entry
        self._stall_seconds = stall_seconds
        self.init_headers({**headers, "Content-Length": str(entry.body.size)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send it. A client that has gone costs nothing: its chunks are dropped at once."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            *first, last = self._entry.body.chunks
            for chunk in first:
                async with asyncio.timeout(self._stall_seconds):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            async with asyncio.timeout(self._stall_seconds):
                await send({"type": "http.response.body", "body": last})
        except TimeoutError:
            _log.warning("a client takes its answer too slowly", extra={"stall_seconds": self._stall_seconds})
        finally:
            self._entry.release()


class HeadResponse(Response):
    """An answer to HEAD: the length of the body where it is known."""

    def __init__(self, size: int | None, headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers, media_type="application/json")
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        if size is not None:
            self.raw_headers.append((b"content-length", str(size).encode()))


class RowsResponse(Response):
    """Sends pieces as they are written; with their length where they are few. stall_seconds: as of EntryResponse.

    whole: all of it is written already. sent: called once it has been sent, or will not be.
    """

    def __init__(self, pieces: Iterator[bytes], headers: Mapping[str, str], stall_seconds: float) -> None:
        self.status_code = 200
        self.background = None
        self.media_type = None
        self.body = b""
        self._pieces = pieces
        self._stall_seconds = stall_seconds
        self._first: list[bytes] = []
        self.whole = False
        self.sent: Callable[[], object] | None = None
        while not self.whole and sum(map(len, self._first)) < _FIRST_BYTES:
            piece = next(pieces, None)
            if piece is None:
                self.whole = True
            else:
                self._first.append(piece)
        length = {"Content-Length": str(sum(map(len, self._first)))} if self.whole else {}
        self.init_headers({**headers, **length})
        if not self.whole:
            self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send it. Each piece is written when those before have nearly gone."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if self.whole:
                await send({"type": "http.response.body", "body": b"".join(self._first)})
                return
            for piece in itertools.chain(self._first, self._pieces):
                if piece:
                    async with asyncio.timeout(self._stall_seconds):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            _log.warning("a client takes its answer too slowly", extra={"stall_seconds": self._stall_seconds})
        finally:
            if self.sent is not None:
                self.sent()
