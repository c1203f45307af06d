"""Redis as the consumer sees it: one connection to the master, commands sent without waiting for answers.

What a batch writes is applied with the fence by a script, in one round trip; where it is much, by a transaction: the
fence's keys are watched and compared first, and any change to them until its end undoes it. It takes Redis a third of
the script's time, whose values become strings of its own on their way in, and Redis' again on their way out.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

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
from flowagg_consumer.packed import Packed

_PAIRS_A_CALL = 3500  # Lua's unpack takes fewer than 8,000 values
SCRIPT_WRITES: Final = 2_000
"""Up to so many totals and marks are written by the script. Measured: a transaction takes Redis 0.13 us for each, the
script 0.25, and 0.5 where it brings 10,000; a transaction's other commands and its second round trip take 100."""

_FOREIGN: Final = "Redis holds something that FlowAggregator did not write"

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


_Command = tuple[Any, ...]
"""A command's arguments; those that are Packed stand for as many as they hold."""

_Hash = tuple[str, int | None, bytes, Sequence[str | bytes]]
"""A hash that is written: its key, the hour that it holds and its mark, if it does; field, value, field, value, ..."""


@dataclass(frozen=True, slots=True)
class _Writes:
    """What an Apply does beside the meta: what it writes, the keys that it deletes, the hours that expire."""

    meta: str
    hours: str
    hashes: Sequence[_Hash]
    deleted: Sequence[str]
    gone_hours: Sequence[int]

    def keys(self) -> list[str]:
        """All keys, in the script's order."""
        return [self.meta, self.hours, *(key for key, *_ in self.hashes), *self.deleted]

    def commands(self, apply: fx.Apply) -> list[_Command]:
        """The transaction, as the script does it."""
        made: list[_Command] = [("MULTI",)]
        for key, hour, mark, pairs in self.hashes:
            if hour is not None:
                made.append(("HSET", self.hours, hour, mark))
            if pairs:
                made.append(("HSET", key, *_arguments(pairs)))
        made += (("UNLINK", key) for key in self.deleted)
        made += (("HDEL", self.hours, hour) for hour in self.gone_hours)
        meta: list[Any] = ["position", apply.position, "leader_epoch", apply.leader_epoch]
        meta += ("time", apply.time, "writer", apply.writer)
        if apply.lost:
            meta += ("lost", apply.lost, "incomplete", 1)
        if apply.expiry is not None:
            meta += ("floor", apply.expiry.floor, "tick", apply.expiry.tick)
        made += (("HSET", self.meta, *meta), ("EXEC",))
        return made


@dataclass(frozen=True, slots=True)
class _Answered:
    """A command whose answer, or error, is here already."""

    answer: Any


