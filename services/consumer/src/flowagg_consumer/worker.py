"""The worker: carries out what the core asks, on real Kafka and Redis, and shows its state."""

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from flowagg.kafka import connection_trouble
from flowagg.service import OK, Checks
from flowagg.view import DamagedView
from prometheus_client import Counter

from flowagg_consumer import effects as fx
from flowagg_consumer import metrics
from flowagg_consumer.core import GUIDE, Config, Core
from flowagg_consumer.log import Log
from flowagg_consumer.marks import Window
from flowagg_consumer.native import native_totals
from flowagg_consumer.retention import Retention
from flowagg_consumer.settings import ConsumerSettings
from flowagg_consumer.store import Store
from flowagg_consumer.totals import PythonTotals

_log = logging.getLogger(__name__)

_IDLE_SECONDS: Final = 0.1
_SOURCES: Final = tuple(away.source for away in (fx.LogAway, fx.StoreAway, fx.TopicRefused, fx.DeadLettersAway))
_MESSAGES: Final = {
    "incomplete": (logging.WARNING, "the log no longer reaches back to its start: the view is incomplete"),
    "lost": (logging.ERROR, "retention has passed the view's position: these records are lost, the view is incomplete"),
    "fenced": (logging.INFO, "the stored position is not the expected one: loading again"),
    "stopped": (logging.ERROR, "partition stopped"),
    "waiting": (logging.WARNING, "waiting"),
}


