"""Kafka as the consumer sees it: the log, the group, the topic, and the dead-letter topic."""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ListOffsetsResultInfo, OffsetSpec, TopicDescription
from flowagg.kafka import (
    GroupLooks,
    KafkaUnavailable,
    LookUps,
    TopicMissing,
    admin_properties,
    client_properties,
    describe_topic,
    group_names,
    known_offset,
    look_up_error,
    resolve_topic,
)
from flowagg.topic_rules import Finding, judge_topic
from flowagg_native.client import ClientRefuses, with_plugin
from flowagg_native.intake import Intake

from flowagg_consumer import effects as fx
from flowagg_consumer.gathered import Gathered
from flowagg_consumer.groups import Groups
from flowagg_consumer.membership import Membership
from flowagg_consumer.native import NativeRecords
from flowagg_consumer.pace import Pace
from flowagg_consumer.partition import DeadLetter
from flowagg_consumer.settings import ConsumerSettings
from flowagg_consumer.silence import Silence

_log = logging.getLogger(__name__)

_FEATURE_POLLS: Final = 30
_JOIN_SECONDS: Final = 1.0  # between tries
_LEAD_SECONDS: Final = 1.0
_SEEK_PAUSE_SECONDS: Final = 0.001
_QUEUED_MESSAGES: Final = 40_000  # fetched ahead, within FLOWAGG_PREFETCH_BYTES
_MOST_MESSAGES: Final = 1_000
"""So many at a time are folded while they are in the processor's caches, and their memory serves the next ones."""
_MOST_TAKEN: Final = 4_000
"""By the compiled library, in which they are smaller; each fetch costs the same in Python, whatever it brings."""

# Brokers that do not know the question, and users that may not ask it.
_UNTOLD: Final = {
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}


