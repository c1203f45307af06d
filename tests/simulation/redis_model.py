"""A model of Redis with asynchronous replication, in virtual time.

It keeps hashes under the names that the real store uses, so that the same commands on both leave
the same dump (tests/integration/test_models.py pins that).
"""

import copy
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from flowagg.view import DamagedView, decode_hour, decode_meta, encode_hour, hours_key, marks_key, meta_key, totals_key
from flowagg_consumer import effects as fx

Data = dict[str, dict[bytes, bytes]]


class Node:
    """One Redis server: its hashes, and whether it takes writes."""

    def __init__(self, name: str, data: Data) -> None:
        self.name = name
        self.data = data
        self.read_only = False
        self.full = False
        self.listeners: list[Callable[[fx.Apply], None]] = []

    def execute(self, view: str, command: fx.Command) -> Any:
        """What the real scripts and transactions do. Raises StoreAway where Redis refuses."""
        match command:
            case fx.Load():
                return {number: self._meta(view, number) for number in command.partitions}
            case fx.ReadPositions():
                return {number: self._position(view, number) for number in command.partitions}
            case fx.ReadTotals():
                position = self._position(view, command.partition)
                if position is None:
                    return None, None, []
                return *position, [
                    self.data.get(totals_key(view, command.partition, command.incarnation, hour), {}).get(field)
                    for hour, fields in command.fields
                    for field in fields
                ]
            case fx.ReadMarks():
                position = self._position(view, command.partition)
                if position is None:
                    return None, None, []
                return *position, [self._marks(view, command, key.encode()) for key in command.keys]
            case fx.ReadHours():
                position = self._position(view, command.partition)
                if position is None:
                    return None, None, {}
                hours = self.data.get(hours_key(view, command.partition, command.incarnation), {})
                return *position, {int(hour): decode_hour(mark) for hour, mark in hours.items()}
            case fx.Begin():
                return self._begin(view, command)
            case fx.Apply():
                return self._apply(view, command)
            case fx.Diverge():
                self._refuse_writes()
                if not self._passes(view, command):
                    return False
                self.data[meta_key(view, command.partition)][b"diverged"] = command.detail.encode()
                return True

    def _refuse_writes(self) -> None:
        if self.read_only:
            raise fx.StoreAway("READONLY")
        if self.full:
            raise fx.StoreAway("RedisFull")

    def _meta(self, view: str, number: int) -> Any:
        try:
            return decode_meta(self.data.get(meta_key(view, number), {}))
        except DamagedView as error:
            return error

    def _position(self, view: str, number: int) -> tuple[int, str] | None:
        fields = self.data.get(meta_key(view, number))
        return None if fields is None else (int(fields[b"position"]), fields[b"incarnation"].decode())

    def _marks(self, view: str, command: fx.ReadMarks, key: bytes) -> dict[int, bytes]:
        names = {b: marks_key(view, command.partition, command.incarnation, b) for b in command.buckets}
        return {b: self.data[name][key] for b, name in names.items() if key in self.data.get(name, {})}

    def _begin(self, view: str, begin: fx.Begin) -> Any:
        self._refuse_writes()
        fields = {
            b"position": b"%d" % begin.position,
            b"topic_id": begin.topic_id.encode(),
            b"leader_epoch": b"-1",
            b"start": b"%d" % begin.position,
            b"incomplete": b"%d" % (begin.position > 0),
            b"incarnation": begin.incarnation.encode(),
            b"time": b"-1",
            b"writer": b"",
        }
        self.data.setdefault(meta_key(view, begin.partition), fields)
        return self._meta(view, begin.partition)

    def _passes(self, view: str, command: fx.Apply | fx.Diverge) -> bool:
        """The fence."""
        meta = self.data.get(meta_key(view, command.partition), {})
        fence = (b"%d" % command.expected, command.topic_id.encode(), command.incarnation.encode())
        return (meta.get(b"position"), meta.get(b"topic_id"), meta.get(b"incarnation")) == fence

    def _apply(self, view: str, apply: fx.Apply) -> bool:
        self._refuse_writes()
        if not self._passes(view, apply):
            return False
        number, incarnation = apply.partition, apply.incarnation
        meta = self.data.setdefault(meta_key(view, number), {})  # a mutation lets through what has none
        hours = self.data.setdefault(hours_key(view, number, incarnation), {})
        if apply.expiry is not None:
            hours |= {b"%d" % hour: encode_hour(mark) for hour, mark in apply.expiry.adopted.items()}
        for hour in apply.hours:
            totals = self.data.setdefault(totals_key(view, number, incarnation, hour.hour), {})
            totals |= zip(hour.pairs[::2], hour.pairs[1::2], strict=True)
            hours[b"%d" % hour.hour] = hour.mark
        for bucket, pairs in apply.marks.items():
            marks = self.data.setdefault(marks_key(view, number, incarnation, bucket), {})
            texts = [pair.encode() if isinstance(pair, str) else pair for pair in pairs]
            marks |= zip(texts[::2], texts[1::2], strict=True)
        for bucket in apply.expired:
            self.data.pop(marks_key(view, number, incarnation, bucket), None)
        meta |= {
            b"position": b"%d" % apply.position,
            b"leader_epoch": b"%d" % apply.leader_epoch,
            b"time": b"%d" % apply.time,
            b"writer": apply.writer.encode(),
        }
        if apply.expiry is not None:
            for gone in apply.expiry.gone:
                self.data.pop(totals_key(view, number, incarnation, gone), None)
                hours.pop(b"%d" % gone, None)
            meta |= {b"floor": b"%d" % apply.expiry.floor, b"tick": b"%d" % apply.expiry.tick}
        if apply.lost is not None:
            meta |= {b"lost": apply.lost.encode(), b"incomplete": b"1"}
        self.data[meta_key(view, number)] = meta
        return True


