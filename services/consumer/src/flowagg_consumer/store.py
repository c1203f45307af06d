"""Redis as the consumer sees it: one connection to the master, commands sent without waiting for answers."""

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import hiredis
import redis
from flowagg.redis_client import connect
from flowagg.settings import RedisSettings
from flowagg.view import (
    DamagedView,
    HourMark,
    Meta,
    decode_hour,
    decode_meta,
    encode_hour,
    hours_key,
    marks_key,
    meta_key,
    partitions_key,
    totals_key,
)
from redis.connection import Connection

from flowagg_consumer import effects as fx

_PAIRS_A_CALL = 3500  # Lua's unpack takes fewer than 8,000 values

_BEGIN = """#!lua
-- Writes a partition's first meta, unless it has one. KEYS: meta. ARGV: position, topic id, incomplete, incarnation.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'position', ARGV[1], 'topic_id', ARGV[2], 'leader_epoch', '-1',
    'start', ARGV[1], 'incomplete', ARGV[3], 'incarnation', ARGV[4], 'time', '-1', 'writer', '')
end
return redis.call('HGETALL', KEYS[1])
"""

_FENCE = """\
local stored = redis.call('HMGET', KEYS[1], 'position', 'topic_id', 'incarnation')
for i = 1, 3 do
  if stored[i] ~= ARGV[i] then
    return 0
  end
end
"""

_DIVERGE = f"""#!lua
-- Keeps in a partition's meta that the log is another one by now. KEYS: meta. ARGV: expected position, topic id,
-- incarnation, detail.
{_FENCE}redis.call('HSET', KEYS[1], 'diverged', ARGV[4])
return 1
"""

_APPLY = f"""#!lua
-- Step 4. KEYS: meta, hours, then the hashes that are written, then the keys that are deleted.
-- ARGV: expected position, topic id, incarnation, new position, leader epoch, time, writer, lost, floor, tick
--   ('' to leave these three), number of hashes; then per hash: hour ('' where it is none), its mark,
--   number n of values, and n values (field, value, ...); then the hours that expire.
{_FENCE}-- Scripts do not roll back: nothing may fail after the first write. Memory is checked by Redis
-- itself before a script with this first line starts.
for i = 2, #KEYS do
  local kind = redis.call('TYPE', KEYS[i])['ok']
  if kind ~= 'hash' and kind ~= 'none' then
    return redis.error_reply('DAMAGED ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
local hashes = tonumber(ARGV[11])
local at = 12
for i = 3, 2 + hashes do
  if ARGV[at] ~= '' then
    redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
  end
  local last = at + 2 + tonumber(ARGV[at + 2])
  at = at + 3
  while at <= last do
    local to = math.min(at + {2 * _PAIRS_A_CALL - 1}, last)
    redis.call('HSET', KEYS[i], unpack(ARGV, at, to))
    at = to + 1
  end
end
for i = 3 + hashes, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
for i = at, #ARGV do
  redis.call('HDEL', KEYS[2], ARGV[i])
end
redis.call('HSET', KEYS[1], 'position', ARGV[4], 'leader_epoch', ARGV[5], 'time', ARGV[6], 'writer', ARGV[7])
if ARGV[8] ~= '' then
  redis.call('HSET', KEYS[1], 'lost', ARGV[8], 'incomplete', '1')
end
if ARGV[9] ~= '' then
  redis.call('HSET', KEYS[1], 'floor', ARGV[9], 'tick', ARGV[10])
end
return 1
"""


@dataclass(frozen=True, slots=True)
class _Sent:
    """replies: how many answers the command brings. read: makes the core's answer of them.

    each: whether read takes a refusal in the place of an answer, so that one partition's is not the others'.
    """

    replies: int
    read: Callable[[list[Any]], Any]
    each: bool = False


