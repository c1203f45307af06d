"""Redis as the reader sees it: atomic reads, partition by partition, in one round trip."""

import asyncio
import hashlib
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

import redis
from flowagg.redis_client import connect_async
from flowagg.settings import RedisSettings
from flowagg.view import decode_hour, decode_meta, hours_key, meta_key, partitions_key, totals_key

from flowagg_reader.hour import Parts, Seen
from flowagg_reader.many import SeenHours
from flowagg_reader.query import Hours

_TRIES = 5  # three where nothing is known yet
_CONNECTIONS = 64
_Replies = tuple[list[bytes], list[list[Any]]]
_Ask = Callable[[Mapping[int, str | None]], Awaitable[_Replies]]
_Atomically = Callable[[Any, tuple[str, str, str], int], int]
_READ = """#!lua flags=no-writes
return {redis.call('HGETALL', KEYS[1]), redis.call('HGET', KEYS[2], ARGV[1]), redis.call('HGETALL', KEYS[3])}
"""
_LOOK = """#!lua flags=no-writes
local known = 1 + 3 * tonumber(ARGV[2])
local replies = {redis.call('SMEMBERS', KEYS[1])}
for i = 2, known, 3 do
    local mark = redis.call('HGET', KEYS[i + 1], ARGV[1])
    replies[#replies + 1] = {redis.call('HGETALL', KEYS[i]), mark, redis.call('HLEN', KEYS[i + 2])}
end
for i = known + 1, #KEYS do
    replies[#replies + 1] = {redis.call('HGETALL', KEYS[i]), false, false}
end
return replies
"""
_LOOK_HOURS = """#!lua flags=no-writes
local known, ranges = tonumber(ARGV[1]), tonumber(ARGV[2])
local firsts, lasts, single = {}, {}, true
for i = 1, ranges do
    firsts[i], lasts[i] = tonumber(ARGV[1 + 2 * i]), tonumber(ARGV[2 + 2 * i])
    single = single and firsts[i] == lasts[i]
end
local replies = {redis.call('SMEMBERS', KEYS[1])}
for i = 1, known do
    local marks, prefix, found = KEYS[2 * i + 1], ARGV[2 + 2 * ranges + i], {}
    local function asked(number)
        local low, high = 1, ranges
        while low <= high do
            local middle = math.floor((low + high) / 2)
            if number < firsts[middle] then
                high = middle - 1
            elseif number > lasts[middle] then
                low = middle + 1
            else
                return true
            end
        end
        return false
    end
    local function add(hour, mark)
        found[#found + 1] = hour
        found[#found + 1] = mark
        found[#found + 1] = redis.call('HLEN', prefix .. hour)
    end
    if single then
        for j = 1, ranges do
            local hour = ARGV[1 + 2 * j]
            local mark = redis.call('HGET', marks, hour)
            if mark then add(hour, mark) end
        end
    else
        local all = redis.call('HGETALL', marks)
        for j = 1, #all, 2 do
            if asked(tonumber(all[j])) then
                add(all[j], all[j + 1])
            end
        end
    end
    replies[#replies + 1] = {redis.call('HGETALL', KEYS[2 * i]), found, false}
end
for i = 2 * known + 2, #KEYS do
    replies[#replies + 1] = {redis.call('HGETALL', KEYS[i]), false, false}
end
return replies
"""
_LOOK_SHA = hashlib.sha1(_LOOK.encode(), usedforsecurity=False).hexdigest()


class _Connections:
    """A pool of connections to the Redis master, shared by the views that are read there."""

    def __init__(self, settings: RedisSettings) -> None:
        self.redis = connect_async(settings, "reader", max_connections=_CONNECTIONS + 1)  # one for ping
        # The pool raises where none is free; requests wait for their turn instead.
        self.turn = asyncio.Semaphore(_CONNECTIONS)


