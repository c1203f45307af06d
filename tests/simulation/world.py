"""One seed: real cores on modelled Kafka, Redis and processes, in virtual time on one thread."""

import json
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flowagg.flow import InvalidFlow
from flowagg.position import Position
from flowagg.view import decode_hour, decode_meta, hours_key, meta_key, totals_key
from flowagg_consumer import effects as fx
from flowagg_consumer.core import Config, Core
from flowagg_consumer.marks import Window
from flowagg_consumer.native import native_totals
from flowagg_consumer.partition import DeadLetter, StopReason
from flowagg_consumer.retention import Retention
from flowagg_consumer.totals import PythonTotals
from flowagg_reader import core as reader_core
from flowagg_reader.etag import Held
from flowagg_reader.hour import Seen, hour_of
from flowagg_reader.pace import Pace
from flowagg_reader.query import Consistency, Query
from flowagg_reader.union import render
from flowagg_writer.batch import Acknowledgements, KnownKeys, plan

from tests.simulation import oracle
from tests.simulation.kafka_model import CLOCK_SKEW_MS, Broker, Member
from tests.simulation.redis_model import Connection, Node, Redis

VIEW = "v"
WINDOW_MS = 4000
HOURS = 3
IDLE_FAIL_OVERS = 0.5
HOUR_MS = 1500
"""Log time after which the hours that are posted move on by one, where hours expire."""
_TRACE_LINES = 400


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass(slots=True)
class Post:
    """What a client knows of one POST."""

    number: int
    body: bytes
    key: str | None
    flows: int
    first_time: int
    acknowledged: dict[int, int] | None = None  # partition -> next offset
    topic_id: str = ""
    tries: int = 0
    last_time: int = 0


