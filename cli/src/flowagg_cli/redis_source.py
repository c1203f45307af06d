"""Redis as an export reads it: atomic calls whose answers are streamed, from a replica where there is one."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import hiredis
import redis
from flowagg.redis_client import connect
from flowagg.settings import RedisSettings, sentinel_addresses
from flowagg.view import DamagedView, Meta, decode_meta, hours_key, marks_key, meta_key, partitions_key, totals_key
from pydantic import SecretStr

from flowagg_cli.archive import End, Sink, meta_fields
from flowagg_cli.errors import CommandError, Unsettled
from flowagg_cli.keys import bucket_of, marks_pattern
from flowagg_cli.snapshot import FindBuckets, Limits, Look, LookAt, Measure, Take, Taken, steps

Node = Literal["auto", "master", "replica"]

_SERVICE: Final = "cli"
_SCAN_COUNT: Final = 1000
_READ_BYTES: Final = 2**18
_TRIES: Final = 5
_RETRY_SECONDS: Final = 1.0
_READ = """#!lua flags=no-writes
local found = {}
for i = 1, #KEYS do
  found[i] = redis.call('HGETALL', KEYS[i])
end
return found
"""
_T = TypeVar("_T")
_pack: Callable[[tuple[str, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment] # its stub has one element


class RedisAway(CommandError):
    """Redis does not answer, or refuses."""


class Pace:
    """Holds reading down to so many entries a second; by default not at all."""

    def __init__(self, entries_a_second: float | None) -> None:
        self._rate = entries_a_second
        self._free_at = 0.0

    def spent(self, entries: int) -> None:
        """Wait for as long as these entries may take."""
        if self._rate is None:
            return
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + entries / self._rate
        time.sleep(max(0.0, self._free_at - now))


@dataclass(frozen=True, slots=True)
class Chosen:
    """The node that is read. what: "master" or "replica host:port"."""

    what: str
    settings: RedisSettings


def choose_node(settings: RedisSettings, wanted: Node) -> Chosen:
    """The replica with the newest state that the sentinels hold to be well, or the master. Raises RedisAway."""
    if wanted == "master" or (wanted == "auto" and not settings.redis_sentinels):
        return Chosen("master", settings)
    if not settings.redis_sentinels:
        raise RedisAway("without sentinels (FLOWAGG_REDIS_SENTINELS) no replica is known: use --source master")
    problems = []
    for host, port in sentinel_addresses(settings.redis_sentinels):
        try:
            with closing(connect(_alone(settings, host, port, sentinel=True), _SERVICE)) as sentinel:
                replicas: Any = sentinel.sentinel_slaves(settings.redis_master_name)
        except redis.RedisError as error:
            problems.append(f"{host}:{port}: {error}")
            continue
        well = [replica for replica in replicas if _is_well(replica)]
        if well:
            newest = max(well, key=lambda replica: int(replica["slave-repl-offset"]))
            at = newest["ip"], int(newest["port"])
            return Chosen("replica {}:{}".format(*at), _alone(settings, *at))
        if wanted == "auto":
            return Chosen("master", settings)
        raise RedisAway("the sentinels know no replica that is up and in sync: wait for one, or use --source master")
    raise RedisAway(f"no sentinel answers ({'; '.join(problems)})")


def _is_well(replica: dict[str, Any]) -> bool:
    return (replica["flags"], replica["master-link-status"]) == ("slave", "ok")


def _alone(settings: RedisSettings, host: str, port: int, *, sentinel: bool = False) -> RedisSettings:
    """Settings that lead to one node, or to one sentinel, with its own secrets and TLS."""
    tls = settings.sentinel_tls if sentinel else settings.redis_tls
    address = f"[{host}]" if ":" in host else host
    update: dict[str, Any] = {"redis_sentinels": "", "redis_url": f"redis{'s' if tls else ''}://{address}:{port}/0"}
    if sentinel:
        update |= {
            "redis_username": settings.sentinel_username,
            "redis_password": SecretStr(settings.sentinel_password.get_secret_value()),
            "redis_timeout_seconds": settings.sentinel_timeout_seconds,
        }
    return settings.model_copy(update=update)


@dataclass(slots=True)
class Counts:
    """What was read. entries: flow keys and marks, those that were read again included."""

    entries: int = 0
    calls: int = 0
    restarts: int = 0


class Source:
    """A view that is read partition by partition, while it lives."""

    def __init__(self, settings: RedisSettings, view: str, node: Node, limits: Limits, pace: Pace) -> None:
        self._settings = settings
        self._view = view
        self._node = node
        self._limits = limits
        self._pace = pace
        self._open: _Connection | None = None
        self.counts = Counts()
        self.on_progress: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Close the connection."""
        if self._open is not None:
            self._open.close()
            self._open = None

    @property
    def what(self) -> str:
        """The node that is read."""
        return self._connected().what

    def metas(self) -> dict[int, Meta | None]:
        """The view's partitions and their metas, None for one that has none. Raises RedisAway, DamagedView."""
        return self._again(lambda: self._connected().metas())

    def take(self, number: int, sink: Sink) -> End | None:
        """Hand one partition to a sink, all of it as of one position; None where it has no meta.

        Begins anew, boundedly, where Redis fails over meanwhile. Raises RedisAway, DamagedView, Unsettled.
        """
        return self._again(lambda: self._take(number, sink))

    def _again(self, do: Callable[[], _T]) -> _T:
        for tries_left in reversed(range(_TRIES)):
            try:
                return do()
            except (redis.RedisError, Unsettled) as error:
                self.close()
                self.counts.restarts += 1
                if not tries_left:
                    if isinstance(error, Unsettled):
                        raise
                    raise RedisAway(f"Redis does not answer, or refuses: {error}") from error
                time.sleep(_RETRY_SECONDS)
        raise AssertionError("unreachable")

    def _take(self, number: int, sink: Sink) -> End | None:
        connection = self._connected()
        course = steps(self._limits)
        sizes: dict[tuple[str, int], int] = {}  # ("hour" or "marks", which) -> entries when read last
        began = False
        taken: Taken | None = None
        answer: Any = None
        while True:
            try:
                ask = course.send(answer)
            except StopIteration as stop:
                taken = stop.value
                break
            match ask:
                case LookAt():
                    answer = connection.look(number)
                case Measure():
                    answer = connection.measure(number, ask)
                case FindBuckets():
                    answer = connection.find_buckets(number, ask)
                case Take():
                    if not began:
                        sink.begin(number)
                        began = True
                    answer = self._hand_on(connection, number, ask, sink, sizes)
        if taken is None:
            return None
        end = End(
            number,
            meta_fields(taken.meta),
            [(hour, mark, sizes["hour", hour]) for hour, mark in sorted(taken.hours.items())],
            [(bucket, sizes["marks", bucket]) for bucket in sorted(taken.buckets) if sizes["marks", bucket]],
        )
        sink.end(end)
        return end

    def _hand_on(
        self, connection: "_Connection", number: int, ask: Take, sink: Sink, sizes: dict[tuple[str, int], int]
    ) -> Look | None:
        replies = connection.take(number, ask)
        look = _look(next(replies), next(replies))
        entries = 0
        for hour in ask.hours:
            pairs = next(replies)
            sizes["hour", hour] = len(pairs) // 2
            entries += len(pairs) // 2
            if pairs:
                sink.hour(hour, pairs)
        for bucket in ask.buckets:
            pairs = next(replies)
            sizes["marks", bucket] = len(pairs) // 2
            entries += len(pairs) // 2
            if pairs:
                sink.marks(bucket, pairs)
        connection.done()
        self.counts.entries += entries
        self.counts.calls += 1
        self.on_progress()
        self._pace.spent(entries)
        return look

    def _connected(self) -> "_Connection":
        if self._open is None:
            self._open = _Connection(choose_node(self._settings, self._node), self._view)
        return self._open


