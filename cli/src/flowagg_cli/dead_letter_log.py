"""Kafka as `flowagg dead-letters` sees it: letters and the journal to read, and the transactions that replay."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import ConfigResource, NewTopic, OffsetSpec
from flowagg.flow import encode_key, encode_value
from flowagg.kafka import (
    KafkaUnavailable,
    LookUps,
    Topic,
    TopicMissing,
    client_properties,
    describe_topic,
    end_offsets,
    known_offset,
    look_up_error,
    topic_of,
)

from flowagg_cli.dead_letter_files import Replay
from flowagg_cli.dead_letter_records import (
    Journal,
    Kind,
    Letter,
    Marker,
    Place,
    decode_letter,
    encode_marker,
    marker_key,
)
from flowagg_cli.dead_letter_settings import DeadLetterSettings
from flowagg_cli.errors import CommandError, Refused

_MESSAGES: Final = 1000
_POLL_SECONDS: Final = 0.2
_TRIES: Final = 3
_RETRY_SECONDS: Final = 0.2
_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})
_PASSES: Final = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE})
JOURNAL_CONFIG: Final = {"cleanup.policy": "compact"}
_T = TypeVar("_T")

AGAIN: Final = "run the same command again: it reads what was done and goes on from there"


class NotReplayed(CommandError):
    """A transaction did not come to its end, as far as this process knows."""


class JournalMisconfigured(Refused):
    """The journal's topic could forget what was replayed."""


