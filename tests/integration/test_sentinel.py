"""Clients of a Redis behind Sentinel: they find the master, follow it, and wait for nobody long."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
import redis.asyncio
from flowagg.redis_client import connect, connect_async
from flowagg.settings import RedisSettings
from flowagg_reader.settings import ReaderSettings
from flowagg_stack import sentinel
from flowagg_stack.ports import free_port
from flowagg_stack.processes import Processes
from flowagg_stack.sentinel import MASTER_NAME, SentinelSet, start_sentinel_set

from tests.integration.tools import wait_for

pytestmark = pytest.mark.cluster

FAILOVER_SECONDS = 5
HUNG_SECONDS = 1
_Result = TypeVar("_Result")


class Sync:
    """The client without asyncio, called as the other one is."""

    def __init__(self, settings: RedisSettings, **options: Any) -> None:
        self._client = connect(settings, "test", **options)

    def do(self, *command: str) -> Any:
        return self._client.execute_command(*command)

    def close(self) -> None:
        self._client.close()


class Async:
    """The asyncio client, one command at a time on a loop of its own."""

    def __init__(self, settings: RedisSettings, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = connect_async(settings, "test", **options)

    def do(self, *command: str) -> Any:
        return self._run(self._client.execute_command(*command))

    def close(self) -> None:
        self._run(self._client.aclose())
        self._runner.close()

    def _run(self, awaitable: Awaitable[_Result]) -> _Result:
        async def waited() -> _Result:
            return await awaitable

        return self._runner.run(waited())


Client = Sync | Async


@pytest.fixture(params=[Sync, Async])
def opened(request: pytest.FixtureRequest) -> Any:
    """Opens clients of either kind, and closes them."""
    clients: list[Client] = []

    def opener(settings: RedisSettings) -> Client:
        clients.append(request.param(settings, max_connections=1))
        return clients[-1]

    yield opener
    for client in clients:
        client.close()


@pytest.fixture
def redis_set(processes: Processes, tmp_path: Path) -> Iterator[SentinelSet]:
    started = start_sentinel_set(processes, tmp_path)
    yield started
    started.kill_all()


def settings_of(redis_set: SentinelSet, **more: Any) -> RedisSettings:
    values = {name.removeprefix("FLOWAGG_").lower(): value for name, value in redis_set.environment.items()}
    return ReaderSettings(**(values | more))


def address_of(client: Client) -> str:
    """The node that a client is connected to."""
    _, port = client.do("CONFIG", "GET", "port")
    return f"127.0.0.1:{port.decode()}"


def ask(address: str, *command: str) -> Any:
    with sentinel.client(address) as client:
        return client.execute_command(*command)


def connections_of_tests(address: str) -> int:
    return sum(found["name"] == "flowagg-test" for found in ask(address, "CLIENT LIST"))


def write_again(client: Client, value: str) -> bool:
    """Whether a write succeeds; any other end than a RedisError fails the test."""
    try:
        return bool(client.do("SET", "key", value))
    except redis.RedisError:
        return False


def test_a_master_that_sentinels_call_down_and_do_not_agree_to_be_down_is_used(
    redis_set: SentinelSet, opened: Callable[[RedisSettings], Client]
) -> None:
    """As those do that stood still themselves: in TILT they keep what they thought for 30 s and fail nothing over."""
    master = redis_set.master()
    for address in redis_set.sentinels:
        ask(address, "SENTINEL", "SET", MASTER_NAME, "quorum", "4")  # of three: they cannot agree
    ask(master, "ACL", "SETUSER", "default", "-ping")  # which the sentinels ask it, and no client does

    def down_for(address: str) -> int:
        state = ask(address, "SENTINEL", "MASTER", MASTER_NAME)
        return int(dict(zip(state[::2], state[1::2], strict=True)).get(b"s-down-time", 0))

    wait_for(lambda: all(down_for(address) > 0 for address in redis_set.sentinels), "all call it down", 20)
    client = opened(settings_of(redis_set))
    wait_for(lambda: write_again(client, "doubted"), "a write to it", FAILOVER_SECONDS)
    assert address_of(client) == master
    assert min(down_for(address) for address in redis_set.sentinels) > 0


def test_writes_go_on_with_another_master_and_the_killed_one_comes_back_as_a_replica(
    redis_set: SentinelSet, opened: Callable[[RedisSettings], Client]
) -> None:
    client = opened(settings_of(redis_set))
    assert client.do("SET", "key", "before")
    old = redis_set.master()
    assert address_of(client) == old

    redis_set.kill(old)
    with pytest.raises(redis.RedisError):
        client.do("SET", "key", "lost")
    wait_for(lambda: write_again(client, "after"), "a write to another master", FAILOVER_SECONDS)
    new = address_of(client)
    assert new != old
    # They say so once they have seen it in the node's next INFO.
    wait_for(lambda: redis_set.master() == new, "the sentinels name the other master", FAILOVER_SECONDS)

    redis_set.restart(old)
    wait_for(lambda: ask(old, "GET", "key") == b"after", "the killed node has what was written without it", 5)
    assert ask(old, "ROLE")[0] == b"slave"
    assert old in redis_set.replicas()


def test_a_hung_sentinel_is_passed_over(redis_set: SentinelSet, opened: Callable[[RedisSettings], Client]) -> None:
    first = next(iter(redis_set.sentinels))
    os.kill(redis_set.sentinels[first].process.pid, signal.SIGSTOP)
    started = time.monotonic()
    client = opened(settings_of(redis_set))
    assert client.do("SET", "key", "1")
    assert time.monotonic() - started < HUNG_SECONDS
    # The one that answered is asked first from now on.
    ask(redis_set.master(), "CLIENT", "KILL", "TYPE", "normal")
    started = time.monotonic()
    wait_for(lambda: write_again(client, "2"), "a write over another connection", HUNG_SECONDS)
    assert time.monotonic() - started < 0.19


def test_a_master_that_became_a_replica_is_left_with_an_error(
    redis_set: SentinelSet, opened: Callable[[RedisSettings], Client]
) -> None:
    client = opened(settings_of(redis_set))
    assert client.do("SET", "key", "before")
    old = redis_set.master()
    # As a demotion is, but that the connections stay.
    ask(old, "REPLICAOF", "127.0.0.1", str(free_port()))
    assert connections_of_tests(old) == 1
    with pytest.raises(redis.RedisError, match="now a slave"):
        client.do("SET", "key", "lost")
    wait_for(lambda: connections_of_tests(old) == 0, "the connection is closed", 1)
    ask(next(iter(redis_set.sentinels)), "SENTINEL", "FAILOVER", MASTER_NAME)
    wait_for(lambda: write_again(client, "after"), "a write to another master", FAILOVER_SECONDS)
    assert address_of(client) != old


def test_no_answer_of_the_sentinels_is_a_redis_error_in_bounded_time(
    redis_set: SentinelSet, opened: Callable[[RedisSettings], Client]
) -> None:
    with pytest.raises(redis.ConnectionError, match="No such master"):
        opened(settings_of(redis_set, redis_master_name="another")).do("PING")

    hung, dead, secret = redis_set.sentinels
    ask(secret, "ACL", "SETUSER", "default", "resetpass", ">hunter2")
    os.kill(redis_set.sentinels[hung].process.pid, signal.SIGSTOP)
    redis_set.kill(dead)
    started = time.monotonic()
    with pytest.raises(redis.ConnectionError, match="no sentinel knows") as caught:
        opened(settings_of(redis_set)).do("PING")
    assert time.monotonic() - started < HUNG_SECONDS
    assert all(address in str(caught.value) for address in redis_set.sentinels)
    wrong, right = "hunter1", "hunter2"
    with pytest.raises(redis.ConnectionError, match="invalid username-password"):
        opened(settings_of(redis_set, sentinel_password=wrong)).do("PING")
    assert opened(settings_of(redis_set, sentinel_password=right)).do("PING")

    nobody = ReaderSettings(redis_sentinels=f"127.0.0.1:{free_port()},no-such-host.invalid:26379")
    with pytest.raises(redis.ConnectionError, match="no sentinel knows"):
        opened(nobody).do("PING")


def connections_received(sentinel: str) -> int:
    found = re.search(rb"total_connections_received:(\d+)", ask(sentinel, "INFO stats"))
    assert found
    return int(found[1])


def test_many_connections_at_a_time_ask_once_and_forget_no_sentinel(redis_set: SentinelSet) -> None:
    first, second, third = redis_set.sentinels

    async def crowd() -> None:
        client = connect_async(settings_of(redis_set), "test", max_connections=64)
        try:
            for down in ([first], [first, second]):
                for address in down:
                    os.kill(redis_set.sentinels[address].process.pid, signal.SIGSTOP)
                await client.connection_pool.disconnect()
                asked_before = connections_received(third)
                # Each takes a connection of its own, all at the same time, and one answer does for all.
                await asyncio.gather(*(client.blpop(["nothing"], timeout=0.05) for _ in range(40)))
                assert connections_received(third) - asked_before < 10
            os.kill(redis_set.sentinels[first].process.pid, signal.SIGCONT)
            os.kill(redis_set.sentinels[third].process.pid, signal.SIGSTOP)
            await client.connection_pool.disconnect()
            assert await client.ping()
        finally:
            await client.aclose()

    asyncio.run(crowd())


def test_connections_in_use_do_not_outlive_the_change_of_master(redis_set: SentinelSet) -> None:
    old = redis_set.master()
    other = redis_set.replicas()[0]

    async def scene() -> None:
        client = connect_async(settings_of(redis_set), "test", max_connections=8)
        try:
            assert await client.ping()

            async def wait_in_use() -> None:
                await client.blpop(["nothing"], timeout=1.0)

            waiting = asyncio.create_task(wait_in_use())
            await until(lambda: "blpop" in {found["cmd"] for found in ask(old, "CLIENT LIST")})
            # The sentinels name another node, and the old master lives on with its connections.
            for address in redis_set.sentinels:
                ask(address, "SENTINEL", "REMOVE", MASTER_NAME)
                ask(address, "SENTINEL", "MONITOR", MASTER_NAME, *other.split(":"), "2")
            found: Any = await client.config_get("port")
            assert other.endswith(f":{found['port']}")
            assert connections_of_tests(old) == 1
            await waiting
            await until(lambda: connections_of_tests(old) == 0)
        finally:
            await client.aclose()

    asyncio.run(scene())


def test_an_idle_connection_does_not_stay_with_a_former_master_that_answers(redis_set: SentinelSet) -> None:
    old = redis_set.master()
    other = redis_set.replicas()[0]

    async def scene() -> None:
        client = connect_async(settings_of(redis_set, sentinel_recheck_seconds=0.2), "test", max_connections=8)

        async def port() -> str:
            found: Any = await client.config_get("port")
            return str(found["port"])

        try:
            assert old.endswith(f":{await port()}")
            for address in redis_set.sentinels:
                ask(address, "SENTINEL", "REMOVE", MASTER_NAME)
                ask(address, "SENTINEL", "MONITOR", MASTER_NAME, *other.split(":"), "2")
            deadline = time.monotonic() + 5
            while not other.endswith(f":{await port()}"):
                assert time.monotonic() < deadline, "reads stay with the former master"
                await asyncio.sleep(0.05)
        finally:
            await client.aclose()

    asyncio.run(scene())


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