class Worker:
    """One consumer process's work. `live` and `ready` may be called by other threads."""

    def __init__(
        self,
        settings: ConsumerSettings,
        log: Log,
        store: Store,
        writer: str,
        new_incarnation: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._store = store
        self._log = log
        self._clock = clock
        self._last_turn = clock()
        self._next_publish = clock()
        self._shown_stops: set[tuple[int, str]] = set()
        self._shown_partitions: set[int] = set()
        config = Config(
            idle_seconds=_IDLE_SECONDS,
            linger_seconds=settings.batch_linger_ms / 1000,
            batch_records=settings.batch_records,
            batch_writes=settings.batch_writes,
            batch_seconds=settings.batch_ms / 1000,
            max_in_flight=settings.max_in_flight,
            reread_seconds=settings.reread_seconds,
            commit_seconds=settings.commit_seconds,
            retry_seconds=settings.retry_seconds,
            cache_bytes=settings.cache_bytes,
            window=Window(int(settings.dedupe_window_seconds * 1000)),
            retention=Retention(
                None if settings.retention_hours is None else int(settings.retention_hours * 3_600_000)
            ),
            new_totals=native_totals(secrets.randbits(128)) if settings.native else PythonTotals,
        )
        self._core = Core(config, writer, clock, new_incarnation, _say)

    def stop(self) -> None:
        """End the main loop after the round in hand; may be called from a signal handler."""
        self._core.stopping = True

    def run(self) -> None:
        """Work until stop() is called; then commit and leave the group."""
        try:
            self._drive()
        finally:
            self._log.close()
            self._store.close()
            self._publish()

    def live(self) -> Checks:
        """Whether the main loop still turns."""
        still = self._clock() - self._last_turn
        stuck = still > self._settings.stuck_seconds
        return {"main_loop": f"no turn for {still:.0f} s" if stuck else OK}

    def ready(self) -> Checks:
        """Whether every owned partition is being applied, and if not, why and what to do."""
        core = self._core
        checks = {"kafka": OK, "redis": OK, "group": OK} | core.trouble
        if not core.assigned_once:
            checks["group"] = "waiting for the group to assign partitions"
            if checks["kafka"] == OK:  # nothing was looked up yet
                checks["kafka"] = connection_trouble() or OK
        for number, stop in sorted(dict(core.stopped).items()):
            checks[f"partition_{number}"] = f"stopped, {stop.reason}: {stop.detail}; {GUIDE}"
        for number, loading in sorted(dict(core.loading).items()):
            reason = f" ({loading.reason})" if loading.reason else ""
            checks[f"partition_{number}"] = f"not applied at the moment, trying again{reason}"
        return checks

    def _drive(self) -> None:
        steps = self._core.run()
        answer: Any = None
        error: Exception | None = None
        fetched_at: float | None = None
        while True:
            try:
                effect = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration:
                return
            answer, error = None, None
            if isinstance(effect, fx.Fetch):
                self._log.keep_pace(effect.wait_seconds)
                now = self._last_turn = self._clock()
                if fetched_at is not None:
                    metrics.TURN_SECONDS.observe(now - fetched_at)
                self._publish_due(now)
            try:
                answer = self._carry_out(effect)
            except (fx.StoreAway, fx.LogAway, DamagedView) as raised:
                error = raised
            if isinstance(answer, fx.Fetched):
                fetched_at = self._clock() if answer.records else None

    def _carry_out(self, effect: fx.Effect) -> Any:  # noqa: PLR0911 - one line per effect
        log, store = self._log, self._store
        match effect:
            case fx.Fetch():
                return log.fetch(effect.wait_seconds, effect.linger_seconds)
            case fx.Send():
                return store.send(effect.command)
            case fx.Receive():
                return store.receive()
            case fx.StartDescribe():
                return log.start_describe()
            case fx.AwaitTopic():
                return log.await_topic(effect.ticket)  # type: ignore[arg-type] # the ticket that start_describe gave
            case fx.Restart():
                return log.restart(effect.partition, effect.start)
            case fx.Pause():
                return log.pause(effect.partition)
            case fx.Watermarks():
                return log.watermarks(effect.partitions)
            case fx.CheckTopic():
                return self._check_topic()
            case fx.Commit():
                return log.commit(effect.positions)
            case fx.SendDeadLetters():
                return log.send_dead_letters(effect.partition, effect.topic_id, effect.letters)
            case fx.Disconnect():
                return store.disconnect()

    def _check_topic(self) -> None:
        findings = self._log.check_topic()
        metrics.TOPIC_MISCONFIGURED.clear()
        for finding in findings:
            metrics.TOPIC_MISCONFIGURED.labels(finding.setting).set(1)
            _log.warning("topic setting", extra={"finding": str(finding)})
        refused = [finding for finding in findings if finding.refused]
        if refused:
            raise fx.TopicRefused(f"topic {self._settings.kafka_topic}: " + "; ".join(map(str, refused)))

    def _publish_due(self, now: float) -> None:
        if now >= self._next_publish:
            self._next_publish = now + self._settings.reread_seconds
            self._log.serve_logs()
            self._publish()

    def _publish(self) -> None:
        """Bring the metrics up to the core's state."""
        core, counts = self._core, self._core.counts
        _raise_to(metrics.FLOWS, counts.flows)
        _raise_to(metrics.BATCHES, counts.batches)
        _raise_to(metrics.REFETCHES, counts.refetches)
        _raise_to(metrics.REJOINS, self._log.rejoins)
        for outcome, count in counts.loads.items():
            _raise_to(metrics.LOADS.labels(outcome), count)
        for reason, count in counts.dead_letters.items():
            _raise_to(metrics.DEAD_LETTERS.labels(reason), count)
        for state, numbers in (("running", core.running), ("loading", core.loading), ("stopped", core.stopped)):
            metrics.PARTITIONS.labels(state).set(len(numbers))
        waiting = set(core.trouble)
        if not core.assigned_once and connection_trouble():
            waiting.add("kafka")
        for source in _SOURCES:
            metrics.WAITING.labels(source).set(source in waiting)
        for number, partition in core.running.items():
            metrics.POSITION.labels(number).set(partition.applied)
            metrics.INCOMPLETE.labels(number).set(partition.meta.incomplete or partition.meta.lost is not None)
        for number in self._shown_partitions - core.running.keys():
            metrics.POSITION.remove(number)
            metrics.INCOMPLETE.remove(number)
        self._shown_partitions = set(core.running)
        stops = {(number, stop.reason.value) for number, stop in core.stopped.items()}
        for gone in self._shown_stops - stops:
            metrics.STOPPED.remove(*gone)
        for stop_ in stops:
            metrics.STOPPED.labels(*stop_).set(1)
        self._shown_stops = stops
        metrics.CACHED_BYTES.set(sum(partition.cached_bytes for partition in core.running.values()))


def _raise_to(counter: Counter, value: int) -> None:
    """Set a counter to a count that only grows."""
    counter.inc(max(0, value - counter._value.get()))


def _say(event: str, fields: Mapping[str, object]) -> None:
    level, message = _MESSAGES[event]
    _log.log(level, message, extra=dict(fields))