class Process:
    """A consumer process: a core, its connection to Redis, its place in the group."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.starts = 0
        self.paused_until = 0.0
        self.member = Member(world.broker, world.rng, native=world.native)
        self.connection = Connection(world.redis, world.rng)
        self.start()

    def start(self) -> None:
        """Start, or start again after a crash: nothing is left in memory."""
        world = self.world
        self.starts += 1
        if self.starts > 1:
            self.connection.disconnect()
            world.broker.members.remove(self.member)
        self.member = Member(world.broker, world.rng, native=world.native)
        world.broker.members.append(self.member)
        self.connection = Connection(world.redis, world.rng)
        config = Config(
            idle_seconds=0.1,
            linger_seconds=0.001,
            batch_records=world.batch_records,
            batch_writes=world.batch_writes,
            batch_seconds=0.05,
            max_in_flight=2,
            reread_seconds=0.5,
            commit_seconds=1.0,
            retry_seconds=0.1,
            cache_bytes=world.cache_bytes,
            window=Window(WINDOW_MS),
            retention=Retention(world.rules.keep),
            new_totals=native_totals(world.seed) if world.native else PythonTotals,
        )
        self.core = Core(config, f"{self.name}.{self.starts}", lambda: world.now, world.new_id, self._say)
        self._steps = self.core.run()
        self._answer: Any = None
        self._error: Exception | None = None

    def step(self) -> None:
        """Carry out one effect."""
        effect = self._steps.send(self._answer) if self._error is None else self._steps.throw(self._error)
        self._answer, self._error = None, None
        try:
            self._answer = self._carry_out(effect)
        except (fx.StoreAway, fx.LogAway) as error:
            self._error = error
        self.world.trace(self.name, effect, self._answer if self._error is None else self._error)

    def _carry_out(self, effect: fx.Effect) -> Any:
        world = self.world
        match effect:
            case fx.Fetch():
                fetched = self.member.fetch(world.batch)
                world.now += 0.002 if fetched.records else 0.02
                return fetched
            case fx.Send():
                return self.connection.send(effect.command)
            case fx.Receive():
                return self.connection.receive()
            case fx.Disconnect():
                return self.connection.disconnect()
            case fx.StartDescribe():
                return None if world.broker.away else world.broker.topic.topic_id
            case fx.AwaitTopic():
                if effect.ticket is None or world.broker.away:
                    raise fx.LogAway("away")
                return effect.ticket if world.rng.random() < 0.5 else world.broker.topic.topic_id
            case fx.Restart():
                return self.member.restart(effect.partition, effect.start)
            case fx.Pause():
                return self.member.pause(effect.partition)
            case fx.Watermarks():
                if world.broker.away:
                    raise fx.LogAway("away")
                logs = world.broker.topic.logs
                return {n: fx.Bounds(logs[n].low, logs[n].end, logs[n].epoch) for n in effect.partitions}
            case fx.CheckTopic():
                if world.broker.away:
                    raise fx.LogAway("away")
                return None
            case fx.Commit():
                self.member.commit_fails = world.rng.random() < 0.1
                if not self.member.commit_fails:
                    world.broker.committed |= effect.positions
                return None
            case fx.SendDeadLetters():
                return world.take_dead_letters(effect)

    def _say(self, event: str, fields: Mapping[str, object]) -> None:
        self.world.trace(self.name, event, fields)


@dataclass(slots=True)
class Reading:
    """A GET under way: what its answer must hold when it says fresh."""

    steps: Iterator[Any]
    must: dict[int, int]
    topic_id: str
    hour: int
    answer: Any = None
    error: Exception | None = None
    full: bytes = b"[]"  # what a full read gave at the moment that the answer is judged by


class World:
    """Everything, and the invariants. `run` raises Violation; `lines` is the trace."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.native = seed % 2 == 0  # compiled totals and Python's, in turns
        self.rng = rng = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self.lines: deque[tuple[int, str, object, object]] = deque(maxlen=_TRACE_LINES)
        self.batch = rng.choice([1, 2, 5, 20])
        self.batch_records, self.batch_writes = rng.choice([(10**6, 10**6), (10**6, 6), (8, 10**6), (1, 1)])
        self.cache_bytes = rng.choice([0, 2000, 10**6, 10**6])
        self.rules = oracle.Rules(WINDOW_MS, rng.choice([None, 800, 4000]))
        self._ids = 0
        partitions = rng.randint(1, 3)
        self.keyed_partitions = partitions
        self.broker = Broker(rng, partitions)
        self.redis = Redis(VIEW, rng)
        self.redis.on_write = self._check_write
        self.old_nodes: list[Node] = []
        self.posts: list[Post] = []
        self.known = [KnownKeys(100) for _ in range(2)]
        self.dead: set[tuple[str, int, int]] = set()
        self.dead_letters_down = False
        self.truncated = False
        self.transactions: set[int] = set()
        self.readings: list[Reading] = []
        self.pace = Pace()
        self.bodies: dict[str, bytes] = {}  # the reader's cache, by tag
        self.tags: dict[int, str] = {}  # of the last answer for an hour, as a client keeps it
        self.answers: dict[tuple[int, str], bytes] = {}  # what each tag has stood for
        self.processes = [Process(self, f"consumer-{n}") for n in range(rng.randint(1, 3))]
        self.broker.rebalance(process.member for process in self.processes)

    def new_id(self) -> str:
        """An identifier never given before."""
        self._ids += 1
        return f"id{self._ids}"

    def trace(self, who: str, what: object, outcome: object = None) -> None:
        """Remember a step, for a failing seed's trace."""
        self.lines.append((self.steps, who, what, outcome))

    def run(self, steps: int) -> None:
        """Draw and take steps; then let everything heal and settle, and compare with the oracle."""
        actions = self._actions()
        names, weights = [name for name, _, _ in actions], [weight for _, weight, _ in actions]
        calls = {name: call for name, _, call in actions}
        for self.steps in range(steps):
            self.now += 0.001
            name = self.rng.choices(names, weights)[0]
            calls[name]()
        self._settle()

    # Actions -----------------------------------------------------------------------------------

    def _actions(self) -> list[tuple[str, float, Callable[[], None]]]:
        rare = self.rng.choice([0.0, 0.0, 1.0])  # faults after which a partition may rightly stop
        return [
            ("consumer", 100, self._step_consumer),
            ("post", 8, self._post),
            ("retry", 3, self._retry),
            ("foreign", 2, self._foreign),
            ("transaction", 2, self._transaction),
            ("read", 5, self._start_read),
            ("reader", 20, self._step_reader),
            ("replicate", 6, self._replicate),
            ("late", 3, self.redis.execute_late),
            ("server", 8, self._serve),
            ("lose reply", 2, self._lose_reply),
            ("crash", 0.7, self._crash),
            ("pause", 1.0, self._pause),
            ("rebalance", 1.0, self._rebalance),
            ("fail over", 0.6, self._fail_over),
            ("save", 0.4, self.redis.save),
            ("restore", 0.15, self._restore),
            ("full", 0.4, self._full),
            ("redis away", 0.4, self._redis_away),
            ("kafka away", 0.4, self._kafka_away),
            ("dead letters down", 0.4, self._dead_letters_down),
            ("new epoch", 0.5, self._new_epoch),
            ("time", 0.3 if self.rules.keep is None else 1.5, self._time),
            ("grow", 0.15, self._grow),
            ("retention", 0.15 * rare, self._retention),
            ("recreate", 0.1 * rare, self._recreate),
            ("truncate", 0.2 * rare, self._truncate),
        ]

    def _serve(self) -> None:
        self._any().connection.execute_one()

    def _any(self) -> Process:
        return self.rng.choice(self.processes)

    def _step_consumer(self) -> None:
        process = self._any()
        if process.paused_until <= self.now:
            process.step()

    def _post(self) -> None:
        rng, number = self.rng, len(self.posts)
        count = rng.randint(1, 4)
        flows = [
            {
                "src_app": f"a{rng.randint(0, 2)}",
                "dest_app": f"post-{number}" if rng.random() < 0.5 else "b",
                "vpc_id": "v",
                "hour": self._hour(),
                "bytes_tx": rng.randint(0, 9),
                "bytes_rx": rng.randint(0, 9),
            }
            for _ in range(count)
        ]
        key = f"key-{number}" if rng.random() < 0.5 else None
        if key is not None and self.posts and rng.random() < 0.1:
            key = self.posts[-1].key  # the same key with another body
        if rng.random() < 0.1:
            flows[-1]["bytes_tx"] = -1
            self._refuse(json.dumps(flows).encode())
            return
        post = Post(number, json.dumps(flows).encode(), key, count, self.broker.time)
        self.posts.append(post)
        self._send(post)

    def _hour(self) -> int:
        """An hour to post or to ask for: around the present one; or one far ahead, which a producer may make up."""
        if self.rules.keep is None:
            return self.rng.randrange(HOURS)
        if self.rng.random() < 0.02:
            return self.rng.choice([2**53 - 1, self.broker.time // HOUR_MS + 20])
        return self.broker.time // HOUR_MS + self.rng.randrange(HOURS)

    def _refuse(self, body: bytes) -> None:
        """A batch with a bad flow: nothing of it may reach the log."""
        try:
            batch = plan(body, None, self.keyed_partitions)
        except InvalidFlow:
            return
        for _ in batch.hand_over(self._never, "flows", Acknowledgements(0, lambda: None), self.known[0]):
            pass

    @staticmethod
    def _never(*_: object) -> None:
        raise Violation("a batch with a bad flow reached the log")

    def _retry(self) -> None:
        keyed = [post for post in self.posts if post.key is not None]
        if keyed:
            self._send(self.rng.choice(keyed[-6:]))

    def _send(self, post: Post) -> None:
        """One try through one of two writers; the batch may stop in the middle, the reply may be lost."""
        rng, broker = self.rng, self.broker
        if broker.away:
            return
        post.tries += 1
        known = rng.choice(self.known)
        batch = plan(post.body, post.key, self.keyed_partitions)
        acknowledgements = Acknowledgements(len(batch.flows), lambda: None)
        stop_at = rng.randrange(post.flows + 1) if rng.random() < 0.15 else None
        produced = 0

        def produce(_: str, value: bytes, key: bytes, partition: int, report: Any) -> None:
            nonlocal produced
            if produced == stop_at:
                raise ConnectionError("broker lost")
            produced += 1
            number = rng.randrange(len(broker.topic.logs)) if partition < 0 else partition
            broker.time += rng.randint(0, 20)
            report(None, _Report(number, broker.append(number, key, value)))

        try:
            batch.check(known)
            for _ in batch.hand_over(produce, "flows", acknowledgements, known):
                pass
        except Exception as error:
            post.last_time = broker.time
            self.trace("writer", f"post {post.number}", error)
            return
        post.last_time = broker.time
        lost = rng.random() < 0.1
        if acknowledgements.complete and acknowledgements.error is None and not lost:
            post.acknowledged, post.topic_id = dict(acknowledgements.next_offsets), broker.topic.topic_id
        self.trace(
            "writer",
            f"post {post.number} key {post.key}",
            (dict(acknowledgements.next_offsets), "lost" if lost else "ok"),
        )

    def _foreign(self) -> None:
        rng = self.rng
        number = rng.randrange(len(self.broker.topic.logs))
        key = rng.choice([b'[ "a0","b", "v" ,1]', b'["a0","\\u0062","v",1]', b"nonsense", None, b'["a","b","v",-1]'])
        value = rng.choice([b'{"bytes_tx":1,\n"bytes_rx":2}', b'{"bytes_rx":2,"bytes_tx":1,"x":[]}', b"x", None])
        if rng.random() < 0.1:
            value = rng.choice(
                [b'{"bytes_tx":1,"bytes_rx":2,"mark":["k","short",0]}', b'{"bytes_tx":1,"bytes_rx":2,"mark":[]}']
            )
        one = b'{"bytes_tx":1,"bytes_rx":2}'
        values: list[bytes | None] = rng.choice(
            [[value], [value], [one + one, b""], [b'{"bytes_tx":1,', b'"bytes_rx":2}', one + one, one]]
        )
        for each in values:
            self.broker.append(number, key, each)

    def _transaction(self) -> None:
        rng = self.rng
        number = rng.randrange(len(self.broker.topic.logs))
        if number in self.transactions:
            self.broker.end_transaction(number, commit=rng.random() < 0.5)
            self.transactions.discard(number)
        else:
            for _ in range(rng.randint(1, 3)):
                self.broker.append(number, b'["a0","b","v",1]', b'{"bytes_tx":1,"bytes_rx":1}', "open")
            self.transactions.add(number)

    def _replicate(self) -> None:
        self.redis.replicate(self.rng.randint(1, 6))

    def _lose_reply(self) -> None:
        self._any().connection.lose_next_reply = True

    def _crash(self) -> None:
        process = self._any()
        self.trace(process.name, "crash")
        process.start()
        self._rebalance()

    def _pause(self) -> None:
        process = self._any()
        process.paused_until = self.now + self.rng.uniform(0.01, 1.0)
        self.trace(process.name, "pause")
        if self.rng.random() < 0.7:  # its session ends: others take over, it does not know
            self.broker.rebalance(p.member for p in self.processes if p is not process)

    def _rebalance(self) -> None:
        sharing = [process.member for process in self.processes if process.paused_until <= self.now]
        self.broker.rebalance(sharing or [self.processes[0].member])
        self.trace("group", "rebalance", [sorted(process.member.told) for process in self.processes])

    def _fail_over(self) -> None:
        self.old_nodes.append(self.redis.master)
        self.redis.fail_over(demoted_writes=self.rng.random() < 0.5)
        self.trace("redis", "fail over")

    def _restore(self) -> None:
        self.old_nodes.append(self.redis.master)
        self.redis.restore()
        self.trace("redis", "restore")

    def _full(self) -> None:
        self.redis.master.full = not self.redis.master.full
        self.trace("redis", f"full {self.redis.master.full}")

    def _redis_away(self) -> None:
        connection = self._any().connection
        connection.away = not connection.away

    def _kafka_away(self) -> None:
        self.broker.away = not self.broker.away

    def _dead_letters_down(self) -> None:
        self.dead_letters_down = not self.dead_letters_down

    def _new_epoch(self) -> None:
        self.rng.choice(self.broker.topic.logs).epoch += 1

    def _time(self) -> None:
        self.broker.time += self.rng.randint(0, 3000)

    def _grow(self) -> None:
        if len(self.broker.topic.logs) < 5:
            self.broker.topic.logs.append(type(self.broker.topic.logs[0])())
            self._rebalance()

    def _retention(self) -> None:
        log = self.rng.choice(self.broker.topic.logs)
        log.low = self.rng.randint(log.low, log.stable)
        self.trace("kafka", "retention", log.low)

    def _recreate(self) -> None:
        self.broker.recreate()
        self.transactions.clear()
        self.trace("kafka", "recreate", self.broker.topic.topic_id)

    def _truncate(self) -> None:
        number = self.rng.randrange(len(self.broker.topic.logs))
        self.broker.truncate(number, self.rng.randint(1, 4))
        self.truncated = True
        self.transactions.discard(number)
        log = self.broker.topic.logs[number]
        for entry in log.entries:
            if entry.state == "open":
                entry.state = "aborted"
        # Acknowledged records are gone: Kafka's own loss, which no reader can be held to.
        promises = [post.acknowledged for post in self.posts if post.topic_id == self.broker.topic.topic_id]
        for promise in [*filter(None, promises), *(reading.must for reading in self.readings)]:
            if number in promise:
                promise[number] = min(promise[number], log.end)
        self.trace("kafka", "truncate", (number, log.end))
        if self.rng.random() < 0.5:  # others take the lost offsets before anybody looks
            for _ in range(self.rng.randint(1, 5)):
                self.broker.append(number, b'["a0","b","v",1]', b'{"bytes_tx":1,"bytes_rx":1}')
            self._crash()

    def take_dead_letters(self, effect: fx.SendDeadLetters) -> None:
        """Raises DeadLettersAway, though some of the letters may have been taken."""
        taken = list(effect.letters)
        if self.dead_letters_down:
            taken = taken[: self.rng.randint(0, len(taken))]
        for letter in taken:
            self._take(letter, effect)
        if self.dead_letters_down:
            raise fx.DeadLettersAway("dead letters down")

    def _take(self, letter: DeadLetter, effect: fx.SendDeadLetters) -> None:
        self.dead.add((effect.topic_id, effect.partition, letter.offset))

    # Reads -------------------------------------------------------------------------------------

    def _start_read(self) -> None:
        must: dict[int, int] = {}
        for post in self.posts:
            if post.acknowledged is not None and post.topic_id == self.broker.topic.topic_id:
                for number, offset in post.acknowledged.items():
                    must[number] = max(offset, must.get(number, 0))
        query = Query(self._hour(), self.rng.choice(list(Consistency)), None)
        held = self.rng.choice(["", f'W/"{self.tags.get(query.hour, "")}"'])  # of the last answer for the hour
        wanted = reader_core.Wanted(query, held=Held([held]))
        steps = reader_core.answer(wanted, iter(lambda: self.now, None), 0.3, self.pace)
        self.readings.append(Reading(steps, must, self.broker.topic.topic_id, query.hour))

    def _step_reader(self) -> None:
        if not self.readings:
            return
        reading = self.rng.choice(self.readings)
        try:
            effect = reading.steps.send(reading.answer) if reading.error is None else reading.steps.throw(reading.error)  # type: ignore[attr-defined]
        except StopIteration as end:
            self.readings.remove(reading)
            self._check_read(reading, end.value)
            return
        except reader_core.NotFresh:
            self.readings.remove(reading)
            return
        reading.answer, reading.error = None, None
        node = self.redis.master if self.rng.random() < 0.9 or not self.old_nodes else self.rng.choice(self.old_nodes)
        match effect:
            case reader_core.LookUpEnd():
                if self.broker.away:
                    reading.error = reader_core.LogAway("away")
                else:
                    if self.broker.topic.topic_id != reading.topic_id:
                        reading.must = {}  # deleted since, with its records
                    ends = {number: log.end for number, log in enumerate(self.broker.topic.logs)}
                    epochs = {number: log.epoch for number, log in enumerate(self.broker.topic.logs)}
                    reading.answer = Position(self.broker.topic.topic_id, ends, epochs)
            case reader_core.Look():
                reading.answer, reading.full = _read_hour(node, effect.partitions, effect.hour)
            case reader_core.FindBody():
                reading.answer = self.bodies.get(effect.tag) if self.rng.random() < 0.7 else None
            case reader_core.ReadHour():
                seen, body = _read_hour(node, effect.partitions, effect.hour)
                hour = hour_of(effect.hour, "", seen)
                if hour.tag != effect.tag:
                    reading.full = body  # this reply is the one that is judged
                if hour.rows:
                    self.bodies[hour.tag] = body
                reading.answer = reader_core.HourRead(seen, body if hour.rows else None)
            case reader_core.Pause():
                self.now += effect.seconds

    def _check_read(self, reading: Reading, answer: reader_core.Answer) -> None:
        found = answer.found
        self.trace("reader", f"hour {reading.hour}", (found.hour, found.freshness, answer.held))
        self._check_tag(reading, answer)
        if not found.freshness.fresh:
            return
        for number, offset in reading.must.items():
            part = found.seen.get(number)
            meta = None if part is None else part.meta
            if offset == 0:
                continue  # all of it was truncated since
            if meta is None or meta.topic_id != reading.topic_id or meta.position < offset:
                raise Violation(
                    f"a read says fresh and misses acknowledged records: partition {number} up to {offset}, read {meta}"
                )

    def _check_tag(self, reading: Reading, answer: reader_core.Answer) -> None:
        """What a tag stands for is what a full read gives at the moment that the answer is judged by.

        So a 304 and a body that was kept are as good as a full read, and one tag never stands for two bodies.
        """
        hour = answer.found.hour
        full = b"[]" if hour.expired else reading.full
        if not answer.held and (answer.body or b"[]") != full:
            raise Violation(f"hour {reading.hour}: the body {answer.body!r} is not what there is: {full!r}")
        known = self.answers.setdefault((reading.hour, hour.tag), full)
        if known != full:
            raise Violation(f"hour {reading.hour}: the tag {hour.tag} stands for {known!r} and for {full!r}")
        self.tags[reading.hour] = hour.tag

    # Invariants --------------------------------------------------------------------------------

    def _check_write(self, command: fx.Command) -> None:
        if isinstance(command, fx.Apply):
            self._check_partition(command.partition)

    def _check_partition(self, number: int) -> None:
        """What is stored at position P is the fold of the log from its start up to P."""
        meta = decode_meta(self.redis.master.data[meta_key(VIEW, number)])
        assert meta is not None
        wrong = oracle.differences(self.redis.master.data, VIEW, number, meta, self.broker.topics, self.rules)
        if wrong is not None:
            raise Violation(wrong)

    def _settle(self) -> None:
        """Nothing more goes wrong: everything must be applied, or stopped for a reason that is true."""
        self.broker.away = self.dead_letters_down = self.redis.master.full = False
        for number in sorted(self.transactions):
            self.broker.end_transaction(number, commit=True)
        for process in self.processes:
            process.paused_until = 0.0
            process.connection.away = process.connection.lose_next_reply = False
        while self.redis._late:
            self.redis.execute_late()
        # Connections to demoted masters are cut in the end, as Sentinel does.
        for process in self.processes:
            process.connection.cut()
        self.broker.rebalance(process.member for process in self.processes)
        self._run_until_settled()
        if self.rng.random() < IDLE_FAIL_OVERS:
            # Everything is idle: nobody writes who would meet the fence, so the re-reads alone can tell.
            self._fail_over()
            self._run_until_settled()
        self._check_end()

    def _run_until_settled(self) -> None:
        for _ in range(6000):
            if self._settled():
                return
            self.now += 0.01
            self._any().step()
        raise Violation(f"not settled: {self._explain()}")

    def _settled(self) -> bool:
        owners = [(process, process.core) for process in self.processes]
        if any(core.loading or set(process.member.fetching) != process.member.told for process, core in owners):
            return False
        for number, log in enumerate(self.broker.topic.logs):
            core = next((core for process, core in owners if number in process.member.told), None)
            if core is None:
                return False
            if number not in core.stopped:
                meta = decode_meta(self.redis.master.data.get(meta_key(VIEW, number), {}))
                here = meta is not None and (meta.topic_id, meta.position) == (self.broker.topic.topic_id, log.end)
                if number not in core.running or not here:
                    return False
        return True

    def _explain(self) -> str:
        states = []
        for process in self.processes:
            core = process.core
            states.append(
                f"{process.name}: told {sorted(process.member.told)} fetching {process.member.fetching} running "
                f"{ {n: p.position for n, p in core.running.items()} } loading {core.loading} stopped {core.stopped} "
                f"trouble {core.trouble}"
            )
        ends = [(log.low, log.end) for log in self.broker.topic.logs]
        return f"logs {ends}\n" + "\n".join(states)

    def _check_end(self) -> None:
        topic = self.broker.topic
        whole = not self.truncated and len(self.broker.topics) == 1
        totals: dict[Any, tuple[int, int]] = {}
        floor = 0
        for number, log in enumerate(topic.logs):
            core = next(process.core for process in self.processes if number in process.member.told)
            if number in core.stopped:
                self._check_stop(core.stopped[number].reason)
                whole = False
                continue
            self._check_partition(number)
            meta = decode_meta(self.redis.master.data[meta_key(VIEW, number)])
            assert meta is not None
            if meta.lost is not None or meta.start > 0:
                whole = False
            floor = max(floor, meta.floor)
            lost = [tuple(map(int, part.split("-"))) for part in meta.lost.split(",")] if meta.lost else []
            state = oracle.fold(log.entries, meta.start, log.end, lost, self.rules)  # type: ignore[arg-type] # pairs
            missing = {o for o in state.dead if (meta.topic_id, number, o) not in self.dead}
            if missing:
                raise Violation(f"partition {number}: no dead letter for offsets {sorted(missing)}")
            for key, (tx, rx) in oracle.stored(self.redis.master.data, VIEW, number, meta)[0].items():
                old = totals.get(key, (0, 0))
                totals[key] = (old[0] + tx, old[1] + rx)
        if whole:
            self._check_clients(totals, floor)

    def _check_stop(self, reason: StopReason) -> None:
        true = {
            StopReason.TOPIC_CHANGED: len(self.broker.topics) > 1,
            StopReason.LOG_TRUNCATED: self.truncated,
            StopReason.POSITION_BEYOND_LOG: self.truncated or len(self.broker.topics) > 1,
            StopReason.DAMAGED_VIEW: False,
        }
        if not true[reason]:
            raise Violation(f"a partition is stopped by {reason}, which has not happened")

    def _check_clients(self, totals: dict[Any, tuple[int, int]], floor: int) -> None:
        """What clients know: an acknowledged POST counts once, a keyed one also if it was sent many times.

        floor: what was posted for hours below it may have expired.
        """
        reused = {post.key for post in self.posts if sum(other.key == post.key for other in self.posts) > 1}
        for post in self.posts:
            name = f"post-{post.number}"
            late = post.key is not None and post.last_time - post.first_time >= WINDOW_MS - CLOCK_SKEW_MS
            if post.acknowledged is None or late or (post.key is not None and post.key in reused):
                continue
            expected: dict[Any, tuple[int, int]] = {}
            for flow in json.loads(post.body):
                if flow["dest_app"] == name:
                    field_ = json.dumps([flow["src_app"], name, "v"], separators=(",", ":")).encode()
                    old = expected.get((flow["hour"], field_), (0, 0))
                    expected[flow["hour"], field_] = (old[0] + flow["bytes_tx"], old[1] + flow["bytes_rx"])
            for key, counts in expected.items():
                if key[0] >= floor and totals.get(key) != counts:
                    raise Violation(
                        f"POST {post.number} (key {post.key}) counts {totals.get(key)}, not {counts}, in {key}"
                    )


@dataclass(frozen=True, slots=True)
class _Report:
    number: int
    at: int

    def partition(self) -> int | None:
        return self.number

    def offset(self) -> int | None:
        return self.at


def _read_hour(node: Node, partitions: Iterable[int], hour: int) -> tuple[dict[int, Seen], bytes]:
    """These partitions and all that the view has begun on a node; and the body of what they hold of the hour."""
    seen, totals = {}, []
    for n in {*partitions, *(n for n in range(8) if meta_key(VIEW, n) in node.data)}:
        meta = decode_meta(node.data.get(meta_key(VIEW, n), {}))
        if meta is None:
            seen[n] = Seen(None)
            continue
        mark = node.data.get(hours_key(VIEW, n, meta.incarnation), {}).get(b"%d" % hour)
        held = node.data.get(totals_key(VIEW, n, meta.incarnation, hour), {})
        seen[n] = Seen(meta, None if mark is None else decode_hour(mark), len(held))
        totals.append([part for pair in held.items() for part in pair])
    steps = render(hour, totals)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return seen, b"".join(end.value.chunks)


def readable(world: World) -> str:
    """The end of a world's trace as text."""
    return "\n".join(f"{step:>6} {who:<12} {what}  ->  {outcome}" for step, who, what, outcome in world.lines)
