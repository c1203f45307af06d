"""Kafka as the operator sees it: the topics, which it makes and has grow, and the group's offsets.

Every call is bounded; what goes wrong is a verdict or a missing snapshot, never an exception.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    TopicDescription,
)
from flowagg.kafka import GroupLooks, InvalidProperties, LookUps, groups_in_place_of, known_offset, log_error
from flowagg.settings import KafkaSettings
from flowagg.topic_rules import judge_topic

from flowagg_operator.committed import Committed
from flowagg_operator.conditions import Verdict
from flowagg_operator.health import TopicHealth, topic_health
from flowagg_operator.lag import Snapshot
from flowagg_operator.spec import Topic

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_OWN_CONFIG: Final = {
    "cleanup.policy": "delete",
    "message.timestamp.type": "LogAppendTime",
    "unclean.leader.election.enable": "false",
}
_LETTERS_CONFIG: Final = {"retention.ms": str(30 * 24 * 3_600_000)}
"""Of the dead letters: a letter that has gone can be mended no more, and somebody has to come to it first."""
_NO_CONNECTION: Final = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._FAIL,
    }
)
_REFUSED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_UNKNOWN_GROUP: Final = frozenset({KafkaError.GROUP_ID_NOT_FOUND, KafkaError.UNSUPPORTED_VERSION})
_TIMES: Final = re.compile(r" \(after \d+ms in state \w+(, \d+ identical error\(s\) suppressed)?\)")
_MARGIN_SECONDS: Final = 1.0
_SEARCH_SECONDS: Final = 4.0
_MOST_SEARCH_SECONDS: Final = 300.0
_SEARCH_WAIT_SECONDS: Final = 1.0
_SAID_SECONDS: Final = 60.0
_REFUSALS: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})


@dataclass(frozen=True, slots=True)
class KafkaLook:
    """What a look at Kafka found. partitions, health: of the topic, None: not known. snapshot: None: lag is unknown,
    trouble says why. done: what was changed, in sentences."""

    verdict: Verdict
    partitions: int | None = None
    snapshot: Snapshot | None = None
    trouble: str = ""
    done: tuple[str, ...] = ()
    health: TopicHealth | None = None


class _Failed(Exception):
    """A look-up failed; the verdict says how."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