class Store:
    """The connection. It is opened by the first send, and again by the first send after disconnect.

    script_writes: the most totals and marks that a script writes; more are written by a transaction.
    """

    def __init__(self, settings: RedisSettings, script_writes: int = SCRIPT_WRITES) -> None:
        self._view = settings.view
        self._script_writes = script_writes
        self._client = connect(settings, "consumer", max_connections=2)
        self._connection: Connection | None = None
        # By Sentinel an answer that comes late may be that of a master which was replaced meanwhile, and
        # which would keep this connection until it learns of it: measured, 10 s of work thrown away.
        self._late_seconds = settings.redis_timeout_seconds / 2 if settings.redis_sentinels else None
        self._sent: deque[_Sent | _Answered] = deque()
        self._shas: list[str] = []

    def send(self, command: fx.Command) -> None:
        """Send a command. Raises StoreAway."""
        if isinstance(command, fx.Apply) and _count_writes(command) > self._script_writes:
            self._send_transaction(command)
            return
        packed, sent = self._pack(command)
        self._write(lambda: [_protocol(part) for part in self._with_shas(packed)])
        self._sent.append(sent)

    def receive(self) -> Any:
        """The answer to the oldest command not answered. Raises StoreAway, DamagedView."""
        sent = self._sent.popleft()
        if isinstance(sent, _Sent):
            return self._read(sent)
        if isinstance(sent.answer, Exception):
            raise sent.answer
        return sent.answer

    def _write(self, pack: Callable[[], list[bytes]]) -> None:
        try:
            # hiredis itself: redis-py's packing around it costs as much again on thousands of values.
            self._connected().send_packed_command(pack())
        except (redis.RedisError, OSError) as error:
            raise _away(error) from error

    def _read(self, sent: _Sent) -> Any:
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

    def _try_read(self, sent: _Sent) -> Any:
        try:
            return self._read(sent)
        except (fx.StoreAway, DamagedView) as error:
            return error

    def _send_transaction(self, apply: fx.Apply) -> None:
        """Step 4 by a transaction. It is sent only once the fence was seen to hold, by what is watched from then on."""
        writes = self._writes(apply)
        keys = writes.keys()
        look: list[_Command] = [("WATCH", *keys), ("HMGET", keys[0], "position", "topic_id", "incarnation")]
        look += [("TYPE", key) for key in keys[1:]]
        self._write(lambda: [b"".join(hiredis.pack_command(part) for part in look)])
        commands = writes.commands(apply)
        packed = [_protocol(command) for command in commands]  # while Redis looks
        for place, sent in enumerate(self._sent):  # the answers to them come first
            if isinstance(sent, _Sent):
                self._sent[place] = _Answered(self._try_read(sent))
        found = self._try_read(_Sent(len(look), lambda replies: replies))
        verdict = found if isinstance(found, Exception) else _judge(apply, keys, found)
        if verdict is True:
            self._write(lambda: packed)
            self._sent.append(_Sent(len(commands), _applied))
            return
        if not isinstance(verdict, fx.StoreAway):
            self._write(lambda: [hiredis.pack_command(("UNWATCH",))])
            self._try_read(_Sent(1, lambda replies: replies))
        self._sent.append(_Answered(verdict))

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

    def _with_shas(self, packed: Iterable[_Command]) -> list[_Command]:
        return [("EVALSHA", self._shas[part[1]], *part[2:]) if part[0] == "EVALSHA" else part for part in packed]

    def _pack(self, command: fx.Command) -> tuple[list[_Command], _Sent]:  # noqa: PLR0911 - one a command
        match command:
            case fx.Apply():
                return [self._pack_apply(command)], _Sent(1, lambda replies: replies[0] == 1)
            case fx.Load(partitions=numbers):
                metas: list[_Command] = [("HGETALL", meta_key(self._view, number)) for number in numbers]
                return metas, _Sent(
                    len(metas), lambda replies: dict(zip(numbers, map(_meta, replies), strict=True)), True
                )
            case fx.ReadPositions(partitions=numbers):
                gets: list[_Command] = [
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

    def _pack_apply(self, apply: fx.Apply) -> _Command:
        writes, expiry = self._writes(apply), apply.expiry
        hashes: list[Any] = []
        for _, hour, mark, pairs in writes.hashes:
            hashes += ("", "", len(pairs)) if hour is None else (hour, mark, len(pairs))
            hashes += _arguments(pairs)
        fence = (apply.expected, apply.topic_id, apply.incarnation)
        new = (apply.position, apply.leader_epoch, apply.time, apply.writer, apply.lost or "")
        retention = ("", "") if expiry is None else (expiry.floor, expiry.tick)
        keys = writes.keys()
        count = len(writes.hashes)
        return ("EVALSHA", 1, len(keys), *keys, *fence, *new, *retention, count, *hashes, *writes.gone_hours)

    def _writes(self, apply: fx.Apply) -> "_Writes":
        view, number, incarnation = self._view, apply.partition, apply.incarnation
        expiry = apply.expiry
        adopted = [] if expiry is None else sorted(expiry.adopted.items())
        gone = [] if expiry is None else expiry.gone
        # Adopted hours first: a record of the same batch may touch the hour again.
        hashes: list[_Hash] = [
            (totals_key(view, number, incarnation, hour), hour, encode_hour(mark), []) for hour, mark in adopted
        ]
        hashes += (
            (totals_key(view, number, incarnation, hour.hour), hour.hour, hour.mark, hour.pairs) for hour in apply.hours
        )
        hashes += (
            (marks_key(view, number, incarnation, bucket), None, b"", pairs) for bucket, pairs in apply.marks.items()
        )
        deleted = [marks_key(view, number, incarnation, bucket) for bucket in apply.expired]
        deleted += [totals_key(view, number, incarnation, hour) for hour in gone]
        return _Writes(meta_key(view, number), hours_key(view, number, incarnation), hashes, deleted, gone)

    def _pack_read_totals(self, command: fx.ReadTotals) -> tuple[list[_Command], _Sent]:
        reads: list[_Command] = [
            ("HMGET", totals_key(self._view, command.partition, command.incarnation, hour), *_arguments(fields))
            for hour, fields in command.fields
        ]

        def read(replies: list[Any]) -> tuple[int | None, str | None, Sequence[bytes | None]]:
            first, *others = replies[-1]
            stored = _position(first)
            if stored is None:
                return None, None, []
            return *stored, [value for values in others for value in values]

        return self._transaction(command.partition, reads, read)

    def _pack_read_marks(self, command: fx.ReadMarks) -> tuple[list[_Command], _Sent]:
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

    def _pack_read_hours(self, command: fx.ReadHours) -> tuple[list[_Command], _Sent]:
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
        self, number: int, reads: list[_Command], read: Callable[[list[Any]], Any]
    ) -> tuple[list[_Command], _Sent]:
        """Reads in one atomic call with the stored position, which comes first."""
        position = ("HMGET", meta_key(self._view, number), "position", "incarnation")
        return [("MULTI",), position, *reads, ("EXEC",)], _Sent(len(reads) + 3, read)


