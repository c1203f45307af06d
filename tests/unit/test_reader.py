"""The reader's parts without I/O: query, freshness, union, and the shared look-up."""

import asyncio

import pytest
from flowagg.position import Position, encode_token
from flowagg.problem import Problem
from flowagg.view import DamagedView, Meta
from flowagg_reader.freshness import Freshness, TopicChanged, judge
from flowagg_reader.lookup import JoinedLookup
from flowagg_reader.query import Consistency, Query, parse_query
from flowagg_reader.union import FlowTotals, unite


def meta(position: int, topic_id: str = "t") -> Meta:
    return Meta(position, topic_id, 0, 0, False, "i")


@pytest.mark.parametrize(
    ("ends", "metas", "expected"),
    [
        pytest.param({0: 5}, {0: meta(5)}, Freshness(True, 0), id="reached"),
        pytest.param({0: 5}, {0: meta(9)}, Freshness(True, 0), id="passed"),
        pytest.param({0: 5, 1: 7}, {0: meta(5), 1: meta(3)}, Freshness(False, 4), id="one partition behind"),
        pytest.param({0: 5, 1: 7}, {0: meta(9)}, Freshness(False, 7), id="a partition that the view does not know"),
        pytest.param({0: 5, 1: 0}, {0: meta(5), 1: None}, Freshness(True, 0), id="an empty partition, not begun"),
        pytest.param({}, {}, Freshness(True, 0), id="nothing asked for"),
    ],
)
def test_freshness(ends: dict[int, int], metas: dict[int, Meta | None], expected: Freshness) -> None:
    assert judge(Position("t", ends), metas) == expected


def test_positions_of_another_topic_are_never_compared() -> None:
    with pytest.raises(TopicChanged):
        judge(Position("t", {0: 5}), {0: meta(9, "another")})


def test_a_flow_key_in_two_partitions_is_added_up_and_rows_are_sorted() -> None:
    rows = unite(
        7,
        [
            {b'["b","x","v"]': b"1 2", b'["a","x","v"]': b"18014398509481982 5"},
            {b'["b","x","v"]': b"10 20", b'["\xc3\xa9","x","v"]': b"36893488147419103232 0"},
        ],
    )
    assert rows == [
        FlowTotals("a", "x", "v", 7, 18014398509481982, 5),
        FlowTotals("b", "x", "v", 7, 11, 22),
        FlowTotals("é", "x", "v", 7, 2**65, 0),
    ]


@pytest.mark.parametrize("totals", [{b"x": b"1 2"}, {b'["a","b","c"]': b"1"}, {b'["a","b","c"]': b"1 x"}])
def test_damaged_totals_are_an_error_never_a_row(totals: dict[bytes, bytes]) -> None:
    with pytest.raises(DamagedView):
        unite(1, [totals])


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
