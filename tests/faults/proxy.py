"""Proxies of the loopback that cut, swallow, delay or throttle what passes between services and their servers."""

import asyncio
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

_CHUNK_BYTES: Final = 16 * 1024
_QUEUED_CHUNKS: Final = 64
_TURN_SECONDS: Final = 0.02
_START_SECONDS: Final = 5
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: a close sends a RST at once."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a way is like. black_hole: nothing comes through, in either direction; what was sent comes when it ends,
    as TCP's repeats would. delay_seconds: each way. bytes_per_second: each way and connection; 0 for no bound.
    """

    black_hole: bool = False
    delay_seconds: float = 0.0
    bytes_per_second: int = 0


PASS: Final = Condition()


class Proxy:
    """A port in front of another one.

    translated: bytes -> bytes as long, in what the server answers: so that a sentinel names the proxies' ports.
    condition may be set from any thread.
    """

    def __init__(self, behind: int, translated: Mapping[bytes, bytes]) -> None:
        self.port = 0
        self.condition = PASS
        self._behind = behind
        self._translated = dict(translated)
        self._ends: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def reset(self) -> None:
        """Reset all connections, on both sides. To be called in the loop."""
        for end in tuple(self._ends):
            _reset(end)

    def stop(self) -> None:
        """Take no more connections and reset all. To be called in the loop."""
        if self._server is not None:
            self._server.close()
        self.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        ahead: asyncio.StreamWriter | None = None
        try:
            await self._hole_ended()
            behind, ahead = await asyncio.open_connection("127.0.0.1", self._behind)
            self._ends.add(ahead)
            await asyncio.gather(self._hand_on(reader, ahead, {}), self._hand_on(behind, writer, self._translated))
        except OSError:
            _reset(writer)  # nobody listens behind, or one of the two ends was reset: so is the other
            if ahead is not None:
                _reset(ahead)
        finally:
            for end in (writer, ahead):
                if end is not None:
                    self._ends.discard(end)
                    end.close()

    async def _hole_ended(self) -> None:
        while self.condition.black_hole:
            await asyncio.sleep(_TURN_SECONDS)

    async def _hand_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, translated: Mapping[bytes, bytes]
    ) -> None:
        """Hand bytes on until the end. Raises OSError where either side was reset."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue(_QUEUED_CHUNKS)

        async def take_in() -> None:
            data: bytes | OSError = b"-"
            while data and not isinstance(data, OSError):
                try:
                    data = await reader.read(_CHUNK_BYTES)
                except OSError as error:
                    data = error
                await waiting.put((loop.time() + self.condition.delay_seconds, data))

        task = asyncio.create_task(take_in())
        try:
            while True:
                due, data = await waiting.get()
                if isinstance(data, OSError):
                    raise data
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                await self._hole_ended()
                if not data:
                    break
                for before, after in translated.items():
                    data = data.replace(before, after)
                writer.write(data)
                await writer.drain()
                if rate := self.condition.bytes_per_second:
                    await asyncio.sleep(len(data) / rate)
            if writer.can_write_eof():
                writer.write_eof()
        finally:
            task.cancel()


class Network:
    """All proxies, in a thread with a loop of its own; a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._proxies: list[Proxy] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_START_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    def proxy(self, behind: int, translated: Mapping[bytes, bytes] | None = None) -> Proxy:
        """Put a proxy before a port of the loopback."""
        made = Proxy(behind, translated or {})
        asyncio.run_coroutine_threadsafe(made.start(), self._loop).result(_START_SECONDS)
        self._proxies.append(made)
        return made

    def reset(self, proxies: Sequence[Proxy]) -> None:
        """Reset all connections through these."""
        for proxy in proxies:
            self._loop.call_soon_threadsafe(proxy.reset)

    def heal(self) -> None:
        """Everything passes again."""
        for proxy in self._proxies:
            proxy.condition = PASS

    async def _stop(self) -> None:
        self.heal()
        for proxy in self._proxies:
            proxy.stop()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def _reset(end: asyncio.StreamWriter) -> None:
    bare = end.get_extra_info("socket")
    if bare is not None:
        with suppress(OSError):
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.transport.abort()
