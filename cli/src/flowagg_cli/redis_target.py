"""Redis as an import writes it: a view that is absent, filled under incarnations that nothing reads before the end.

Each partition has a key of its own for the time of its import, which holds the new incarnation: every write is a
script that looks whether it is still there and no meta yet. So an import that another one took over, that was
stopped for a while, or whose view was removed, can write nothing any more. The metas come last, when all totals of
all partitions are there and counted; a reader, and a consumer, see nothing of the view before.

That key also counts the writes. A failover of Redis loses a tail of them, and a client that reconnects does not notice:
then the count is lower than what was sent, and no meta is written.
"""

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import redis
from flowagg.redis_client import connect
from flowagg.settings import RedisSettings
from flowagg.view import Meta, decode_meta, hours_key, marks_key, meta_key, partitions_key, totals_key

from flowagg_cli.archive import End
from flowagg_cli.errors import CommandError, Refused
from flowagg_cli.keys import import_key, incarnation_pattern, partition_pattern
from flowagg_cli.redis_source import RedisAway

_SERVICE: Final = "cli"
_SCAN_COUNT: Final = 1000
_UNLINK_KEYS: Final = 100
_PAIRS_A_CALL: Final = 3000
_CALLS_IN_FLIGHT: Final = 8
_PAIRS_IN_FLIGHT: Final = 20_000
_REPLICA_SECONDS: Final = 10.0
_WAIT_MS: Final = 100

_PREPARE = """#!lua
-- Begins a partition's import, or takes over one that was left. KEYS: meta, import.
-- ARGV: incarnation and source of the import; position of the meta that may be there ('' for none).
local position = redis.call('HGET', KEYS[1], 'position') or ''
if position ~= ARGV[3] then
  return 0
end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[2], 'incarnation', ARGV[1], 'source', ARGV[2], 'calls', '0')
return 1
"""

_LOAD = """#!lua
-- Writes a part of a hash, if anything, and counts. KEYS: import, meta, hash. ARGV: incarnation, then field, value, ...
if redis.call('HGET', KEYS[1], 'incarnation') ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
if #ARGV > 1 then
  redis.call('HSET', KEYS[3], unpack(ARGV, 2))
end
redis.call('HINCRBY', KEYS[1], 'calls', 1)
return 1
"""

_FINISH = """#!lua
-- Writes a partition's meta, unless it has one; -1 where writes were lost. KEYS: import, meta.
-- ARGV: incarnation, position, number of writes, then field, value, ...
if redis.call('HGET', KEYS[1], 'incarnation') ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
if redis.call('HGET', KEYS[1], 'calls') ~= ARGV[3] then
  return -1
end
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
redis.call('HSET', KEYS[1], 'position', ARGV[2])
return 1
"""


class Standing(Enum):
    """What is under a view's name."""

    ABSENT = "absent"
    LEFT = "left behind by an import that did not end"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class Import:
    """What is kept of a partition's import. position: of its meta, once that was written."""

    incarnation: str
    source: str
    position: int | None


def judge(found: Mapping[int, tuple[Meta | None, Import | None]]) -> Standing:
    """What the partitions' metas and imports make of a view.

    A meta of an import that did not end may go: as long as other partitions of it have none, and its position has
    not moved, no consumer has taken the view on.
    """
    if all(meta is None and import_ is None for meta, import_ in found.values()):
        return Standing.ABSENT
    unfinished = any(meta is None and import_ is not None for meta, import_ in found.values())
    untouched = all(
        meta is None
        or (import_ is not None and (import_.incarnation, import_.position) == (meta.incarnation, meta.position))
        for meta, import_ in found.values()
    )
    return Standing.LEFT if unfinished and untouched else Standing.EXISTS


@dataclass(slots=True)
class _Partition:
    """A partition that is being written. hours, buckets: that were written under the incarnation. calls: writes."""

    incarnation: str
    calls: int = 0
    hours: set[int] = field(default_factory=set)
    buckets: set[int] = field(default_factory=set)
    end: End | None = None