class _Connection:
    """One connection to one node: whatever is asked on it is answered from one course of states."""

    def __init__(self, chosen: Chosen, view: str) -> None:
        self.what = chosen.what
        self._client = connect(chosen.settings, _SERVICE, max_connections=1)
        self._view = view
        self._raw: Any = None
        self._reader = hiredis.Reader()
        self._by_script = False

    def close(self) -> None:
        """Close it."""
        if self._raw is not None:
            self._raw.disconnect()
            self._client.connection_pool.release(self._raw)
            self._raw = None
        self._client.close()

    def metas(self) -> dict[int, Meta | None]:
        """The view's partitions and their metas."""
        (members,) = self._call([("SMEMBERS", partitions_key(self._view))])
        numbers = sorted(map(int, members))
        replies = self._call([("HGETALL", meta_key(self._view, number)) for number in numbers])
        return dict(zip(numbers, map(_meta, replies), strict=True))

    def look(self, number: int) -> Look | None:
        """A partition's meta and hours."""
        (flat,) = self._call([("HGETALL", meta_key(self._view, number))])
        meta = _meta(flat)
        if meta is None:
            return None
        replies = self.take(number, Take(meta.incarnation, ()))
        look = _look(next(replies), next(replies))
        self.done()
        return look

    def measure(self, number: int, ask: Measure) -> list[int]:
        """The number of flow keys of each hour."""
        sizes: list[int] = []
        for start in range(0, len(ask.hours), _SCAN_COUNT):
            some = ask.hours[start : start + _SCAN_COUNT]
            sizes += self._call([("HLEN", totals_key(self._view, number, ask.incarnation, hour)) for hour in some])
        return sizes

    def find_buckets(self, number: int, ask: FindBuckets) -> frozenset[int]:
        """The buckets of marks that exist all the while."""
        pattern = marks_pattern(self._view, number, ask.incarnation)
        found: set[int | None] = set()
        cursor = "0"
        while True:
            (reply,) = self._call([("SCAN", cursor, "MATCH", pattern, "COUNT", str(_SCAN_COUNT))])
            found |= {bucket_of(key) for key in reply[1]}
            cursor = reply[0].decode("ascii")
            if cursor == "0":
                return frozenset(bucket for bucket in found if bucket is not None)

    def _call(self, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        """The answers to commands, one each; together they are not atomic."""
        raw = self._connected()
        raw.send_packed_command([b"".join(map(_pack, commands))])
        replies: list[Any] = []
        refusal: redis.ResponseError | None = None
        for _ in commands:
            try:
                replies.append(raw.read_response())
            except redis.ResponseError as error:  # an answer too: the others still follow
                refusal = error
        if refusal is not None:
            raise _refusal(str(refusal)) from refusal
        return replies

    def _connected(self) -> Any:
        if self._raw is None:
            self._raw = self._client.connection_pool.get_connection()
            self._raw.connect()
        return self._raw

    def take(self, number: int, ask: Take) -> Iterator[list[bytes]]:
        """The replies of one atomic call, one at a time: meta, hours' marks, totals of each hour, marks of each bucket.

        All of them are to be taken, and then `done` called. Only one is in memory at a time, though it was one call:
        the transaction's answer is an array, and its elements are read as answers of their own.
        """
        inc = ask.incarnation
        keys = [
            meta_key(self._view, number),
            hours_key(self._view, number, inc),
            *(totals_key(self._view, number, inc, hour) for hour in ask.hours),
            *(marks_key(self._view, number, inc, bucket) for bucket in ask.buckets),
        ]
        return self._transaction(keys)

    def _transaction(self, keys: Sequence[str]) -> Iterator[list[bytes]]:
        self._connected()
        try:
            rest = self._ask(keys)
        except redis.OutOfMemoryError:  # a full Redis refuses to queue even reads, but not a script without writes
            self._by_script = True
            rest = self._ask(keys)
        self._reader = hiredis.Reader()
        self._reader.feed(rest)
        for _ in keys:
            while (reply := self._reader.gets()) is False:
                self._reader.feed(self._receive())
            if isinstance(reply, Exception):
                self.close()
                raise _refusal(str(reply))
            yield reply

    def _ask(self, keys: Sequence[str]) -> bytes:
        """Send an atomic call; what has come of its answer behind the head of the array."""
        commands: list[tuple[str, ...]]
        if self._by_script:
            commands = [("EVAL", _READ, str(len(keys)), *keys)]
            lines = 1
        else:
            commands = [("MULTI",), *(("HGETALL", key) for key in keys), ("EXEC",)]
            lines = len(keys) + 2  # OK, QUEUED each, and the head of the array
        self._raw.send_packed_command([b"".join(map(_pack, commands))])
        head = b""
        while head.count(b"\r\n") < lines:
            head += self._receive()
        *said, rest = head.split(b"\r\n", lines)
        refused = [line[1:].decode(errors="replace") for line in said if line.startswith(b"-")]
        if refused:
            if not rest and refused[0].startswith("OOM "):
                raise redis.OutOfMemoryError(refused[0])
            self.close()
            raise _refusal(refused[0])
        if said[-1] != b"*%d" % len(keys):
            self.close()
            raise redis.ResponseError(f"not the answer to an atomic call: {said[-1]!r}")
        return rest

    def done(self) -> None:
        """The answers were taken: nothing may be left of them."""
        if self._reader.has_data():
            self.close()
            raise redis.ResponseError("more came than was asked for")

    def _receive(self) -> bytes:
        try:
            data: bytes = self._raw._sock.recv(_READ_BYTES)
        except OSError as error:
            self.close()
            raise redis.ConnectionError(f"the connection to Redis broke: {type(error).__name__} {error}") from error
        if not data:
            self.close()
            raise redis.ConnectionError("Redis has closed the connection")
        return data


def _refusal(text: str) -> Exception:
    if text.startswith("WRONGTYPE"):
        return DamagedView(f"Redis holds something that FlowAggregator did not write: {text}")
    return redis.ResponseError(text)


def _meta(flat: list[bytes]) -> Meta | None:
    return decode_meta(dict(zip(flat[::2], flat[1::2], strict=True)))


def _look(meta: list[bytes], hours: list[bytes]) -> Look | None:
    found = _meta(meta)
    if found is None:
        return None
    marks = zip(hours[::2], hours[1::2], strict=True)
    try:
        return Look(found, {int(hour): mark for hour, mark in marks})
    except ValueError as error:
        raise DamagedView(f"a partition's hours in Redis are damaged: {error}") from None
