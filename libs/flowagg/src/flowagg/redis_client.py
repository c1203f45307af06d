"""Redis clients: of the master, by URL or by Sentinel; bounded waits and no hidden retries.

A retry inside redis-py would send a command again without the caller's knowledge; the callers' own
retries read the stored position first. By Sentinel every new connection asks where the master is:
so after a failover an error and a reconnect are all that it takes to follow.

With TLS all connections share one context. redis-py would read the certificates again for each of
them, those of the system too, and trust the system's beside the CA that was given.
"""

import asyncio
import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import redis.asyncio
import redis.asyncio.connection
import redis.asyncio.sentinel
import redis.connection
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from flowagg.settings import RedisSettings, sentinel_addresses

_pack = redis.connection.HiredisRespSerializer().pack


def connect(settings: RedisSettings, service: str, **options: Any) -> redis.Redis:
    """A client of the Redis master; nothing is connected yet. options: redis-py's, such as max_connections.

    Its methods raise redis.RedisError: also where no sentinel knows a master, and where the node
    has been made a replica (its connection is closed then, and the next one asks the sentinels).
    """
    tls, sentinel_tls = _contexts(settings)
    options = _options(settings, service) | {"retry": Retry(NoBackoff(), 0)} | options
    if not settings.redis_sentinels:
        options |= _over(tls, redis.connection.Connection, _TlsConnection)
        return redis.Redis.from_pool(redis.ConnectionPool.from_url(_address(settings), **options))
    sentinels = _Sentinels(settings, _over(sentinel_tls, redis.connection.Connection, _TlsConnection))
    options |= _over(tls, redis.sentinel.SentinelManagedConnection, _TlsManagedConnection)
    return redis.Redis.from_pool(
        redis.sentinel.SentinelConnectionPool(settings.redis_master_name, sentinels, **options)
    )


def connect_async(settings: RedisSettings, service: str, **options: Any) -> redis.asyncio.Redis:
    """As connect, for asyncio."""
    tls, sentinel_tls = _contexts(settings)
    options = _options(settings, service) | {"retry": AsyncRetry(NoBackoff(), 0)} | options
    if not settings.redis_sentinels:
        options |= _over(tls, _AsyncConnection, _AsyncTlsConnection)
        return redis.asyncio.Redis.from_pool(redis.asyncio.ConnectionPool.from_url(_address(settings), **options))
    sentinels = _AsyncSentinels(settings, _over(sentinel_tls, _AsyncConnection, _AsyncTlsConnection))
    options |= _over(tls, _AsyncManagedConnection, _AsyncTlsManagedConnection)
    pool = _AsyncPool(settings.redis_master_name, sentinels, settings.sentinel_recheck_seconds, **options)
    return redis.asyncio.Redis.from_pool(pool)


def _options(settings: RedisSettings, service: str) -> dict[str, Any]:
    """Options of connections to a Redis node, but for `retry`, which differs in asyncio."""
    return {
        "username": settings.redis_username,
        "password": settings.redis_password.get_secret_value() or None,
        "socket_timeout": settings.redis_timeout_seconds,
        "socket_connect_timeout": settings.redis_timeout_seconds,
        "socket_keepalive": True,
        "health_check_interval": 0,
        "client_name": f"flowagg-{service}",
        "protocol": 2,
    }


def _contexts(settings: RedisSettings) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """The TLS context for Redis and for the sentinels; None where they are spoken to in the clear."""
    to_sentinels = bool(settings.redis_sentinels) and settings.sentinel_tls
    context = settings.tls_context() if settings.speaks_tls or to_sentinels else None
    return context if settings.speaks_tls else None, context if to_sentinels else None


def _over(tls: ssl.SSLContext | None, in_the_clear: type, encrypted: type) -> dict[str, Any]:
    """A pool's options: which connections it makes."""
    return {"connection_class": in_the_clear} if tls is None else {"connection_class": encrypted, "tls": tls}


def _address(settings: RedisSettings) -> str:
    """The URL with its scheme in the clear: for rediss:// redis-py would take a connection of its own."""
    return settings.redis_url.replace("rediss://", "redis://", 1)


class _Tls:
    """A connection that speaks TLS as a context says."""

    def __init__(self, *, tls: ssl.SSLContext, **options: Any) -> None:
        self._tls = tls
        super().__init__(**options)

    def _connect(self) -> Any:
        connected = super()._connect()  # type: ignore[misc] # of the connection class it is mixed into
        try:
            return self._tls.wrap_socket(connected, server_hostname=self.host)  # type: ignore[attr-defined]
        except BaseException:
            connected.close()
            raise


