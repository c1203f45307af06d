"""Redis as the consumer sees it: the meta and the totals of a view, written by scripts alone."""

from collections.abc import Iterable, Sequence
from typing import Any

import redis
from flowagg.redis_client import NO_BACKOFF, client_options
from flowagg.settings import RedisSettings
from flowagg.view import Meta, decode_meta, hours_key, meta_key, partitions_key, totals_key
from redis.retry import Retry

from flowagg_consumer.partition import Batch, Fenced, HourTotals, Partition

_PAIRS_A_CALL = 3500  # Lua's unpack takes fewer than 8,000 values

_BEGIN = """#!lua
-- Writes a partition's first meta, unless it has one. KEYS: meta. ARGV: position, topic id, incomplete, incarnation.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'position', ARGV[1], 'topic_id', ARGV[2], 'leader_epoch', '-1',
    'start', ARGV[1], 'incomplete', ARGV[3], 'incarnation', ARGV[4])
end
return redis.call('HGETALL', KEYS[1])
"""

_APPLY = f"""#!lua
-- Step 4. KEYS: meta, hours, then one totals hash per hour.
-- ARGV: expected position, topic id, incarnation, new position, leader epoch,
--   then per totals hash: hour, last position, number n of values, and n values (field, totals, ...).
local stored = redis.call('HMGET', KEYS[1], 'position', 'topic_id', 'incarnation')
for i = 1, 3 do
  if stored[i] ~= ARGV[i] then
    return {{stored[1] or '', stored[2] or '', stored[3] or ''}}
  end
end
-- Scripts do not roll back: nothing may fail after the first write. Memory is checked by Redis
-- itself before a script with this first line starts.
for i = 2, #KEYS do
  local kind = redis.call('TYPE', KEYS[i])['ok']
  if kind ~= 'hash' and kind ~= 'none' then
    return redis.error_reply('DAMAGED ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
local at = 6
for i = 3, #KEYS do
  redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
  local last = at + 2 + tonumber(ARGV[at + 2])
  at = at + 3
  while at <= last do
    local to = math.min(at + {2 * _PAIRS_A_CALL - 1}, last)
    redis.call('HSET', KEYS[i], unpack(ARGV, at, to))
    at = to + 1
  end
end
redis.call('HSET', KEYS[1], 'position', ARGV[4], 'leader_epoch', ARGV[5])
return 'OK'
"""


class Store:
    """One connection to the Redis master that keeps the view.

    Every method raises redis.RedisError where Redis is away, refuses or does not answer in time:
    what was to be written may or may not be there then, so the caller loads the partition again.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._view = settings.view
        self._redis: redis.Redis = redis.Redis.from_url(
            settings.redis_url,
            single_connection_client=False,
            max_connections=1,
            retry=Retry(NO_BACKOFF, 0),
            **client_options(settings, "consumer"),
        )
        self._begin = self._redis.register_script(_BEGIN)
        self._apply = self._redis.register_script(_APPLY)

    def disconnect(self) -> None:
        """Step 5: close the connection, and with it whatever was under way."""
        self._redis.connection_pool.disconnect()

    def close(self) -> None:
        """Close the connection for good."""
        self._redis.close()

    def load(self, partitions: Iterable[int]) -> dict[int, Meta | None]:
        """Step 1: the metas of partitions; None where there is none. Raises DamagedView."""
        numbers = list(partitions)
        pipeline = self._redis.pipeline(transaction=False)
        for number in numbers:
            pipeline.hgetall(meta_key(self._view, number))
        return {number: decode_meta(reply) for number, reply in zip(numbers, pipeline.execute(), strict=True)}

    def begin(self, number: int, low_watermark: int, topic_id: str, incarnation: str) -> Meta:
        """Step 1: begin a partition at the low watermark, unless it has begun; its meta either way."""
        # Before the meta: replication keeps the order, so no failover keeps a partition unlisted.
        self._redis.sadd(partitions_key(self._view), number)
        reply: Any = self._begin(
            keys=[meta_key(self._view, number)],
            args=[low_watermark, topic_id, int(low_watermark > 0), incarnation],
        )
        meta = decode_meta(dict(zip(reply[::2], reply[1::2], strict=True)))
        assert meta is not None  # noqa: S101 - the script has just read it
        return meta

    def read_totals(self, partition: Partition, batch: Batch) -> tuple[int, str, Sequence[bytes | None]]:
        """Step 3: stored position, incarnation and the totals of batch.missing, in one atomic call."""
        number, incarnation = partition.number, partition.meta.incarnation
        by_hour: dict[int, list[int]] = {}
        for place, entry in enumerate(batch.missing):
            by_hour.setdefault(entry.hour, []).append(place)
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hmget(meta_key(self._view, number), "position", "incarnation")
        for hour, places in by_hour.items():
            pipeline.hmget(
                totals_key(self._view, number, incarnation, hour),
                [batch.missing[p].field for p in places],
            )
        (position, stored_incarnation), *replies = pipeline.execute()
        if position is None or stored_incarnation is None:
            raise Fenced
        values: list[bytes | None] = [None] * len(batch.missing)
        for places, reply in zip(by_hour.values(), replies, strict=True):
            for place, value in zip(places, reply, strict=True):
                values[place] = value
        return int(position), stored_incarnation.decode("ascii"), values

    def apply(self, partition: Partition, batch: Batch, hours: Sequence[HourTotals]) -> None:
        """Step 4: the fenced script. Raises Fenced where the fence did not let the batch in."""
        number, meta = partition.number, partition.meta
        keys = [meta_key(self._view, number), hours_key(self._view, number, meta.incarnation)]
        args: list[bytes | str | int] = [
            batch.expected,
            meta.topic_id,
            meta.incarnation,
            batch.position,
            batch.leader_epoch,
        ]
        for hour in hours:
            keys.append(totals_key(self._view, number, meta.incarnation, hour.hour))
            args += (hour.hour, hour.last_position, len(hour.pairs))
            args += hour.pairs
        if self._apply(keys=keys, args=args) != b"OK":
            raise Fenced

    def positions(self, partitions: Iterable[int]) -> dict[int, tuple[int, str] | None]:
        """Step 6: stored position and incarnation of partitions."""
        numbers = list(partitions)
        pipeline = self._redis.pipeline(transaction=False)
        for number in numbers:
            pipeline.hmget(meta_key(self._view, number), "position", "incarnation")
        return {
            number: None if None in reply else (int(reply[0]), reply[1].decode("ascii"))
            for number, reply in zip(numbers, pipeline.execute(), strict=True)
        }
