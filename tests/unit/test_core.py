"""The core, effect by effect: scripted answers in, effects out."""

from dataclasses import replace
from typing import Any

import pytest
from flowagg.flow import encode_key, encode_value
from flowagg.view import Meta
from flowagg_consumer import effects as fx
from flowagg_consumer.core import Config, Core
from flowagg_consumer.marks import Window
from flowagg_consumer.partition import StopReason
from flowagg_consumer.records import Records

KEY = encode_key("foo", "bar", "vpc-0", 1)
META = Meta(0, "t", -1, 0, False, "i")


class Driven:
    """A core and its effects; answers are given one by one."""

    def __init__(self, max_in_flight: int = 2, cache_bytes: int = 10**6, batch_writes: int = 10) -> None:
        self.now = 0.0
        config = Config(
            0.1,
            0.005,
            10,
            batch_writes,
            0.25,
            max_in_flight,
            1000.0,
            1000.0,
            0.5,
            cache_bytes,
            Window(86_400_000),
        )
        self.core = Core(config, "me", lambda: self.now, lambda: "i", lambda *_: None)
        self._steps = self.core.run()
        self.effect: fx.Effect = next(self._steps)

    def expect(self, kind: type[Any], answer: Any = None) -> Any:
        """The effect asked for now, which must be of a kind; it is answered, or an exception thrown."""
        effect = self.effect
        assert isinstance(effect, kind), effect
        self.effect = self._steps.throw(answer) if isinstance(answer, Exception) else self._steps.send(answer)
        return effect

    def command(self, kind: type[Any]) -> Any:
        """The command that is sent now."""
        sent = self.expect(fx.Send)
        assert isinstance(sent.command, kind), sent
        return sent.command

    def load(self, meta: Meta | None, *, begins: Meta | None = None) -> None:
        """Answer a load of partition 0 up to its start."""
        if not self.core.counts.loads:
            self.expect(fx.CheckTopic)
        self.expect(fx.StartDescribe, "ticket")
        self.command(fx.Load)
        self.expect(fx.Receive, {0: meta})
        self.expect(fx.AwaitTopic, "t")
        if meta is None:
            self.expect(fx.Watermarks, {0: fx.Bounds(0, 0, 0)})
            self.command(fx.Begin)
            self.expect(fx.Receive, begins)
        self.expect(fx.Restart)

    def described_apply(self) -> fx.Apply:
        """A batch is sent, after a description of the topic."""
        self.expect(fx.StartDescribe, "ticket")
        self.expect(fx.AwaitTopic, "t")
        apply: fx.Apply = self.command(fx.Apply)
        return apply

    def run_partition(self, meta: Meta = META) -> None:
        """Own partition 0."""
        self.expect(fx.Fetch, fx.Fetched(assigned=[0]))
        self.load(meta)

    def fetch(self, first: int, count: int, **fetched: Any) -> None:
        """Fetch records of KEY; the description of the topic is asked for."""
        self.expect(fx.Fetch, fx.Fetched(records={0: [records(first, count)]}, **fetched))
        self.expect(fx.StartDescribe, "ticket")


def records(first: int, count: int) -> Records:
    return Records(range(first, first + count), [KEY] * count, [encode_value(1, 2)] * count, 0, [0] * count)


def test_a_partition_without_a_meta_begins_at_the_low_watermark() -> None:
    driven = Driven()
    driven.expect(fx.Fetch, fx.Fetched(assigned=[0]))
    driven.load(None, begins=META)
    assert list(driven.core.running) == [0]


def test_a_consumer_without_partitions_finds_out_that_kafka_is_back() -> None:
    driven = Driven()
    driven.expect(fx.Fetch, fx.Fetched(errors=["all brokers are down"]))
    driven.expect(fx.StartDescribe, "ticket")
    driven.expect(fx.AwaitTopic, fx.LogAway("Kafka did not answer in time"))
    assert driven.core.trouble == {"kafka": "Kafka did not answer in time"}
    driven.expect(fx.Fetch, fx.Fetched())
    driven.expect(fx.StartDescribe, "ticket")
    driven.expect(fx.AwaitTopic, "t")
    assert driven.core.trouble == {}
    driven.expect(fx.Fetch, fx.Fetched())
    driven.expect(fx.Fetch, fx.Fetched())


