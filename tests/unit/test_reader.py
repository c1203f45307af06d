"""The reader's small parts: query, freshness, tags that a client holds, pace, and shared look-ups."""

import asyncio

import pytest
from flowagg.kafka import KafkaUnavailable
from flowagg.position import Position, encode_token
from flowagg.problem import Problem
from flowagg.view import Meta
from flowagg_reader.etag import Held, etag
from flowagg_reader.freshness import TopicChanged, lags
from flowagg_reader.lookup import Ends, JoinedLookup, JoinedLookups
from flowagg_reader.pace import Pace
from flowagg_reader.query import Consistency, Query, parse_query


def meta(position: int, topic_id: str = "t") -> Meta:
    return Meta(position, topic_id, 0, 0, False, "i")


@pytest.mark.parametrize(
    ("ends", "metas", "expected"),
    [
        pytest.param({0: 5}, {0: meta(5)}, {0: 0}, id="reached"),
        pytest.param({0: 5}, {0: meta(9)}, {0: 0}, id="passed"),
        pytest.param({0: 5, 1: 7}, {0: meta(5), 1: meta(3)}, {0: 0, 1: 4}, id="one partition behind"),
        pytest.param({0: 5, 1: 7}, {0: meta(9)}, {0: 0, 1: 7}, id="a partition that the view does not know"),
        pytest.param({0: 5, 1: 0}, {0: meta(5), 1: None}, {0: 0, 1: 0}, id="an empty partition, not begun"),
        pytest.param({}, {}, {}, id="nothing asked for"),
    ],
)
def test_freshness(ends: dict[int, int], metas: dict[int, Meta | None], expected: dict[int, int]) -> None:
    assert lags(Position("t", ends), metas) == expected


def test_a_view_past_an_end_of_a_later_leader_counts_what_was_lost() -> None:
    with pytest.raises(TopicChanged):
        lags(Position("t", {0: 5}, {0: 1}), {0: meta(9)})
    assert lags(Position("t", {0: 5}, {0: 0}), {0: meta(9)}) == {0: 0}, "appended since the look-up"
    assert lags(Position("t", {0: 9}, {0: 1}), {0: meta(9)}) == {0: 0}, "a new leader, and nothing appended yet"


def test_positions_of_another_topic_are_never_compared() -> None:
    with pytest.raises(TopicChanged):
        lags(Position("t", {0: 5}), {0: meta(9, "another")})


@pytest.mark.parametrize("hour", ["0", "1", str(2**53 - 1)])
def test_a_good_hour(hour: str) -> None:
    assert parse_query([("hour", hour)]) == Query(int(hour), Consistency.FRESH, None)


@pytest.mark.parametrize("hour", ["", "-1", "+1", "01", "1.0", "1e3", " 1", "１", "x", str(2**53), "9" * 5000])
def test_a_bad_hour(hour: str) -> None:
    with pytest.raises(Problem) as caught:
        parse_query([("hour", hour)])
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "parameters",
    [
        [],
        [("hour", "1"), ("hour", "1")],
        [("hour", "1"), ("day", "2")],
        [("hour", "1"), ("consistency", "maybe")],
        [("hour", "1"), ("after", "x")],
        [("hour", "1"), ("after", encode_token(Position("t", {}))), ("consistency", "eventual")],
    ],
)
def test_a_bad_query_says_what_is_wrong(parameters: list[tuple[str, str]]) -> None:
    with pytest.raises(Problem) as caught:
        parse_query(parameters)
    assert caught.value.status == 400
    assert caught.value.detail


def test_an_unknown_parameter_lists_the_known_ones() -> None:
    with pytest.raises(Problem, match="hour, after, consistency"):
        parse_query([("hour", "1"), ("hours", "2")])


def test_a_look_up_is_joined_only_before_it_starts() -> None:
    async def scenario() -> None:
        started: list[asyncio.Event] = []
        release: list[asyncio.Event] = []

        async def look_up() -> int:
            number = len(started)
            started.append(asyncio.Event())
            release.append(asyncio.Event())
            started[number].set()
            await release[number].wait()
            return number

        lookup = JoinedLookup(look_up)
        first = asyncio.create_task(lookup.get())
        while not started:
            await asyncio.sleep(0)
        later = [asyncio.create_task(lookup.get()) for _ in range(3)]
        await asyncio.sleep(0)
        release[0].set()
        assert await first == 0
        while len(started) < 2:
            await asyncio.sleep(0)
        assert not any(task.done() for task in later)
        later[0].cancel()  # one caller's end is not the others'
        release[1].set()
        assert await asyncio.gather(*later[1:]) == [1, 1]
        assert len(started) == 2

    asyncio.run(scenario())


def test_a_failed_look_up_fails_its_callers_and_not_the_next() -> None:
    async def scenario() -> None:
        results = iter([OSError("away"), 5])

        async def look_up() -> object:
            result = next(results)
            if isinstance(result, Exception):
                raise result
            return result

        lookup = JoinedLookup(look_up)
        with pytest.raises(OSError, match="away"):
            await lookup.get()
        assert await lookup.get() == 5

    asyncio.run(scenario())


