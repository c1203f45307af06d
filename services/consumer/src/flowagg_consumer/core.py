"""The consumer's core: which effect follows which, for all owned partitions. Pure: a generator of effects.

The steps are numbered as in docs/decisions/0003-a-view-with-a-fence.md. worker.py drives this with
real Kafka and Redis, the simulation with models; time and randomness are arguments.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from flowagg.view import DamagedView, Meta

from flowagg_consumer import effects as fx
from flowagg_consumer.marks import Window
from flowagg_consumer.partition import Batch, Fenced, Partition, Refetch, Stop, StopReason
from flowagg_consumer.records import Records
from flowagg_consumer.retention import Retention
from flowagg_consumer.totals import NewTotals, PythonTotals

_T = TypeVar("_T")
Steps = Generator[fx.Effect, Any, _T]

GUIDE: Final = "see docs/guides/stopped-partitions.md"
_MAX_BACKOFF_DOUBLINGS: Final = 4
_LEAST_WRITES: Final = 500


@dataclass(frozen=True, slots=True)
class Config:
    """idle_seconds: longest wait for records. linger_seconds: for more once there are some.
    batch_records, batch_writes, batch_seconds: of one partition in one call: most records, most of what is written,
    longest time from the first record on, for which more are gathered while more wait than have been gathered.
    max_in_flight: calls sent and not answered.
    reread_seconds, commit_seconds: between two of each. retry_seconds: before the first retry of a
    partition that could not be loaded; doubled with each failure of Kafka's up to 16-fold. cache_bytes: estimate
    of memory for totals and marks. window: of dedupe, in log time. retention: of hours, in log time.
    new_totals: what partitions keep totals in.
    """

    idle_seconds: float
    linger_seconds: float
    batch_records: int
    batch_writes: int
    batch_seconds: float
    max_in_flight: int
    reread_seconds: float
    commit_seconds: float
    retry_seconds: float
    cache_bytes: int
    window: Window
    retention: Retention = field(default_factory=Retention)
    new_totals: NewTotals = PythonTotals


@dataclass(slots=True)
class Loading:
    """A partition whose stored position is still to be read.

    kept: its state from before a lost reply; good only when Redis holds exactly what was sent.
    reason: why it was not read at the last try.
    """

    retry_at: float
    kept: Partition | None = None
    reason: str = ""


@dataclass(slots=True)
class Counts:
    """What has happened so far."""

    flows: int = 0
    batches: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)
    loads: Counter[str] = field(default_factory=Counter)
    refetches: int = 0


class _Description:
    """A description of the topic that is started after the records have arrived; awaited once."""

    def __init__(self, trouble: dict[str, str]) -> None:
        self._ticket: object = None
        self._started = False
        self._trouble = trouble
        self._topic_id: str | None = None

    def start(self) -> Steps[None]:
        """Have it made beside what comes before it is awaited."""
        if not self._started:
            self._started = True
            self._ticket = yield fx.StartDescribe()

    def topic_id(self) -> Steps[str]:
        """What it says. Raises LogAway."""
        if self._topic_id is None:
            yield from self.start()
            self._topic_id = yield fx.AwaitTopic(self._ticket)
            self._trouble.pop("kafka", None)  # it answers
        return self._topic_id


@dataclass(frozen=True, slots=True)
class _Pending:
    """A call that was sent and not answered."""

    partition: Partition
    batch: Batch


class Core:
    """All partitions that one consumer owns: running, loading or stopped."""

    def __init__(
        self,
        config: Config,
        writer: str,
        clock: Callable[[], float],
        new_incarnation: Callable[[], str],
        log: Callable[[str, Mapping[str, object]], None],
    ) -> None:
        self.running: dict[int, Partition] = {}
        self.loading: dict[int, Loading] = {}
        self.stopped: dict[int, Stop] = {}
        self.trouble: dict[str, str] = {}  # what is waited for -> why
        self.counts = Counts()
        self.assigned_once = False
        self._topic_checked = False
        self.stopping = False
        self._config = config
        self._writer = writer
        self._clock = clock
        self._new_incarnation = new_incarnation
        self._log = log
        self._pending: deque[_Pending] = deque()
        self._refetched: set[int] = set()
        self._failures: dict[int, int] = {}  # of Kafka's in a row, by partition
        self._committed: dict[int, int] = {}
        self._most_writes = config.batch_writes
        self._waiting: Mapping[int, int] = {}
        self._next_reread = clock() + config.reread_seconds
        self._next_commit = clock() + config.commit_seconds

    def run(self) -> Steps[None]:
        """Work until `stopping` is set; then send what is folded, wait for what is in flight, and commit."""
        while not self.stopping:
            yield from self.turn()
        yield from self._send_open(list(self.running), _Description(self.trouble))
        yield from self._receive_all()
        yield from self._commit(at_once=True)

    def turn(self) -> Steps[None]:
        """One round: load what is due, fetch, carry, look again, commit."""
        yield from self._load_due()
        fetched: fx.Fetched = yield self._fetch()
        self._waiting = fetched.waiting
        yield from self._take_membership(fetched)
        for error in fetched.errors:
            self._note("kafka", error)
        if fetched.commit_failed:
            self._committed.clear()
        # Step 2: the description starts after the consume has returned.
        description = _Description(self.trouble)
        if fetched.records or fetched.ends or fetched.stops:
            if self._caught_up(fetched) or fetched.stops or self._due():
                yield from description.start()  # it runs beside the fold
            for number, (reason, detail) in fetched.stops.items():
                yield from self._cannot_read(number, Stop(reason, detail), description)
            for number, runs in fetched.records.items():
                yield from self._carry(number, runs, description)
            yield from self._send_open(self._due(), description)
            for number, end in fetched.ends.items():
                # An end that came with records behind a gap says nothing until they are fetched again.
                if number not in self._refetched:
                    yield from self._move(number, end, description)
            self._refetched.clear()
        else:
            yield from self._send_open(self._due(), description)
            if not self._open():
                yield from self._receive_all()
            if "kafka" in self.trouble and not (self.running or self.loading or self.stopped):
                yield from self._ask_again()
        yield from self._reread()
        yield from self._commit()

    def _fetch(self) -> fx.Fetch:
        """What to wait for; not past the time of an open batch."""
        config = self._config
        due_at = min((self._due_at(number, batch) for number, batch in self._open()), default=math.inf)
        return fx.Fetch(min(config.idle_seconds, max(0.0, due_at - self._clock())), config.linger_seconds)

    def _open(self) -> list[tuple[int, Batch]]:
        """The open batches."""
        return [(number, partition.open) for number, partition in self.running.items() if partition.open is not None]

    def _caught_up(self, fetched: fx.Fetched) -> bool:
        """Whether no more wait than will have been gathered, once what was fetched is folded."""
        gathered = sum(batch.records for _, batch in self._open())
        gathered += sum(len(run.offsets) for runs in fetched.records.values() for run in runs)
        return sum(self._waiting.values()) <= gathered

    def _due(self) -> list[int]:
        """The partitions whose open batch is to be sent.

        All of them, unless more records wait than were gathered: those are late anyway, and may as well be folded into
        the same batches, so that each total is written once.
        """
        now, config, batches = self._clock(), self._config, self._open()
        if sum(self._waiting.values()) <= sum(batch.records for _, batch in batches):
            return [number for number, _ in batches]
        return [
            number
            for number, batch in batches
            if batch.records >= config.batch_records
            or batch.writes >= self._most_writes
            or self._due_at(number, batch) <= now
        ]

    def _due_at(self, number: int, batch: Batch) -> float:
        """When a batch is sent in any case: soon, where it is others that more wait of."""
        assert batch.opened_at is not None  # noqa: S101 - it has records
        seconds = self._config.batch_seconds
        return batch.opened_at + (seconds if self._waiting.get(number) else min(seconds, self._config.linger_seconds))

    def _send_open(self, numbers: Iterable[int], description: _Description) -> Steps[None]:
        """Step 4, for the open batches of partitions."""
        for number in numbers:
            partition = self.running.get(number)
            if partition is not None and partition.open is not None:
                yield from self._guard(partition, self._close(partition, description))

    def _ask_again(self) -> Steps[None]:
        """Without partitions nothing else would show that Kafka is back."""
        try:
            yield from _Description(self.trouble).topic_id()
        except fx.LogAway as error:
            self._note(error.source, str(error))

    # Step 1 ------------------------------------------------------------------------------------

    def _take_membership(self, fetched: fx.Fetched) -> Steps[None]:
        for number in fetched.revoked:
            self._well("dead_letters")  # it may have been this one's; else the next try says so again
            self._forget(number)
            self._committed.pop(number, None)
        for number in fetched.assigned:
            self._forget(number)
            self.loading[number] = Loading(self._clock())
            self.assigned_once = True
        if fetched.assigned:
            yield from self._load_due()

    def _load_due(self) -> Steps[None]:
        """Step 1: read the stored positions; begin partitions that have none. Where it fails, later again."""
        now = self._clock()
        due = sorted(number for number, loading in self.loading.items() if loading.retry_at <= now)
        if not due:
            return
        try:
            if not self._topic_checked:
                yield fx.CheckTopic()
                self._topic_checked = True
                self._well("topic")
            description = _Description(self.trouble)
            yield from description.start()
            metas: Mapping[int, Meta | DamagedView | None] = yield from self._request(fx.Load(due))
            topic_id = yield from description.topic_id()
            fresh = [number for number in due if metas[number] is None]
            bounds: Mapping[int, fx.Bounds] = (yield fx.Watermarks(fresh)) if fresh else {}
            for number in due:
                meta = metas[number]
                if meta is None:
                    incarnation = self._new_incarnation()
                    low = bounds[number].low
                    if low > 0:
                        self._log("incomplete", {"partition": number, "first_offset": low})
                    begin = fx.Begin(number, low, topic_id, incarnation)
                    meta = yield from self._request(begin)
                yield from self._loaded(number, meta, topic_id)
            self._well("kafka", "redis")
        except (fx.StoreAway, fx.LogAway) as error:
            if isinstance(error, fx.StoreAway):
                yield from self._doubt(error)
            self._note(error.source, str(error))
            for number in due:
                if number in self.loading:
                    self._later(number, error)

    def _loaded(self, number: int, meta: Meta | DamagedView, topic_id: str) -> Steps[None]:
        loading = self.loading.pop(number)
        if isinstance(meta, DamagedView):
            yield from self._stop(number, Stop(StopReason.DAMAGED_VIEW, str(meta)))
            return
        if meta.topic_id != topic_id:
            yield from self._stop(number, _topic_changed(meta, topic_id))
            return
        if meta.diverged is not None:
            yield from self._stop(number, Stop(StopReason.LOG_TRUNCATED, meta.diverged))
            return
        kept = loading.kept
        if kept is not None and self._is_mine(kept, meta):
            kept.applied = kept.sent_position
            self.counts.loads["kept"] += 1
        else:
            kept = Partition(number, meta, self._config.window, self._config.retention, self._config.new_totals)
            self.counts.loads["read"] += 1
        self.running[number] = kept
        yield from self._restart(kept)

    def _restart(self, partition: Partition) -> Steps[None]:
        """Have the log fetched from the position on; where that fails, load again later."""
        try:
            yield fx.Restart(partition.number, fx.Start(partition.position, partition.leader_epoch))
        except fx.LogAway as error:
            self._note(error.source, str(error))
            if self.running.get(partition.number) is not partition:
                return
            del self.running[partition.number]
            self.loading[partition.number] = Loading(self._clock())
            self._later(partition.number, error)

    def _is_mine(self, kept: Partition, meta: Meta) -> bool:
        """Whether Redis holds exactly what was sent: then the memory is as good as what is stored.

        The same position alone does not say so: after a truncated log another owner may have
        written other records up to it.
        """
        return (
            meta.position == kept.sent_position
            and meta.writer == self._writer
            and meta.incarnation == kept.meta.incarnation
        )

    # Steps 2 to 4 ------------------------------------------------------------------------------

    def _carry(self, number: int, runs: Iterable[Records], description: _Description) -> Steps[None]:
        """Carry fetched records of one partition into the view; on any doubt drop it and load again."""
        partition = self.running.get(number)
        if partition is None:
            return  # fetched before it was paused: comes again
        for run in runs:
            rest: Records | None = run
            while rest is not None and self.running.get(number) is partition:
                rest = yield from self._guard(partition, self._carry_some(partition, rest, description))
        yield from self._bound_cache(description)

    def _carry_some(self, partition: Partition, records: Records, description: _Description) -> Steps[Records | None]:
        """Steps 2 and 3 for one run of records; the rest that is to follow."""
        examined = partition.examine(records)
        if examined is None:
            return None
        if examined.tick is not None and partition.open is not None:
            # What expires is judged by what is stored, and is the first thing of a batch.
            yield from self._close(partition, description)
            return records
        if examined.unknown_marks:
            buckets = list(partition.live_buckets())
            read = fx.ReadMarks(partition.number, partition.meta.incarnation, examined.unknown_marks, buckets)
            partition.learn_marks(examined, *(yield from self._request(read)))
        expiry = None
        if examined.tick is not None:
            read_hours = fx.ReadHours(partition.number, partition.meta.incarnation)
            expiry = partition.expire(examined, *(yield from self._request(read_hours)))
        batch = partition.fold(examined, expiry)
        if batch.opened_at is None:
            batch.opened_at = self._clock()
        return examined.rest

    def _close(self, partition: Partition, description: _Description) -> Steps[None]:
        """Steps 3 and 4 for the open batch, if there is one: what is missing is read, then it is sent."""
        batch = partition.open
        if batch is None:
            return
        if batch.missing:
            read_totals = fx.ReadTotals(partition.number, partition.meta.incarnation, partition.missing_fields())
            partition.fill(batch, *(yield from self._request(read_totals)))
        yield from self._apply(partition, batch, description)

    def _move(self, number: int, end: int, description: _Description) -> Steps[None]:
        """Move the position over control records at the log's end, with a batch that has no records."""
        partition = self.running.get(number)
        if partition is not None:
            yield from self._guard(partition, self._move_to(partition, end, description))

    def _move_to(self, partition: Partition, end: int, description: _Description) -> Steps[None]:
        if not partition.confirms(end):
            return
        yield from self._close(partition, description)
        if partition.open is not None:
            return  # in doubt by now
        # The epoch of a control record is not to be seen; with that of the last record before it,
        # the leader would take the position for one in a log that was truncated.
        bounds: Mapping[int, fx.Bounds] = yield fx.Watermarks([partition.number])
        batch = partition.move(end, bounds[partition.number].leader_epoch)
        yield from self._apply(partition, batch, description)

    def _cannot_read(self, number: int, stop: Stop, description: _Description) -> Steps[None]:
        """Kafka cannot read on from the position: find out why; go on only where that is safe."""
        partition = self.running.get(number)
        if partition is not None:
            yield from self._guard(partition, self._find_out(partition, stop, description))

    def _find_out(self, partition: Partition, stop: Stop, description: _Description) -> Steps[None]:
        if stop.reason is StopReason.LOG_TRUNCATED and partition.open is not None:
            raise Fenced  # what is folded may be what the log has lost: from what is stored on, Kafka tells again
        yield from self._close(partition, description)
        if partition.open is not None:
            return  # in doubt by now: the next fetch tells again
        topic_id = yield from description.topic_id()
        if topic_id != partition.meta.topic_id:
            raise _topic_changed(partition.meta, topic_id)
        if stop.reason is StopReason.LOG_TRUNCATED:
            # Kept before it is told: once retention has deleted the log up to the position, Kafka shows it no more.
            detail, meta = f"the view's position is {partition.position}: {stop.detail}", partition.meta
            diverge = fx.Diverge(partition.number, partition.position, meta.topic_id, meta.incarnation, detail)
            if not (yield from self._request(diverge)):
                raise Fenced
            raise Stop(stop.reason, detail)
        found: Mapping[int, fx.Bounds] = yield fx.Watermarks([partition.number])
        bounds, position = found[partition.number], partition.position
        if position > bounds.high:
            raise Stop(
                StopReason.POSITION_BEYOND_LOG,
                f"the view's position is {position}, but the log ends at {bounds.high}: Kafka has lost records",
            )
        if position < bounds.low:
            # Retention has passed the position. What is lost is recorded before anything goes on.
            self._log("lost", {"partition": partition.number, "from": position, "to": bounds.low})
            batch = partition.skip_lost(bounds.low, bounds.leader_epoch)
            yield from self._apply(partition, batch, description)
        if self.running.get(partition.number) is partition:
            yield from self._restart(partition)

    def _apply(self, partition: Partition, batch: Batch, description: _Description) -> Steps[None]:
        """Step 4: send the fenced call, once everything before it is certain."""
        number, meta = partition.number, partition.meta
        topic_id = yield from description.topic_id()
        if topic_id != meta.topic_id:
            raise _topic_changed(meta, topic_id)
        if batch.dead:
            # The position waits for the acknowledgement: else a crash would lose the letters.
            yield fx.SendDeadLetters(number, meta.topic_id, batch.dead)
            self._well("dead_letters")
            self.counts.dead_letters.update(letter.reason for letter in batch.dead)
        while len(self._pending) >= self._config.max_in_flight:
            yield from self._receive()
            if self.running.get(number) is not partition:
                return
        yield fx.Send(self._script(partition, batch))
        self._pending.append(_Pending(partition, batch))
        partition.sent(batch)

    def _script(self, partition: Partition, batch: Batch) -> fx.Apply:
        meta = partition.meta
        by_bucket: dict[int, list[str | bytes]] = {}
        for key, entry in batch.marks.items():
            by_bucket.setdefault(entry.bucket, []).extend((key, entry.encode()))
        lost = None if batch.lost is None else partition.lost_with(batch.lost)
        return fx.Apply(
            partition=partition.number,
            expected=batch.expected,
            topic_id=meta.topic_id,
            incarnation=meta.incarnation,
            position=batch.position,
            leader_epoch=batch.leader_epoch,
            time=batch.time,
            writer=self._writer,
            hours=partition.totals(batch),
            marks=by_bucket,
            expired=batch.expired,
            lost=lost,
            expiry=batch.expiry,
        )

    def _guard(self, partition: Partition, steps: Steps[_T]) -> Steps[_T | None]:
        """Run steps of one partition; what goes wrong in them is turned into what follows from it."""
        number = partition.number
        try:
            return (yield from steps)
        except Refetch:
            self.counts.refetches += 1
            self._refetched.add(number)
            yield from self._restart(partition)
        except Stop as stop:
            yield from self._stop(number, stop)
        except DamagedView as error:
            yield from self._stop(number, Stop(StopReason.DAMAGED_VIEW, str(error)))
        except Fenced as error:
            yield from self._doubt(error, number)
        except (fx.StoreAway, fx.LogAway) as error:
            self._note(error.source, str(error))
            yield from self._doubt(error, number)
        return None

    # Step 5 ------------------------------------------------------------------------------------

    def _request(self, command: fx.Command) -> Steps[Any]:
        """Send a command behind the writes in flight, take their answers, then its own."""
        yield fx.Send(command)
        while self._pending:
            yield from self._receive(alone=False)
        return (yield fx.Receive())

    def _receive_all(self) -> Steps[None]:
        while self._pending:
            yield from self._receive()

    def _receive(self, *, alone: bool = True) -> Steps[None]:
        """Take the answer to the oldest call in flight.

        alone: handle what goes wrong here; else the connection is closed here too, and StoreAway
        raised, since a command of the caller's own was under way behind it.
        """
        pending = self._pending[0]
        number = pending.partition.number
        try:
            applied: bool = yield fx.Receive()
        except fx.StoreAway as error:
            self._note("redis", str(error))
            yield from self._doubt(error)
            if not alone:
                raise
            return
        except DamagedView as error:
            self._pending.popleft()
            yield from self._doubt(error, number)
            yield from self._stop(number, Stop(StopReason.DAMAGED_VIEW, str(error)))
            if not alone:
                raise fx.StoreAway("the connection was closed in doubt") from error
            return
        self._pending.popleft()
        if applied:
            pending.partition.acknowledged(pending.batch)
            self._failures.pop(number, None)
            self._most_writes = min(self._config.batch_writes, 2 * self._most_writes)
            self._well("redis")
            self.counts.flows += pending.batch.records - len(pending.batch.dead)
            self.counts.batches += 1
        elif self.running.get(number) is pending.partition:
            yield from self._doubt(Fenced(), number)
            if not alone:
                raise fx.StoreAway("the connection was closed in doubt")

    def _doubt(self, error: Exception, blamed: int | None = None) -> Steps[None]:
        """Step 5: close the connection, drop what is in flight, and load again whatever is in doubt.

        The blamed partition's memory is dropped. That of others with calls in flight is kept until
        their metas are read: it is good only if Redis holds exactly what was sent, and by this writer.
        """
        yield fx.Disconnect()
        if isinstance(error, fx.StoreAway):  # it may be the batch that is too large for the way to Redis
            self._most_writes = max(min(_LEAST_WRITES, self._config.batch_writes), self._most_writes // 2)
        self._next_reread = self._clock()  # step 6: the next connection may lead to another master
        doubted = {pending.partition.number: pending.partition for pending in self._pending}
        self._pending.clear()
        at = self._clock()
        if blamed is not None and blamed in self.running:
            doubted[blamed] = self.running[blamed]
        for number, partition in doubted.items():
            if self.running.get(number) is not partition:
                continue
            del self.running[number]
            kept = partition if number != blamed else None
            self.loading[number] = Loading(at, kept=kept)
            if not isinstance(error, Fenced):
                self._later(number, error)
            yield fx.Pause(number)
        if isinstance(error, Fenced):
            self._log("fenced", {"partition": blamed})

    def _later(self, number: int, error: Exception) -> None:
        """Try a partition again after a wait.

        It grows with each failure of Kafka's, since a try may take its whole time-out (dead letters
        that are not taken) while others wait. Redis is asked at a steady pace: a failover ends soon.
        """
        failures = self._failures.get(number, 0)
        if isinstance(error, fx.LogAway):
            self._failures[number] = failures + 1
        wait = self._config.retry_seconds * 2 ** min(failures, _MAX_BACKOFF_DOUBLINGS)
        loading = self.loading[number]
        loading.retry_at = self._clock() + wait
        loading.reason = str(error)

    # Steps 6 and 7 -----------------------------------------------------------------------------

    def _reread(self) -> Steps[None]:
        """Step 6: after a failover the stored position may have gone back, with nobody there to notice.

        Likewise a topic that was made again, when no record comes to show it.
        """
        now = self._clock()
        if now < self._next_reread:
            return
        self._next_reread = now + self._config.reread_seconds
        if not self.running:
            return
        owned = dict(self.running)
        description = _Description(self.trouble)
        yield from description.start()
        try:
            stored: Mapping[int, tuple[int, str] | DamagedView | None] = yield from self._request(
                fx.ReadPositions(sorted(owned))
            )
        except fx.StoreAway as error:
            self._note("redis", str(error))
            yield from self._doubt(error)
            self._next_reread = now + self._config.retry_seconds
            return
        self._well("redis")
        for number, partition in owned.items():
            found, believed = stored[number], (partition.sent_position, partition.meta.incarnation)
            if self.running.get(number) is not partition:
                continue
            if isinstance(found, DamagedView):
                yield from self._stop(number, Stop(StopReason.DAMAGED_VIEW, str(found)))
            elif found != believed:
                yield from self._doubt(Fenced(), number)
        try:
            topic_id = yield from description.topic_id()
        except fx.LogAway as error:
            self._note("kafka", str(error))
            return
        for number, partition in list(self.running.items()):
            if partition.meta.topic_id != topic_id:
                yield from self._stop(number, _topic_changed(partition.meta, topic_id))

    def _commit(self, *, at_once: bool = False) -> Steps[None]:
        """Step 7: only so that lag tools and the operator see progress. Never start from it."""
        now = self._clock()
        if now < self._next_commit and not at_once:
            return
        self._next_commit = now + self._config.commit_seconds
        moved = {n: p.applied for n, p in self.running.items() if self._committed.get(n) != p.applied}
        if moved:
            yield fx.Commit(moved)
            self._committed |= moved

    # States ------------------------------------------------------------------------------------

    def _stop(self, number: int, stop: Stop) -> Steps[None]:
        self._log("stopped", {"partition": number, "reason": stop.reason, "detail": stop.detail, "what_to_do": GUIDE})
        self._forget(number)
        self.stopped[number] = stop
        yield fx.Pause(number)

    def _forget(self, number: int) -> None:
        self.running.pop(number, None)
        self.loading.pop(number, None)
        self.stopped.pop(number, None)

    def _note(self, source: str, text: str) -> None:
        """Say what is waited for once."""
        if self.trouble.get(source) != text:
            self._log("waiting", {"for": source, "reason": text})
        self.trouble[source] = text

    def _well(self, *sources: str) -> None:
        """What was waited for is there."""
        for source in sources:
            self.trouble.pop(source, None)

    def _bound_cache(self, description: _Description) -> Steps[None]:
        """Free what was used least recently of the partition that holds most, past the setting."""
        held = sum(partition.cached_bytes for partition in self.running.values())
        if held <= self._config.cache_bytes:
            return
        largest = max(self.running.values(), key=lambda partition: partition.cached_bytes)
        yield from self._send_open([largest.number], description)
        if self.running.get(largest.number) is not largest or largest.open is not None:
            return
        excess = held - self._config.cache_bytes * 3 // 4  # room for a while: a pass over the entries costs
        largest.forget(largest.cached_bytes - excess)


def _topic_changed(meta: Meta, topic_id: str) -> Stop:
    return Stop(
        StopReason.TOPIC_CHANGED,
        f"the view counts in the topic with id {meta.topic_id}, but the topic now has id {topic_id}: "
        "it was deleted and made again",
    )
