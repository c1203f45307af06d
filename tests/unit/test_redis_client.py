"""Connections to Redis: what a closed one says, and which master is taken."""

import asyncio
from typing import Any, cast

import pytest
import redis
from flowagg.redis_client import AGREE_MILLISECONDS, _Discovery, connect_async
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


def state(**over: Any) -> dict[str, Any]:
    """What a sentinel says of a master that it alone calls down, long enough for the others to have agreed."""
    found = {"ip": "10.0.0.1", "port": 6379, "is_master": True, "is_odown": False, "flags": "master,s_down"}
    return found | {"s-down-time": AGREE_MILLISECONDS} | over


@pytest.mark.parametrize(
    ("states", "taken"),
    [
        ([state(), state()], ("10.0.0.1", 6379)),
        ([state()], ("10.0.0.1", 6379)),
        ([], None),
        ([state(), state(**{"s-down-time": AGREE_MILLISECONDS - 1})], None),
        ([state(), state(is_odown=True)], None),
        ([state(), state(flags="master,s_down,o_down,failover_in_progress")], None),
        ([state(is_master=False)], None),
        ([state(), state(port=6380)], None),
    ],
    ids=["all", "the only one that answers", "none answers", "not for long", "agreed", "failover", "replica", "two"],
)
def test_a_master_in_doubt_is_taken_where_the_sentinels_do_not_agree_that_it_is_down(
    states: list[dict[str, Any]], taken: tuple[str, int] | None
) -> None:
    assert _Discovery.doubted(states) == taken