def test_the_topic_is_described_after_the_records_and_awaited_before_anything_is_sent() -> None:
    driven = Driven()
    driven.run_partition()
    driven.fetch(0, 2)
    driven.expect(fx.AwaitTopic, "t")
    apply = driven.command(fx.Apply)
    assert (apply.expected, apply.position, apply.writer) == (0, 2, "me")


def test_a_topic_made_again_stops_the_partition_before_anything_is_sent() -> None:
    driven = Driven()
    driven.run_partition()
    driven.fetch(0, 2)
    driven.expect(fx.AwaitTopic, "another")
    driven.expect(fx.Pause)
    assert driven.core.stopped[0].reason is StopReason.TOPIC_CHANGED


def truncated(driven: Driven) -> fx.Diverge:
    """A fetch that shows another history of the log, up to the command that keeps it."""
    driven.expect(fx.Fetch, fx.Fetched(stops={0: (StopReason.LOG_TRUNCATED, "truncated")}))
    driven.expect(fx.StartDescribe, "ticket")
    driven.expect(fx.AwaitTopic, "t")
    diverge: fx.Diverge = driven.command(fx.Diverge)
    return diverge


def test_another_history_of_the_log_is_kept_before_the_partition_stops() -> None:
    driven = Driven()
    driven.run_partition()
    diverge = truncated(driven)
    assert (diverge.expected, diverge.topic_id, diverge.incarnation) == (0, "t", "i")
    assert 0 in driven.core.running
    driven.expect(fx.Receive, True)
    driven.expect(fx.Pause)
    assert driven.core.stopped[0].reason is StopReason.LOG_TRUNCATED
    assert driven.core.stopped[0].detail == diverge.detail == "the view's position is 0: truncated"


def test_another_history_that_cannot_be_kept_is_looked_for_again() -> None:
    for answer in (False, fx.StoreAway("timeout")):
        driven = Driven()
        driven.run_partition()
        truncated(driven)
        driven.expect(fx.Receive, answer)
        driven.expect(fx.Disconnect)
        driven.expect(fx.Pause)
        assert (list(driven.core.loading), driven.core.stopped) == ([0], {})


def test_a_partition_whose_log_was_seen_to_have_another_history_stays_stopped() -> None:
    driven = Driven()
    driven.expect(fx.Fetch, fx.Fetched(assigned=[0]))
    driven.expect(fx.CheckTopic)
    driven.expect(fx.StartDescribe, "ticket")
    driven.command(fx.Load)
    driven.expect(fx.Receive, {0: replace(META, diverged="the view's position is 0: truncated")})
    driven.expect(fx.AwaitTopic, "t")
    driven.expect(fx.Pause)
    assert driven.core.stopped[0].reason is StopReason.LOG_TRUNCATED
    assert driven.core.stopped[0].detail == "the view's position is 0: truncated"


def test_two_batches_are_in_flight_and_the_third_waits_for_the_first() -> None:
    driven = Driven()
    driven.run_partition()
    for first in (0, 2):
        driven.fetch(first, 2)
        driven.expect(fx.AwaitTopic, "t")
        driven.command(fx.Apply)
    driven.fetch(4, 2)
    driven.expect(fx.AwaitTopic, "t")
    driven.expect(fx.Receive, True)
    assert driven.core.running[0].applied == 2
    assert driven.command(fx.Apply).expected == 4


@pytest.mark.parametrize(("writer", "kept"), [("me", 1), ("another", 0)])
def test_after_a_lost_reply_memory_is_kept_only_if_this_writer_wrote_last(writer: str, kept: int) -> None:
    driven = Driven()
    driven.run_partition()
    driven.fetch(0, 2)
    driven.expect(fx.AwaitTopic, "t")
    driven.command(fx.Apply)
    driven.expect(fx.Fetch, fx.Fetched())
    driven.expect(fx.Receive, fx.StoreAway("timeout"))
    driven.expect(fx.Disconnect)
    driven.expect(fx.Pause)
    driven.now += 10
    driven.expect(fx.Fetch, fx.Fetched())
    driven.load(Meta(2, "t", 0, 0, False, "i", writer=writer))
    assert driven.core.counts.loads["kept"] == kept
    driven.fetch(2, 1)
    if not kept:
        driven.command(fx.ReadTotals)
        driven.expect(fx.Receive, (2, "i", [b"2 4"]))
    driven.expect(fx.AwaitTopic, "t")
    (hour,) = driven.command(fx.Apply).hours
    assert hour.pairs[1] == b"3 6"