class Target:
    """Writes a view; a Sink. prepare comes first, finish last."""

    def __init__(self, settings: RedisSettings, view: str, source: str) -> None:
        """source: what is imported, kept with the import for whoever looks at one that did not end."""
        self._client = connect(settings, _SERVICE, max_connections=2)
        self._view = view
        self._source = source
        self._partitions: dict[int, _Partition] = {}
        self._current = -1
        self._load = self._client.register_script(_LOAD)
        self._prepare = self._client.register_script(_PREPARE)
        self._finish = self._client.register_script(_FINISH)
        self._calls: list[tuple[list[str], list[Any]]] = []
        self._pairs = 0
        self.entries = 0

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def prepare(self, partitions: Iterable[int]) -> bool:
        """Begin; whether something that an import had left was cleaned up. Raises Refused, RedisAway."""
        try:
            return self._begin(sorted(partitions))
        except redis.RedisError as error:
            raise _away(error) from error

    def begin(self, partition: int) -> None:
        """See Sink: what came of it before goes."""
        try:
            self._flush()
            if (before := self._partitions[partition]).hours or before.buckets:
                new = _new_incarnation()
                self._call(self._prepare, partition, [meta_key, import_key], [new, self._source, ""])
                self._partitions[partition] = _Partition(new)
                self._unlink(self._keys(partition, before, before.hours, before.buckets))
        except redis.RedisError as error:
            raise _away(error) from error
        self._current = partition

    def hour(self, hour: int, pairs: list[bytes]) -> None:
        """See Sink."""
        part = self._partitions[self._current]
        part.hours.add(hour)
        self._write(totals_key(self._view, self._current, part.incarnation, hour), pairs)

    def marks(self, bucket: int, pairs: list[bytes]) -> None:
        """See Sink."""
        part = self._partitions[self._current]
        part.buckets.add(bucket)
        self._write(marks_key(self._view, self._current, part.incarnation, bucket), pairs)

    def end(self, end: End) -> None:
        """See Sink: what is not in it any more goes, and the rest is counted."""
        number, part = end.partition, self._partitions[end.partition]
        pairs = [part_ for hour, mark, _ in end.hours for part_ in (str(hour).encode(), mark)]
        hours = {hour: keys for hour, _, keys in end.hours}
        buckets = dict(end.buckets)
        try:
            self._flush()
            self._unlink(self._keys(number, part, part.hours - hours.keys(), part.buckets - buckets.keys()))
            # After what goes: where that is lost in a failover, this is lost too, and shows.
            self._write(hours_key(self._view, number, part.incarnation), pairs)
            self._flush()
            self._count(number, part, hours, buckets)
        except redis.RedisError as error:
            raise _away(error) from error
        part.hours, part.buckets = set(hours), set(buckets)
        part.end = end

    def finish(self) -> None:
        """Write the metas: the view is there.

        Raises Refused where it had been begun or taken over meanwhile, CommandError where Redis has lost writes.
        """
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for number, part in self._partitions.items():
                    if part.end is None:
                        raise CommandError(f"partition {number} did not come to its end: nothing was restored")
                    fields = part.end.meta | {"incarnation": part.incarnation, "writer": ""}
                    flat = [text for pair in fields.items() for text in pair]
                    keys = [import_key(self._view, number), meta_key(self._view, number)]
                    self._finish(keys, [part.incarnation, fields["position"], part.calls, *flat], client=pipeline)
                self._check(pipeline.execute())
            self._end_imports()
        except redis.RedisError as error:
            raise _away(error) from error

    def _end_imports(self) -> None:
        """Take the import keys away, and wait until a replica has that, and all before it: a failover would lose metas.

        In short waits: each has to end within the connection's time-out.
        """
        keys = [import_key(self._view, number) for number in self._partitions]
        info: Any = self._client.info("replication")
        wanted, deadline = min(1, info["connected_slaves"]), time.monotonic() + _REPLICA_SECONDS
        while True:
            with self._client.pipeline(transaction=False) as pipeline:  # one connection: WAIT is about its own commands
                pipeline.delete(*keys)
                pipeline.execute_command("WAIT", wanted, _WAIT_MS)
                if pipeline.execute()[1] >= wanted:
                    return
            if time.monotonic() > deadline:
                raise CommandError(
                    f"the view {self._view!r} is written, but in {_REPLICA_SECONDS:g} s no replica has confirmed it: "
                    "see that it is whole (flowagg views list) before its consumers start; a failover may lose it"
                )

    def _begin(self, numbers: Sequence[int]) -> bool:
        found = look(self._client, self._view, numbers)
        standing = judge(found)
        if standing is Standing.EXISTS:
            raise Refused(
                f"the view {self._view!r} exists: import under another name (--as), "
                f"or remove it first: flowagg views remove {self._view} --yes"
            )
        # The list of partitions first: replication keeps the order, so no failover keeps a partition unlisted.
        self._client.sadd(partitions_key(self._view), *numbers)
        for number, (meta, import_) in found.items():
            part = self._partitions[number] = _Partition(_new_incarnation())
            position = "" if meta is None else str(meta.position)
            self._call(self._prepare, number, [meta_key, import_key], [part.incarnation, self._source, position])
            if import_ is not None:
                pattern = incarnation_pattern(self._view, number, import_.incarnation)
                self._unlink(self._client.scan_iter(pattern, count=_SCAN_COUNT))
        for number in found.keys() - set(numbers):  # of another topic, or of another time
            self._client.delete(import_key(self._view, number))
            self._client.srem(partitions_key(self._view), number)
            del self._partitions[number]
        return standing is Standing.LEFT

    def _write(self, key: str, pairs: Sequence[bytes]) -> None:
        number, partition = self._current, self._partitions[self._current]
        for start in range(0, max(1, len(pairs)), 2 * _PAIRS_A_CALL):
            part = pairs[start : start + 2 * _PAIRS_A_CALL]
            self._calls.append(
                ([import_key(self._view, number), meta_key(self._view, number), key], [partition.incarnation, *part])
            )
            partition.calls += 1
            self._pairs += len(part) // 2
            self.entries += len(part) // 2
            if len(self._calls) >= _CALLS_IN_FLIGHT or self._pairs >= _PAIRS_IN_FLIGHT:
                try:
                    self._flush()
                except redis.RedisError as error:
                    raise _away(error) from error

    def _flush(self) -> None:
        if not self._calls:
            return
        with self._client.pipeline(transaction=False) as pipeline:
            for keys, arguments in self._calls:
                self._load(keys, arguments, client=pipeline)
            self._calls, self._pairs = [], 0
            self._check(pipeline.execute())

    def _call(self, script: Any, number: int, keys: Sequence[Any], arguments: Sequence[str]) -> None:
        self._check([script([key(self._view, number) for key in keys], arguments)])

    def _check(self, replies: Sequence[Any]) -> None:
        if -1 in replies:
            raise CommandError(
                "Redis has lost a part of what was written, as a failover does: nothing was restored; import again"
            )
        if not all(reply == 1 for reply in replies):
            raise Refused(
                f"the view {self._view!r} was begun or removed, or another import took this one over, meanwhile: "
                "nothing more was written; stop its consumers, and import again"
            )

    def _count(self, number: int, part: _Partition, hours: Mapping[int, int], buckets: Mapping[int, int]) -> None:
        """Compare with what is stored. Raises CommandError."""
        expected = {totals_key(self._view, number, part.incarnation, hour): keys for hour, keys in hours.items()}
        expected |= {marks_key(self._view, number, part.incarnation, bucket): n for bucket, n in buckets.items()}
        names = list(expected)
        for start in range(0, len(names), _SCAN_COUNT):
            with self._client.pipeline(transaction=False) as pipeline:
                some = names[start : start + _SCAN_COUNT]
                for name in some:
                    pipeline.hlen(name)
                for name, count in zip(some, pipeline.execute(), strict=True):
                    if count != expected[name]:
                        raise CommandError(
                            f"{name} holds {count} entries in place of {expected[name]}: nothing was restored; "
                            "see whether Redis failed over, and import again"
                        )

    def _keys(self, number: int, part: _Partition, hours: Iterable[int], buckets: Iterable[int]) -> Iterable[str]:
        yield from (totals_key(self._view, number, part.incarnation, hour) for hour in hours)
        yield from (marks_key(self._view, number, part.incarnation, bucket) for bucket in buckets)

    def _unlink(self, keys: Iterable[str | bytes]) -> int:
        return unlink(self._client, keys)


