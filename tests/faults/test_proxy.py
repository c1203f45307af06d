"""What the proxies do to a conversation, on the loopback."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.faults.proxy import Condition, Proxy

Talk = Callable[[Proxy, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def talk(through: Talk, translated: dict[bytes, bytes] | None = None) -> None:
    """Talk, through a proxy, to a server that says everything twice."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data * 2)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        proxy = Proxy(server.sockets[0].getsockname()[1], translated or {})
        await proxy.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            async with asyncio.timeout(5):
                await through(proxy, reader, writer)
        finally:
            writer.close()
            proxy.stop()
            server.close()
            await asyncio.sleep(0.05)  # the handlers end

    asyncio.run(run())


def test_bytes_pass_both_ways_and_ends_too() -> None:
    async def through(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"ab")
        assert await reader.readexactly(4) == b"abab"
        writer.write_eof()
        assert await reader.read() == b""

    talk(through)


def test_a_black_hole_swallows_nothing_for_ever() -> None:
    async def through(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy.condition = Condition(black_hole=True)
        writer.write(b"ab")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        proxy.condition = Condition()
        assert await reader.readexactly(4) == b"abab"

    talk(through)


def test_delays_are_those_of_both_ways() -> None:
    async def through(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy.condition = Condition(delay_seconds=0.05)
        began = time.monotonic()
        writer.write(b"ab")
        assert await reader.readexactly(4) == b"abab"
        assert time.monotonic() - began >= 0.1

    talk(through)


def test_a_reset_is_one_for_the_client() -> None:
    async def through(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"ab")
        assert await reader.readexactly(4) == b"abab"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)

    talk(through)


def test_ports_are_translated_in_answers_alone() -> None:
    async def through(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"1234")
        assert await reader.readexactly(8) == b"56785678"

    talk(through, {b"1234": b"5678"})