class Store:
    """Reads one view in Redis; those of other views share its connections.

    Every method raises redis.RedisError where Redis is away or refuses, DamagedView where the view
    is not as the consumer writes it.
    """

    def __init__(self, settings: RedisSettings, connections: _Connections | None = None) -> None:
        """settings: name the view. connections: those of another view's store."""
        self._settings = settings
        self._view = settings.view
        self._connections = connections or _Connections(settings)
        self._incarnations: dict[int, str] = {}

    def of(self, view: str) -> "Store":
        """The same for another view, whether or not there is one of that name. It needs no closing."""
        return Store(self._settings.model_copy(update={"view": view}), self._connections)

    async def close(self) -> None:
        """Close all connections, those of other views too."""
        await self._connections.redis.aclose()

    async def ping(self) -> None:
        """Return where Redis answers."""
        await self._connections.redis.ping()

    async def look(self, partitions: Iterable[int], hour: int) -> Parts:
        """These partitions and all that the view has begun: meta, the hour's mark and number of flow keys."""
        seen = Parts()
        for number, (meta, mark, rows) in (await self._read(partitions, partial(self._look, hour=hour))).items():
            seen[number] = _seen(meta, mark, rows or 0)
        return seen

    async def read_hour(self, partitions: Iterable[int], hour: int) -> dict[int, tuple[Seen, list[bytes]]]:
        """As look, with the totals from the same transaction: field, totals, field, totals, ..."""
        read = {}
        for number, (meta, mark, totals) in (await self._read(partitions, partial(self._totals, hour=hour))).items():
            flat: list[bytes] = totals or []
            read[number] = _seen(meta, mark, len(flat) // 2), flat
        return read

    async def look_hours(self, partitions: Iterable[int], hours: Hours) -> dict[int, SeenHours]:
        """As look, of many hours: for each that is kept, its mark and number of flow keys."""
        seen = {}
        for number, (meta, found, _) in (await self._read(partitions, partial(self._look_hours, hours=hours))).items():
            flat: list[Any] = found or []
            kept = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
            seen[number] = SeenHours(meta, {int(hour): (decode_hour(mark), rows) for hour, mark, rows in kept})
        return seen

    async def _read(self, partitions: Iterable[int], ask: _Ask) -> dict[int, tuple[Any, Any, Any]]:
        """Per partition meta, and twice what is asked for, from one atomic call.

        The keys hold the incarnation that only the meta knows: it is guessed from the last read, and read
        again where the meta in the same call shows another, or where nothing was known. Partitions that
        the view has begun since are in the list that is read along, and are read next.
        """
        result: dict[int, tuple[Any, Any, Any]] = {}
        left = set(partitions) | self._incarnations.keys()
        for _ in range(_TRIES):
            left |= await self._read_once(left, ask, result)
            left -= result.keys()
            if not left:
                return result
        raise redis.RedisError("the view is being made again: its incarnations change while they are read")

    async def _read_once(self, numbers: Iterable[int], ask: _Ask, result: dict[int, tuple[Any, Any, Any]]) -> set[int]:
        """Add to result the partitions whose guessed incarnation was right. The partitions of the view."""
        guesses = {number: self._incarnations.get(number) for number in numbers}
        members, replies = await ask(guesses)
        for (number, incarnation), (raw, mark, totals) in zip(guesses.items(), replies, strict=True):
            meta = _meta(raw)
            if meta is None or meta.incarnation == incarnation:
                result[number] = (meta, mark, totals) if meta is not None else (None, None, None)
            if meta is not None:
                self._incarnations[number] = meta.incarnation
            else:
                self._incarnations.pop(number, None)
        return {int(member) for member in members}

    async def _look(self, guesses: Mapping[int, str | None], hour: int) -> _Replies:
        """The view's partitions; and per guess meta, mark and number of totals, the meta alone where none is guessed.

        By one script: as a pipeline of transactions it was five commands a partition to write and five replies to read.
        """
        known = {number: incarnation for number, incarnation in guesses.items() if incarnation is not None}
        unknown = guesses.keys() - known.keys()
        keys = [partitions_key(self._view)]
        for number, incarnation in known.items():
            keys += self._keys(number, incarnation, hour)
        keys += [meta_key(self._view, number) for number in unknown]
        arguments = (len(keys), *keys, hour, len(known))
        async with self._connections.turn:
            try:
                members, *parts = await self._connections.redis.execute_command("EVALSHA", _LOOK_SHA, *arguments)
            except redis.exceptions.NoScriptError:
                members, *parts = await self._connections.redis.execute_command("EVAL", _LOOK, *arguments)
        found = dict(zip([*known, *unknown], parts, strict=True))
        return members, [found[number] for number in guesses]

    async def _look_hours(self, guesses: Mapping[int, str | None], hours: Hours) -> _Replies:
        """As _look, with what is kept of many hours: hour, mark, number of totals, hour, ..."""
        view = self._view
        known = {number: incarnation for number, incarnation in guesses.items() if incarnation is not None}
        unknown = guesses.keys() - known.keys()
        keys, prefixes = [partitions_key(view)], []
        for number, incarnation in known.items():
            keys += [meta_key(view, number), hours_key(view, number, incarnation)]
            prefixes.append(totals_key(view, number, incarnation, 0)[:-1])
        keys += [meta_key(view, number) for number in unknown]
        bounds = [bound for ends in hours.ranges for bound in ends]
        async with self._connections.turn:
            members, *parts = await self._connections.redis.execute_command(
                "EVAL", _LOOK_HOURS, len(keys), *keys, len(known), len(hours.ranges), *bounds, *prefixes
            )
        found = dict(zip([*known, *unknown], parts, strict=True))
        return members, [found[number] for number in guesses]

    def _keys(self, number: int, incarnation: str, hour: int) -> tuple[str, str, str]:
        """A partition's meta, marks and totals of the hour."""
        view = self._view
        return (
            meta_key(view, number),
            hours_key(view, number, incarnation),
            totals_key(view, number, incarnation, hour),
        )

    async def _totals(self, guesses: Mapping[int, str | None], hour: int) -> _Replies:
        """As _look, with the totals in the place of their number."""
        try:
            return await self._ask(guesses, hour, self._transaction)
        except redis.OutOfMemoryError:
            return await self._ask(guesses, hour, self._script)

    async def _ask(self, guesses: Mapping[int, str | None], hour: int, atomically: _Atomically) -> _Replies:
        pipeline = self._connections.redis.pipeline(transaction=False)
        pipeline.response_callbacks = {}  # plain replies: "QUEUED" where a hash would be
        pipeline.execute_command("SMEMBERS", partitions_key(self._view))
        counts = []
        for number, incarnation in guesses.items():
            if incarnation is None:
                pipeline.execute_command("HGETALL", meta_key(self._view, number))
                counts.append(1)
            else:
                counts.append(atomically(pipeline, self._keys(number, incarnation, hour), hour))
        async with self._connections.turn:
            replies: list[Any] = await pipeline.execute()
        lasts = [replies[at] for at in itertools.accumulate(counts)]
        parts = [
            [last, None, None] if guess is None else last for guess, last in zip(guesses.values(), lasts, strict=True)
        ]
        return replies[0], [_sound(part) for part in parts]

    @staticmethod
    def _transaction(pipeline: Any, keys: tuple[str, str, str], hour: int) -> int:
        """Number of replies, the last of which counts."""
        pipeline.execute_command("MULTI")
        pipeline.execute_command("HGETALL", keys[0])
        pipeline.execute_command("HGET", keys[1], str(hour))
        pipeline.execute_command("HGETALL", keys[2])
        pipeline.execute_command("EXEC")
        return 5

    @staticmethod
    def _script(pipeline: Any, keys: tuple[str, str, str], hour: int) -> int:
        """As _transaction, for a full Redis: it refuses to queue even reads, but not a script without writes."""
        pipeline.execute_command("EVAL", _READ, 3, *keys, hour)
        return 1


def _sound(reply: list[Any]) -> list[Any]:
    for part in reply:
        if isinstance(part, redis.RedisError):
            raise part
    return reply


def _meta(flat: list[bytes]) -> Any:
    pairs: Mapping[bytes, bytes] = dict(zip(flat[::2], flat[1::2], strict=True))
    return decode_meta(pairs)


def _seen(meta: Any, mark: bytes | None, rows: int) -> Seen:
    return Seen(meta, None if mark is None else decode_hour(mark), rows)