_WRITES = (fx.Begin, fx.Apply, fx.Diverge)


class Redis:
    """A master, a replica that lags, and demoted masters that may still answer."""

    def __init__(self, view: str, rng: random.Random) -> None:
        self.view = view
        self._rng = rng
        self.master = Node("redis-0", {})
        self._replica: Data = {}
        self._unreplicated: deque[fx.Command] = deque()
        self._late: deque[tuple[Node, fx.Command]] = deque()
        self._saved: Data = {}
        self._failovers = 0
        self.on_write: Callable[[fx.Command], None] = lambda _: None

    def execute(self, node: Node, command: fx.Command) -> Any:
        """Execute on a node; a write on the master is replicated later."""
        answer = node.execute(self.view, command)
        if isinstance(command, _WRITES) and answer is not False and node is self.master:
            self._unreplicated.append(copy.copy(command))
            self.on_write(command)
        return answer

    def replicate(self, count: int) -> None:
        """The replica takes the next commands."""
        replica = Node("replica", self._replica)
        for _ in range(min(count, len(self._unreplicated))):
            replica.execute(self.view, self._unreplicated.popleft())

    def fail_over(self, *, demoted_writes: bool) -> None:
        """The replica becomes the master; what it has not taken is lost."""
        self._failovers += 1
        self.master.read_only = not demoted_writes
        self.master = Node(f"redis-{self._failovers}", self._replica)
        self._replica = copy.deepcopy(self._replica)
        self._unreplicated.clear()

    def save(self) -> None:
        """Take a snapshot for a stale restore."""
        self._saved = copy.deepcopy(self.master.data)

    def restore(self) -> None:
        """A restart with the last snapshot: all connections are gone, the state has gone back."""
        self._failovers += 1
        self.master = Node(f"redis-{self._failovers}", copy.deepcopy(self._saved))
        self._replica = copy.deepcopy(self._saved)
        self._unreplicated.clear()

    def later(self, node: Node, commands: list[fx.Command]) -> None:
        """Commands of a closed connection that the server has read, and executes when it comes to it."""
        self._late.extend((node, command) for command in commands)

    def execute_late(self) -> None:
        """Execute the oldest of them."""
        if self._late:
            node, command = self._late.popleft()
            try:
                self.execute(node, command)
            except fx.StoreAway:
                return


class Connection:
    """A consumer's connection: commands are executed in order, some time between send and receive."""

    def __init__(self, redis: Redis, rng: random.Random) -> None:
        self._redis = redis
        self._rng = rng
        self._node: Node | None = None
        self._queue: deque[fx.Command] = deque()
        self._answers: deque[Any] = deque()
        self.lose_next_reply = False
        self.away = False
        self._cut = False

    def cut(self) -> None:
        """The server or the network ends the connection: the client finds out when it uses it."""
        self._cut = True

    def send(self, command: fx.Command) -> None:
        """Raises StoreAway where no connection can be made."""
        if self.away or self._cut:
            raise fx.StoreAway("away")
        if self._node is None:
            self._node = self._redis.master
        if (
            self._node is not self._redis.master
            and self._node.name != self._redis.master.name
            and self._rng.random() < 0.1
        ):
            raise fx.StoreAway("connection reset")
        self._queue.append(command)
        if self._rng.random() < 0.5:
            self.execute_one()

    def execute_one(self) -> None:
        """The server comes to the next command."""
        if self._queue and self._node is not None:
            try:
                self._answers.append(self._redis.execute(self._node, self._queue.popleft()))
            except fx.StoreAway as error:
                self._answers.append(error)

    def receive(self) -> Any:
        """The oldest answer. Raises StoreAway."""
        if self._node is None or self._cut:
            raise fx.StoreAway("closed")
        if self.away or self.lose_next_reply:
            self.lose_next_reply = False
            if self._rng.random() < 0.5:
                self.execute_one()
            raise fx.StoreAway("timeout")
        while not self._answers:
            assert self._queue, "nothing was sent that would be answered"
            self.execute_one()
        answer = self._answers.popleft()
        if isinstance(answer, fx.StoreAway):
            raise answer
        return copy.deepcopy(answer)

    def disconnect(self) -> None:
        """What the server has read already it still executes."""
        if self._node is not None and self._queue and self._rng.random() < 0.5:
            self._redis.later(self._node, list(self._queue)[: self._rng.randint(1, len(self._queue))])
        self._queue.clear()
        self._answers.clear()
        self._node = None
        self._cut = False