def test_memory_of_more_than_redis_holds_is_dropped_after_a_lost_reply() -> None:
    driven = Driven()
    driven.run_partition()
    driven.fetch(0, 2)
    driven.expect(fx.AwaitTopic, "t")
    driven.command(fx.Apply)
    driven.expect(fx.Fetch, fx.Fetched())
    driven.expect(fx.Receive, fx.StoreAway("timeout"))
    driven.expect(fx.Disconnect)
    driven.expect(fx.Pause)
    driven.now += 10
    driven.expect(fx.Fetch, fx.Fetched())
    driven.load(META)
    assert driven.core.counts.loads["kept"] == 0
    assert driven.core.running[0].position == 0


def test_an_end_behind_a_gap_says_nothing_until_the_records_are_fetched_again() -> None:
    driven = Driven()
    driven.run_partition()
    for _ in range(2):
        driven.fetch(3, 1, ends={0: 5})
        if isinstance(driven.effect, fx.Restart):
            driven.expect(fx.Restart)
            continue
        driven.expect(fx.AwaitTopic, "t")
        assert driven.command(fx.Apply).position == 4
        return
    pytest.fail("the gap is never accepted")


def test_a_revoked_partition_is_forgotten_and_late_answers_are_ignored() -> None:
    driven = Driven()
    driven.run_partition()
    driven.fetch(0, 2)
    driven.expect(fx.AwaitTopic, "t")
    driven.command(fx.Apply)
    driven.expect(fx.Fetch, fx.Fetched(revoked=[0]))
    driven.expect(fx.Receive, False)
    assert isinstance(driven.effect, fx.Fetch)
    assert not driven.core.running


def test_the_wait_grows_while_dead_letters_are_not_taken_and_is_short_again_after() -> None:
    driven = Driven()
    driven.run_partition()
    bad = Records(range(1), [b"no flow key"], [encode_value(1, 2)], 0, [0])
    waits = []
    for taken in (False, False, False, True, False):
        driven.expect(fx.Fetch, fx.Fetched(records={0: [bad]}))
        driven.expect(fx.StartDescribe, "ticket")
        driven.expect(fx.AwaitTopic, "t")
        driven.expect(fx.SendDeadLetters, None if taken else fx.LogAway("down"))
        if taken:
            driven.command(fx.Apply)
            driven.expect(fx.Fetch, fx.Fetched())
            driven.expect(fx.Receive, True)
            bad = Records(range(1, 2), [b"no flow key"], [encode_value(1, 2)], 0, [0])
            continue
        driven.expect(fx.Disconnect)
        waits.append(driven.core.loading[0].retry_at - driven.now)
        driven.expect(fx.Pause)
        driven.now += 100
        driven.expect(fx.Fetch, fx.Fetched())
        driven.load(Meta(bad.offsets[0], "t", 0, 0, False, "i"))
    assert waits == [0.5, 1.0, 2.0, 0.5]


def test_a_stored_position_that_has_gone_back_is_noticed_while_idle() -> None:
    driven = Driven()
    driven.run_partition(Meta(7, "t", 0, 0, False, "i"))
    driven.now += 2000
    driven.expect(fx.Fetch, fx.Fetched())
    driven.expect(fx.StartDescribe, "ticket")
    driven.command(fx.ReadPositions)
    driven.expect(fx.Receive, {0: (5, "i")})
    driven.expect(fx.Disconnect)
    driven.expect(fx.Pause)
    driven.expect(fx.AwaitTopic, "t")
    driven.load(Meta(5, "t", 0, 0, False, "i"))
    assert driven.core.running[0].position == 5


def waiting(driven: Driven, first: int, count: int) -> fx.Fetch:
    """Fetch records while many more of them wait."""
    fetched = fx.Fetched(records={0: [records(first, count)]}, waiting={0: 1000})
    asked: fx.Fetch = driven.expect(fx.Fetch, fetched)
    return asked