def _arguments(strings: Sequence[str | bytes]) -> Sequence[Any]:
    """Strings as arguments of a command."""
    return [strings] if isinstance(strings, Packed) else strings


def _protocol(command: _Command) -> bytes:
    """A command in Redis' protocol."""
    if not any(isinstance(argument, Packed) for argument in command):
        packed: bytes = hiredis.pack_command(command)
        return packed
    count = 0
    parts: list[bytes] = []
    for are_packed, arguments in groupby(command, lambda argument: isinstance(argument, Packed)):
        some = tuple(arguments)
        if are_packed:
            count += sum(map(len, some))
            parts += (argument.text for argument in some)
        else:
            count += len(some)
            text = hiredis.pack_command(some)
            parts.append(text[text.index(b"\r\n") + 2 :])  # without how many they are
    return b"".join((b"*%d\r\n" % count, *parts))


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


def _count_writes(apply: fx.Apply) -> int:
    pairs = sum(len(hour.pairs) for hour in apply.hours) + sum(len(pairs) for pairs in apply.marks.values())
    return pairs // 2


def _judge(apply: fx.Apply, keys: Sequence[str], replies: Sequence[Any]) -> bool | DamagedView:
    """What a look says: whether the fence holds, and nothing foreign is in the way."""
    _, stored, *kinds = replies
    if stored != [b"%d" % apply.expected, apply.topic_id.encode(), apply.incarnation.encode()]:
        return False
    for key, kind in zip(keys[1:], kinds, strict=True):
        if kind not in (b"hash", b"none"):
            return DamagedView(f"{_FOREIGN}: DAMAGED {key} is a {kind.decode()}")
    return True


def _applied(replies: Sequence[Any]) -> bool:
    """Whether a transaction was carried out; not where what it watched has changed."""
    results = replies[-1]
    if results is None:
        return False
    failed = [result for result in results if isinstance(result, Exception)]
    if failed:  # not seen: what could fail was looked at, and is watched
        raise DamagedView(f"a transaction was carried out in part: {failed[0]}")
    return True


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
        return DamagedView(f"{_FOREIGN}: {text}")
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return fx.StoreAway(f"RedisFull: {text}: give Redis more memory (maxmemory)")
    return _away(error)