class Store:
    """The connection. It is opened by the first send, and again by the first send after disconnect."""

    def __init__(self, settings: RedisSettings) -> None:
        self._view = settings.view
        self._client = connect(settings, "consumer", max_connections=2)
        self._connection: Connection | None = None
        # By Sentinel an answer that comes late may be that of a master which was replaced meanwhile, and
        # which would keep this connection until it learns of it: measured, 10 s of work thrown away.
        self._late_seconds = settings.redis_timeout_seconds / 2 if settings.redis_sentinels else None
        self._sent: deque[_Sent] = deque()
        self._shas: list[str] = []

    def send(self, command: fx.Command) -> None:
        """Send a command. Raises StoreAway."""
        packed, sent = self._pack(command)
        try:
            connection = self._connected()
            # hiredis itself: redis-py's packing around it costs as much again on thousands of values.
            connection.send_packed_command([hiredis.pack_command(part) for part in self._with_shas(packed)])
        except (redis.RedisError, OSError) as error:
            raise _away(error) from error
        self._sent.append(sent)

    def receive(self) -> Any:
        """The answer to the oldest command not answered. Raises StoreAway, DamagedView."""
        sent = self._sent.popleft()
        connection = self._connection
        if connection is None:
            raise fx.StoreAway("the connection was closed")
        replies: list[Any] = []
        began = time.monotonic()
        try:
            for _ in range(sent.replies):
                try:
                    replies.append(connection.read_response())
                except redis.ResponseError as error:  # an answer too: the others still follow
                    replies.append(_refused(error))
        except (redis.RedisError, OSError) as error:
            raise _away(error) from error
        waited = time.monotonic() - began
        if self._late_seconds is not None and waited > self._late_seconds:
            raise fx.StoreAway(f"the answer took {waited:.1f} s: the sentinels are asked again where the master is")
        refusals = [reply for reply in replies if isinstance(reply, fx.StoreAway | DamagedView)]
        if refusals and not (sent.each and all(isinstance(refusal, DamagedView) for refusal in refusals)):
            raise refusals[0]
        return sent.read(replies)

    def disconnect(self) -> None:
        """Step 5: close the connection, and with it whatever was under way."""
        self._sent.clear()
        if self._connection is not None:
            self._connection.disconnect()
            self._client.connection_pool.release(self._connection)
            self._connection = None

    def close(self) -> None:
        """Close for good."""
        self.disconnect()
        self._client.close()

    def _connected(self) -> Connection:
        if self._connection is None:
            connection: Connection = self._client.connection_pool.get_connection()
            try:
                connection.connect()
                connection.send_packed_command(
                    connection.pack_commands(
                        [("INFO", "memory"), ("SCRIPT", "LOAD", _BEGIN), ("SCRIPT", "LOAD", _APPLY)]
                    )
                )
                _check_eviction(connection.read_response())
                self._shas = [connection.read_response(), connection.read_response()]
            except BaseException:
                connection.disconnect()
                self._client.connection_pool.release(connection)
                raise
            self._connection = connection
        return self._connection

    def _with_shas(self, packed: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [("EVALSHA", self._shas[part[1]], *part[2:]) if part[0] == "EVALSHA" else part for part in packed]

    def _pack(self, command: fx.Command) -> tuple[list[tuple[Any, ...]], _Sent]:  # noqa: PLR0911 - one a command
        match command:
            case fx.Apply():
                return [self._pack_apply(command)], _Sent(1, lambda replies: replies[0] == 1)
            case fx.Load(partitions=numbers):
                metas: list[tuple[Any, ...]] = [("HGETALL", meta_key(self._view, number)) for number in numbers]
                return metas, _Sent(
                    len(metas), lambda replies: dict(zip(numbers, map(_meta, replies), strict=True)), True
                )
            case fx.ReadPositions(partitions=numbers):
                gets: list[tuple[Any, ...]] = [
                    ("HMGET", meta_key(self._view, number), "position", "incarnation") for number in numbers
                ]
                return gets, _Sent(
                    len(gets), lambda replies: dict(zip(numbers, map(_position_or_damage, replies), strict=True)), True
                )
            case fx.Begin():
                # The list of partitions before the meta: replication keeps the order, so no failover
                # keeps a partition unlisted.
                key = meta_key(self._view, command.partition)
                incomplete = int(command.position > 0)
                arguments = (command.position, command.topic_id, incomplete, command.incarnation)
                return [
                    ("SADD", partitions_key(self._view), command.partition),
                    ("EVALSHA", 0, 1, key, *arguments),
                ], _Sent(2, lambda replies: _meta(replies[1]), each=True)
            case fx.Diverge():
                # Once in a view's life: by its text, so that nobody has to load it.
                fence = (command.expected, command.topic_id, command.incarnation)
                key = meta_key(self._view, command.partition)
                return [("EVAL", _DIVERGE, 1, key, *fence, command.detail)], _Sent(1, lambda replies: replies[0] == 1)
            case fx.ReadTotals():
                return self._pack_read_totals(command)
            case fx.ReadMarks():
                return self._pack_read_marks(command)
            case fx.ReadHours():
                return self._pack_read_hours(command)

    def _pack_apply(self, apply: fx.Apply) -> tuple[Any, ...]:
        view, number, incarnation = self._view, apply.partition, apply.incarnation
        keys = [meta_key(view, number), hours_key(view, number, incarnation)]
        hashes: list[Any] = []
        expiry = apply.expiry
        adopted = [] if expiry is None else sorted(expiry.adopted.items())
        for adopted_hour, mark in adopted:  # first: a record of the same batch may touch the hour again
            keys.append(totals_key(view, number, incarnation, adopted_hour))
            hashes += (adopted_hour, encode_hour(mark), 0)
        for hour in apply.hours:
            keys.append(totals_key(view, number, incarnation, hour.hour))
            hashes += (hour.hour, hour.mark, len(hour.pairs))
            hashes += hour.pairs
        for bucket, pairs in apply.marks.items():
            keys.append(marks_key(view, number, incarnation, bucket))
            hashes += ("", "", len(pairs))
            hashes += pairs
        count = len(adopted) + len(apply.hours) + len(apply.marks)
        keys += (marks_key(view, number, incarnation, bucket) for bucket in apply.expired)
        gone = [] if expiry is None else expiry.gone
        keys += (totals_key(view, number, incarnation, hour) for hour in gone)
        fence = (apply.expected, apply.topic_id, apply.incarnation)
        new = (apply.position, apply.leader_epoch, apply.time, apply.writer, apply.lost or "")
        retention = ("", "") if expiry is None else (expiry.floor, expiry.tick)
        return ("EVALSHA", 1, len(keys), *keys, *fence, *new, *retention, count, *hashes, *gone)

    def _pack_read_totals(self, command: fx.ReadTotals) -> tuple[list[tuple[Any, ...]], _Sent]:
        by_hour: dict[int, list[int]] = {}
        for place, (hour, _) in enumerate(command.fields):
            by_hour.setdefault(hour, []).append(place)
        reads = [
            (
                "HMGET",
                totals_key(self._view, command.partition, command.incarnation, hour),
                *(command.fields[place][1] for place in places),
            )
            for hour, places in by_hour.items()
        ]

        def read(replies: list[Any]) -> tuple[int | None, str | None, Sequence[bytes | None]]:
            first, *others = replies[-1]
            stored = _position(first)
            if stored is None:
                return None, None, []
            values: list[bytes | None] = [None] * len(command.fields)
            for places, reply in zip(by_hour.values(), others, strict=True):
                for place, value in zip(places, reply, strict=True):
                    values[place] = value
            return *stored, values

        return self._transaction(command.partition, reads, read)

    def _pack_read_marks(self, command: fx.ReadMarks) -> tuple[list[tuple[Any, ...]], _Sent]:
        reads = [
            ("HMGET", marks_key(self._view, command.partition, command.incarnation, bucket), *command.keys)
            for bucket in command.buckets
        ]

        def read(replies: list[Any]) -> tuple[int | None, str | None, Sequence[dict[int, bytes]]]:
            first, *others = replies[-1]
            stored = _position(first)
            if stored is None:
                return None, None, []
            found: list[dict[int, bytes]] = [{} for _ in command.keys]
            for bucket, reply in zip(command.buckets, others, strict=True):
                for place, value in enumerate(reply):
                    if value is not None:
                        found[place][bucket] = value
            return *stored, found

        return self._transaction(command.partition, reads, read)

    def _pack_read_hours(self, command: fx.ReadHours) -> tuple[list[tuple[Any, ...]], _Sent]:
        def read(replies: list[Any]) -> tuple[int | None, str | None, dict[int, HourMark]]:
            first, flat = replies[-1]
            stored = _position(first)
            if stored is None:
                return None, None, {}
            hours = zip(flat[::2], flat[1::2], strict=True)
            return *stored, {int(hour): decode_hour(mark) for hour, mark in hours}

        key = hours_key(self._view, command.partition, command.incarnation)
        return self._transaction(command.partition, [("HGETALL", key)], read)

    def _transaction(
        self, number: int, reads: list[tuple[Any, ...]], read: Callable[[list[Any]], Any]
    ) -> tuple[list[tuple[Any, ...]], _Sent]:
        """Reads in one atomic call with the stored position, which comes first."""
        position = ("HMGET", meta_key(self._view, number), "position", "incarnation")
        return [("MULTI",), position, *reads, ("EXEC",)], _Sent(len(reads) + 3, read)


def _meta(flat: list[bytes] | DamagedView) -> Meta | DamagedView | None:
    if isinstance(flat, DamagedView):
        return flat
    try:
        return decode_meta(dict(zip(flat[::2], flat[1::2], strict=True)))
    except DamagedView as error:
        return error


def _position(reply: list[bytes | None]) -> tuple[int, str] | None:
    position, incarnation = reply
    if position is None or incarnation is None:
        return None
    try:
        return int(position), incarnation.decode("ascii")
    except ValueError:
        raise DamagedView(f"a partition's meta in Redis is damaged: position {position!r}") from None


def _position_or_damage(reply: list[bytes | None] | DamagedView) -> tuple[int, str] | DamagedView | None:
    if isinstance(reply, DamagedView):
        return reply
    try:
        return _position(reply)
    except DamagedView as error:
        return error


def _check_eviction(memory: bytes) -> None:
    """Raises redis.RedisError where this Redis may throw totals away when it is full."""
    found = re.search(rb"^maxmemory_policy:(allkeys-\w+)", memory, re.M)
    if found is not None:
        policy = found[1].decode("ascii")
        raise redis.RedisError(f"RedisEvicts: maxmemory-policy {policy} would throw totals away: set it to noeviction")


def _away(error: Exception) -> fx.StoreAway:
    return fx.StoreAway(f"{type(error).__name__}: {error}")


def _refused(error: redis.RedisError) -> Exception:
    """Every refusal means "not applied": LOADING, BUSY, READONLY, NOSCRIPT, NOREPLICAS, MISCONF, OOM."""
    text = str(error)
    if text.startswith(("DAMAGED", "WRONGTYPE")):
        return DamagedView(f"Redis holds something that FlowAggregator did not write: {text}")
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return fx.StoreAway(f"RedisFull: {text}: give Redis more memory (maxmemory)")
    return _away(error)
