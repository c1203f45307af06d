"""Connections to Redis: what a closed one says."""

import asyncio
from typing import Any, cast

import pytest
import redis
from flowagg.redis_client import connect_async
from flowagg.settings import RedisSettings


class ClosedTransport:
    """As uvloop's once the other side has closed."""

    def writelines(self, _: Any) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    def close(self) -> None:
        """Nothing is left to close."""


@pytest.mark.parametrize("settings", [{}, {"redis_sentinels": "127.0.0.1:1"}], ids=["URL", "Sentinel"])
def test_what_uvloop_says_of_a_closed_connection_is_an_error_of_redis(settings: dict[str, str]) -> None:
    async def ask() -> None:
        client = connect_async(RedisSettings(redis_url="redis://127.0.0.1:1/0", **cast(Any, settings)), "test")
        connection = client.connection_pool.make_connection()
        connection._reader, connection._writer = object(), ClosedTransport()
        with pytest.raises(redis.ConnectionError, match="the handler is closed"):
            await connection.send_packed_command([b"PING"], check_health=False)
        connection._reader = connection._writer = None

    asyncio.run(ask())
