"""The simulation's model of Kafka is pinned to the real one: the same script on both, the same outcome."""

from collections.abc import Callable
from typing import TypeVar

import pytest
from flowagg_consumer import effects as fx
from flowagg_consumer.partition import StopReason

from tests.conftest import PARTITIONS, Place
from tests.integration.kafka_worlds import LOST, Follower, Model, Read, Real, Record, World, lose_a_tail, settle

pytestmark = [pytest.mark.operations, pytest.mark.timeout(300)]

_T = TypeVar("_T")
MODEL_SEEDS = range(25)


@pytest.fixture(params=["consumer", "classic"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Both of Kafka's group protocols."""
    name: str = request.param
    return name


def numbered(first: int, count: int) -> list[Record]:
    return [Record(b"k%d" % n, b"v%d" % n) for n in range(first, first + count)]


def same_on_both(script: Callable[[World], _T], place: Place, protocol: str = "auto") -> _T:
    """The outcome of a script on Kafka. It is that of the model too, with many seeds of its chances."""
    real = Real(place, PARTITIONS, protocol)
    try:
        outcome = script(real)
    finally:
        real.close()
    for seed in MODEL_SEEDS:
        assert script(Model(PARTITIONS, seed)) == outcome, f"the model, seed {seed}"
    return outcome


def test_records_come_in_order_with_keys_and_values_and_then_the_end(place: Place) -> None:
    records = [
        Record(b"key", b"value"),
        Record(b"key", b"again"),
        Record(None, None),
        Record(b"", b""),
        Record(b"key", None),
    ]

    def script(world: World) -> list[Read]:
        member = world.join()
        member.start(0, 0)
        reads = [member.read(0)]  # an empty log
        world.append(0, records)
        reads.append(member.read(0))
        world.append(0, numbered(0, 30))
        reads.append(member.read(0))
        return reads

    empty, first, second = same_on_both(script, place)
    assert empty == Read([], 0, None)
    assert [(seen.key, seen.value) for seen in first.records] == [(record.key, record.value) for record in records]
    assert (second.offsets, second.end) == (list(range(5, 35)), 35)


def test_a_restart_tells_everything_from_its_position_on_and_the_end_again(place: Place) -> None:
    def script(world: World) -> list[Read]:
        member = world.join()
        world.append(1, numbered(0, 8))
        reads = []
        for offset, leader_epoch in ((0, -1), (3, -1), (5, 0), (8, 0), (8, -1), (0, 0), (7, 0)):
            member.start(1, offset, leader_epoch)
            reads.append(member.read(1))
        return reads

    reads = same_on_both(script, place)
    assert [len(read.records) for read in reads] == [8, 5, 3, 0, 0, 8, 1]
    assert {read.end for read in reads} == {8}


def test_nothing_comes_of_a_paused_partition_until_it_is_restarted(place: Place) -> None:
    def script(world: World) -> list[Read]:
        member = world.join()
        world.append(0, numbered(0, 3))
        member.start(0, 0)
        member.start(1, 0)
        reads = [member.read(0), member.read(1)]
        member.reader.pause(0)
        for first in (0, 2):  # twice: what was under way has come by then
            world.append(0, numbered(3 + first, 2))
            world.append(1, numbered(first, 2))
            reads += [member.read(1), member.told(0)]
        member.start(0, 3)
        return [*reads, member.read(0)]

    reads = same_on_both(script, place)
    assert [read.offsets for read in reads] == [[0, 1, 2], [], [0, 1], [], [2, 3], [], [3, 4, 5, 6]]


def test_a_partition_that_is_not_owned_cannot_be_started(place: Place) -> None:
    def script(world: World) -> str:
        member = world.join()
        try:
            member.reader.restart(0, fx.Start(0, -1))
        except fx.LogAway:
            return "refused"
        return "started"

    assert same_on_both(script, place) == "refused"


def test_what_stands_behind_an_open_transaction_waits_for_its_end(place: Place) -> None:
    def script(world: World) -> list[object]:
        member = world.join()
        member.start(0, 0)
        world.append(0, numbered(0, 2))
        world.open(0, numbered(2, 2))
        world.append(0, numbered(4, 2))
        seen: list[object] = [member.read(0), world.stable(0), world.bounds(0)]
        world.append(0, numbered(6, 1))
        world.append(1, numbered(0, 1))
        member.start(1, 0)
        seen += [member.read(1), member.told(0), world.stable(0)]
        world.end(0, commit=True)
        return [*seen, member.read(0), world.stable(0), world.bounds(0)]

    before, stable, bounds, _, behind, still, after, end, _ = same_on_both(script, place)
    assert isinstance(before, Read)
    assert isinstance(after, Read)
    assert (before.offsets, before.end, stable) == ([0, 1], 2, 2)
    assert bounds == fx.Bounds(0, 6, 0)  # the core's bounds take no notice of transactions
    assert (behind, still) == (Read([], None, None), 2)
    assert (after.offsets, after.end, end) == ([2, 3, 4, 5, 6], 8, 8)


@pytest.mark.parametrize("commit", [True, False], ids=["committed", "aborted"])
def test_a_transaction_leaves_a_gap_and_the_end_lies_behind_its_control_record(place: Place, commit: bool) -> None:
    def script(world: World) -> list[Read]:
        member = world.join()
        member.start(0, 0)
        world.append(0, numbered(0, 1))
        world.open(0, numbered(1, 3))
        world.end(0, commit=commit)
        reads = [member.read(0)]
        world.append(0, numbered(4, 1))
        reads.append(member.read(0))
        world.open(0, numbered(5, 1))
        world.end(0, commit=not commit)
        reads.append(member.read(0))
        for offset in range(9):  # also from within what is aborted, and from a control record
            member.start(0, offset, 0)
            reads.append(member.read(0))
        return reads

    first, second, third, *_ = same_on_both(script, place)
    assert first.offsets == ([0, 1, 2, 3] if commit else [0])
    assert (first.end, second.offsets, second.end) == (5, [5], 6)
    assert (third.offsets, third.end) == ([] if commit else [6], 8)


def test_a_position_behind_the_last_stable_offset_waits_and_goes_on(place: Place) -> None:
    def script(world: World) -> list[Read]:
        member = world.join()
        world.append(0, numbered(0, 1))
        world.open(0, numbered(1, 1))
        world.append(0, numbered(2, 3))
        world.append(1, numbered(0, 1))
        member.start(0, 3, 0)
        member.start(1, 0)
        reads = [member.read(1), member.told(0)]
        world.append(1, numbered(1, 1))
        reads += [member.read(1), member.told(0)]
        world.end(0, commit=True)
        return [*reads, member.read(0)]

    *_, waiting, after = same_on_both(script, place)
    assert waiting == Read([], None, None)
    assert (after.offsets, after.end) == ([3, 4], 6)


def test_a_position_below_the_low_watermark_stops_and_one_on_it_does_not(place: Place) -> None:
    def script(world: World) -> list[object]:
        member = world.join()
        world.append(0, numbered(0, 6))
        world.retain(0, 4)
        seen: list[object] = [world.bounds(0)]
        for offset, leader_epoch in ((4, -1), (4, 0), (3, -1), (3, 0), (0, -1), (0, 0)):
            member.start(0, offset, leader_epoch)
            seen.append(member.read(0))
        world.retain(0, 6)
        seen.append(world.bounds(0))
        for offset, leader_epoch in ((5, 0), (6, -1), (6, 0)):
            member.start(0, offset, leader_epoch)
            seen.append(member.read(0))
        return seen

    outcome = same_on_both(script, place)
    stopped = Read([], None, StopReason.POSITION_BEYOND_LOG)
    assert (outcome[0], outcome[7]) == (fx.Bounds(4, 6, 0), fx.Bounds(6, 6, 0))
    assert outcome[3:7] == [stopped] * 4
    assert outcome[8:] == [stopped, Read([], 6, None), Read([], 6, None)]


def test_a_position_beyond_the_end_stops_and_stays_stopped_until_it_is_restarted(place: Place) -> None:
    def script(world: World) -> list[Read]:
        member = world.join()
        world.append(0, numbered(0, 3))
        reads = []
        for offset, leader_epoch in ((4, -1), (9, -1), (3, 0), (4, -1)):
            member.start(0, offset, leader_epoch)
            reads.append(member.read(0))
        member.start(1, 0)
        for first in (0, 2):
            world.append(0, numbered(3 + first, 2))  # the position is in the log now
            world.append(1, numbered(first, 2))
            reads += [member.read(1), member.told(0)]
        member.start(0, 4)
        return [*reads, member.read(0)]

    reads = same_on_both(script, place)
    beyond = StopReason.POSITION_BEYOND_LOG
    assert [read.stop for read in reads[:4]] == [beyond, beyond, None, beyond]
    assert (reads[5], reads[7]) == (Read([], None, None), Read([], None, None))
    assert (reads[8].offsets, reads[8].end) == ([4, 5, 6], 7)


def start_with_epochs(world: World) -> list[StopReason | None]:
    """Starts of which the log tells, by the leader epoch, whether it holds what was applied."""
    member = world.join()
    world.append(0, numbered(0, 3))
    stops = []
    for offset, leader_epoch in ((3, 0), (4, 0), (9, 0), (1, 7), (3, 7), (4, 7)):
        member.start(0, offset, leader_epoch)
        stops.append(member.read(0).stop)
    return stops


TRUNCATED = [None] + [StopReason.LOG_TRUNCATED] * 5


@pytest.mark.parametrize("seed", MODEL_SEEDS)
def test_a_start_with_a_leader_epoch_that_does_not_fit_the_log_stops_the_model(seed: int) -> None:
    assert start_with_epochs(Model(PARTITIONS, seed)) == TRUNCATED


def test_a_start_with_a_leader_epoch_that_does_not_fit_the_log_stops(place: Place) -> None:
    assert same_on_both(start_with_epochs, place) == TRUNCATED


@pytest.mark.parametrize("seed", MODEL_SEEDS)
def test_a_log_that_loses_its_tail_stops_the_model(seed: int) -> None:
    """As test_cluster has it of brokers of which one leads uncleanly."""
    assert lose_a_tail(Model(PARTITIONS, seed)) == LOST


def test_a_topic_that_is_made_again_has_another_id_and_counts_from_the_start(place: Place) -> None:
    def script(world: World) -> list[object]:
        member = world.join()
        world.append(0, numbered(0, 3))
        before = world.topic_id()
        same = world.topic_id()
        member.start(0, 0)
        seen: list[object] = [member.read(0), before == same]
        world.leave(member)
        world.recreate()
        member = world.join()
        seen += [world.topic_id() == before, world.bounds(0)]
        world.append(0, numbered(10, 2))
        for offset, leader_epoch in ((0, -1), (2, 0), (3, -1)):
            member.start(0, offset, leader_epoch)
            seen.append(member.read(0))
        return seen

    outcome = same_on_both(script, place)
    assert outcome[1:4] == [True, False, fx.Bounds(0, 0, 0)]


def test_a_partition_that_is_added_is_assigned_and_begins_at_zero(place: Place, protocol: str) -> None:
    def script(world: World) -> list[object]:
        member = world.join()
        settle(world, PARTITIONS)
        world.grow(PARTITIONS + 1)
        settle(world, PARTITIONS + 1)
        world.append(PARTITIONS, numbered(0, 2))
        seen: list[object] = [member.revoked, world.bounds(PARTITIONS)]
        member.start(PARTITIONS, 0)
        return [*seen, member.read(PARTITIONS)]

    revoked, bounds, _ = same_on_both(script, place, protocol)
    assert (revoked, bounds) == ([], fx.Bounds(0, 2, 0))


def test_a_second_member_gets_its_share_and_the_first_is_told_what_it_has_lost(place: Place, protocol: str) -> None:
    def script(world: World) -> list[object]:
        first = world.join()
        settle(world, PARTITIONS)
        for number in range(PARTITIONS):
            world.append(number, numbered(number, 2))
            first.start(number, 0)
        seen: list[object] = [first.read(number) for number in range(PARTITIONS)]
        second = world.join()
        settle(world, PARTITIONS)
        seen += [len(first.owned), len(second.owned), second.revoked, set(first.revoked) == second.owned]
        seen.append([_started(first, number) for number in sorted(second.owned)])
        kept = min(first.owned)
        world.append(kept, numbered(100, 1))
        for number in second.owned:
            second.start(number, 1, 0)
        # What stays goes on; what moved begins where its new owner says, and the old one is told nothing more.
        seen += [[row.offset for row in first.read(kept).records], [len(second.read(n).records) for n in second.owned]]
        return [*seen, [first.told(number) for number in second.owned]]

    outcome = same_on_both(script, place, protocol)
    half = PARTITIONS // 2
    assert outcome[PARTITIONS : PARTITIONS + 4] == [half, half, [], True]
    assert outcome[PARTITIONS + 4 :] == [[False] * half, [2], [1] * half, [Read([], None, None)] * half]


def _started(member: Follower, number: int) -> bool:
    try:
        member.reader.restart(number, fx.Start(0, -1))
    except fx.LogAway:
        return False
    return True


def test_the_partitions_of_a_member_that_leaves_go_to_the_other(place: Place, protocol: str) -> None:
    def script(world: World) -> list[object]:
        first, second = world.join(), world.join()
        settle(world, PARTITIONS)
        world.append(0, numbered(0, 2))
        world.leave(second)
        settle(world, PARTITIONS)
        first.start(0, 1)
        return [len(first.owned), first.read(0)]

    outcome = same_on_both(script, place, protocol)
    assert outcome[0] == PARTITIONS
