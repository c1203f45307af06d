"""Kafka as the consumer sees it: the log, the group and the topic."""

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec, TopicDescription
from flowagg.kafka import (
    KafkaUnavailable,
    Topic,
    admin_properties,
    client_properties,
    describe_topic,
    look_up_error,
    resolve_topic,
)

from flowagg_consumer.partition import StopReason
from flowagg_consumer.records import Records
from flowagg_consumer.settings import ConsumerSettings

_log = logging.getLogger(__name__)

_STOPS: Final = {
    KafkaError._AUTO_OFFSET_RESET: StopReason.POSITION_OUT_OF_RANGE,
    KafkaError.OFFSET_OUT_OF_RANGE: StopReason.POSITION_OUT_OF_RANGE,
    KafkaError._LOG_TRUNCATION: StopReason.LOG_TRUNCATED,
}


@dataclass(frozen=True, slots=True)
class Start:
    """Where to start a partition: offset, and the leader epoch of the record before it (-1: unknown)."""

    offset: int
    leader_epoch: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one consume brought.

    records: per partition, in order; runs of one leader epoch. stops: partitions that Kafka cannot
    read on from where they are, why, and Kafka's words. errors: what else Kafka said.
    """

    records: Mapping[int, list[Records]]
    stops: Mapping[int, tuple[StopReason, str]]
    errors: list[str]


OnAssigned = Callable[[list[int]], Mapping[int, Start]]
"""Given partitions, where to start those that can start now; the others stay paused."""
OnRevoked = Callable[[list[int]], None]


class Log:
    """A member of the view's consumer group, and an admin client."""

    def __init__(self, settings: ConsumerSettings, on_assigned: OnAssigned, on_revoked: OnRevoked) -> None:
        self._topic = settings.kafka_topic
        self._timeout_seconds = settings.kafka_timeout_seconds
        self._batch_records = settings.batch_records
        self._linger_seconds = settings.batch_linger_ms / 1000
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        own = {
            "group.id": settings.view,
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": int(settings.session_timeout_seconds * 1000),
            "heartbeat.interval.ms": int(settings.heartbeat_seconds * 1000),
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,
            "queued.min.messages": 4 * settings.batch_records,
            "queued.max.messages.kbytes": settings.prefetch_bytes // 1024,
            # librdkafka waits 1 s by default before it fetches again for a full queue: measured,
            # 174 k flows/s instead of 308 k.
            "fetch.queue.backoff.ms": 5,
        }
        self._consumer = Consumer(client_properties(settings, "consumer", own))
        self._admin = AdminClient(admin_properties(settings, "consumer"))
        self._consumer.subscribe(
            [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def fetch(self, wait_seconds: float) -> Fetched | None:
        """Wait for a record, then for more up to the batch's bounds; None where there was nothing."""
        messages = self._consumer.consume(1, wait_seconds)
        if not messages:
            return None
        messages += self._consumer.consume(self._batch_records - 1, self._linger_seconds)
        return _sort_out(messages)

    def describe(self) -> "Future[TopicDescription]":
        """Start a description of the topic; resolve it with topic()."""
        return describe_topic(self._admin, self._topic, self._timeout_seconds)

    def topic(self, description: "Future[TopicDescription]") -> Topic:
        """Wait for a description. Raises KafkaUnavailable."""
        return resolve_topic(description, self._topic, self._timeout_seconds)

    def low_watermarks(self, partitions: Iterable[int]) -> dict[int, int]:
        """The first offsets that the log still holds. Raises KafkaUnavailable."""
        request = {TopicPartition(self._topic, number): OffsetSpec.earliest() for number in partitions}
        if not request:
            return {}
        futures = self._admin.list_offsets(request, request_timeout=self._timeout_seconds)
        try:
            return {part.partition: future.result(self._timeout_seconds + 1).offset for part, future in futures.items()}
        except KafkaException as error:
            raise look_up_error(error, self._topic) from error
        except TimeoutError as error:
            raise KafkaUnavailable("Kafka did not answer in time") from error

    def restart(self, number: int, start: Start) -> None:
        """Fetch an owned partition from start on; what was fetched before is dropped."""
        self._consumer.incremental_unassign([TopicPartition(self._topic, number)])
        part = self._at(number, start)
        self._consumer.incremental_assign([part])
        self._consumer.resume([part])

    def pause(self, number: int) -> None:
        """Fetch nothing more of an owned partition until restart()."""
        self._consumer.pause([TopicPartition(self._topic, number)])

    def serve_logs(self) -> None:
        """Hand the admin client's log lines on; unserved they would pile up (consume serves the consumer's)."""
        self._admin.poll(0)

    def commit(self, positions: Mapping[int, int]) -> None:
        """Step 7: tell Kafka the positions, for lag tools; never read back. Failures are only logged."""
        try:
            self._consumer.commit(
                offsets=[TopicPartition(self._topic, n, p) for n, p in positions.items()],
                asynchronous=True,
            )
        except KafkaException as error:
            _log.warning("commit failed", extra={"reason": str(error)})

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _at(self, number: int, start: Start) -> TopicPartition:
        if start.leader_epoch < 0:
            return TopicPartition(self._topic, number, start.offset)
        return TopicPartition(self._topic, number, start.offset, leader_epoch=start.leader_epoch)

    # Callbacks run inside consume(). They never raise and never assign nothing: confluent-kafka
    # would then assign by itself, at the offsets committed to Kafka.
    def _assigned(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        numbers = [part.partition for part in parts]
        starts: Mapping[int, Start] = {}
        try:
            starts = self._on_assigned(numbers)
        except Exception:
            _log.exception("assignment could not be loaded", extra={"partitions": numbers})
        paused = [TopicPartition(self._topic, number, OFFSET_END) for number in numbers if number not in starts]
        try:
            consumer.incremental_assign([self._at(number, start) for number, start in starts.items()] + paused)
            consumer.pause(paused)
        except KafkaException:
            _log.exception("assignment failed", extra={"partitions": numbers})

    def _revoked(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        try:
            self._on_revoked([part.partition for part in parts])
            consumer.incremental_unassign(parts)
        except Exception:
            _log.exception("revocation failed")


def _sort_out(messages: list[Message]) -> Fetched:
    by_partition: dict[int, list[Message]] = {}
    stops: dict[int, tuple[StopReason, str]] = {}
    errors: list[str] = []
    for message in messages:
        error = message.error()
        number = message.partition()
        if number is None:
            errors.append(str(error))
        elif error is None:
            found = by_partition.get(number)
            if found is None:
                by_partition[number] = [message]
            else:
                found.append(message)
        elif error.code() in _STOPS:
            stops[number] = _STOPS[error.code()], error.str()
        elif error.code() != KafkaError._PARTITION_EOF:
            errors.append(f"{error.name()}: {error.str()}")
    return Fetched({number: _columns(found) for number, found in by_partition.items()}, stops, errors)


def _columns(messages: list[Message]) -> list[Records]:
    """Messages of one partition as columns, split where the leader epoch changes."""
    first, last = messages[0], messages[-1]
    if first.leader_epoch() != last.leader_epoch():
        split = next(place for place, message in enumerate(messages) if message.leader_epoch() != first.leader_epoch())
        return _columns(messages[:split]) + _columns(messages[split:])
    start, stop = _offset(first), _offset(last)
    contiguous = stop - start == len(messages) - 1  # offsets ascend
    epoch = last.leader_epoch()
    return [
        Records(
            offsets=range(start, stop + 1) if contiguous else [_offset(message) for message in messages],
            keys=[message.key() for message in messages],
            values=[message.value() for message in messages],
            leader_epoch=-1 if epoch is None else epoch,
        )
    ]


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None  # noqa: S101 - a fetched message has one
    return offset