class _AsyncTls:
    """As _Tls, for asyncio."""

    def __init__(self, *, tls: ssl.SSLContext, **options: Any) -> None:
        self._tls = tls
        super().__init__(**options)

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._tls}  # type: ignore[misc] # as in _Tls


class _TlsConnection(_Tls, redis.connection.Connection): ...


class _TlsManagedConnection(_Tls, redis.sentinel.SentinelManagedConnection): ...


class _ForAsyncio:
    """What redis-py's connections for asyncio lack.

    uvloop says RuntimeError where something is written to a transport that the other side has closed meanwhile, which
    redis-py does not know: readers answered 500. And commands are packed in Python there, though redis-py has hiredis
    do it elsewhere: for a reader's look at six partitions 16 us in place of 6.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        """As redis-py's. Raises redis.DataError."""
        packed: list[bytes] = _pack(*args)
        return packed

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """As redis-py's. Raises redis.RedisError."""
        try:
            await super().send_packed_command(command, check_health)  # type: ignore[misc] # as in _Tls
        except RuntimeError as error:
            raise redis.ConnectionError(f"the connection is closed: {error}") from error


class _AsyncConnection(_ForAsyncio, redis.asyncio.connection.Connection): ...


class _AsyncManagedConnection(_ForAsyncio, redis.asyncio.sentinel.SentinelManagedConnection): ...


class _AsyncTlsConnection(_AsyncTls, _AsyncConnection): ...


class _AsyncTlsManagedConnection(_AsyncTls, _AsyncManagedConnection): ...


AGREE_MILLISECONDS: Final = 1_000
"""How long sentinels take to agree that a master is down: each asks the others once a second."""


class _Discovery:
    """What asking the sentinels has in common, whoever does the I/O.

    In place of redis-py's Sentinel, whose concurrent discoveries swap entries of one list across an
    await: behind a hung sentinel they overwrite the others, until a single one is left that is
    ever asked. A sentinel's connection is closed with its answer, so none is found dead later.
    """

    def __init__(self, settings: RedisSettings, over: Mapping[str, Any]) -> None:
        """over: the connection's class and options, from _over."""
        self._addresses = sentinel_addresses(settings.redis_sentinels)
        self._knew = self._addresses[0]
        self.options: dict[str, Any] = {
            "username": settings.sentinel_username,
            "password": settings.sentinel_password.get_secret_value() or None,
            "socket_timeout": settings.sentinel_timeout_seconds,
            "socket_connect_timeout": settings.sentinel_timeout_seconds,
            "protocol": 2,
            **over,
        }

    def order(self) -> list[tuple[str, int]]:
        """The sentinel that last knew the master, then the others."""
        knew = self._knew
        return [knew, *(address for address in self._addresses if address != knew)]

    def master(self, sentinel: tuple[str, int], state: Mapping[str, Any]) -> tuple[str, int]:
        """The master's address in a sentinel's answer. Raises redis.ConnectionError where it is down."""
        if not state["is_master"] or state["is_sdown"] or state["is_odown"]:
            raise redis.ConnectionError(f"its master {state['ip']}:{state['port']} is down")
        self._knew = sentinel
        return state["ip"], state["port"]

    @staticmethod
    def doubted(states: Iterable[Mapping[str, Any]]) -> tuple[str, int] | None:
        """The master that every sentinel that answered calls down and that the sentinels do not agree to be down.

        None where they may still agree, or where one of them sees a failover. On machines that stand still for a
        while, sentinels were seen to call a master that is up down for 5 s and for 31 s (in TILT they do not look
        again for 30 s) without failing over: nothing is gained by staying away from it, and a master that is deposed
        after all is fenced off as any other.
        """
        addresses = set()
        for state in states:
            agreed = state["is_odown"] or "failover_in_progress" in state["flags"] or not state["is_master"]
            if agreed or int(state.get("s-down-time", 0)) < AGREE_MILLISECONDS:
                return None
            addresses.add((state["ip"], state["port"]))
        return addresses.pop() if len(addresses) == 1 else None

    @staticmethod
    def promoted(replicas: Iterable[Mapping[str, Any]]) -> tuple[str, int] | None:
        """The address of the replica that the sentinel, which leads a failover, makes the master; None: not known.

        It is the master a second before the sentinels say so: they see it in its next INFO. Until it is, it refuses
        writes, and the caller asks again. Where the failover comes to nothing, what was written there is lost, as with
        any failover.
        """
        return next(((found["ip"], found["port"]) for found in replicas if "promoted" in found["flags"]), None)


