"""The worker: carries what the log holds into the view, partition by partition.

The numbered steps are those of docs/decisions/0003-a-view-with-a-fence.md. The worker owns the
order of I/O; what to do with records and totals is decided in partition.py.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future

import redis
from confluent_kafka.admin import TopicDescription
from flowagg.errors import FlowaggError
from flowagg.kafka import KafkaUnavailable
from flowagg.service import OK, Checks
from flowagg.view import DamagedView, Meta

from flowagg_consumer import metrics
from flowagg_consumer.log import Log, Start
from flowagg_consumer.partition import Fenced, Partition, Refetch, Stop, StopReason
from flowagg_consumer.records import Records
from flowagg_consumer.settings import ConsumerSettings
from flowagg_consumer.store import Store

_log = logging.getLogger(__name__)

_IDLE_SECONDS = 0.1
GUIDE = "see docs/guides/stopped-partitions.md"


class Worker:
    """One consumer process's work. `run` is its main loop; `live` and `ready` may be called by other threads."""

    def __init__(
        self,
        settings: ConsumerSettings,
        store: Store,
        new_incarnation: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._store = store
        self._new_incarnation = new_incarnation
        self._clock = clock
        self._running: dict[int, Partition] = {}
        self._loading: dict[int, float] = {}  # partition -> time of the next try
        self._stopped: dict[int, Stop] = {}
        self._committed: dict[int, int] = {}
        self._trouble: dict[str, str] = {}  # "kafka" or "redis" -> what is wrong
        self._assigned_once = False
        self._last_turn = self._next_reread = self._next_commit = clock()
        self._stopping = False
        self._log = Log(settings, self._on_assigned, self._on_revoked)

    def stop(self) -> None:
        """End the main loop after the batch in hand; may be called from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Work until stop() is called; then commit and leave the group."""
        try:
            while not self._stopping:
                self._last_turn = self._clock()
                self._load_due()
                self._turn()
                self._reread()
                self._commit()
        finally:
            self._commit(at_once=True)
            self._log.close()
            self._store.close()

    def live(self) -> Checks:
        """Whether the main loop still turns."""
        still = self._clock() - self._last_turn
        stuck = still > self._settings.stuck_seconds
        return {"main_loop": f"no turn for {still:.0f} s" if stuck else OK}

    def ready(self) -> Checks:
        """Whether every owned partition is being applied, and if not, why and what to do."""
        checks = {"kafka": OK, "redis": OK, "group": OK} | self._trouble
        if not self._assigned_once:
            checks["group"] = "waiting for the group to assign partitions"
        for number, stop in sorted(self._stopped.items()):
            checks[f"partition_{number}"] = f"stopped, {stop.reason}: {stop.detail}; {GUIDE}"
        for number in sorted(self._loading):
            checks[f"partition_{number}"] = "its stored position could not be read yet; trying again"
        return checks

    # Step 1 ------------------------------------------------------------------------------------

    def _on_assigned(self, numbers: list[int]) -> Mapping[int, Start]:
        self._assigned_once = True
        _log.info("partitions assigned", extra={"partitions": numbers})
        self._loading |= dict.fromkeys(numbers, self._clock())
        return self._load(numbers, "assigned")

    def _on_revoked(self, numbers: list[int]) -> None:
        _log.info("partitions revoked", extra={"partitions": numbers})
        self._commit(at_once=True)
        for number in numbers:
            self._forget(number)
            self._committed.pop(number, None)
        self._count_states()

    def _load_due(self) -> None:
        now = self._clock()
        due = [number for number, at in self._loading.items() if at <= now]
        if due:
            for number, start in self._load(due, "retried").items():
                self._log.restart(number, start)

    def _load(self, numbers: list[int], cause: str) -> Mapping[int, Start]:
        """Step 1: read the stored positions; begin partitions that have none. Where it fails, later again."""
        metrics.LOADS.labels(cause).inc(len(numbers))
        starts = {}
        try:
            topic = self._log.topic(self._log.describe())
            metas = self._store.load(numbers)
            low = self._log.low_watermarks([number for number, meta in metas.items() if meta is None])
            for number in numbers:
                meta = metas[number] or self._begin(number, low[number], topic.topic_id)
                if meta.topic_id != topic.topic_id:
                    self._stop(number, _topic_changed(meta, topic.topic_id))
                    continue
                self._running[number] = Partition(number, meta)
                del self._loading[number]
                starts[number] = Start(meta.position, meta.leader_epoch)
                metrics.POSITION.labels(number).set(meta.position)
            self._trouble.clear()
        except DamagedView as error:
            for number in set(numbers) & self._loading.keys():
                self._stop(number, Stop(StopReason.DAMAGED_VIEW, str(error)))
        except (redis.RedisError, KafkaUnavailable) as error:
            self._note_trouble(error)
            retry_at = self._clock() + self._settings.retry_seconds
            self._loading |= dict.fromkeys(set(numbers) & self._loading.keys(), retry_at)
        self._count_states()
        return starts

    def _begin(self, number: int, low_watermark: int, topic_id: str) -> Meta:
        if low_watermark > 0:
            _log.warning(
                "the log no longer reaches back to its start: the view is incomplete in this partition",
                extra={"partition": number, "first_offset": low_watermark},
            )
        return self._store.begin(number, low_watermark, topic_id, self._new_incarnation())

    # Steps 2 to 5 ------------------------------------------------------------------------------

    def _turn(self) -> None:
        fetched = self._log.fetch(_IDLE_SECONDS)
        if fetched is None:
            return
        began = self._clock()
        # Step 2: this description starts after the consume has returned; it runs beside the fold.
        description = self._log.describe()
        for error in fetched.errors:
            _log.warning("kafka said", extra={"reason": error})
            self._trouble["kafka"] = error
        for number, (reason, detail) in fetched.stops.items():
            self._stop_reading(number, Stop(reason, detail), description)
        for number, runs in fetched.records.items():
            self._carry(number, runs, description)
        metrics.APPLY_SECONDS.observe(self._clock() - began)

    def _stop_reading(self, number: int, stop: Stop, description: "Future[TopicDescription]") -> None:
        """Kafka cannot read on from the position: because the topic was made again, or for Kafka's own reason."""
        partition = self._running.get(number)
        if partition is None:
            return
        try:
            topic = self._log.topic(description)
        except KafkaUnavailable as error:
            self._reload(number, error)  # and then it comes again
            return
        self._log.pause(number)
        if topic.topic_id != partition.meta.topic_id:
            stop = _topic_changed(partition.meta, topic.topic_id)
        else:
            stop = Stop(stop.reason, f"the view's position is {partition.position}: {stop.detail}")
        self._stop(number, stop)

    def _carry(self, number: int, runs: Iterable[Records], description: "Future[TopicDescription]") -> None:
        """Carry fetched records of one partition into the view; on any doubt drop it and load again."""
        partition = self._running.get(number)
        if partition is None:
            return  # fetched before it was paused: comes again
        try:
            for run in runs:
                rest: Records | None = run
                while rest is not None:
                    rest = self._apply(partition, rest, description)
        except Refetch:
            _log.info(
                "gap in the log, fetching again",
                extra={"partition": number, "position": partition.position},
            )
            self._log.restart(number, Start(partition.position, partition.leader_epoch))
        except Stop as stop:
            self._log.pause(number)
            self._stop(number, stop)
        except DamagedView as error:
            self._log.pause(number)
            self._stop(number, Stop(StopReason.DAMAGED_VIEW, str(error)))
        except (redis.RedisError, KafkaUnavailable, Fenced) as error:
            self._reload(number, error)
        else:
            self._bound_cache()

    def _apply(self, partition: Partition, records: Records, description: "Future[TopicDescription]") -> Records | None:
        """Steps 3 and 4 for one batch; the rest that is to follow."""
        batch = partition.fold(records)
        if batch is None:
            return None
        if batch.missing:
            partition.fill(batch, *self._store.read_totals(partition, batch))
        topic = self._log.topic(description)
        if topic.topic_id != partition.meta.topic_id:
            raise _topic_changed(partition.meta, topic.topic_id)
        self._store.apply(partition, batch, partition.totals(batch))
        partition.applied(batch)
        self._trouble.clear()
        metrics.FLOWS.inc(batch.records)
        metrics.BATCHES.inc()
        metrics.POSITION.labels(partition.number).set(partition.position)
        return batch.rest

    def _reload(self, number: int, error: Exception) -> None:
        """Step 5: close the connection, drop everything in memory, read the meta again."""
        if isinstance(error, Fenced):
            _log.info("the stored position is another's: loading again", extra={"partition": number})
        else:
            self._note_trouble(error)
        self._store.disconnect()
        self._log.pause(number)
        self._forget(number)
        self._loading[number] = self._clock() + (0 if isinstance(error, Fenced) else self._settings.retry_seconds)
        self._count_states()

    # Steps 6 and 7 -----------------------------------------------------------------------------

    def _reread(self) -> None:
        """Step 6: after a failover the stored position may have gone back, with nobody there to notice."""
        now = self._clock()
        if now < self._next_reread:
            return
        self._next_reread = now + self._settings.reread_seconds
        self._log.serve_logs()
        if not self._running:
            return
        try:
            stored = self._store.positions(self._running)
        except redis.RedisError as error:
            for number in list(self._running):
                self._reload(number, error)
            return
        self._trouble.pop("redis", None)
        for number, partition in list(self._running.items()):
            if stored[number] != (partition.position, partition.meta.incarnation):
                self._reload(number, Fenced())

    def _commit(self, *, at_once: bool = False) -> None:
        """Step 7."""
        now = self._clock()
        if now < self._next_commit and not at_once:
            return
        self._next_commit = now + self._settings.commit_seconds
        positions = {number: partition.position for number, partition in self._running.items()}
        moved = {number: position for number, position in positions.items() if self._committed.get(number) != position}
        if moved:
            self._log.commit(moved)
            self._committed |= moved

    # States ------------------------------------------------------------------------------------

    def _stop(self, number: int, stop: Stop) -> None:
        _log.error(
            "partition stopped",
            extra={
                "partition": number,
                "reason": stop.reason,
                "detail": stop.detail,
                "what_to_do": GUIDE,
            },
        )
        self._forget(number)
        self._stopped[number] = stop
        metrics.STOPPED.labels(number, stop.reason).set(1)
        self._count_states()

    def _forget(self, number: int) -> None:
        self._running.pop(number, None)
        self._loading.pop(number, None)
        stop = self._stopped.pop(number, None)
        if stop is not None:
            metrics.STOPPED.remove(number, stop.reason)

    def _note_trouble(self, error: Exception) -> None:
        """Say what is wrong once, in the log and in /readyz."""
        source = "redis" if isinstance(error, redis.RedisError) else "kafka"
        text = str(error) if isinstance(error, FlowaggError) else f"{type(error).__name__}: {error}"
        if self._trouble.get(source) != text:
            _log.warning("waiting", extra={"for": source, "reason": text})
        self._trouble[source] = text

    def _bound_cache(self) -> None:
        """Free totals of the partition that holds most while the estimate is past the setting."""
        held = sum(partition.cached_bytes for partition in self._running.values())
        while held > self._settings.cache_bytes:
            largest = max(self._running.values(), key=lambda partition: partition.cached_bytes)
            held -= largest.cached_bytes
            largest.forget_totals()
        metrics.CACHED_BYTES.set(held)

    def _count_states(self) -> None:
        for state, numbers in (
            ("running", self._running),
            ("loading", self._loading),
            ("stopped", self._stopped),
        ):
            metrics.PARTITIONS.labels(state).set(len(numbers))


def _topic_changed(meta: Meta, topic_id: str) -> Stop:
    return Stop(
        StopReason.TOPIC_CHANGED,
        f"the view counts in the topic with id {meta.topic_id}, but the topic now has id {topic_id}: "
        "it was deleted and made again",
    )
