"""A member of the group that has failed for good: librdkafka says so by a message and does nothing more."""

from typing import Any, ClassVar

import pytest
from confluent_kafka import KafkaError, Message, TopicPartition
from flowagg_consumer import log as log_module
from flowagg_consumer.log import Log
from flowagg_consumer.settings import ConsumerSettings


def failure(code: int) -> Message:
    """A message that holds an error alone."""
    return Message(error=KafkaError(code, "the group id does not exist"))


class Member:
    """Kafka's consumer, as far as a group goes."""

    made: ClassVar[list["Member"]] = []

    def __init__(self, properties: dict[str, Any]) -> None:
        self.properties = properties
        self.messages: list[Message] = []
        self.closed = False
        self.given: list[int] = []
        Member.made.append(self)

    def subscribe(self, _: list[str], **callbacks: Any) -> None:
        self.callbacks = callbacks

    def consume(self, _: int, __: float) -> list[Message]:
        found, self.messages = self.messages, []
        return found

    def incremental_assign(self, parts: list[TopicPartition]) -> None:
        self.given += [part.partition for part in parts]

    def incremental_unassign(self, parts: list[TopicPartition]) -> None:
        for part in parts:
            self.given.remove(part.partition)

    def pause(self, _: list[TopicPartition]) -> None: ...

    def get_watermark_offsets(self, _: TopicPartition, **__: bool) -> tuple[int, int]:
        return 0, -1001  # as before anything has come

    def close(self) -> None:
        self.closed = True


def parts(*numbers: int) -> list[TopicPartition]:
    return [TopicPartition("flows", number) for number in numbers]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    Member.made = []
    monkeypatch.setattr(log_module, "Consumer", Member)
    monkeypatch.setattr(log_module, "_JOIN_SECONDS", 0.0)
    return Log(ConsumerSettings(group_protocol="classic", native=False))


def test_a_member_that_has_failed_for_good_is_replaced_and_its_partitions_are_given_up(log: Log) -> None:
    (old,) = Member.made
    old.callbacks["on_assign"](old, parts(0, 1, 2))
    old.callbacks["on_revoke"](old, parts(1))
    assert log.fetch(0, 0).assigned == [0, 2]
    old.messages = [failure(KafkaError._FATAL)]
    fetched = log.fetch(0, 0)
    assert (fetched.assigned, fetched.revoked) == ([], [0, 2])
    assert "the group id does not exist" in fetched.errors[0]
    assert log.fetch(0, 0).records == {}
    _, new = Member.made
    # What the old one is told while it leaves is nothing of the new one's.
    old.callbacks["on_revoke"](old, parts(0, 2))
    new.callbacks["on_assign"](new, parts(0))
    fetched = log.fetch(0, 0)
    assert (fetched.assigned, fetched.revoked) == ([0], [])
    assert new.given == [0]


def test_no_protocol_is_guessed_while_no_broker_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [None, None, True]
    monkeypatch.setattr(log_module, "_speaks_consumer_protocol", lambda _: answers.pop(0))
    monkeypatch.setattr(log_module, "_JOIN_SECONDS", 0.0)
    monkeypatch.setattr(log_module, "Consumer", Member)
    Member.made = []
    log = Log(ConsumerSettings(native=False))
    (probe,) = Member.made  # of the properties alone
    assert probe.closed
    assert "Kafka does not answer" in log.fetch(0, 0).errors[0]
    assert len(Member.made) == 1
    assert log.fetch(0, 0).errors == []
    assert Member.made[1].properties["group.protocol"] == "consumer"


def test_a_member_with_an_error_that_passes_stays(log: Log) -> None:
    (member,) = Member.made
    member.messages = [failure(KafkaError._ALL_BROKERS_DOWN)]
    assert len(log.fetch(0, 0).errors) == 1
    assert Member.made == [member]