class DeadLetterLog:
    """The flows topic, its dead-letter topic and its journal. A context manager."""

    def __init__(self, settings: DeadLetterSettings) -> None:
        self._settings = settings
        self._timeout_seconds = settings.kafka_timeout_seconds
        self._look_ups = LookUps(settings, "dead-letters")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._look_ups.close()

    def topic(self, name: str) -> Topic:
        """A topic as it is now. Raises TopicMissing, KafkaUnavailable."""
        return topic_of(self._result(describe_topic(self._look_ups.client, name, self._timeout_seconds), name))

    def letters(self, wanted: Callable[[Letter], bool]) -> tuple[dict[Place, Letter], int]:
        """The wanted letters of the flows topic, copies made one, in the order in which they were first written.

        wanted: asked about the first copy of each. Also how many records are no letters of this topic. Raises
        TopicMissing, KafkaUnavailable.
        """
        found: dict[Place, Letter] = {}
        others: set[Place] = set()
        strange = 0
        for message in self._read(self._settings.letters):
            headers = dict(message.headers() or [])
            letter = decode_letter(headers, message.key(), message.value(), message.timestamp()[1])
            if letter is None or letter.topic != self._settings.kafka_topic:
                strange += 1
                continue
            known = found.get(letter.place)
            if known is not None:
                found[letter.place] = known.with_copy(letter)
            elif letter.place not in others:
                if wanted(letter):
                    found[letter.place] = letter
                else:
                    others.add(letter.place)
        return found, strange

    def journal(self, *, there: bool = False) -> Journal:
        """What was done about letters; nothing without a journal. Raises DamagedJournal, KafkaUnavailable.

        there: it was seen to be there, so where a broker does not know it, that is an error: taken for nothing, all
        letters would be replayed again.
        """
        journal = Journal()
        try:
            for message in self._read(self._settings.journal):
                journal.take(message.key(), message.value())
        except TopicMissing:
            if there:
                raise KafkaUnavailable(f"Kafka does not show topic {self._settings.journal} now: {AGAIN}") from None
        return journal

    def ensure_journal(self) -> None:
        """See that there is a journal that never forgets; make it where there is none.

        Raises JournalMisconfigured, KafkaUnavailable, and TopicMissing where it cannot be made.
        """
        name, client = self._settings.journal, self._look_ups.client
        try:
            self.topic(name)
        except TopicMissing:
            replicas = self._replicas()
            config = JOURNAL_CONFIG | ({"min.insync.replicas": "2"} if replicas >= 3 else {})
            new = NewTopic(name, 1, replicas, config=config)
            try:
                client.create_topics([new], operation_timeout=self._timeout_seconds)[name].result(
                    self._timeout_seconds + 1
                )
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise TopicMissing(
                        f"the journal of replayed letters, topic {name}, could not be created ({error.args[0].str()}): "
                        "create it with 1 partition and cleanup.policy=compact"
                    ) from error
            self._until(lambda: self.topic(name), name)
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        asked = client.describe_configs([resource], request_timeout=self._timeout_seconds)[resource]
        policy = str(self._result(asked, name)["cleanup.policy"].value)
        if policy != "compact":
            raise JournalMisconfigured(
                f"topic {name} has cleanup.policy={policy}, so it could forget what was replayed, and a replay would "
                "count it twice: set it to compact, if it has not been deleting"
            )

    def _replicas(self) -> int:
        """As many as the flows topic has."""
        name = self._settings.kafka_topic
        future = describe_topic(self._look_ups.client, name, self._timeout_seconds)
        return min(len(partition.replicas) for partition in self._result(future, name).partitions)

    def _until(self, condition: Callable[[], _T], name: str) -> _T:
        """The condition's result once the topic is known to the brokers that are asked."""
        deadline = time.monotonic() + self._timeout_seconds
        while True:
            try:
                return condition()
            except TopicMissing:
                if time.monotonic() > deadline:
                    raise KafkaUnavailable(f"topic {name} was created; Kafka does not show it yet: {AGAIN}") from None
                time.sleep(_RETRY_SECONDS)

    def _result(self, future: "Future[_T]", topic: str) -> _T:
        try:
            return future.result(self._timeout_seconds + 1)
        except KafkaException as error:
            raise look_up_error(error, topic) from error
        except TimeoutError as error:
            raise KafkaUnavailable("Kafka did not answer in time") from error

    def _read(self, topic: str) -> Iterator[Message]:
        """All committed records of a topic up to its end as it is now. Raises TopicMissing, KafkaUnavailable.

        To the high watermark, not only to the last stable offset: what stands behind a transaction that is still open
        may be a marker, so it is waited for.
        """
        known = self.topic(topic)
        client = self._look_ups.client
        ends = self._offsets(end_offsets(client, topic, known.partitions, self._timeout_seconds), topic)
        request = {TopicPartition(topic, number): OffsetSpec.earliest() for number in known.partitions}
        starts = self._offsets(
            {
                part.partition: future
                for part, future in client.list_offsets(request, request_timeout=self._timeout_seconds).items()
            },
            topic,
        )
        left = {number: end for number, end in ends.items() if end > starts[number]}
        if not left:
            return
        own = {
            "group.id": "flowagg-dead-letters",  # never joined, and nothing is committed
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
        }
        with closing(Consumer(client_properties(self._settings, "dead-letters", own))) as consumer:
            consumer.assign([TopicPartition(topic, number, starts[number]) for number in left])
            yield from self._consume(consumer, topic, left)

    def _consume(self, consumer: Consumer, topic: str, left: dict[int, int]) -> Iterator[Message]:
        """Committed records until all ends in `left` are reached."""
        patience = self._settings.dead_letter_read_seconds
        heard_at = time.monotonic()
        while left:
            for message in consumer.consume(_MESSAGES, _POLL_SECONDS):
                error, number, offset = message.error(), message.partition(), message.offset()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    if error.code() in _PASSES or error.retriable():
                        continue
                    raise KafkaUnavailable(f"topic {topic} cannot be read: {error.str()}")
                if number is None or offset is None or number not in left:
                    continue
                end = left[number]
                if error is None:
                    heard_at = time.monotonic()
                    if offset < end:
                        yield message
                    offset += 1
                if offset >= end:
                    del left[number]
            if time.monotonic() - heard_at > patience:
                raise KafkaUnavailable(
                    f"topic {topic} could not be read to its end: no record for {patience:g} s. Kafka is slow or away, "
                    f"or another producer's transaction is still open there: {AGAIN}"
                )

    def _offsets(self, futures: "Mapping[int, Future[Any]]", topic: str) -> dict[int, int]:
        try:
            return {
                number: known_offset(future.result(self._timeout_seconds + 1)).offset
                for number, future in futures.items()
            }
        except KafkaException as error:
            raise look_up_error(error, topic) from error
        except TimeoutError as error:
            raise KafkaUnavailable("Kafka did not answer in time") from error