class KafkaClient:
    """One Kafka cluster. Not safe for threads."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Raises KafkaException or InvalidProperties for properties that cannot be."""
        self._servers = settings.kafka_bootstrap_servers
        self._timeout_seconds = settings.kafka_timeout_seconds
        self._said, self._said_code, self._said_at = "", 0, 0.0
        own = {"error_cb": self._note}
        self._look_ups = LookUps(settings, "operator", own)
        self._group_looks = GroupLooks(settings, "operator", own)
        self._other_looks = GroupLooks(settings, "operator", own)
        self._committed = Committed(settings, "operator", own)
        self._in_place_of: dict[str, str] = {}
        """Group -> that in which its members were found instead."""
        self._searched = 0
        self._search_at = 0.0
        self._search_pause_seconds = _SEARCH_SECONDS

    def look(self, topic: Topic, group: str, clock: Callable[[], float]) -> KafkaLook:
        """Bring the topics about, judge them, and take a snapshot of the group's offsets."""
        done: list[str] = []
        self._look_ups.client.poll(0)  # serves callbacks and librdkafka's log lines, which would pile up
        self._group_looks.poll()
        self._other_looks.poll()
        try:
            partitions, findings, health = self._topics(topic, done)
        except _Failed as failed:
            if failed.verdict.reason == "Unreachable":
                self._look_ups.failed()
            return KafkaLook(failed.verdict, trouble=failed.verdict.message, done=tuple(done))
        self._look_ups.worked()
        verdict = (
            Verdict("False", "TopicMisconfigured", f"topic {topic.name}: " + "; ".join(findings))
            if findings
            else Verdict("True", "TopicReady", f"topic {topic.name} is there, with its {partitions} partitions")
        )
        try:
            snapshot = self._snapshot(topic.name, partitions, group, clock)
        except _Failed as failed:
            return KafkaLook(verdict, partitions, None, failed.verdict.message, tuple(done), health)
        return KafkaLook(verdict, partitions, snapshot, done=tuple(done), health=health)

    def close(self) -> None:
        """End the clients."""
        self._committed.close()
        self._group_looks.close()
        self._other_looks.close()
        self._look_ups.close()

    def _topics(self, topic: Topic, done: list[str]) -> tuple[int, list[str], TopicHealth]:
        """The topic's partitions, what is wrong with it, and how it is; both topics are made where they are missing."""
        found = self._describe(topic.name)
        if found is None:
            self._create(topic, topic.name, topic.partitions, done)
            found = self._describe(topic.name)
        if self._describe(topic.dead_letters) is None:
            self._create(topic, topic.dead_letters, 1, done)
        if found is None:  # made a moment ago: this broker has not heard of it yet
            raise _Failed(
                Verdict("False", "TopicMissing", f"topic {topic.name} was created; waiting for Kafka to show it")
            )
        partitions, findings = len(found.partitions), list[str]()
        if partitions < topic.partitions:
            partitions = self._grow(topic, partitions, findings, done)
        elif partitions > topic.partitions:
            findings.append(
                f"it has {partitions} partitions, and spec.kafka.topic.partitions is {topic.partitions}: "
                f"partitions cannot be taken away, so set it to {partitions}"
            )
        if topic.keyed_partitions > partitions:
            findings.append(
                f"spec.kafka.topic.keyedPartitions is {topic.keyed_partitions}, more than its {partitions} partitions: "
                "POSTs with an Idempotency-Key are answered 503 until it has grown"
            )
        replicas = min((len(partition.replicas) for partition in found.partitions), default=0)
        if replicas != topic.replication_factor:
            findings.append(
                f"it has {replicas} replicas, and spec.kafka.topic.replicationFactor is {topic.replication_factor}: "
                "the operator does not move replicas; use kafka-reassign-partitions, or set the field to what there is"
            )
        findings += self._settings(topic, replicas, done)
        return partitions, findings, topic_health(found.partitions)

    def _describe(self, name: str) -> TopicDescription | None:
        futures = self._look_ups.client.describe_topics(TopicCollection([name]), request_timeout=self._timeout_seconds)
        try:
            found: TopicDescription = self._result(futures[name])
        except KafkaException as error:
            if _code(error) == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise self._failed(error, f"look at topic {name}") from error
        return found

    def _create(self, topic: Topic, name: str, partitions: int, done: list[str]) -> None:
        config = {**_OWN_CONFIG, **_insync(topic.replication_factor)}
        config |= topic.config if name == topic.name else _LETTERS_CONFIG
        new = NewTopic(name, partitions, topic.replication_factor, config=config)
        options = {"operation_timeout": self._timeout_seconds, "request_timeout": self._timeout_seconds}
        try:
            self._result(self._look_ups.client.create_topics([new], **options)[name])
        except KafkaException as error:
            code = _code(error)
            if code == KafkaError.TOPIC_ALREADY_EXISTS:
                return
            if code in _NO_CONNECTION:
                raise self._failed(error, f"create topic {name}") from error
            advice = f"create it by hand with {partitions} partitions, or let the operator's user create it"
            if code == KafkaError.INVALID_REPLICATION_FACTOR:
                advice = (
                    "set spec.kafka.topic.replicationFactor to at most the number of brokers, or start more of them"
                )
            if code == KafkaError.INVALID_CONFIG:
                advice = "mend spec.kafka.topic.config"
            text = f"topic {name} does not exist and could not be created: {_text(error)}; {advice}"
            raise _Failed(Verdict("False", "TopicMissing", text)) from error
        done.append(f"created topic {name} with {partitions} partitions, replication factor {topic.replication_factor}")

    def _grow(self, topic: Topic, partitions: int, findings: list[str], done: list[str]) -> int:
        """Have the topic grow; the number of its partitions then."""
        wanted = NewPartitions(topic.name, topic.partitions)
        options = {"operation_timeout": self._timeout_seconds, "request_timeout": self._timeout_seconds}
        try:
            self._result(self._look_ups.client.create_partitions([wanted], **options)[topic.name])
        except KafkaException as error:
            if _code(error) in _NO_CONNECTION:
                raise self._failed(error, f"have topic {topic.name} grow") from error
            findings.append(f"it has {partitions} partitions and could not grow to {topic.partitions}: {_text(error)}")
            return partitions
        done.append(f"topic {topic.name} has grown from {partitions} to {topic.partitions} partitions")
        return topic.partitions

    def _settings(self, topic: Topic, replicas: int, done: list[str]) -> list[str]:
        """What is wrong with the topic's settings; those of the spec are brought about first."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic.name)
        try:
            entries = self._result(
                self._look_ups.client.describe_configs([resource], request_timeout=self._timeout_seconds)[resource]
            )
        except KafkaException as error:
            if _code(error) in _REFUSED:
                return []  # this user may not look; the topic works all the same
            raise self._failed(error, f"look at the settings of topic {topic.name}") from error
        found = {name: str(entry.value) for name, entry in entries.items()}
        wrong = {name: value for name, value in topic.config.items() if found.get(name) != value}
        findings: list[str] = []
        if wrong:
            try:
                self._alter(topic.name, wrong)
            except KafkaException as error:
                findings.append(f"spec.kafka.topic.config could not be brought about: {_text(error)}")
            else:
                found |= wrong
                changes = ", ".join(f"{name} = {value}" for name, value in sorted(wrong.items()))
                done.append(f"topic {topic.name}: set {changes}")
        return findings + [str(finding) for finding in judge_topic(found, replicas)]

    def _alter(self, name: str, config: Mapping[str, str]) -> None:
        changes = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in sorted(config.items())
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=changes)
        options = {"request_timeout": self._timeout_seconds}
        self._result(self._look_ups.client.incremental_alter_configs([resource], **options)[resource])

    def _snapshot(self, topic: str, count: int, group: str, clock: Callable[[], float]) -> Snapshot:
        partitions = [TopicPartition(topic, number) for number in range(count)]
        name = self._in_place_of.get(group, group)
        try:
            # 1. What is committed; 2. the watermarks; 3. the group.
            committed = self._committed.look(name, partitions, self._timeout_seconds)
            low = self._offsets(partitions, OffsetSpec.earliest())
            high = self._offsets(partitions, OffsetSpec.latest())
            at = clock()
            state, owners = self._group(self._group_looks, name, topic)
            if owners is not None and not owners:
                self._search(group, name, topic)
            return Snapshot(at, committed, low, high, state, owners)
        except KafkaException as error:
            self._search(group, name, topic)
            raise self._failed(error, "look up offsets") from error

    def _search(self, group: str, name: str, topic: str) -> None:
        """The group has no members, or its coordinator cannot answer: look whether they are in one in its place.

        In one of them at a time, and not for long: a coordinator may take its time to answer, or never do. Then the
        pauses double, for the client is made anew.
        """
        now = time.monotonic()
        if now < self._search_at:
            return
        others = [other for other in groups_in_place_of(group) if other != name]
        other = others[self._searched % len(others)]
        self._searched += 1
        answered = True
        try:
            if self._group(self._other_looks, other, topic, _SEARCH_WAIT_SECONDS)[1]:
                self._in_place_of[group] = other
        except KafkaException as error:
            answered = _code(error) != KafkaError._TIMED_OUT
        pause = _SEARCH_SECONDS if answered else min(2 * self._search_pause_seconds, _MOST_SEARCH_SECONDS)
        self._search_pause_seconds, self._search_at = pause, time.monotonic() + pause

    def _offsets(self, partitions: Iterable[TopicPartition], spec: OffsetSpec) -> dict[int, int]:
        # To the end for readers of committed records: what lies behind an open transaction cannot be applied yet.
        futures = self._look_ups.client.list_offsets(
            dict.fromkeys(partitions, spec),
            request_timeout=self._timeout_seconds,
            isolation_level=IsolationLevel.READ_COMMITTED,
        )
        return {part.partition: known_offset(self._result(future)).offset for part, future in futures.items()}

    def _group(
        self, looks: GroupLooks, group: str, topic: str, wait_seconds: float | None = None
    ) -> tuple[str, dict[str, frozenset[int]] | None]:
        """The group's state, and its members' partitions; empty and None: this broker does not say."""
        try:
            found = self._result(looks.start(group), wait_seconds)
        except KafkaException as error:
            if _code(error) in _UNKNOWN_GROUP | _REFUSED:
                return "", None
            raise
        members = {
            member.member_id: frozenset(
                part.partition for part in member.assignment.topic_partitions if part.topic == topic
            )
            for member in found.members
            if member.assignment is not None
        }
        return found.state.name.title().replace("_", ""), members

    def _result(self, future: "Future[_T]", wait_seconds: float | None = None) -> _T:
        try:
            return future.result(self._timeout_seconds + _MARGIN_SECONDS if wait_seconds is None else wait_seconds)
        except TimeoutError:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None

    def _note(self, error: KafkaError) -> None:
        """librdkafka's error callback: remember why there is no connection.

        After a refusal the connection's end is told too, in words that say less; so is that no broker is left.
        """
        log_error(error)
        refused = self._recent() is not None and self._said_code in _REFUSALS
        if error.code() in _REFUSALS or (error.code() != KafkaError._ALL_BROKERS_DOWN and not refused):
            self._said, self._said_code, self._said_at = _TIMES.sub("", error.str()), error.code(), time.monotonic()

    def _recent(self) -> str | None:
        """Why there is no connection, where that was said a moment ago."""
        return self._said if self._said and time.monotonic() - self._said_at < _SAID_SECONDS else None

    def _failed(self, error: KafkaException, doing: str) -> _Failed:
        self._look_ups.client.poll(0)  # serves the error callback
        code = _code(error)
        if code in _REFUSED:
            text = f"the user may not {doing}: {_text(error)}; grant it, or give another user in kafka.configSecretRef"
            return _Failed(Verdict("False", "AuthorizationFailed", text))
        said = self._recent() if code in _NO_CONNECTION else None
        because = self._said_code if said is not None else None
        text = said or _text(error)
        if because == KafkaError._AUTHENTICATION:
            advice = "look at sasl.* in the Secret of spec.kafka.configSecretRef"
            return _Failed(Verdict("False", "AuthenticationFailed", f"{text}: {advice}"))
        if because == KafkaError._SSL or "SSL " in text:
            advice = "look at ssl.* and security.protocol in the Secret of spec.kafka.configSecretRef"
        else:
            advice = "see that its brokers run, and that spec.kafka.bootstrapServers names them"
        return _Failed(Verdict("False", "Unreachable", f"Kafka at {self._servers} does not answer ({text}): {advice}"))


def connect(settings: Callable[[], KafkaSettings]) -> KafkaClient | Verdict:
    """A client, or what is wrong with the properties."""
    try:
        return KafkaClient(settings())
    except (KafkaException, InvalidProperties) as error:
        text = f"spec.kafka.configSecretRef: {_text(error) if isinstance(error, KafkaException) else error}"
        return Verdict("False", "InvalidProperties", text)


def _insync(replicas: int) -> dict[str, str]:
    return {"min.insync.replicas": str(2 if replicas >= 3 else 1)}


def _code(error: KafkaException) -> Any:
    return error.args[0].code() if error.args and isinstance(error.args[0], KafkaError) else None


def _text(error: KafkaException) -> str:
    return str(error.args[0].str() if error.args and isinstance(error.args[0], KafkaError) else error)