def test_while_records_wait_they_are_folded_into_one_batch_until_its_time_is_over() -> None:
    driven = Driven()
    driven.run_partition()
    assert waiting(driven, 0, 2) == fx.Fetch(0.1, 0.005)
    driven.now += 0.2
    assert waiting(driven, 2, 1) == fx.Fetch(0.1, 0.005)
    assert waiting(driven, 3, 1).wait_seconds == pytest.approx(0.05)  # no longer than the batch's time
    assert (driven.core.running[0].position, driven.core.running[0].sent_position) == (4, 0)
    driven.now += 0.05
    waiting(driven, 4, 1)
    apply = driven.described_apply()
    assert (apply.expected, apply.position) == (0, 5)
    assert apply.hours[0].pairs[1] == b"5 10"
    waiting(driven, 5, 1)  # a batch of its own, with its own time
    assert isinstance(driven.effect, fx.Fetch)


@pytest.mark.parametrize(("waits", "is_sent"), [(0, True), (4, True), (5, False)])
def test_records_are_gathered_while_more_of_them_wait_than_were_gathered(waits: int, is_sent: bool) -> None:
    driven = Driven()
    driven.run_partition()
    waiting(driven, 0, 3)
    driven.expect(fx.Fetch, fx.Fetched(records={0: [records(3, 1)]}, waiting={0: waits} if waits else {}))
    assert isinstance(driven.effect, fx.StartDescribe) is is_sent


def test_a_partition_of_which_none_wait_waits_for_others_no_longer_than_records_linger() -> None:
    driven = Driven()
    driven.run_partition()
    driven.expect(fx.Fetch, fx.Fetched(records={0: [records(0, 4)]}, waiting={1: 1000}))
    driven.now += 0.003
    assert driven.expect(fx.Fetch, fx.Fetched(waiting={1: 1000})).wait_seconds == pytest.approx(0.005)
    driven.now += 0.003
    last = fx.Fetched(errors=["of another partition"], ends={1: 7}, waiting={1: 1000})
    assert driven.expect(fx.Fetch, last).wait_seconds == pytest.approx(0.002)
    assert driven.described_apply().position == 4


def test_a_batch_is_sent_as_soon_as_no_more_records_wait() -> None:
    driven = Driven()
    driven.run_partition()
    waiting(driven, 0, 4)
    driven.expect(fx.Fetch, fx.Fetched(ends={0: 4}))
    assert driven.described_apply().position == 4


def test_a_batch_is_sent_when_its_time_is_over_though_nothing_comes() -> None:
    driven = Driven()
    driven.run_partition()
    waiting(driven, 0, 4)
    driven.now += 0.26
    assert driven.expect(fx.Fetch, fx.Fetched(waiting={0: 1000})) == fx.Fetch(0.1, 0.005)
    assert driven.described_apply().position == 4


def test_batches_are_smaller_after_redis_has_failed_and_grow_again() -> None:
    driven = Driven(batch_writes=2000)
    driven.run_partition()
    for _ in range(2):
        driven.fetch(0, 1)
        driven.expect(fx.AwaitTopic, "t")
        driven.command(fx.Apply)
        driven.expect(fx.Fetch, fx.Fetched())
        driven.expect(fx.Receive, fx.StoreAway("timeout"))
        driven.expect(fx.Disconnect)
        driven.expect(fx.Pause)
        driven.now += 10
        driven.expect(fx.Fetch, fx.Fetched())
        driven.load(META)
    assert driven.core._most_writes == 500
    driven.fetch(0, 1)
    driven.expect(fx.AwaitTopic, "t")
    driven.command(fx.Apply)
    driven.expect(fx.Fetch, fx.Fetched())
    driven.expect(fx.Receive, True)
    assert driven.core._most_writes == 1000


def test_a_batch_is_bounded_by_its_records() -> None:
    driven = Driven()
    driven.run_partition()
    waiting(driven, 0, 9)
    waiting(driven, 9, 1)
    assert driven.described_apply().position == 10