class Replayer:
    """The one producer that may write the journal of a topic: whoever begins fences all who began before.

    Begun with init_transactions; what an earlier one had left open is aborted by it. So a journal that is read
    afterwards holds all that was ever replayed, and whatever is appended later by anyone else fences this one first.
    """

    def __init__(self, settings: DeadLetterSettings) -> None:
        self._settings = settings
        self._seconds = settings.replay_transaction_seconds + settings.kafka_timeout_seconds
        transaction_ms = int(settings.replay_transaction_seconds * 1000)
        own = {
            "transactional.id": f"flowagg-replay-{settings.journal}",
            "partitioner": "murmur2_random",  # the writer's: a flow key stays on its partition
            "compression.type": "lz4",
        }
        # Over the user's file: librdkafka refuses a producer whose messages may outlast its transactions.
        bounds = {"transaction.timeout.ms": transaction_ms, "message.timeout.ms": transaction_ms}
        self._producer = Producer(client_properties(settings, "dead-letters", own) | bounds)
        with self._told("no replay could be begun"):
            self._retried(self._producer.init_transactions)

    def replay(self, chunk: Sequence[Replay], by: str, note: str) -> None:
        """Append flows and their markers, all of them or none. Raises NotReplayed."""

        def fill() -> None:
            for item in chunk:
                flow, place = item.flow, item.place
                self._produce(
                    self._settings.kafka_topic,
                    encode_key(flow.src_app, flow.dest_app, flow.vpc_id, flow.hour),
                    encode_value(flow.bytes_tx, flow.bytes_rx),
                    [
                        ("flowagg-replayed-topic-id", place.topic_id.encode()),
                        ("flowagg-replayed-partition", str(place.partition).encode()),
                        ("flowagg-replayed-offset", str(place.offset).encode()),
                    ],
                )
                self._mark(Kind.REPLAYED, place, Marker(by, note, item.mark))

        self._transaction(fill)

    def dismiss(self, chunk: Sequence[Place], marker: Marker | None) -> None:
        """Mark letters as done without, or with None no longer so; all of them or none. Raises NotReplayed."""

        def fill() -> None:
            for place in chunk:
                self._mark(Kind.DISMISSED, place, marker)

        self._transaction(fill)

    def commit(self) -> None:
        """Commit the transaction in hand, or say that it is not known to be. Raises KafkaException."""
        self._retried(self._producer.commit_transaction)

    def _mark(self, kind: Kind, place: Place, marker: Marker | None) -> None:
        value = None if marker is None else encode_marker(marker)
        self._produce(self._settings.journal, marker_key(kind, place), value, [])

    def _produce(self, topic: str, key: bytes, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        # Without a callback: a record that fails fails the commit, too, and a callback that is called while a
        # fatal error is on its way up was seen to end in a SystemError.
        while True:
            try:
                self._producer.produce(topic, value, key, headers=list(headers))
            except BufferError:
                self._producer.poll(_POLL_SECONDS)
            else:
                return

    def _transaction(self, fill: Callable[[], None]) -> None:
        with self._told("a transaction did not come to its end"):
            self._producer.begin_transaction()
            fill()
            self.commit()

    def _retried(self, step: Callable[[float], None]) -> None:
        """A step of the transaction, again where librdkafka says that it may be. Raises KafkaException."""
        for left in reversed(range(_TRIES)):
            try:
                step(self._seconds)
            except KafkaException as error:
                if not left or not error.args[0].retriable():
                    raise
                time.sleep(_RETRY_SECONDS)
            else:
                return

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Kafka's errors as the project's own."""
        try:
            yield
        except KafkaException as error:
            found: KafkaError = error.args[0]
            if found.txn_requires_abort():
                try:
                    self._producer.abort_transaction(self._seconds)
                except KafkaException as more:
                    raise NotReplayed(f"{what}: {found.str()}, then {more.args[0].str()}; {AGAIN}") from error
                raise NotReplayed(f"a transaction was aborted, nothing of it counts: {found.str()}; {AGAIN}") from error
            # A fatal error that comes up later than where it arose has a code of its own, and the reason in its text.
            if found.code() in _FENCED or (found.code() == KafkaError._FATAL and "fenced" in found.str()):
                raise NotReplayed(
                    f"another replay of this topic has begun, and this one goes no further ({found.str()}); {AGAIN}"
                ) from error
            raise NotReplayed(f"{what}: {found.str()}; {AGAIN}") from error
