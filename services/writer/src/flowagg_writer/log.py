"""Kafka as the writer sees it: appending batches of records and knowing when all of them are there."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from functools import partial

import msgspec
from confluent_kafka import KafkaException, Producer
from flowagg.deadlines import Deadlines
from flowagg.errors import FlowaggError
from flowagg.kafka import (
    KafkaUnavailable,
    LookUps,
    Topic,
    TopicMissing,
    client_properties,
    describe_topic,
    log_error,
    resolve_topic,
)
from flowagg.position import Position
from flowagg_native.client import with_plugin
from flowagg_native.outlet import Outlet, Tray

from flowagg_writer import metrics
from flowagg_writer.accepted import accepted_body
from flowagg_writer.batch import Acknowledgements, Batch, KnownKeys, Told
from flowagg_writer.parcels import ParcelBatch
from flowagg_writer.partitioner import partitioner
from flowagg_writer.settings import WriterSettings

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.001  # while records are in flight that Python has handed over
_TIDY_SECONDS = 0.01  # while others are: librdkafka has their memory until its reports are taken
_IDLE_POLL_SECONDS = 1.0  # for errors and statistics
_LAST_FLUSH_SECONDS = 1.0
_FAILURES_TO_DOUBT = 3


class LogFull(FlowaggError):
    """As many bytes as the setting allows are in flight."""


class NotAppended(FlowaggError):
    """Kafka did not acknowledge every record: some of them may be in the log."""


class TooFewPartitions(FlowaggError):
    """The topic has fewer partitions than keyed records are spread over."""


class Appending(msgspec.Struct, frozen=True):
    """A batch on its way to the log. count: of its flows. spelled: the body of the answer, by the library; or None."""

    topic_id: str
    count: int
    told: Callable[[], Told]
    spelled: Callable[[str], bytes | None] = lambda _topic_id: None

    def answer(self) -> bytes:
        """The body of the answer to its POST. Raises what position() raises."""
        body = self.spelled(self.topic_id)
        if body is None:
            return accepted_body(self.count, self.position())
        metrics.FLOWS.inc(self.count)
        return body

    def position(self) -> Position:
        """The position that holds all flows. Raises KafkaUnavailable or NotAppended, as append does."""
        told = self.told()
        if not told.complete:
            raise NotAppended("Kafka has not acknowledged every record in time")
        if self.count and not told.handed:
            raise KafkaUnavailable(f"Kafka's client took no record: {told.error}")
        if told.error is not None:
            raise NotAppended(f"Kafka has not acknowledged every record: {told.error}")
        metrics.FLOWS.inc(self.count)
        return Position(self.topic_id, told.next_offsets)


class Log:
    """The topic that flows are appended to. All methods belong to one event loop's thread.

    Delivery reports of records that Python has handed over are served by the loop itself, every millisecond while
    records are in flight, those of many requests in one go. Those of parcels are counted by the compiled library in
    librdkafka's threads, which rings a bell; the loop takes the parcels that are complete.
    """

    def __init__(self, settings: WriterSettings) -> None:
        self._settings = settings
        self._topic_name = settings.kafka_topic
        self._fatal: str | None = None
        self._tray = Tray()
        self._client_knows = False  # the topic's partitions
        self._producer, self._outlet = self._new_producer()
        self._look_ups = LookUps(settings, "writer")
        self._known = KnownKeys(settings.known_keys)
        self._partition_of = partitioner()
        self._bell = -1
        self._in_flight_bytes = 0
        self._reports_due = 0  # batches in flight that Python has handed over
        self._hurry = asyncio.Event()  # the first of them is handed over
        metrics.IN_FLIGHT_BYTES.set_function(lambda: self._in_flight_bytes)
        self._deadlines = Deadlines(settings.post_timeout_seconds)
        self._topic: Topic | None = None
        self._trouble = "not looked at yet"
        self._failures = 0  # look-ups of the topic that failed in a row; the producer may do well meanwhile
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()

    def _new_producer(self) -> tuple[Producer, Outlet | None]:
        settings = self._settings
        own = {
            "enable.idempotence": True,  # with it acks=all, and order kept over retries
            "partitioner": "murmur2_random",  # the Java clients' partitioner
            "compression.type": "lz4",
            "linger.ms": settings.linger_ms,
            "message.timeout.ms": int(settings.post_timeout_seconds * 1000 * 2 / 3),
            "request.timeout.ms": 5000,
            # Bounded here instead, in bytes and before anything of a batch is produced:
            "queue.buffering.max.messages": 0,
            "queue.buffering.max.kbytes": 2 * settings.max_in_flight_bytes // 1024,
            "error_cb": log_error,  # a fatal error comes as an exception of poll
        }
        properties = client_properties(settings, "writer", own)
        if not settings.native:
            return Producer(properties), None
        return Producer(with_plugin(properties)), Outlet(self._topic_name)

    async def __aenter__(self) -> "Log":
        if hasattr(os, "eventfd"):  # else parcels are looked after as often as reports
            self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            asyncio.get_running_loop().add_reader(self._bell, self._serve_tray)
            self._tray.ring(self._bell)
        self._tasks = [
            asyncio.create_task(self._serve_reports()),
            asyncio.create_task(self._watch_topic()),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Every POST has been answered by now; what is left is of POSTs that have timed out.
        left = await self._flush(self._producer)
        if self._outlet is not None:
            self._outlet.close()
        if self._bell >= 0:
            self._tray.ring(-1)
            asyncio.get_running_loop().remove_reader(self._bell)
            os.close(self._bell)
            self._bell = -1
        if left:
            _log.error(
                "records were not delivered before the end; no client was told that they were",
                extra={"records": left},
            )

    @property
    def trouble(self) -> str | None:
        """Why appending would fail now, or None."""
        well = self._topic is not None and self._failures < _FAILURES_TO_DOUBT
        return self.broken or (None if well else self._trouble)

    @property
    def broken(self) -> str | None:
        """Why nothing can be appended until this process starts anew, or None."""
        ended = [task for task in self._tasks if task.done()]
        return f"a task of the writer has ended: {ended[0]!r}" if ended else None

    async def _replace_producer(self) -> None:
        """Put a new producer in the place of one that takes no more records.

        A leader that has lost records refuses the sequence numbers of an old producer. What that one
        had not delivered is told to its POSTs as not acknowledged.
        """
        _log.error("the producer has failed for good; a new one takes its place", extra={"reason": self._fatal})
        old, outlet, self._fatal = self._producer, self._outlet, None
        self._producer, self._outlet = self._new_producer()
        self._client_knows = False
        old.purge()
        try:
            await self._flush(old)
        finally:
            if outlet is not None:
                outlet.close()

    async def append(self, batch: Batch | ParcelBatch, timeout_seconds: float) -> Position:
        """Append one record per flow; the position that holds them all.

        Raises KeyReused, KafkaUnavailable, TooFewPartitions or LogFull when nothing of the batch is
        in the log; NotAppended when a part of it may be.
        """
        topic = self._admit(batch)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        appending, steps = self._hand_over(batch, topic, wake)
        # An error is kept by the acknowledgements, beside those of records that were handed over.
        with contextlib.suppress(BufferError, KafkaException):
            for _ in steps:
                await asyncio.sleep(0)
        expiry = loop.call_later(timeout_seconds, wake)
        try:
            await future
        finally:
            expiry.cancel()
        return appending.position()

    def begin(self, batch: Batch | ParcelBatch, ended: Callable[[Appending], None]) -> None:
        """As append, for some thousand flows at most: all are handed over now.

        ended: called once, in a later turn of the loop, FLOWAGG_POST_TIMEOUT_SECONDS from now at the latest. It raises
        nothing.

        Raises what append raises when nothing of the batch is in the log; its other errors are told by the Appending.
        """
        topic = self._admit(batch)
        if isinstance(batch, ParcelBatch) and batch.count:
            self._begin_parcel(batch, topic, ended)
            return
        loop = asyncio.get_running_loop()
        appending: Appending | None = None

        def end() -> None:
            nonlocal appending
            told, appending = appending, None  # and no cycle of references is left, which only a collection would end
            if told is not None:
                self._deadlines.clear(deadline)
                ended(told)

        # Not called by the producer's poll itself: whatever goes wrong there is told to the producer.
        appending, steps = self._hand_over(batch, topic, partial(loop.call_soon, end))
        try:
            for _ in steps:
                pass
        except (BufferError, KafkaException):
            pass  # kept by the acknowledgements, as in append
        except BaseException:
            appending = None  # raised in place of told
            raise
        deadline = self._deadlines.set(end)

    def _begin_parcel(self, batch: ParcelBatch, topic: Topic, ended: Callable[[Appending], None]) -> None:
        outlet = self._outlet
        assert outlet is not None  # noqa: S101 - else no batch is one
        appending = Appending(topic.topic_id, batch.count, batch.told, partial(batch.answer, self._tray))
        size_bytes = batch.size_bytes
        awaited = True

        def expire() -> None:
            nonlocal awaited
            awaited = False
            ended(appending)

        def complete() -> None:  # by the tray: in the loop's own turn, and not in that of a call of the client's
            self._in_flight_bytes -= size_bytes
            self._learn(batch, outlet)
            if awaited:
                self._deadlines.clear(deadline)
                try:
                    ended(appending)
                except Exception:  # those behind it on the tray are to be answered all the same
                    _log.exception("a POST failed")

        deadline = self._deadlines.set(expire)
        self._in_flight_bytes += size_bytes
        self._wake.set()
        batch.send(outlet, self._tray, self._partitions(topic), complete)

    def _partitions(self, topic: Topic) -> int:
        """As many as a parcel may be sent to, 0: that is for the client to say.

        Records for partitions that a client does not know when it hears of the topic first would fail.
        """
        return len(topic.partitions) if self._client_knows else 0

    def _learn(self, told: ParcelBatch, outlet: Outlet) -> None:
        """A client that has got a parcel through knows the topic. outlet: of the client."""
        if not self._client_knows and outlet is self._outlet:
            self._client_knows = told.told().error is None

    def _admit(self, batch: Batch | ParcelBatch) -> Topic:
        batch.check(self._known)
        topic = self._topic
        if topic is None:
            raise KafkaUnavailable(self._trouble)
        if len(topic.partitions) < batch.partitions_needed:
            raise TooFewPartitions(
                f"the topic {self._topic_name} has {len(topic.partitions)} partitions, fewer than "
                f"FLOWAGG_KEYED_PARTITIONS={batch.partitions_needed}, which batches with an Idempotency-Key need: "
                "have its operator add partitions to the topic, or correct the setting before the first such batch"
            )
        full = self._in_flight_bytes and self._in_flight_bytes + batch.size_bytes > self._settings.max_in_flight_bytes
        if batch.count and full:
            raise LogFull("as much is on its way to Kafka as this writer may hold: send the same again later")
        return topic

    def _hand_over(
        self, batch: Batch | ParcelBatch, topic: Topic, wake: Callable[[], object]
    ) -> tuple[Appending, Iterator[None]]:
        """What becomes of the batch, and the steps that hand it over. wake: called once all records are reported."""
        size_bytes, outlet = batch.size_bytes, self._outlet
        parcel = batch if isinstance(batch, ParcelBatch) else None

        def complete() -> None:
            # Here and not when the wait is over: records of a POST that has timed out, or of a client that has gone,
            # still count as in flight until reported.
            self._in_flight_bytes -= size_bytes
            if parcel is None:
                self._reports_due -= 1
            elif outlet is not None:
                self._learn(parcel, outlet)
            wake()

        count = batch.count  # they are gone once they are handed over
        if not count:
            wake()
            return Appending(topic.topic_id, count, Acknowledgements(0, complete).told), iter(())
        self._in_flight_bytes += size_bytes
        self._wake.set()
        if isinstance(batch, ParcelBatch):
            assert outlet is not None  # noqa: S101 - else no batch is one
            steps = batch.hand_over(outlet, self._tray, self._partitions(topic), complete)
            return Appending(topic.topic_id, count, batch.told), steps
        self._reports_due += 1
        self._hurry.set()
        acknowledgements = Acknowledgements(count, complete)
        produce = self._producer.produce
        steps = batch.hand_over(produce, self._topic_name, acknowledgements, self._known, self._partition_of)
        return Appending(topic.topic_id, count, acknowledgements.told), steps

    async def _serve_reports(self) -> None:
        while True:
            try:
                self._producer.poll(0)
            except KafkaException as error:  # so confluent-kafka tells a fatal error
                self._fatal = str(error)
            self._tray.serve()
            if self._fatal is not None:
                await self._replace_producer()
            if self._in_flight_bytes:
                await self._pause()
                continue
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), _IDLE_POLL_SECONDS)
            except TimeoutError:
                continue

    async def _pause(self) -> None:
        """Until reports are to be looked for again, while something is in flight."""
        if self._reports_due or self._bell < 0:
            await asyncio.sleep(_POLL_SECONDS)
            return
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), _TIDY_SECONDS)

    def _serve_tray(self) -> None:
        """The bell has rung."""
        os.eventfd_read(self._bell)
        self._tray.serve()

    async def _flush(self, producer: Producer) -> int:
        """Serve a producer's last reports, for a bounded time; how many records have none yet."""
        deadline = time.monotonic() + _LAST_FLUSH_SECONDS
        while len(producer) and time.monotonic() < deadline:
            with contextlib.suppress(KafkaException):  # of a fatal error, told again
                producer.poll(0)
            self._tray.serve()
            await asyncio.sleep(_POLL_SECONDS)
        self._tray.serve()
        return len(producer)

    async def _watch_topic(self) -> None:
        timeout = self._settings.kafka_timeout_seconds
        while True:
            began = time.monotonic()
            self._look_ups.client.poll(0)  # librdkafka's log lines, which would pile up
            try:
                future = describe_topic(self._look_ups.client, self._topic_name, timeout)
                self._topic = await asyncio.to_thread(resolve_topic, future, self._topic_name, timeout, self._look_ups)
                self._failures = 0
                self._look_ups.worked()
            except KafkaUnavailable as error:
                self._failures += 1
                if str(error) != self._trouble or self._failures == 1:
                    _log.warning("waiting for kafka", extra={"reason": str(error)})
                self._trouble = str(error)
                if isinstance(error, TopicMissing):
                    self._topic = None
                else:
                    self._look_ups.failed()
            metrics.AWAITED.labels("kafka").set(self.trouble is not None)
            wait = self._settings.topic_refresh_seconds
            if self._failures:
                wait = min(0.5, wait)
            await asyncio.sleep(max(0.0, began + wait - time.monotonic()))