def test_a_batch_is_bounded_by_what_it_writes() -> None:
    driven = Driven()
    driven.run_partition()
    bad = Records(range(10), [b"no flow key"] * 10, [encode_value(1, 2)] * 10, 0, [0] * 10)
    driven.expect(fx.Fetch, fx.Fetched(records={0: [bad]}, waiting={0: 1000}))
    driven.expect(fx.StartDescribe, "ticket")
    driven.expect(fx.AwaitTopic, "t")
    driven.expect(fx.SendDeadLetters)
    assert driven.command(fx.Apply).position == 10


def test_totals_that_are_missing_are_read_once_a_batch() -> None:
    driven = Driven()
    driven.run_partition(Meta(3, "t", 0, 0, False, "i"))
    waiting(driven, 3, 2)
    waiting(driven, 5, 1)
    driven.expect(fx.Fetch, fx.Fetched())
    assert len(driven.command(fx.ReadTotals).fields) == 1
    driven.expect(fx.Receive, (3, "i", [b"10 20"]))
    assert driven.described_apply().hours[0].pairs[1] == b"13 26"


def test_an_open_batch_outlives_a_lost_reply_where_redis_holds_what_was_sent() -> None:
    driven = Driven(max_in_flight=1)
    driven.run_partition()
    driven.fetch(0, 2)
    driven.expect(fx.AwaitTopic, "t")
    driven.command(fx.Apply)
    waiting(driven, 2, 3)
    driven.now += 10
    waiting(driven, 5, 1)
    driven.expect(fx.StartDescribe, "ticket")
    driven.expect(fx.AwaitTopic, "t")
    driven.expect(fx.Receive, fx.StoreAway("timeout"))
    driven.expect(fx.Disconnect)
    driven.expect(fx.Pause)
    driven.now += 10
    driven.expect(fx.Fetch, fx.Fetched())
    driven.expect(fx.StartDescribe, "ticket")
    driven.command(fx.Load)
    driven.expect(fx.Receive, {0: Meta(2, "t", 0, 0, False, "i", writer="me")})
    driven.expect(fx.AwaitTopic, "t")
    assert driven.expect(fx.Restart).start == fx.Start(6, 0)
    assert driven.core.counts.loads["kept"] == 1
    driven.fetch(6, 1)
    driven.expect(fx.AwaitTopic, "t")
    apply = driven.command(fx.Apply)
    assert (apply.expected, apply.position, apply.hours[0].pairs[1]) == (2, 7, b"7 14")


def test_what_is_folded_of_a_log_that_was_cut_is_dropped_and_kafka_asked_again() -> None:
    driven = Driven()
    driven.run_partition()
    waiting(driven, 0, 2)
    driven.expect(fx.Fetch, fx.Fetched(stops={0: (StopReason.LOG_TRUNCATED, "truncated")}))
    driven.expect(fx.StartDescribe, "ticket")
    driven.expect(fx.Disconnect)
    driven.expect(fx.Pause)
    assert (list(driven.core.loading), driven.core.stopped) == ([0], {})
    driven.load(META)
    assert driven.core.running[0].position == 0


def test_what_was_read_before_retention_passed_it_is_applied() -> None:
    driven = Driven()
    driven.run_partition()
    waiting(driven, 0, 2)
    driven.expect(fx.Fetch, fx.Fetched(stops={0: (StopReason.POSITION_BEYOND_LOG, "out of range")}))
    assert driven.described_apply().position == 2
    driven.expect(fx.Watermarks, {0: fx.Bounds(5, 9, 0)})
    apply = driven.command(fx.Apply)
    assert (apply.expected, apply.position, apply.lost) == (2, 5, "2-5")


def test_what_is_folded_is_applied_before_a_consumer_ends() -> None:
    driven = Driven()
    driven.run_partition()
    waiting(driven, 0, 2)
    driven.core.stopping = True
    waiting(driven, 2, 1)
    assert driven.described_apply().position == 3
    driven.expect(fx.Receive, True)
    assert driven.effect == fx.Commit({0: 3})


def test_memory_is_freed_of_a_partition_whose_batch_has_been_sent() -> None:
    driven = Driven(cache_bytes=100)
    driven.run_partition()
    waiting(driven, 0, 2)
    assert driven.described_apply().position == 2
    assert driven.core.running[0].cached_entries == 0
