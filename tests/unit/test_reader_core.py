"""How one GET is answered: the core driven by scripted replies; and what an hour's tag stands for."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from flowagg.position import Position
from flowagg.view import DamagedView, HourMark, Meta
from flowagg_reader.core import (
    UNKNOWN_LAG,
    Answer,
    Effect,
    FindBody,
    HourRead,
    LogAway,
    Look,
    LookUpEnd,
    NotFresh,
    Pause,
    ReadHour,
    TopicGone,
    UnknownView,
    Wanted,
    answer,
)
from flowagg_reader.etag import Held
from flowagg_reader.hour import Seen, hour_of
from flowagg_reader.pace import Pace
from flowagg_reader.query import Consistency, Query

META = Meta(position=50, topic_id="t", leader_epoch=3, start=0, incomplete=False, incarnation="i")
SEEN = Seen(META, HourMark(40), 2)
HOUR = 7


def tag(*parts: Seen, hour: int = HOUR, scope: str = "") -> str:
    return hour_of(hour, scope, dict(enumerate(parts))).tag


@pytest.mark.parametrize(
    "same",
    [
        pytest.param([Seen(replace(META, position=99, time=5, writer="w"), HourMark(40), 2)], id="another hour moves"),
        pytest.param([Seen(META, HourMark(40, tick=60_000), 2)], id="the mark tells its tick too"),
        pytest.param([SEEN, Seen(META)], id="a partition that never saw the hour"),
        pytest.param(
            [SEEN, Seen(replace(META, incarnation="j", lost=None, leader_epoch=9))], id="whatever that one is"
        ),
        pytest.param([SEEN, Seen(None)], id="a partition that is not begun"),
        pytest.param([Seen(replace(META, floor=HOUR), HourMark(40), 2)], id="hours below it expire"),
    ],
)
def test_a_tag_stays_while_its_hour_stays(same: list[Seen]) -> None:
    assert tag(*same) == tag(SEEN)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([Seen(META, HourMark(41), 2)], id="a record of the hour"),
        pytest.param([Seen(replace(META, incarnation="j"), HourMark(40), 2)], id="a view that was made again"),
        pytest.param([Seen(replace(META, leader_epoch=4), HourMark(40), 2)], id="maybe another history of the log"),
        pytest.param([Seen(replace(META, lost="5-9"), HourMark(40), 2)], id="lost records"),
        pytest.param([Seen(replace(META, incomplete=True), HourMark(40), 2)], id="incomplete"),
        pytest.param([SEEN, Seen(replace(META, incomplete=True))], id="incomplete in another partition"),
        pytest.param([SEEN, SEEN], id="the hour in another partition"),
        pytest.param([Seen(replace(META, floor=HOUR + 1), HourMark(40), 2)], id="expired"),
        pytest.param([SEEN, Seen(replace(META, floor=HOUR + 1))], id="expired in another partition"),
        pytest.param([], id="nothing"),
    ],
)
def test_a_tag_changes_with_whatever_changes_the_answer(other: list[Seen]) -> None:
    assert tag(*other) != tag(SEEN)


def test_a_tag_is_of_one_hour_and_of_one_scope() -> None:
    tags = {tag(SEEN, hour=hour, scope=scope) for hour in (7, 8) for scope in ("", "a", "b")}
    assert len(tags) == 6


def test_an_hour_is_expired_where_any_partition_no_longer_keeps_it_and_incomplete_where_any_is() -> None:
    gone, lacking = Seen(replace(META, floor=8)), Seen(replace(META, incomplete=True))
    found = hour_of(HOUR, "", {0: SEEN, 1: gone})
    assert (found.expired, found.rows, found.incomplete) == (True, 0, False)
    found = hour_of(HOUR, "", {0: SEEN, 1: lacking, 2: SEEN})
    assert (found.expired, found.rows, found.incomplete) == (False, 4, True)


@pytest.mark.parametrize("part", [Seen(META, HourMark(40), 0), Seen(META, None, 2)])
def test_totals_without_a_mark_and_a_mark_without_totals_are_damage(part: Seen) -> None:
    with pytest.raises(DamagedView, match="partition 0"):
        hour_of(HOUR, "", {0: part})


class Driver:
    """Answers each effect with the next of its replies; time passes in pauses alone."""

    def __init__(self, wanted: Wanted, pace: Pace | None = None) -> None:
        self.now = 0.0
        self.effects: list[Effect] = []
        self._steps = answer(wanted, iter(lambda: self.now, None), 1.0, pace or Pace())

    def run(self, replies: Iterable[Any]) -> Answer:
        """Raises what the core raises."""
        left = iter(replies)
        try:
            effect = next(self._steps)
            while True:
                self.effects.append(effect)
                if isinstance(effect, Pause):
                    self.now += effect.seconds
                    effect = self._steps.send(None)
                    continue
                reply = next(left)
                effect = self._steps.throw(reply) if isinstance(reply, Exception) else self._steps.send(reply)
        except StopIteration as end:
            result: Answer = end.value
            return result

    @property
    def kinds(self) -> list[type]:
        return [type(effect) for effect in self.effects]


def query(consistency: Consistency = Consistency.FRESH, after: Position | None = None) -> Query:
    return Query(HOUR, consistency, after)


END = Position("t", {0: 50})
BEHIND = Seen(replace(META, position=45), HourMark(40), 2)
TAG = tag(SEEN)


def test_a_fresh_hour_that_the_client_holds_is_one_look() -> None:
    driver = Driver(Wanted(query(), held=Held([f'"{TAG}"'])))
    given = driver.run([END, {0: SEEN}])
    assert (given.held, given.found.freshness.fresh, given.body) == (True, True, None)
    assert driver.effects == [LookUpEnd(), Look(frozenset({0}), HOUR)]


def test_a_body_that_is_kept_is_served_for_its_very_tag() -> None:
    driver = Driver(Wanted(query()))
    given = driver.run([END, {0: SEEN}, "kept"])
    assert (given.body, given.found.hour.tag) == ("kept", TAG)
    assert driver.effects[-1] == FindBody(TAG)


def test_a_look_waits_until_the_view_is_fresh_and_a_body_is_looked_for_only_then() -> None:
    driver = Driver(Wanted(query()))
    given = driver.run([END, {0: BEHIND}, {0: BEHIND}, {0: SEEN}, "kept"])
    assert given.found.freshness.fresh
    assert driver.kinds == [LookUpEnd, Look, Pause, Look, Pause, Look, FindBody]


def test_a_stale_answer_says_so_after_the_wait() -> None:
    driver = Driver(Wanted(query()))

    def replies() -> Iterator[Any]:
        yield END
        while isinstance(driver.effects[-1], Look):
            yield {0: BEHIND}
        yield "kept"

    given = driver.run(replies())
    assert (given.found.freshness.fresh, given.found.freshness.lag_records) == (False, 5)
    assert 0.9 < driver.now <= 1.0


def test_without_a_hope_nobody_waits() -> None:
    pace = Pace()
    for tenth in range(12):
        pace.observe(tenth / 10 - 1.2, {0: 45}, {0: 5})
    driver = Driver(Wanted(query()), pace)
    given = driver.run([END, {0: BEHIND}, "kept"])
    assert (given.found.freshness.fresh, driver.now) == (False, 0.0)
    with pytest.raises(NotFresh, match="5 records"):
        Driver(Wanted(query(Consistency.STRICT)), pace).run([END, {0: BEHIND}])


def test_totals_read_later_are_judged_by_their_own_reply() -> None:
    later = Seen(replace(META, position=60), HourMark(55), 3)
    given = Driver(Wanted(query())).run([END, {0: SEEN}, None, HourRead({0: later}, "body")])
    assert (given.body, given.found.hour.tag, given.found.freshness.fresh) == ("body", tag(later), True)
    # From a master that was demoted in between: the client is told, or the hour is read again.
    older = Seen(replace(META, position=30), HourMark(20), 1)
    driver = Driver(Wanted(query()))
    given = driver.run([END, {0: SEEN}, None, HourRead({0: older}, "old"), {0: SEEN}, "new"])
    assert (given.body, given.found.hour.tag, given.found.freshness.fresh) == ("new", TAG, True)
    driver = Driver(Wanted(query(Consistency.STRICT)))
    with pytest.raises(NotFresh):
        driver.run([END, {0: SEEN}, None, HourRead({0: older}, "old"), *[{0: older}] * 200])


def test_a_body_of_the_tag_that_was_seen_fresh_is_fresh_though_its_reply_was_not() -> None:
    joined = Seen(replace(META, position=48), HourMark(40), 2)  # a reading that had begun before
    given = Driver(Wanted(query())).run([END, {0: SEEN}, None, HourRead({0: joined}, "body")])
    assert (given.body, given.found.freshness.fresh) == ("body", True)


def test_an_hour_without_rows_or_expired_is_never_read() -> None:
    gone = Seen(replace(META, floor=HOUR + 1), HourMark(40), 2)
    for part in (Seen(META), gone):
        driver = Driver(Wanted(query()))
        given = driver.run([END, {0: part}])
        assert (given.body, given.held, given.found.hour.rows) == (None, False, 0)
        assert driver.kinds == [LookUpEnd, Look]


def test_head_never_reads_totals() -> None:
    driver = Driver(Wanted(query(), head=True))
    assert driver.run([END, {0: SEEN}, None]).body is None
    assert ReadHour not in driver.kinds


def test_eventual_asks_for_no_end_and_never_says_fresh() -> None:
    driver = Driver(Wanted(query(Consistency.EVENTUAL)))
    given = driver.run([{0: SEEN}, "kept"])
    assert given.found.freshness.lag_records == UNKNOWN_LAG
    assert (given.found.freshness.fresh, driver.kinds) == (False, [Look, FindBody])


def test_without_kafka_the_answer_is_not_fresh_and_strict_is_refused() -> None:
    given = Driver(Wanted(query())).run([LogAway("away"), {0: SEEN}, "kept"])
    assert (given.body, given.found.freshness.fresh) == ("kept", False)
    with pytest.raises(NotFresh, match="away"):
        Driver(Wanted(query(Consistency.STRICT))).run([LogAway("away")])
    after = Driver(Wanted(query(Consistency.STRICT, Position("t", {0: 50})))).run([LogAway("away"), {0: SEEN}, "kept"])
    assert after.found.freshness.fresh


def test_a_topic_that_was_made_again_is_never_compared() -> None:
    with pytest.raises(TopicGone):
        Driver(Wanted(query(after=Position("old", {0: 1})))).run([END])
    driver = Driver(Wanted(query()))
    given = driver.run([Position("new", {0: 1}), {0: SEEN}, "kept"])
    assert (given.found.freshness.fresh, given.found.freshness.lag_records) == (False, UNKNOWN_LAG)
    assert driver.now == 0.0


@pytest.mark.parametrize("consistency", list(Consistency))
@pytest.mark.parametrize("seen", [{}, {0: Seen(None), 1: Seen(None)}], ids=["nothing", "no meta"])
def test_a_view_that_nobody_has_begun_is_unknown_at_once(consistency: Consistency, seen: dict[int, Seen]) -> None:
    driver = Driver(Wanted(query(consistency), view="other", named=True))
    with pytest.raises(UnknownView):
        driver.run([seen] if consistency is Consistency.EVENTUAL else [END, seen])
    assert Pause not in driver.kinds


def test_a_view_that_goes_while_a_read_waits_is_unknown_then() -> None:
    driver = Driver(Wanted(query(), view="other", named=True))
    with pytest.raises(UnknownView):
        driver.run([END, {0: BEHIND}, {0: Seen(None)}])


def test_the_readers_own_view_may_be_one_that_will_begin() -> None:
    given = Driver(Wanted(query(Consistency.EVENTUAL), view="own")).run([{0: Seen(None)}])
    assert (given.found.hour.rows, given.found.freshness.fresh) == (0, False)


def test_two_views_never_share_a_tag_though_they_keep_the_same() -> None:
    tags = {hour_of(HOUR, "", {0: part}, view).tag for part in (SEEN, Seen(META)) for view in ("one", "two")}
    assert len(tags) == 4
