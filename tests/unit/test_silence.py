"""When a consumer concludes that a partition's records do not come."""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException
from flowagg_consumer.silence import Ask, Silence

SECONDS = 5.0


class End:
    def __init__(self, offset: int) -> None:
        self.offset = offset


class Scene:
    """A log, and looks SECONDS apart."""

    def __init__(self) -> None:
        self.silence = Silence(SECONDS)
        self.ends: dict[int, int | Exception | None] = {}
        self.asked: list[list[int]] = []
        self.now = 100.0

    @property
    def ask(self) -> Ask:
        def started(numbers: list[int]) -> Mapping[int, Any]:
            self.asked.append(numbers)
            return {number: self._future(self.ends[number]) for number in numbers}

        return started

    def _future(self, end: int | Exception | None) -> "Future[End]":
        future: Future[End] = Future()
        if isinstance(end, Exception):
            future.set_exception(end)
        elif end is not None:
            future.set_result(End(end))
        return future

    def look(self, *, drained: bool = True) -> str | None:
        """One look, and what was fetched until the next one is due."""
        assert self.silence.stuck(self.now, self.ask) is None
        self.silence.took({}, drained=drained)
        found = self.silence.stuck(self.now + 0.1, self.ask)
        self.silence.took({}, drained=drained)
        self.now += SECONDS
        return found


def test_records_that_two_looks_find_and_that_do_not_come_are_told() -> None:
    scene = Scene()
    scene.silence.started(3, 10)
    scene.ends = {3: 12}
    assert scene.look() is None  # nothing is silent yet
    assert scene.asked == []
    assert scene.look() is None
    assert scene.look() == "records do not come: partition 3 at 10, which ends at 12"


def test_a_partition_at_its_end_is_silent_and_well() -> None:
    scene = Scene()
    scene.silence.started(3, 10)
    scene.ends = {3: 10}
    assert [scene.look() for _ in range(5)] == [None] * 5
    assert scene.asked == [[3]] * 4


def test_a_partition_of_which_something_comes_is_not_asked_about() -> None:
    scene = Scene()
    scene.silence.started(3, 10)
    for place in range(11, 20):
        scene.silence.took({3: place, 4: 7}, drained=True)  # 4 is another member's by now
        assert scene.look() is None
    assert scene.asked == []


def test_one_that_goes_on_between_two_looks_is_well() -> None:
    scene = Scene()
    scene.silence.started(3, 10)
    scene.ends = {3: 12}
    for place in range(12, 18):
        assert scene.look() is None
        assert scene.look() is None
        scene.silence.took({3: place}, drained=True)
        scene.ends = {3: place + 2}


def test_records_that_wait_behind_others_are_not_told() -> None:
    scene = Scene()
    scene.silence.started(3, 10)
    scene.ends = {3: 1000}
    assert [scene.look(drained=False) for _ in range(6)] == [None] * 6
    assert scene.look(drained=True) is not None  # all is handed over, and these were not among it


def test_an_end_that_is_not_known_tells_nothing() -> None:
    scene = Scene()
    scene.silence.started(3, 10)
    for end in (12, KafkaException("no answer"), 12, -1001, 12):
        scene.ends = {3: end}
        assert scene.look() is None


def test_what_is_fetched_no_more_or_anew_begins_again() -> None:
    scene = Scene()
    scene.silence.started(3, 10)
    scene.ends = {3: 12, 4: 12}
    assert scene.look() is None
    assert scene.look() is None
    scene.silence.started(3, 10)
    assert scene.look() is None
    assert scene.look() is None
    scene.silence.ended([3, 4])
    assert [scene.look() for _ in range(3)] == [None] * 3


def test_an_answer_that_never_comes_is_not_waited_for() -> None:
    scene = Scene()
    scene.silence.started(3, 10)
    scene.ends = {3: None}
    for _ in range(20):
        assert scene.look() is None
    assert 2 <= len(scene.asked) <= 4
    scene.ends = {3: 12}
    found = [scene.look() for _ in range(10)]
    assert any(found)


def test_all_that_do_not_come_are_named() -> None:
    scene = Scene()
    scene.silence.started(5, 1)
    scene.silence.started(3, 10)
    scene.ends = {3: 12, 5: 4}
    assert [scene.look() for _ in range(3)][-1] == (
        "records do not come: partition 3 at 10, which ends at 12, partition 5 at 1, which ends at 4"
    )
