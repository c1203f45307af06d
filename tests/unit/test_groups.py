"""Which group a consumer is a member of, where a coordinator cannot answer."""

from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from flowagg.kafka import group_names
from flowagg_consumer.groups import CANNOT_ANSWER, Groups

NAMES = group_names("v")
PATIENCE = 10.0


class Kafka:
    """Answers looks at once. errors: the code that looks at a group fail with; silent: they do not end; nor do
    those at groups in never.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.errors: dict[str, int] = {}
        self.silent = False
        self.never: set[str] = set()
        self.looks: list[str] = []
        self.groups = Groups(NAMES, PATIENCE, 1)

    def ask(self, name: str) -> "Future[Any]":
        self.looks.append(name)
        future: Future[Any] = Future()
        if self.silent or name in self.never:
            return future
        if name in self.errors:
            future.set_exception(KafkaException(KafkaError(self.errors[name])))
        else:
            future.set_result(None)
        return future

    def pass_by(self, seconds: float) -> list[str]:
        """Why it moved, each time that it did."""
        moves = []
        end = self.now + seconds
        while self.now < end:
            self.now += 0.5
            why = self.groups.check(self.now, self.ask, self.ask)
            if why is not None:
                moves.append(why)
        return moves


def test_the_groups_of_a_view_have_names_that_no_other_view_can_have() -> None:
    assert NAMES == ("flowagg-v", "flowagg-v.2", "flowagg-v.3", "flowagg-v.4")


def test_a_group_that_answers_stays() -> None:
    kafka = Kafka()
    assert kafka.pass_by(100) == []
    assert kafka.groups.name == NAMES[0]
    assert set(kafka.looks) == {NAMES[0]}
    assert len(kafka.looks) <= 100


@pytest.mark.parametrize("code", sorted(CANNOT_ANSWER))
def test_a_coordinator_that_cannot_answer_is_given_up_after_a_while(code: int) -> None:
    kafka = Kafka()
    kafka.errors[NAMES[0]] = code
    assert kafka.pass_by(PATIENCE) == []
    (why,) = kafka.pass_by(4)
    assert kafka.groups.name == NAMES[1]
    assert "flowagg-v.2" in why
    assert "cannot answer" in why


def test_one_that_answers_in_between_is_not_given_up() -> None:
    kafka = Kafka()
    for _ in range(10):
        kafka.errors[NAMES[0]] = KafkaError.NOT_COORDINATOR
        assert kafka.pass_by(PATIENCE - 2) == []
        del kafka.errors[NAMES[0]]
        assert kafka.pass_by(2.5) == []


@pytest.mark.parametrize("code", [KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError.GROUP_AUTHORIZATION_FAILED])
def test_other_errors_say_nothing_of_the_coordinator(code: int) -> None:
    kafka = Kafka()
    kafka.errors[NAMES[0]] = code
    assert kafka.pass_by(10 * PATIENCE) == []


def test_no_answer_at_all_says_nothing_and_is_asked_for_again() -> None:
    kafka = Kafka()
    kafka.silent = True
    assert kafka.pass_by(100) == []
    assert 2 <= len(kafka.looks) <= 5
    kafka.silent = False
    kafka.errors[NAMES[0]] = KafkaError.NOT_COORDINATOR
    kafka.pass_by(50)
    assert kafka.groups.name == NAMES[1]


def test_a_group_in_its_place_that_cannot_be_used_is_given_up_too_and_after_the_last_comes_the_first() -> None:
    kafka = Kafka()
    kafka.errors = dict.fromkeys(NAMES, KafkaError.NOT_COORDINATOR)
    kafka.errors[NAMES[2]] = KafkaError.GROUP_AUTHORIZATION_FAILED
    seen = [kafka.groups.name]
    for _ in range(200):
        kafka.pass_by(0.5)
        if kafka.groups.name != seen[-1]:
            seen.append(kafka.groups.name)
    assert seen[:6] == [*NAMES, *NAMES[:2]]


def test_a_failure_before_a_silence_counts_for_nothing_after_it() -> None:
    """Kafka was away: its first answer is that coordinators are still loading."""
    kafka = Kafka()
    kafka.errors[NAMES[0]] = KafkaError.NOT_COORDINATOR
    assert kafka.pass_by(3) == []
    kafka.silent = True
    assert kafka.pass_by(60) == []
    kafka.silent = False
    kafka.errors[NAMES[0]] = KafkaError.COORDINATOR_LOAD_IN_PROGRESS
    assert kafka.pass_by(PATIENCE - 2) == []
    del kafka.errors[NAMES[0]]
    assert kafka.pass_by(40) == []


def test_another_error_between_failures_begins_the_patience_anew() -> None:
    kafka = Kafka()
    for _ in range(5):
        kafka.errors[NAMES[0]] = KafkaError.NOT_COORDINATOR
        assert kafka.pass_by(PATIENCE - 2) == []
        kafka.errors[NAMES[0]] = KafkaError._TRANSPORT
        assert kafka.pass_by(2.5) == []


def test_a_coordinator_that_knows_no_such_group_is_well() -> None:
    kafka = Kafka()
    kafka.errors[NAMES[0]] = KafkaError.GROUP_ID_NOT_FOUND
    assert kafka.pass_by(100) == []
    kafka.errors[NAMES[0]] = KafkaError.NOT_COORDINATOR
    kafka.pass_by(15)
    assert kafka.groups.name == NAMES[1]
    kafka.errors[NAMES[0]] = KafkaError.GROUP_ID_NOT_FOUND
    kafka.pass_by(25)
    assert kafka.groups.name == NAMES[0]


def test_an_earlier_group_that_never_answers_does_not_hide_the_next_one() -> None:
    kafka = Kafka()
    kafka.errors = {NAMES[0]: KafkaError.NOT_COORDINATOR, NAMES[1]: KafkaError.NOT_COORDINATOR}
    kafka.pass_by(30)
    assert kafka.groups.name == NAMES[2]
    kafka.never.add(NAMES[0])
    del kafka.errors[NAMES[1]]
    kafka.pass_by(80)
    assert kafka.groups.name == NAMES[1]


def test_where_none_can_be_used_each_round_takes_longer() -> None:
    kafka = Kafka()
    kafka.errors = dict.fromkeys(NAMES, KafkaError.NOT_COORDINATOR)
    assert len(kafka.pass_by(3600)) <= 30
    kafka.errors.clear()
    kafka.pass_by(60)
    kafka.errors = {kafka.groups.name: KafkaError.NOT_COORDINATOR}
    assert len(kafka.pass_by(PATIENCE + 4)) == 1


def test_it_goes_back_once_the_first_is_well_again() -> None:
    kafka = Kafka()
    kafka.errors = {NAMES[0]: KafkaError.NOT_COORDINATOR, NAMES[1]: KafkaError.NOT_COORDINATOR}
    kafka.pass_by(30)
    assert kafka.groups.name == NAMES[2]
    assert kafka.pass_by(60) == []
    del kafka.errors[NAMES[0]]
    (why,) = kafka.pass_by(25)
    assert kafka.groups.name == NAMES[0]
    assert "well again" in why


def test_all_consumers_come_to_the_same_group_whenever_they_began() -> None:
    old = Kafka()
    old.errors[NAMES[0]] = KafkaError.UNKNOWN
    old.pass_by(100)
    new = Kafka()
    new.errors = old.errors
    new.pass_by(15)
    assert old.groups.name == new.groups.name == NAMES[1]
    old.errors.clear()
    old.pass_by(25)
    new.pass_by(25)
    assert old.groups.name == new.groups.name == NAMES[0]