class Log:
    """A member of the view's consumer group, an admin client and a producer of dead letters.

    rejoins: members that a new one took the place of.
    """

    def __init__(self, settings: ConsumerSettings) -> None:
        self._topic = settings.kafka_topic
        self._dead_letter_topic = settings.dead_letter_topic or f"{settings.kafka_topic}.dead-letters"
        self._timeout_seconds = settings.kafka_timeout_seconds
        self._most = min(_MOST_TAKEN if settings.native else _MOST_MESSAGES, settings.batch_records)
        rate = settings.flows_per_second
        self._pace = None if rate is None else Pace(rate, time.monotonic())
        self._revoked: list[int] = []
        self._assigned: list[int] = []
        self._commit_failed = False
        self._waiting: dict[int, int] = {}
        self._ended: dict[int, int] = {}  # where the log ended, for whoever reads what is committed
        self.rejoins = 0
        self._settings = settings
        self._owned: set[int] = set()
        self._tried_at = float("-inf")
        self._consumer: Consumer | None = None
        self._intake: Intake | None = None
        self._led_at = 0.0
        self._membership: Membership | None = None
        self._silence = Silence(settings.silence_seconds)
        self._groups = Groups(
            group_names(settings.view), settings.group_patience_seconds, settings.membership_check_seconds
        )
        self._join()
        if self._consumer is None:
            Consumer(self._properties("classic")).close()  # wrong properties end the process, also without Kafka
        self._look_ups = LookUps(settings, "consumer")
        self._group_looks = GroupLooks(settings, "consumer")
        self._earlier_looks = GroupLooks(settings, "consumer")  # at groups that it is not in
        letters = {
            "enable.idempotence": True,
            "linger.ms": 0,
            "message.timeout.ms": int(settings.kafka_timeout_seconds * 1000),
        }
        self._producer = Producer(client_properties(settings, "consumer-dead-letters", letters))

    def _properties(self, protocol: str) -> dict[str, Any]:
        """What makes a member of the group."""
        settings = self._settings
        max_poll_seconds = max(settings.max_poll_seconds, 3 * settings.kafka_timeout_seconds)
        own = {
            "group.id": self._groups.name,
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            # Each wait of the loop is bounded by seconds. Kafka's default of 5 minutes would be how long a revocation
            # that nobody answers keeps a partition from its next owner.
            "max.poll.interval.ms": int(max_poll_seconds * 1000),
            "fetch.wait.max.ms": 100,
            "queued.min.messages": _QUEUED_MESSAGES,
            "queued.max.messages.kbytes": settings.prefetch_bytes // 1024,
            # Small replies: librdkafka keeps a reply whole while one of its records is in use. Measured at
            # equal speed: 107 MiB of memory instead of 151 with the default of 1 MiB.
            "fetch.message.max.bytes": max(64 * 1024, settings.prefetch_bytes // 32),
            # librdkafka waits 1 s by default before it fetches again for a full queue: measured,
            # 174 k flows/s instead of 308 k.
            "fetch.queue.backoff.ms": 5,
            "on_commit": self._on_commit,
        }
        if protocol == "consumer":
            own["group.protocol"] = "consumer"  # KIP-848: the broker assigns, and says how often to call
        else:
            own |= {
                "partition.assignment.strategy": "cooperative-sticky",
                # librdkafka refuses a session that outlives it.
                "session.timeout.ms": int(min(settings.session_timeout_seconds, max_poll_seconds) * 1000),
                "heartbeat.interval.ms": int(settings.heartbeat_seconds * 1000),
            }
        return client_properties(settings, "consumer", own)

    def _join(self) -> None:
        """Become a member of the group, unless the protocol is the broker's to say and it does not answer.

        Never by a guess: members of the classic protocol and of KIP-848 in one group were seen to keep a later one
        out for good.
        """
        self._tried_at = time.monotonic()
        protocol: str = self._settings.group_protocol
        if protocol == "auto":
            speaks = _speaks_consumer_protocol(self._settings)
            if speaks is None:
                return
            protocol = "consumer" if speaks else "classic"
        _log.info("group", extra={"protocol": protocol, "group": self._groups.name})
        self._membership = (
            Membership(self._topic, self._settings.membership_check_seconds) if protocol == "consumer" else None
        )
        native = self._settings.native
        properties = self._properties(protocol)
        self._consumer = Consumer(with_plugin(properties) if native else properties)
        self._intake = Intake() if native else None
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    def _give_up(self, member: Consumer, reason: str) -> None:
        """Part with a member that takes part no more; a new one takes its place.

        librdkafka ends a member for good where the coordinator does not know its group (KIP-848): a broker
        that was replaced, or is still loading its groups.
        """
        _log.error("the group's member takes part no more; a new one takes its place", extra={"reason": reason})
        self.rejoins += 1
        self._consumer = None
        self._close_intake()
        self._silence.ended(self._owned)
        self._revoked += sorted(self._owned)
        self._assigned = []
        self._owned = set()
        # It may wait for answers that do not come.
        threading.Thread(target=member.close, name="leave-group", daemon=True).start()

    def _check_member(self) -> None:
        """Leave the group where its member will not go on by itself; fetch() joins anew."""
        member, membership, now = self._consumer, self._membership, time.monotonic()
        if member is None:
            return
        found = self._groups.check(now, self._group_looks.start, self._earlier_looks.start)
        if found is None:
            found = self._silence.stuck(now, self._start_ends)
        if found is None and membership is not None:
            ask = partial(self._group_looks.start, self._groups.name)
            found = membership.disagreement(now, member.memberid, self._owned, ask)
        if found is not None:
            self._give_up(member, found)

    def _start_ends(self, numbers: list[int]) -> "dict[int, Future[ListOffsetsResultInfo]]":
        request = {TopicPartition(self._topic, number): OffsetSpec.latest() for number in numbers}
        futures = self._look_ups.client.list_offsets(
            request, request_timeout=self._timeout_seconds, isolation_level=IsolationLevel.READ_COMMITTED
        )
        return {part.partition: future for part, future in futures.items()}

    def keep_pace(self, wait_seconds: float) -> None:
        """Wait where no more records may be taken yet, but not longer than that."""
        if self._pace is not None:
            time.sleep(min(wait_seconds, self._pace.wait_seconds(time.monotonic())))

    def fetch(self, wait_seconds: float, linger_seconds: float) -> fx.Fetched:
        """Wait for a record, and once there is one for more."""
        self._check_member()
        if self._consumer is None and time.monotonic() >= self._tried_at + _JOIN_SECONDS:
            self._join()
        member = self._consumer
        if member is None:
            time.sleep(wait_seconds)
            return fx.Fetched(errors=["Kafka does not answer: the group is joined once it does"])
        most = self._most
        if self._pace is not None:
            most = min(most, self._pace.room(time.monotonic()))
        gathered = self._gather(member, most, wait_seconds, linger_seconds)
        if gathered.fatal is not None:
            self._give_up(member, gathered.fatal)
        if self._pace is not None:
            self._pace.took(gathered.count)
        revoked, assigned, self._revoked, self._assigned = self._revoked, self._assigned, [], []
        failed, self._commit_failed = self._commit_failed, False
        places = _places(gathered)
        self._ended |= gathered.ends
        self._silence.took(places, drained=gathered.messages < most)
        # A rate is no backlog: what waits because of it is not to wait for longer batches, too.
        if self._pace is None and (places or self._waiting):
            self._waiting = self._count_waiting(member)
        return fx.Fetched(
            revoked,
            assigned,
            gathered.by_partition,
            gathered.ends,
            gathered.stops,
            gathered.errors,
            failed,
            self._waiting,
        )

    def _count_waiting(self, member: Consumer) -> dict[int, int]:
        """By partition, how many records there are beyond those that came, as far as the client knows."""
        waiting = {}
        for number, place in self._silence.places.items():
            if self._ended.get(number) == place:
                continue  # what is behind it belongs to a transaction that is open
            try:
                _, end = member.get_watermark_offsets(TopicPartition(self._topic, number), cached=True)
            except KafkaException:  # not known yet
                continue
            if end > place:
                waiting[number] = end - place
        return waiting

    def _gather(self, member: Consumer, most: int, wait_seconds: float, linger_seconds: float) -> Gathered:
        intake = self._intake
        if intake is None:
            return Gathered(_consume(member, most, wait_seconds, linger_seconds) if most else [])
        if time.monotonic() >= self._led_at + _LEAD_SECONDS:
            self._led_at = time.monotonic()
            self._lead(self._owned)  # should any of them have been stopped unseen
        event = member.poll(0)  # the group's callbacks, and errors of no partition
        gathered = Gathered([] if event is None else [event])
        for runs in gathered.by_partition.values():  # not seen: no record comes this way
            runs[:] = map(NativeRecords.of, runs)
        if most:
            gathered.add(intake.take(most, wait_seconds, linger_seconds))
        return gathered

    def _lead(self, numbers: Iterable[int]) -> None:
        """Have records of partitions taken by the intake.

        librdkafka leads them nowhere once a partition is stopped, which it has done when the assignment after that
        returns: the requests go through one queue. What has come meanwhile is led, too.
        """
        if self._intake is not None:
            try:
                for number in numbers:
                    self._intake.lead(self._topic, number)
            except ClientRefuses as error:  # tried again soon
                _log.warning("a partition's records are not taken", extra={"reason": str(error)})

    def _close_intake(self) -> None:
        if self._intake is not None:
            self._intake.close()
            self._intake = None

    def start_describe(self) -> "Future[TopicDescription]":
        """Start a description of the topic; resolve it with await_topic()."""
        return describe_topic(self._look_ups.client, self._topic, self._timeout_seconds)

    def await_topic(self, description: "Future[TopicDescription]") -> str:
        """The topic's id. Raises LogAway."""
        try:
            topic_id = resolve_topic(description, self._topic, self._timeout_seconds, self._look_ups).topic_id
        except KafkaUnavailable as error:
            if not isinstance(error, TopicMissing):
                self._look_ups.failed()
            raise fx.LogAway(str(error)) from error
        self._look_ups.worked()
        return topic_id

    def watermarks(self, partitions: Iterable[int]) -> dict[int, fx.Bounds]:
        """Where the log of partitions begins and ends. Raises LogAway."""
        numbers = list(partitions)
        if not numbers:
            return {}
        low = self._offsets(numbers, OffsetSpec.earliest())
        high = self._offsets(numbers, OffsetSpec.latest())
        return {n: fx.Bounds(low[n].offset, high[n].offset, _epoch(high[n].leader_epoch)) for n in numbers}

    def check_topic(self) -> list[Finding]:
        """What is wrong with the topic's settings; nothing where Kafka does not tell them. Raises LogAway."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, self._topic)
        asked = self._look_ups.client.describe_configs([resource], request_timeout=self._timeout_seconds)[resource]
        description = self.start_describe()
        try:
            settings = {name: str(entry.value) for name, entry in asked.result(self._timeout_seconds + 1).items()}
            partitions = description.result(self._timeout_seconds + 1).partitions
        except KafkaException as error:
            if error.args[0].code() in _UNTOLD:
                _log.warning("the topic's settings are not known", extra={"reason": str(error)})
                return []
            raise fx.LogAway(str(look_up_error(error, self._topic))) from error
        except TimeoutError as error:
            raise fx.LogAway("Kafka did not answer in time") from error
        return judge_topic(settings, min((len(part.replicas) for part in partitions), default=1))

    @property
    def _member(self) -> Consumer:
        """The member that owns partitions. Raises LogAway where there is none any more."""
        if self._consumer is None:
            raise fx.LogAway("this consumer is in no group at the moment")
        return self._consumer

    def restart(self, number: int, start: fx.Start) -> None:
        """Fetch an owned partition from start on; what was fetched before is dropped. Raises LogAway."""
        part = TopicPartition(self._topic, number, start.offset)
        try:
            self._member.incremental_unassign([part])
            self._member.pause([part])  # outlives assignments: nothing is fetched until all is said
            self._member.incremental_assign([part])
            self._lead([number])
            if start.offset > 0 and start.leader_epoch >= 0:
                self._seek(TopicPartition(self._topic, number, start.offset, leader_epoch=start.leader_epoch))
            self._member.resume([part])
            self._silence.started(number, start.offset)
        except KafkaException as error:  # taken away meanwhile: the next fetch tells
            raise fx.LogAway(f"partition {number} could not be started: {error}") from error

    def _seek(self, part: TopicPartition) -> None:
        """Have the leader asked whether the log still holds what was applied (KIP-320).

        librdkafka asks on a seek with an epoch. Assigned with one it asks only once the leader
        changes: measured, a log that was truncated before the assignment was read on in silence.
        Just assigned, a partition may not be ready for a seek yet.
        """
        deadline = time.monotonic() + self._timeout_seconds
        while True:
            try:
                self._member.seek(part)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._STATE or time.monotonic() > deadline:
                    raise
                time.sleep(_SEEK_PAUSE_SECONDS)
            else:
                return

    def pause(self, number: int) -> None:
        """Fetch nothing more of a partition until restart()."""
        self._silence.ended([number])
        try:
            self._member.pause([TopicPartition(self._topic, number)])
        except (KafkaException, fx.LogAway) as error:
            _log.info("not paused", extra={"partition": number, "reason": str(error)})

    def commit(self, positions: Mapping[int, int]) -> None:
        """Step 7: tell Kafka the positions, for lag tools; never read back. Failures are only logged."""
        try:
            offsets = [TopicPartition(self._topic, number, position) for number, position in positions.items()]
            self._member.commit(offsets=offsets, asynchronous=True)
        except (KafkaException, fx.LogAway) as error:
            _log.warning("commit failed", extra={"reason": str(error)})

    def send_dead_letters(self, partition: int, topic_id: str, letters: Iterable[DeadLetter]) -> None:
        """Produce letters and wait for every acknowledgement. Raises DeadLettersAway.

        Copies are at least once: topic id, partition and offset in the headers tell them apart.
        """
        failed: list[str] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed.append(error.str())

        for letter in letters:
            headers: list[tuple[str, str | bytes | None]] = [
                ("flowagg-topic", self._topic),
                ("flowagg-topic-id", topic_id),
                ("flowagg-partition", str(partition)),
                ("flowagg-offset", str(letter.offset)),
                ("flowagg-reason", letter.reason.value),
                ("flowagg-detail", letter.detail[:1000]),
            ]
            try:
                self._producer.produce(
                    self._dead_letter_topic, letter.value, letter.key, on_delivery=delivered, headers=headers
                )
            except (BufferError, KafkaException) as error:
                failed.append(str(error))
        left = self._producer.flush(self._timeout_seconds + 1)
        if left or failed:
            self._producer.purge()
            self._producer.flush(1)
            reason = failed[0] if failed else "no answer in time"
            raise fx.DeadLettersAway(f"the dead-letter topic {self._dead_letter_topic} takes no records: {reason}")

    def serve_logs(self) -> None:
        """Hand librdkafka's log lines of the other clients on; unserved they would pile up."""
        self._look_ups.client.poll(0)
        self._group_looks.poll()
        self._earlier_looks.poll()
        self._producer.poll(0)

    def close(self) -> None:
        """Leave the group."""
        self._close_intake()
        if self._consumer is not None:
            self._consumer.close()
        self._group_looks.close()
        self._earlier_looks.close()
        self._look_ups.close()

    def _offsets(self, numbers: list[int], spec: Any) -> dict[int, Any]:
        request = {TopicPartition(self._topic, number): spec for number in numbers}
        futures = self._look_ups.client.list_offsets(request, request_timeout=self._timeout_seconds)
        try:
            waited = self._timeout_seconds + 1
            return {part.partition: known_offset(future.result(waited)) for part, future in futures.items()}
        except KafkaException as error:
            self._look_ups.failed()
            raise fx.LogAway(str(look_up_error(error, self._topic))) from error
        except TimeoutError as error:
            self._look_ups.failed()
            raise fx.LogAway("Kafka did not answer in time") from error

    # Callbacks run inside consume() or poll(). They never raise and never assign nothing: confluent-kafka
    # would then assign by itself, at the offsets committed to Kafka. So everything is assigned,
    # paused, and started by the core once it knows the stored position. At an offset of its own, not at
    # OFFSET_END: librdkafka looks that up, and where the partition was started meanwhile it asks again
    # and jumps to the end.
    def _on_assign(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        if consumer is not self._consumer:
            return  # of a member that has failed
        try:
            self._assigned += [part.partition for part in parts]
            self._owned.update(part.partition for part in parts)
            consumer.incremental_assign([TopicPartition(self._topic, part.partition, 0) for part in parts])
            consumer.pause(parts)
            self._lead(part.partition for part in parts)
        except Exception:
            _log.exception("assignment failed")

    def _on_revoke(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        if consumer is not self._consumer:
            return
        try:
            numbers = [part.partition for part in parts]
            self._owned.difference_update(numbers)
            self._silence.ended(numbers)
            self._revoked += numbers
            self._assigned = [number for number in self._assigned if number not in numbers]
            consumer.incremental_unassign(parts)
        except Exception:
            _log.exception("revocation failed")

    def _on_commit(self, error: KafkaError | None, _: list[TopicPartition]) -> None:
        if error is not None:
            _log.info("commit failed, tried again", extra={"reason": error.str()})
            self._commit_failed = True


def _speaks_consumer_protocol(settings: ConsumerSettings) -> bool | None:
    """Whether the broker has ConsumerGroupHeartbeat (KIP-848); None where no broker answers.

    No client API tells; librdkafka's log of a broker's features does. Where it cannot be had of a broker
    that answers, the answer is no: the classic protocol works everywhere.
    """
    seen: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    listener = logging.Logger("librdkafka.features")
    listener.addHandler(Listener())
    probe = AdminClient(admin_properties(settings, "consumer") | {"debug": "feature", "logger": listener})
    try:
        probe.list_topics(topic=settings.kafka_topic, timeout=settings.kafka_timeout_seconds)
    except KafkaException as error:
        _log.warning("waiting for kafka, to know its group protocol", extra={"reason": str(error)})
        return None
    for _ in range(_FEATURE_POLLS):
        probe.poll(0.01)
        if any("ConsumerGroupHeartbeat" in line and "Versions" in line for line in seen):
            return True
    return False


def _consume(member: Consumer, most: int, wait_seconds: float, linger_seconds: float) -> list[Message]:
    """Messages: the first one is waited for, then others for a shorter time."""
    messages = member.consume(1, wait_seconds)
    if messages and most > 1:
        messages += member.consume(most - 1, linger_seconds)
    return messages


def _places(gathered: Gathered) -> dict[int, int]:
    """By partition, the next offset to come."""
    places = dict(gathered.ends)
    for number, runs in gathered.by_partition.items():
        places[number] = max(places.get(number, 0), runs[-1].offsets[-1] + 1)
    return places


def _epoch(epoch: int | None) -> int:
    return -1 if epoch is None else epoch