def look(client: "redis.Redis", view: str, numbers: Iterable[int] = ()) -> dict[int, tuple[Meta | None, Import | None]]:
    """The metas and imports of a view's partitions, and of others by number."""
    members: Any = client.smembers(partitions_key(view))
    everything = sorted({*map(int, members), *numbers})
    with client.pipeline(transaction=False) as pipeline:
        for number in everything:
            pipeline.hgetall(meta_key(view, number))
            pipeline.hgetall(import_key(view, number))
        replies = pipeline.execute()
    pairs = zip(map(decode_meta, replies[::2]), map(_import, replies[1::2]), strict=True)
    return dict(zip(everything, pairs, strict=True))


def remove(client: "redis.Redis", view: str) -> int:
    """Remove all of a view from Redis; the number of keys. Raises redis.RedisError.

    The metas go first, then what they led to, orphans of earlier incarnations too, the list of partitions last: a
    removal that was cut can be done again. With the list go the metas that were begun meanwhile: what they lead to has
    lost keys, so it must not be read.
    """
    members: Any = client.smembers(partitions_key(view))
    first = [key for number in sorted(map(int, members)) for key in (meta_key(view, number), import_key(view, number))]
    count = unlink(client, first)
    count += unlink(client, client.scan_iter(partition_pattern(view), count=_SCAN_COUNT))
    begun: Any = client.smembers(partitions_key(view))
    last = [*(meta_key(view, number) for number in sorted(map(int, begun))), partitions_key(view)]
    return count + int(client.unlink(*last))


def unlink(client: "redis.Redis", keys: Iterable[str | bytes]) -> int:
    """Remove keys, some at a time; how many there were."""
    count, some = 0, list[str | bytes]()
    for key in keys:
        some.append(key)
        if len(some) >= _UNLINK_KEYS:
            count += int(client.unlink(*some))
            some = []
    return count + (int(client.unlink(*some)) if some else 0)


def _import(fields: Mapping[bytes, bytes]) -> Import | None:
    if not fields:
        return None
    position = fields.get(b"position")
    return Import(
        fields.get(b"incarnation", b"").decode("ascii", "replace"),
        fields.get(b"source", b"").decode("utf-8", "replace"),
        None if position is None else int(position),
    )


def _away(error: redis.RedisError) -> RedisAway:
    if isinstance(error, redis.OutOfMemoryError):
        return RedisAway(f"RedisFull: {error}: give Redis more memory (maxmemory)")
    return RedisAway(f"Redis does not answer, or refuses: {error}")


def _new_incarnation() -> str:
    return uuid.uuid4().hex[:16]