def _none_knows(name: str, problems: Mapping[tuple[str, int], redis.RedisError]) -> redis.RedisError:
    asked = "; ".join(f"{host}:{port}: {error}" for (host, port), error in problems.items())
    return redis.sentinel.MasterNotFoundError(f"no sentinel knows a master {name!r} that is up ({asked})")


class _Sentinels(_Discovery):
    """The sentinel manager of a pool."""

    def discover_master(self, name: str) -> tuple[str, int]:
        """The master's host and port. Raises redis.sentinel.MasterNotFoundError."""
        problems: dict[tuple[str, int], redis.RedisError] = {}
        states: list[Mapping[str, Any]] = []
        for host, port in self.order():
            try:
                pool = redis.ConnectionPool(host=host, port=port, retry=Retry(NoBackoff(), 0), **self.options)
                with redis.Redis.from_pool(pool) as sentinel:
                    state: Any = sentinel.sentinel_master(name, return_responses=True)
                    states.append(state)
                    if "failover_in_progress" in state["flags"]:
                        promoted = self.promoted(sentinel.sentinel_slaves(name))
                        if promoted is not None:
                            return promoted
                return self.master((host, port), state)
            except redis.RedisError as error:
                problems[host, port] = error
        if (doubted := self.doubted(states)) is not None:
            return doubted
        raise _none_knows(name, problems)


class _AsyncSentinels(_Discovery):
    """The sentinel manager of an asyncio pool."""

    def __init__(self, settings: RedisSettings, over: Mapping[str, Any]) -> None:
        super().__init__(settings, over)
        self._asking: asyncio.Task[tuple[str, int]] | None = None

    async def discover_master(self, name: str) -> tuple[str, int]:
        """The master's host and port. Raises redis.sentinel.MasterNotFoundError.

        Those who ask at the same time share one answer: after a failover every connection asks at once, and as many
        questions to sentinels of which some hang keep each other from their answers in time.
        """
        if self._asking is None:
            self._asking = asyncio.create_task(self._discover(name))
            self._asking.add_done_callback(self._answered)
        return await asyncio.shield(self._asking)

    def _answered(self, asking: asyncio.Task[tuple[str, int]]) -> None:
        self._asking = None
        if not asking.cancelled():
            asking.exception()  # seen, though whoever asked may have gone

    async def _discover(self, name: str) -> tuple[str, int]:
        problems: dict[tuple[str, int], redis.RedisError] = {}
        states: list[Mapping[str, Any]] = []
        for host, port in self.order():
            try:
                options = {"host": host, "port": port, "retry": AsyncRetry(NoBackoff(), 0), **self.options}
                async with redis.asyncio.Redis.from_pool(redis.asyncio.ConnectionPool(**options)) as sentinel:
                    state: Any = await sentinel.sentinel_master(name, return_responses=True)
                    states.append(state)
                    if "failover_in_progress" in state["flags"]:
                        promoted = self.promoted(await sentinel.sentinel_slaves(name))
                        if promoted is not None:
                            return promoted
                return self.master((host, port), state)
            except redis.RedisError as error:
                problems[host, port] = error
        if (doubted := self.doubted(states)) is not None:
            return doubted
        raise _none_knows(name, problems)


class _AsyncPool(redis.asyncio.sentinel.SentinelConnectionPool):
    """Follows the master also where the former one still answers.

    A read never fails there. So while the pool is in use the sentinels are asked again, beside the reads: without
    this, reads were seen to stay with a former master for 10 s, until Sentinel made it a replica. And connections to
    it that were in use when the new one was found are closed too (redis-py closes the idle ones alone; its pool
    without asyncio closes both).
    """

    def __init__(self, name: str, sentinels: _AsyncSentinels, recheck_seconds: float, **options: Any) -> None:
        super().__init__(name, sentinels, **options)  # type: ignore[no-untyped-call]
        self._recheck_seconds = recheck_seconds
        self._asked_at = time.monotonic()
        self._asking: asyncio.Task[None] | None = None

    async def get_connection(self, *arguments: Any, **options: Any) -> Any:
        if self._asking is None and time.monotonic() >= self._asked_at + self._recheck_seconds:
            self._asking = asyncio.create_task(self._ask_again())
        return await super().get_connection(*arguments, **options)  # type: ignore[no-untyped-call]

    async def release(self, connection: Any) -> None:
        if (connection.host, connection.port) != self.master_address:
            connection.mark_for_reconnect()
        await super().release(connection)

    async def _ask_again(self) -> None:
        try:
            await self.get_master_address()  # type: ignore[no-untyped-call]
        except redis.RedisError:
            pass  # told where a connection is needed
        finally:
            self._asked_at, self._asking = time.monotonic(), None