def test_look_ups_of_one_key_are_joined_and_leave_nothing_behind() -> None:
    async def scenario() -> None:
        started: list[int] = []

        async def look_up(key: int) -> int:
            started.append(key)
            await asyncio.sleep(0)
            if key == 3:
                raise OSError("away")
            return key * 10

        lookups = JoinedLookups(look_up)
        assert await asyncio.gather(*(lookups.get(key) for key in (1, 2, 1, 1, 2))) == [10, 20, 10, 10, 20]
        assert sorted(started) == [1, 2]
        with pytest.raises(OSError, match="away"):
            await lookups.get(3)
        given_up = asyncio.create_task(lookups.get(4))
        await asyncio.sleep(0)
        given_up.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not lookups._joined
        assert await lookups.get(4) == 40

    asyncio.run(scenario())


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_failed_look_up_is_remembered_and_never_an_end() -> None:
    async def scenario() -> None:
        clock, away, asked = Clock(), True, 0

        async def look_up() -> Position:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0)
            if away:
                raise KafkaUnavailable("away")
            return Position("t", {0: asked})

        ends = Ends(look_up, clock)
        with pytest.raises(KafkaUnavailable):
            await ends.get()
        for _ in range(5):
            with pytest.raises(KafkaUnavailable, match="away"):
                await ends.get()
        assert asked == 1  # nobody has asked Kafka since
        clock.now += 0.6
        for _ in range(5):
            with pytest.raises(KafkaUnavailable):
                await ends.get()  # answered at once; one of them has started the next try
        for _ in range(5):
            await asyncio.sleep(0)
        assert asked == 2
        away = False
        clock.now += 0.6
        with pytest.raises(KafkaUnavailable):
            await ends.get()
        for _ in range(5):
            await asyncio.sleep(0)
        assert asked == 3
        assert await ends.get() == Position("t", {0: 4})  # the end of a look-up of its own

    asyncio.run(scenario())


def test_who_waited_for_the_look_up_after_a_failed_one_is_told_at_once() -> None:
    async def scenario() -> None:
        asked = 0
        release = asyncio.Event()

        async def look_up() -> Position:
            nonlocal asked
            asked += 1
            await release.wait()
            raise KafkaUnavailable("away")

        ends = Ends(look_up, Clock())
        first = asyncio.create_task(ends.get())
        while not asked:
            await asyncio.sleep(0)
        others = [asyncio.create_task(ends.get()) for _ in range(3)]
        await asyncio.sleep(0)
        release.set()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        assert all(isinstance(result, KafkaUnavailable) for result in results)
        assert asked == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("headers", "holds"),
    [
        pytest.param([], False, id="none"),
        pytest.param(['W/"abc"'], True, id="as it was sent"),
        pytest.param(['"abc"'], True, id="weak comparison"),
        pytest.param(['"x", W/"abc" ,"y"'], True, id="in a list"),
        pytest.param(['"x"', 'W/"abc"'], True, id="in the second header"),
        pytest.param(["*"], True, id="any"),
        pytest.param([" * "], True, id="any, with spaces"),
        pytest.param(['"x,*"'], False, id="a star within a tag"),
        pytest.param(["abc"], False, id="without quotes"),
        pytest.param(['"ab", "c"'], False, id="parts of it"),
        pytest.param(['"a,b", "abc'], False, id="not closed"),
    ],
)
def test_the_tags_that_a_client_holds(headers: list[str], holds: bool) -> None:
    assert etag("abc") == 'W/"abc"'
    assert Held(headers).holds("abc") is holds


def pace_of(*looks: tuple[float, int, int]) -> Pace:
    """looks: seconds, position, lag, of partition 0."""
    pace = Pace()
    for now, position, lag in looks:
        pace.observe(now, {0: position}, {0: lag})
    return pace


def test_a_wait_that_cannot_succeed_by_the_recent_pace_is_hopeless() -> None:
    pace = pace_of(*((second / 4, second * 25, 10_000) for second in range(9)))  # 100 records a second
    assert pace.hopeless(2.0, {0: 9_000}, 1.0)
    assert pace.hopeless(2.0, {0: 101}, 1.0)
    assert not pace.hopeless(2.0, {0: 99}, 1.0)
    assert not pace.hopeless(2.0, {0: 0}, 1.0)
    assert not pace.hopeless(2.0, {1: 9_000}, 1.0)  # nothing is known of that partition
    assert pace.hopeless(2.0, {0: 0, 1: 5}, 1.0) is False
    assert not pace.hopeless(60.0, {0: 9_000}, 1.0)  # too long ago


def test_a_partition_that_stands_still_is_hopeless_after_a_second() -> None:
    looks = [(tenth / 10, 7, 3) for tenth in range(11)]
    assert not pace_of(*looks[:9]).hopeless(0.9, {0: 3}, 1.0)
    assert pace_of(*looks).hopeless(1.0, {0: 3}, 1.0)


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param([], id="never looked"),
        pytest.param([(0, 5, 9)], id="one look"),
        pytest.param([(0, 5, 0), (2, 5, 0), (2.1, 5, 9)], id="idle before: nothing to apply"),
        pytest.param([(0, 5, 3), (3, 8, 2000)], id="may have caught up in between and been idle"),
        pytest.param([(0, 50, 90), (2, 40, 100)], id="went back"),
        pytest.param([(0, 5, 9), (9, 6, 9)], id="not looked at for long"),
        pytest.param([(0, 5, 900), (0.5, 5, 900)], id="too short a time"),
    ],
)
def test_an_unknown_pace_lets_it_wait(looks: list[tuple[float, int, int]]) -> None:
    assert not pace_of(*looks).hopeless(looks[-1][0] if looks else 0.0, {0: 9}, 0.001)


def test_an_old_pace_is_forgotten_while_a_view_is_busy() -> None:
    slow = [(second / 2, second, 10**6) for second in range(20)]
    fast = [(10 + second / 2, 20 + second * 5000, 10**6) for second in range(10)]
    assert pace_of(*slow).hopeless(9.5, {0: 5000}, 1.0)
    assert not pace_of(*slow, *fast).hopeless(14.5, {0: 9000}, 1.0)
