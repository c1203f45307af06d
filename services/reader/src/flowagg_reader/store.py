"""Redis as the reader sees it: atomic reads, partition by partition."""

import asyncio
from collections.abc import Iterable
from typing import Any

import redis
from flowagg.redis_client import connect_async
from flowagg.settings import RedisSettings
from flowagg.view import Meta, decode_meta, meta_key, partitions_key, totals_key

from flowagg_reader.core import PartitionHour

_TRIES = 3
_CONNECTIONS = 64


class Store:
    """A pool of connections to the Redis master that keeps the view.

    Every method raises redis.RedisError where Redis is away or refuses, DamagedView where the view
    is not as the consumer writes it.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._view = settings.view
        self._redis = connect_async(settings, "reader", max_connections=_CONNECTIONS + 1)  # one for ping
        # The pool raises where none is free; requests wait for their turn instead.
        self._turn = asyncio.Semaphore(_CONNECTIONS)
        self._incarnations: dict[int, str] = {}

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def ping(self) -> None:
        """Return where Redis answers."""
        await self._redis.ping()

    async def partitions(self) -> set[int]:
        """The partitions that the view has ever begun."""
        async with self._turn:
            members: Any = await self._redis.smembers(partitions_key(self._view))
        return {int(member) for member in members}

    async def metas(self, partitions: Iterable[int]) -> dict[int, Meta | None]:
        """The metas of partitions, for waiting; an answer is judged by read_hour alone."""
        numbers = list(partitions)
        pipeline = self._redis.pipeline(transaction=False)
        for number in numbers:
            pipeline.hgetall(meta_key(self._view, number))
        async with self._turn:
            replies = await pipeline.execute()
        return {number: decode_meta(reply) for number, reply in zip(numbers, replies, strict=True)}

    async def read_hour(self, partitions: Iterable[int], hour: int) -> dict[int, PartitionHour]:
        """Meta and totals of an hour, in one transaction per partition.

        The totals' key holds the incarnation that only the meta knows: it is guessed from the last
        read, and read again where the meta in the same transaction shows another.
        """
        result: dict[int, PartitionHour] = {}
        left = set(partitions)
        for _ in range(_TRIES):
            unknown = left - self._incarnations.keys()
            if unknown:
                for number, meta in (await self.metas(unknown)).items():
                    if meta is None:
                        result[number] = PartitionHour(None, {})
                        left.discard(number)
                    else:
                        self._incarnations[number] = meta.incarnation
            result |= await self._read_hour(left, hour)
            left -= result.keys()
            if not left:
                return result
        raise redis.RedisError("the view is being made again: its incarnations change while they are read")

    async def _read_hour(self, numbers: set[int], hour: int) -> dict[int, PartitionHour]:
        """The partitions whose guessed incarnation was right."""
        order = sorted(numbers)
        guesses = [self._incarnations[number] for number in order]
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.response_callbacks = {}  # plain replies: "QUEUED" where a hash would be
        for number, incarnation in zip(order, guesses, strict=True):
            pipeline.execute_command("MULTI")
            pipeline.execute_command("HGETALL", meta_key(self._view, number))
            pipeline.execute_command("HGETALL", totals_key(self._view, number, incarnation, hour))
            pipeline.execute_command("EXEC")
        async with self._turn:
            replies: list[Any] = await pipeline.execute()
        result = {}
        for number, incarnation, reply in zip(order, guesses, replies[3::4], strict=True):
            for part in reply:
                if isinstance(part, redis.RedisError):
                    raise part
            meta = decode_meta(_pairs(reply[0]))
            if meta is None or meta.incarnation == incarnation:
                result[number] = PartitionHour(meta, {} if meta is None else _pairs(reply[1]))
            else:
                self._incarnations[number] = meta.incarnation
        return result


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
