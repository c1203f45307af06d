"""When a consumer concludes that the group and it disagree for good."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException, TopicPartition
from flowagg_consumer.membership import Membership


class Assignment:
    def __init__(self, *numbers: int, topic: str = "flows") -> None:
        self.topic_partitions = [TopicPartition(topic, number) for number in numbers]


class Member:
    def __init__(self, member_id: str, assignment: Assignment | None) -> None:
        self.member_id, self.assignment = member_id, assignment


class Group:
    def __init__(self, *members: Member) -> None:
        self.members = members


class Scene:
    """A member "me" with looks 2 s apart; a second passes from question to answer."""

    def __init__(self) -> None:
        self.membership = Membership("flows", 2)
        self.now = 100.0
        self.asked = 0

    def ask(self, answer: Any) -> Callable[[], Any]:
        def started() -> Any:
            self.asked += 1
            future: Future[Any] = Future()
            if isinstance(answer, Exception):
                future.set_exception(answer)
            elif answer is not None:
                future.set_result(answer)
            return future

        return started

    def look(self, owned: set[int], answer: Any, owned_then: set[int] | None = None) -> str | None:
        ask = self.ask(answer)
        assert self.membership.disagreement(self.now, lambda: "me", owned, ask) is None
        found = self.membership.disagreement(
            self.now + 1, lambda: "me", owned if owned_then is None else owned_then, ask
        )
        self.now += 2
        return found


def group(*numbers: int) -> Group:
    return Group(Member("other", Assignment(7)), Member("me", Assignment(*numbers)))


def test_the_same_disagreement_twice_counts() -> None:
    scene = Scene()
    assert scene.look({0, 1, 2}, group(0, 1)) is None
    assert scene.look({0, 1, 2}, group(0, 1)) == "it owns partitions [0, 1, 2], and the group says [0, 1]"
    # What was found counts once; the next one needs two looks again.
    assert scene.look({0, 1, 2}, group(0, 1)) is None


def test_partitions_that_it_was_not_told_of_count_too() -> None:
    scene = Scene()
    assert scene.look(set(), group(4)) is None
    assert scene.look(set(), group(4)) == "it owns partitions [], and the group says [4]"


def test_a_disagreement_that_moves_does_not_count() -> None:
    scene = Scene()
    assert scene.look({0, 1, 2}, group(0, 1)) is None
    assert scene.look({0, 1, 2}, group(0)) is None
    assert scene.look({0, 1}, group(0)) is None
    assert scene.look({0, 1}, group(0, 1)) is None
    assert scene.look({0, 1}, group(0)) is None
    assert scene.look({0, 1}, group(0), owned_then={0}) is None
    assert scene.look({0, 1}, group(0)) is None


def test_what_is_not_known_is_no_disagreement() -> None:
    scene = Scene()
    unknown = (
        KafkaException("no answer"),
        Group(Member("other", Assignment(0))),
        Group(),
        Group(Member("other", None), Member("me", Assignment(0, 1))),
    )
    for answer in unknown:
        assert scene.look({0, 1}, group(0)) is None
        assert scene.look({0, 1}, answer) is None


def test_partitions_of_another_topic_are_not_counted() -> None:
    scene = Scene()
    for _ in range(3):
        assert scene.look(set(), Group(Member("me", Assignment(0, topic="others")))) is None


def test_a_member_without_an_assignment_has_none() -> None:
    scene = Scene()
    assert scene.look({0}, Group(Member("me", None))) is None
    assert scene.look({0}, Group(Member("me", None))) == "it owns partitions [0], and the group says []"


def test_one_question_at_a_time_and_not_too_often() -> None:
    scene = Scene()
    for _ in range(5):
        assert scene.membership.disagreement(scene.now, lambda: "me", {0}, scene.ask(None)) is None
        scene.now += 5
    assert scene.asked == 1

    scene = Scene()
    for _ in range(40):
        assert scene.membership.disagreement(scene.now, lambda: "me", {0}, scene.ask(group(0))) is None
        scene.now += 0.25
    assert scene.asked == 5
