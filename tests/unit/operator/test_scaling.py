"""How many consumers there should be: each rule of the decision, and each trap that other autoscalers fall into."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
from flowagg_operator.capacity import useful_counts
from flowagg_operator.lag import History, Snapshot
from flowagg_operator.scaling import decide
from flowagg_operator.scaling_terms import WELL, Decision, Observation, Policy, State

LOOK_SECONDS = 5


def even(each: float, partitions: int = 6) -> dict[int, float]:
    return dict.fromkeys(range(partitions), each)


@dataclass
class Group:
    """A group that is looked at every five seconds. What is decided is there at the next look, started and settled.

    arriving: partition -> records a second. speed: records a second that a consumer applies; sink: that all can
    together. backlog: records that are not applied at the start. told: the speed is known without a backlog.
    """

    arriving: Mapping[int, float]
    speed: float = 250.0
    replicas: int = 2
    policy: Policy = field(default_factory=Policy)
    state: State = field(default_factory=State)
    backlog: Mapping[int, float] = field(default_factory=dict)
    stuck: frozenset[int] = frozenset()
    sink: float = float("inf")
    commit_seconds: int = 5
    told: bool = True
    owned: bool = True
    obeyed: bool = True
    at: int = 1_000
    changes: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.low = 1_000_000
        self.high = {p: self.low + self.backlog.get(p, 0.0) for p in self.arriving}
        self.applied = {p: float(self.low) for p in self.arriving}
        self.committed = dict(self.applied)
        self.history = History(self.policy.rate_seconds)

    @property
    def owners(self) -> dict[int, str]:
        return {p: f"consumer-{p % max(1, self.replicas)}" for p in self.arriving}

    def pass_by(self, seconds: int = LOOK_SECONDS) -> None:
        """Time in which records arrive, are applied and are committed."""
        for _ in range(seconds):
            self.at += 1
            for p, rate in self.arriving.items():
                self.high[p] = self.high.get(p, float(self.low)) + rate
                self.applied.setdefault(p, float(self.low))
            waiting = {p: self.high[p] - self.applied[p] for p in self.arriving if p not in self.stuck}
            owners = self.owners
            of_each: dict[str, float] = {}
            for p, left in waiting.items():
                of_each[owners[p]] = of_each.get(owners[p], 0.0) + left
            limit = min(1.0, self.sink / max(1e-9, sum(min(self.speed, left) for left in of_each.values())))
            if self.replicas:
                for p, left in waiting.items():
                    self.applied[p] += left * min(1.0, self.speed / max(1e-9, of_each[owners[p]])) * limit
            if self.at % self.commit_seconds == 0:
                self.committed.update(self.applied)

    def seen(self, **changes: Any) -> Observation:
        """A look at the group as it is now."""
        snapshot = Snapshot(
            float(self.at),
            {p: int(offset) for p, offset in self.committed.items()},
            dict.fromkeys(self.high, self.low),
            {p: int(end) for p, end in self.high.items()},
        )
        self.history = self.history.after(snapshot)
        seen = Observation(
            at=float(self.at),
            replicas=self.replicas,
            desired=self.replicas,
            ready=self.replicas,
            updated=self.replicas,
            history=self.history,
            group="Stable",
            members=self.replicas,
            owners=self.owners if self.owned else None,
            unhindered_rate=self.speed if self.told else None,
        )
        return replace(seen, **changes)

    def look(self, **changes: Any) -> Decision:
        """Five seconds later: look, decide, and carry it out."""
        self.pass_by()
        decision = decide(self.seen(**changes), self.policy, self.state)
        self.state = decision.state
        if decision.target != self.replicas:
            self.changes.append((self.at, self.replicas, decision.target))
            if self.obeyed:
                self.replicas = decision.target
        return decision

    def run(self, seconds: int, **changes: Any) -> list[Decision]:
        return [self.look(**changes) for _ in range(seconds // LOOK_SECONDS)]


def reasons(decisions: list[Decision]) -> set[str]:
    return {decision.reason for decision in decisions}


# --- What is not known changes nothing -------------------------------------------------------------------------------

FAILED: dict[str, Any] = {"history": None, "trouble": "the brokers did not answer", "group": "", "members": None}


@pytest.mark.parametrize("replicas", [1, 3, 6])
def test_a_failed_look_up_never_reads_as_no_lag_and_holds(replicas: int) -> None:
    group = Group(even(1.0), replicas=replicas)
    group.run(60)
    for decision in group.run(3_600, **FAILED):
        assert (decision.reason, decision.target) == ("LagUnknown", replicas)
        assert "the brokers did not answer" in decision.message
        assert (decision.lag_seconds, decision.arrival_rate) == (None, None)


def test_a_failed_look_up_asks_for_nothing_that_is_remembered() -> None:
    group = Group(even(30.0), replicas=3)
    group.run(60)
    before = group.state
    after = group.look(**FAILED).state
    assert (after.asked, after.lags, after.rates, after.busy) == (before.asked, before.lags, before.rates, before.busy)


def test_a_failed_look_up_without_a_word_of_why_holds_too() -> None:
    group = Group(even(30.0), replicas=3)
    decision = group.look(history=None, group="")
    assert (decision.reason, decision.target) == ("LagUnknown", 3)
    assert "offsets could not be looked up" in decision.message


def test_the_first_look_decides_nothing_since_rates_need_two() -> None:
    decision = Group(even(500.0), backlog=even(1e6), replicas=2).look()
    assert (decision.reason, decision.target, decision.lag_seconds) == ("Settling", 2, None)


def test_an_empty_history_decides_nothing() -> None:
    decision = Group(even(1.0)).look(history=History())
    assert (decision.reason, decision.target) == ("Settling", 2)


@pytest.mark.parametrize("outage_seconds", [305, 400, 550])
def test_a_look_up_that_works_again_after_minutes_of_failures_decides(outage_seconds: int) -> None:
    group = Group(even(30.0), replicas=3)
    group.run(10)  # so that only one rate is remembered: the operator had just begun
    group.run(outage_seconds, **FAILED)
    assert group.look().target == 3


def test_two_looks_at_the_same_moment_decide_nothing() -> None:
    group = Group(even(30.0), replicas=3)
    group.look()
    decision = decide(group.seen(), group.policy, group.state)
    assert decision.target == 3


def test_a_topic_that_is_seen_without_partitions_pauses_nothing() -> None:
    history = History().after(Snapshot(1.0, {}, {}, {})).after(Snapshot(6.0, {}, {}, {}))
    decision = decide(replace(Group(even(1.0)).seen(), at=6.0, history=history, owners=None), Policy(), State())
    assert decision.target == 2


# --- Lag -------------------------------------------------------------------------------------------------------------


def test_a_partition_that_nobody_committed_counts_from_its_low_watermark() -> None:
    def snapshot(at: float, high: int) -> Snapshot:
        return Snapshot(at, {0: high}, {0: 0, 1: 5_000_000}, {0: high, 1: 5_000_010})

    history = History().after(snapshot(1.0, 1_000)).after(snapshot(11.0, 1_100))
    seen = replace(Group(even(1.0)).seen(), at=11.0, history=history)
    decision = decide(seen, Policy(), State())
    assert decision.lag_seconds is not None
    assert decision.lag_seconds <= 1.0
    assert decision.target == 2


@pytest.mark.parametrize("commit_seconds", [1, 5, 10, 30])
@pytest.mark.parametrize("told", [True, False], ids=["speed known", "speed not known"])
def test_the_interval_of_commits_is_not_taken_for_lag(commit_seconds: int, told: bool) -> None:
    group = Group(even(40.0), commit_seconds=commit_seconds, told=told)
    decisions = group.run(1_200)
    assert group.changes == []
    assert reasons(decisions) <= {"Settling", "Steady", "Waiting"}
    assert max(d.lag_seconds for d in decisions if d.lag_seconds is not None) < 30


@pytest.mark.parametrize("commit_seconds", [5, 30])
@pytest.mark.parametrize("told", [True, False], ids=["speed known", "speed not known"])
def test_a_group_that_is_nearly_idle_is_not_scaled_for_one_record_of_lag(commit_seconds: int, told: bool) -> None:
    group = Group({0: 1 / 40, **dict.fromkeys(range(1, 6), 0.0)}, replicas=1, commit_seconds=commit_seconds, told=told)
    group.run(1_200)
    assert group.changes == []


@pytest.mark.parametrize("rate", [None, 250.0], ids=["speed not known", "speed known"])
def test_one_record_that_each_slow_commit_leaves_scales_nothing(rate: float | None) -> None:
    """Two records a minute, and commits every 30 s: the second record waits from one commit to the next."""
    history, state, low = History(), State(), dict.fromkeys(range(6), 0)
    for at in range(0, 1_800, 5):
        minutes, second = divmod(at, 60)
        high = 2 * minutes + (second >= 5) + (second >= 25)
        committed = 2 * minutes + (second >= 30)
        rest = dict.fromkeys(range(1, 6), 7)
        history = history.after(Snapshot(1_000.0 + at, {0: committed, **rest}, low, {0: high, **rest}))
        seen = replace(Group(even(0.0), replicas=1).seen(), at=1_000.0 + at, history=history, unhindered_rate=rate)
        decision = decide(seen, Policy(), state)
        assert decision.target == 1, (at, decision.message)
        state = decision.state


def test_bursts_that_are_absorbed_are_not_lag() -> None:
    group = Group(even(10.0), replicas=2)
    group.run(120)
    for _ in range(10):
        for p in group.high:
            group.high[p] += 300.0  # half a minute of arrivals at once, gone within seven seconds
        group.run(120)
    assert group.changes == []


# --- Stuck partitions ------------------------------------------------------------------------------------------------


def test_a_stuck_partition_is_set_aside_and_reported_and_does_not_scale_the_rest() -> None:
    group = Group(even(40.0))
    group.run(120)
    group.stuck = frozenset({2})
    decisions = group.run(1_200)
    assert group.changes == []
    assert reasons(decisions) <= WELL
    aside = [d for d in decisions if d.aside]
    assert set(aside[0].aside) == {2}
    assert 60 <= aside[0].aside[2] < 70
    assert "without progress and set aside: partition 2 (6" in aside[0].message
    assert aside == decisions[-len(aside) :]
    assert max(d.lag_seconds or 0 for d in aside) < 30
    assert aside[-1].arrival_rate == pytest.approx(200, rel=0.1)


def test_a_stuck_partition_that_goes_on_is_no_longer_reported() -> None:
    group = Group(even(40.0))
    group.run(120)
    group.stuck = frozenset({2})
    group.run(120)
    group.stuck = frozenset()
    assert all(not d.aside for d in group.run(60))


def test_a_partition_without_an_owner_is_not_stuck_but_waits() -> None:
    group = Group(even(40.0))
    group.run(120)
    group.stuck = frozenset({2})
    owners = {p: name for p, name in group.owners.items() if p != 2}
    assert all(not d.aside for d in group.run(120, owners=owners))


@pytest.mark.parametrize(
    ("state", "each", "backlog"),
    [
        (State(target=2), 40.0, 500_000.0),
        (State(target=2, rate=250.0, measured_at=1_000.0), 40.0, 500_000.0),
        (State(target=2), 0.0, 1.0),
    ],
    ids=["speed not known", "speed known", "one record in an idle topic"],
)
def test_a_partition_that_was_stuck_before_the_operator_began_does_not_scale_the_rest(
    state: State, each: float, backlog: float
) -> None:
    group = Group(even(each), backlog={2: backlog}, stuck=frozenset({2}), told=False, state=state)
    group.run(180)
    assert group.changes == []


@pytest.mark.parametrize("each", [1.0, 200.0], ids=["fewer would do", "more are needed"])
def test_with_most_partitions_stuck_the_number_holds_and_never_falls(each: float) -> None:
    group = Group(even(each), replicas=3)
    group.run(30)
    group.stuck = frozenset({0, 1, 2, 3})
    group.changes.clear()
    replicas = group.replicas
    decisions = group.run(4_000)[14:]
    assert group.replicas == replicas or each > 1
    assert reasons(decisions) == {"StalledPartition"}
    assert all("4 partitions with lag make no progress" in d.message for d in decisions)
    assert all(to > was for _, was, to in group.changes)


def test_partitions_whose_consumers_were_away_are_not_stuck_once_these_are_back() -> None:
    group = Group(even(40.0), commit_seconds=30)
    group.run(120)
    group.stuck = frozenset(range(6))  # all are restarting
    group.run(120, group="Empty", members=0, ready=0, owners={})
    group.stuck = frozenset()
    assert "StalledPartition" not in reasons(group.run(60))


# --- Up --------------------------------------------------------------------------------------------------------------


def test_load_near_capacity_has_consumers_added_before_there_is_lag() -> None:
    group = Group(even(40.0))
    group.run(120)
    group.arriving = even(79.5)
    decisions = group.run(120)
    up = next(d for d in decisions if d.reason == "ScaledUp")
    assert (up.lag_seconds or 0) < 30
    assert up.target in useful_counts(6)
    assert group.replicas in {3, 6}


def test_a_step_to_twice_the_load_is_caught_up_with_in_three_minutes() -> None:
    group = Group(even(60.0), replicas=2)
    group.run(300)
    group.arriving = even(120.0)
    group.run(180)
    assert all((d.lag_seconds or 0) < 30 for d in group.run(600))
    assert len(group.changes) <= 2


def test_a_backlog_alone_has_consumers_added() -> None:
    group = Group(even(20.0), replicas=1, backlog=even(20_000.0))
    group.run(60)
    assert group.changes[0][1:] == (1, 6)


def test_messages_hold_the_numbers_that_a_decision_was_taken_from() -> None:
    group = Group(even(20.0), replicas=1, backlog=even(20_000.0))
    up = next(d for d in group.run(120) if d.reason == "ScaledUp")
    for part in ("120 records/s arrive", "a consumer applies 250/s", "records = ", "1 -> 6 consumers"):
        assert part in up.message
    steady = Group(even(40.0)).run(60)[-1].message
    assert steady == "240 records/s arrive, a consumer applies 250/s, lag 0 records = 0.0 s"


def test_two_scale_ups_are_at_least_half_a_minute_apart() -> None:
    group = Group({p: 60.0 if p < 3 else 0.0 for p in range(100)}, speed=10.0, replicas=1, told=False, owned=False)
    decisions = group.run(900)
    ups = [at for at, was, to in group.changes if to > was]
    assert len(ups) > 1
    assert all(later - sooner >= 30 for sooner, later in pairwise(ups))
    assert any(d.reason == "Waiting" and "so soon after the last change" in d.message for d in decisions)


def test_the_wait_between_scale_ups_names_what_comes_and_when() -> None:
    group = Group(even(20.0), replicas=1, backlog=even(20_000.0), state=State(target=1, changed_at=1_000.0))
    waiting = next(d for d in group.run(30) if d.reason == "Waiting")
    assert waiting.target == 1
    assert "6 in " in waiting.message


def test_without_a_known_speed_lag_that_lasts_doubles_the_consumers_after_35_seconds() -> None:
    group = Group({p: 60.0 if p < 3 else 0.0 for p in range(12)}, speed=60.0, replicas=2, told=False, owned=False)
    group.high.update({p: end + 30_000.0 for p, end in group.high.items() if p < 3})
    began = group.at
    decisions = group.run(120)
    at, was, to = group.changes[0]
    assert 35 <= at - began <= 50
    assert (was, to) == (2, 4)
    up = next(d for d in decisions if d.reason == "ScaledUp")
    assert "a consumer's speed is not known yet" in up.message
    waiting = next(d for d in decisions if d.reason == "Waiting")
    assert "speed is being measured" in waiting.message


def test_speed_is_measured_while_there_is_a_backlog() -> None:
    group = Group(even(50.0), speed=130.0, backlog=even(30_000.0), told=False, obeyed=False)
    rates = [group.look().rate_per_consumer for _ in range(12)]
    assert rates[:2] == [None, None]
    known = [rate for rate in rates if rate is not None]
    assert known
    assert all(rate == pytest.approx(130, rel=0.05) for rate in known)


def test_speed_is_measured_by_owners_where_only_some_consumers_have_a_backlog() -> None:
    arriving = {0: 200.0, **dict.fromkeys(range(1, 6), 5.0)}
    group = Group(arriving, speed=130.0, replicas=3, told=False, obeyed=False, backlog={0: 30_000.0})
    known = [d.rate_per_consumer for d in group.run(90) if d.rate_per_consumer is not None]
    assert known
    # 0 and 3 are of the same consumer: the two together are what it applies.
    assert all(rate == pytest.approx(130, rel=0.1) for rate in known)


def test_speed_is_not_measured_where_all_consumers_wait_for_records() -> None:
    group = Group(even(40.0), told=False)
    assert all(d.rate_per_consumer is None for d in group.run(600))


def test_speed_is_not_measured_without_owners_where_only_some_partitions_have_a_backlog() -> None:
    arriving = {0: 200.0, **dict.fromkeys(range(1, 6), 5.0)}
    group = Group(arriving, speed=130.0, told=False, owned=False, obeyed=False, backlog={0: 30_000.0})
    assert all(d.rate_per_consumer is None for d in group.run(300))


def test_a_speed_that_was_measured_is_kept_when_the_backlog_is_gone() -> None:
    group = Group(even(20.0), speed=250.0, backlog=even(3_000.0), told=False)
    group.run(600)
    assert group.look().rate_per_consumer == pytest.approx(250, rel=0.05)


def two_of_one_consumer(at: int) -> Snapshot:
    """Both partitions are of one consumer, which applies 50/s of each; the second has a backlog from 1,040 on."""
    done = (at - 1_000) * 50
    more = max(0, at - 1_035) * 1_000
    return Snapshot(float(at), {0: done, 1: done}, {0: 0, 1: 0}, {0: done + 50_000, 1: done + min(more, 100_000)})


def test_speed_does_not_fall_while_a_second_partition_of_a_consumer_gets_a_backlog() -> None:
    history, state, rates = History(), State(), []
    for at in range(1_000, 1_100, 5):
        history = history.after(two_of_one_consumer(at))
        owners = {0: "consumer-1", 1: "consumer-1"}
        seen = Observation(float(at), 1, 1, 1, 1, history, group="Stable", members=1, owners=owners)
        decision = decide(seen, Policy(), state)
        state = decision.state
        rates.append(decision.rate_per_consumer)
    known = [rate for rate in rates if rate is not None]
    assert known
    assert min(known) == pytest.approx(100, rel=0.1)


def test_positions_that_went_back_never_give_a_negative_speed() -> None:
    history, state = History(), State()
    for at in range(1_000, 1_120, 5):
        committed = {0: (at - 1_000) * 10} if at < 1_060 else {}  # the group's offsets were deleted
        history = history.after(Snapshot(float(at), committed, {0: 0}, {0: 100_000 + at * 20}))
        seen = Observation(float(at), 1, 1, 1, 1, history, group="Stable", members=1)
        decision = decide(seen, Policy(), state)
        state = decision.state
        assert decision.rate_per_consumer is None or decision.rate_per_consumer > 0


def test_a_position_that_went_back_to_where_it_was_gives_no_speed_of_zero() -> None:
    history, state = History(), State()
    looks = [(100, 100), (200, 100), (300, 100), (0, 200)]  # deleted offsets: from the log's start again
    for number in range(16):
        committed, low = looks[min(number, 3)]
        at = 1_000.0 + number * 5
        history = history.after(Snapshot(at, {0: committed}, {0: low}, {0: 100_000 + number * 500}))
        seen = Observation(at, 1, 1, 1, 1, history, group="Stable", members=1)
        decision = decide(seen, Policy(), state)
        state = decision.state
        assert decision.target == 1


@pytest.mark.parametrize("pace", [15, 30])
def test_slow_looks_find_lag_too(pace: int) -> None:
    group = Group(even(100.0), replicas=1)
    for _ in range(20):
        group.pass_by(pace)
        decision = decide(replace(group.seen(), unhindered_rate=None), group.policy, group.state)
        group.state, group.replicas = decision.state, decision.target
    assert group.replicas > 1


# --- What stands against more consumers ------------------------------------------------------------------------------


def test_a_slow_sink_has_no_further_consumers_added_for_the_time_of_the_hold() -> None:
    policy = Policy(scale_up_interval_seconds=90.0)  # so that the first is judged before the second is due
    group = Group(even(3.0, 100), replicas=3, sink=150.0, backlog=even(100.0, 100), told=False, policy=policy)
    decisions: list[Decision] = []
    while not any(d.reason == "ScalingIneffective" for d in decisions):
        decisions += group.run(5)
        assert len(decisions) < 100, [(d.reason, d.target) for d in decisions[::10]]
    assert 3 < group.replicas < 100
    group.changes.clear()
    held = group.run(890)
    assert group.changes == []
    assert reasons(held) == {"ScalingIneffective"}
    assert all("Redis" in d.message for d in held)


def test_a_slow_sink_is_noticed_at_the_first_scale_up_that_did_not_help() -> None:
    group = Group(even(3.0, 100), replicas=3, sink=150.0, backlog=even(100.0, 100), told=False)
    group.run(600)
    assert len(group.changes) == 1


def test_a_sink_that_becomes_slow_is_never_said_to_need_more_partitions() -> None:
    group = Group(even(40.0, 12), speed=200.0, replicas=6)
    group.run(300)
    group.sink = 300.0
    found = reasons(group.run(900))
    assert "ScalingIneffective" in found
    assert "PartitionsExhausted" not in found


def test_a_scale_up_that_helps_is_not_called_ineffective() -> None:
    group = Group(even(100.0, 12), speed=150.0, replicas=6, backlog=even(20_000.0, 12))
    assert "ScalingIneffective" not in reasons(group.run(1_800))


def test_partitions_that_are_exhausted_name_how_many_would_do() -> None:
    group = Group(even(150.0), speed=100.0, replicas=6, backlog=even(10_000.0))
    last = group.run(300)[-1]
    assert (last.reason, last.target) == ("PartitionsExhausted", 6)
    assert "900 records/s arrive, a consumer applies 100/s" in last.message
    assert "15 partitions would do" in last.message  # 900 / (0.6 * 100)


def test_one_partition_that_is_too_much_for_a_consumer_is_named_instead() -> None:
    group = Group({0: 150.0, **dict.fromkeys(range(1, 6), 10.0)}, speed=100.0, replicas=6)
    last = group.run(600)[-1]
    assert (last.reason, last.target) == ("PartitionsExhausted", 6)
    assert "one partition alone takes 150/s" in last.message


def test_a_maximum_that_is_too_low_is_reported() -> None:
    group = Group(even(80.0), speed=100.0, replicas=3, policy=Policy(max_replicas=3))
    last = group.run(600)[-1]
    assert (last.reason, last.target) == ("MaximumReached", 3)
    assert "480 records/s arrive" in last.message
    assert "spec.consumer.autoscaling.max is 3: raise it" in last.message


def test_a_maximum_is_reported_where_the_speed_is_not_known_too() -> None:
    arriving = {p: 100.0 if p < 2 else 0.0 for p in range(6)}
    group = Group(arriving, speed=80.0, policy=Policy(max_replicas=2), told=False, owned=False)
    last = group.run(900)[-1]
    assert (last.lag_seconds or 0) > 30
    assert last.reason == "MaximumReached"


# --- Whose number it is ----------------------------------------------------------------------------------------------


def test_a_number_set_by_hand_holds_for_a_quarter_of_an_hour_and_then_the_lag_decides() -> None:
    group = Group(even(200.0), replicas=6)
    group.run(300)
    group.replicas = 1
    decisions = group.run(900)
    assert {(d.reason, d.target) for d in decisions} == {("ManualOverride", 1)}
    assert decisions[0].message.startswith("1 was set by hand: it holds for 15 min")
    after = group.look()
    assert after.reason != "ManualOverride"
    group.run(60)
    assert group.replicas == 6


def test_another_number_set_by_hand_begins_the_hold_again() -> None:
    group = Group(even(40.0))
    group.run(60)
    group.replicas = 4
    group.run(600)
    group.replicas = 5
    assert reasons(group.run(900)) == {"ManualOverride"}
    assert group.look().reason != "ManualOverride"


def test_a_number_that_is_there_when_the_autoscaler_begins_is_not_one_set_by_hand() -> None:
    group = Group(even(40.0), replicas=3)
    assert "ManualOverride" not in reasons(group.run(60))


def test_a_new_annotation_renews_the_hold() -> None:
    group = Group(even(40.0))
    group.run(60)
    group.replicas = 4
    group.run(600)
    assert reasons(group.run(900, renewal="again")) == {"ManualOverride"}
    assert group.look(renewal="again").reason != "ManualOverride"
    assert group.look(renewal="and again").reason == "ManualOverride"


def test_an_annotation_that_was_there_from_the_first_renews_nothing() -> None:
    group = Group(even(40.0))
    assert "ManualOverride" not in reasons(group.run(60, renewal="old"))


def test_an_annotation_that_is_taken_away_leaves_the_hold() -> None:
    group = Group(even(40.0))
    group.run(60)
    group.replicas = 4
    group.run(60, renewal="again")
    assert group.look().reason == "ManualOverride"


def test_a_consumer_that_is_missing_for_a_moment_is_no_lack_of_consumers() -> None:
    group = Group(even(62.0), replicas=2)  # 75 % of what both apply
    group.run(120)
    owners = dict.fromkeys(range(6), "c-0")
    decision = group.look(ready=1, members=1, owners=owners)
    assert (decision.target, decision.reason) == (2, "Steady")


def test_pods_without_room_do_not_keep_the_others_for_ever() -> None:
    group = Group(even(40.0), replicas=6)
    owners = {partition: f"c-{partition % 3}" for partition in range(6)}
    group.run(1_950, ready=3, members=3, owners=owners)
    assert group.replicas == 2


def test_zero_pauses_until_it_is_changed() -> None:
    group = Group(even(100.0))
    group.run(60)
    group.replicas = 0
    decisions = group.run(4_000)
    assert {(d.reason, d.target) for d in decisions} == {("Paused", 0)}
    assert "spec.consumer.replicas is 0" in decisions[0].message
    group.replicas = 2
    assert group.look().reason == "ManualOverride"


def test_zero_pauses_where_it_was_there_from_the_first_too() -> None:
    group = Group(even(100.0), replicas=0)
    assert {(d.reason, d.target) for d in group.run(100)} == {("Paused", 0)}


def test_a_write_that_did_not_arrive_is_not_a_number_set_by_hand_and_is_tried_again() -> None:
    group = Group(even(20.0), replicas=1, backlog=even(200_000.0), obeyed=False)
    decisions = group.run(300)
    assert "ManualOverride" not in reasons(decisions)
    assert len(group.changes) > 1
    assert {change[1:] for change in group.changes} == {(1, 6)}


@pytest.mark.parametrize("replicas", [2, 3], ids=["not written yet", "written"])
def test_an_operator_that_began_anew_in_the_middle_of_a_change_sees_its_own_number(replicas: int) -> None:
    group = Group(even(40.0), replicas=replicas, state=State(target=3, previous=2))
    assert "ManualOverride" not in reasons(group.run(60))


def test_a_number_that_somebody_set_while_no_operator_ran_is_one_set_by_hand() -> None:
    group = Group(even(40.0), replicas=5, state=State(target=3, previous=2))
    assert group.look().reason == "ManualOverride"


def test_what_it_asked_for_before_is_a_number_set_by_hand_once_the_new_one_was_seen() -> None:
    group = Group(even(20.0), replicas=1, backlog=even(20_000.0))
    group.run(120)
    assert group.replicas == 6
    group.replicas = 1
    assert group.look().reason == "ManualOverride"


def test_another_autoscaler_stops_this_one() -> None:
    group = Group(even(200.0), replicas=1, backlog=even(20_000.0))
    decisions = group.run(300, rival="HorizontalPodAutoscaler consumers")
    assert {(d.reason, d.target) for d in decisions} == {("AutoscalerConflict", 1)}
    assert "HorizontalPodAutoscaler consumers scales the same consumers" in decisions[0].message
    assert group.look().reason != "AutoscalerConflict"


# --- Rest ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state", ["", "Empty", "Dead", "PreparingRebalance", "CompletingRebalance", "Assigning", "Reconciling", "Unknown"]
)
def test_a_group_that_is_not_stable_holds_and_after_two_minutes_that_is_trouble(state: str) -> None:
    group = Group(even(200.0), replicas=2, backlog=even(20_000.0))
    group.run(5)
    decisions = group.run(300, group=state)
    assert group.changes == []
    assert [d.reason for d in decisions] == ["Settling"] * 24 + ["Unsettled"] * 36
    assert f"the group is {state or 'in an unknown state'} for 120 s" in decisions[24].message


def test_a_group_that_was_stable_in_between_has_its_two_minutes_again() -> None:
    group = Group(even(40.0))
    group.run(100, group="PreparingRebalance")
    group.run(5)
    assert reasons(group.run(120, group="PreparingRebalance")) == {"Settling"}


def test_time_in_which_nothing_was_known_is_not_time_in_which_the_group_was_unsettled() -> None:
    group = Group(even(40.0))
    group.run(60)
    group.run(250, **FAILED)
    assert group.look(group="PreparingRebalance").reason == "Settling"


# --- Down ------------------------------------------------------------------------------------------------------------


def calm() -> Group:
    """Six consumers where two would do, for so long that fewer are due at the next look but one."""
    group = Group(even(40.0), replicas=6, state=State(target=6, rate=250.0, measured_at=1_000.0))
    group.run(1_795)
    assert group.changes == []
    return group


def test_fewer_consumers_come_once_the_window_is_whole_and_as_many_stay_as_were_asked_for_at_most() -> None:
    group = calm()
    group.run(60)
    assert [change[1:] for change in group.changes] == [(6, 2)]
    assert group.changes[0][0] - 1_000 >= 1_800


def test_a_peak_in_the_window_keeps_consumers_for_the_window() -> None:
    group = Group(even(40.0), replicas=6)
    group.run(900)
    group.arriving = even(65.0)  # asks for three
    group.run(300)
    group.arriving = even(40.0)
    peak_end = group.at
    group.run(2_400)
    assert [change[1:] for change in group.changes] == [(6, 3), (3, 2)]
    assert group.changes[1][0] - peak_end >= 1_800 - 60


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("not stable", {"group": "PreparingRebalance"}),
        ("one is not ready", {"ready": 5}),
        ("a member is missing", {"members": 5}),
        ("a member is left over", {"members": 7}),
        ("not all are updated", {"updated": 5}),
        ("the Deployment has another number", {"desired": 5}),
    ],
)
def test_fewer_consumers_come_only_once_the_group_has_been_settled_for_a_minute(
    why: str, changes: dict[str, Any]
) -> None:
    group = calm()
    group.run(120, **changes)
    assert group.changes == [], why
    settled = group.at + LOOK_SECONDS
    group.run(90)
    assert group.changes[0][0] - settled >= 60


def test_a_number_of_members_that_is_not_known_does_not_keep_consumers() -> None:
    group = Group(even(40.0), replicas=6)
    group.run(1_900, members=None)
    assert group.replicas == 2


def test_no_fewer_consumers_while_there_is_lag() -> None:
    group = calm()
    group.speed, group.told = 1.0, False  # what was known of it stays
    for p in group.high:
        group.high[p] += 3_000.0
    decisions = group.run(300)
    late = [d for d in decisions if (d.lag_seconds or 0) >= 30]
    assert late
    assert all(d.target >= 6 for d in late)


def test_the_message_before_says_how_many_would_do_and_when_that_is_judged() -> None:
    group = Group(even(40.0), replicas=6)
    waiting = group.run(905)[-1]
    assert waiting.reason == "Waiting"
    assert "2 would do, judged in 9" in waiting.message


def test_the_message_counts_down_from_a_clock_that_began_at_zero_too() -> None:
    group = Group(even(40.0), replicas=6, at=-10)
    waiting = group.run(905)[-1]
    assert group.state.asked_since == 0.0
    assert "judged in 9" in waiting.message


@pytest.mark.parametrize("changes", [FAILED, {"group": "Empty"}], ids=["failed", "empty"])
def test_a_window_in_which_nothing_could_be_judged_is_not_whole(changes: dict[str, Any]) -> None:
    group = Group(even(200.0), replicas=6)
    group.run(300)
    group.arriving = even(10.0)
    group.run(1_860, **changes)
    seen_again = group.at
    group.run(1_700)
    assert group.changes == [], f"after {group.changes[0][0] - seen_again} s"


def test_without_a_known_speed_consumers_go_one_useful_step_a_window() -> None:
    group = Group(even(1.0), replicas=6, told=False)
    group.run(1_900)
    assert [change[1:] for change in group.changes] == [(6, 3)]


def test_a_number_that_proved_too_small_is_not_tried_again_within_the_hour() -> None:
    group = Group(even(70.0), replicas=2, speed=200.0, told=False)
    group.run(900)
    assert group.replicas > 2
    group.run(2_400)
    assert group.replicas > 2


# --- Bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicas", "policy", "target"),
    [
        (9, Policy(), 6),  # above the partitions
        (6, Policy(max_replicas=4), 4),
        (1, Policy(min_replicas=2), 2),
        (9, Policy(min_replicas=8), 6),  # the partitions bound min too
        (1, Policy(min_replicas=5, max_replicas=3), 3),
        (3, Policy(min_replicas=3, max_replicas=3), 3),
    ],
)
def test_a_number_out_of_bounds_is_put_right_at_once(replicas: int, policy: Policy, target: int) -> None:
    group = Group(even(40.0), replicas=replicas, policy=policy)
    group.run(10)
    assert group.replicas == target
    group.run(300)
    assert group.replicas == target


def test_bounds_are_said_with_their_numbers() -> None:
    group = Group(even(40.0), replicas=9, policy=Policy(max_replicas=5))
    assert "9 -> 5 consumers: 9 is out of bounds (6 partitions, min 1, max 5)" in group.run(10)[-1].message


def test_a_topic_that_grew_has_room_for_more_consumers() -> None:
    group = Group(even(150.0), speed=100.0, replicas=6)
    assert group.run(300)[-1].reason == "PartitionsExhausted"
    group.arriving = even(60.0, 12)
    group.run(120)
    assert group.replicas == 12


def test_a_manual_number_above_the_partitions_holds() -> None:
    group = Group(even(40.0))
    group.run(30)
    group.replicas = 9
    assert {(d.reason, d.target) for d in group.run(300)} == {("ManualOverride", 9)}


@pytest.mark.parametrize("partitions", [1, 2, 6, 7, 100])
def test_only_useful_numbers_of_consumers_are_asked_for(partitions: int) -> None:
    group = Group(even(30.0, partitions), replicas=1, backlog=even(10_000.0, partitions))
    group.run(2_400)
    assert {to for _, _, to in group.changes} <= set(useful_counts(partitions))


# --- A function ------------------------------------------------------------------------------------------------------


def test_needed_is_not_said_where_it_is_not_known() -> None:
    group = Group(even(40.0))
    assert group.run(30)[-1].needed == 2


def test_needed_is_none_while_the_speed_is_not_known() -> None:
    decision = Group(even(1.0), told=False).run(30)[-1]
    assert decision.rate_per_consumer is None
    assert decision.needed is None


@pytest.mark.parametrize("told", [True, False])
def test_the_decision_is_a_function_and_leaves_its_inputs_as_they_were(told: bool) -> None:
    group = Group(even(60.0), replicas=2, backlog=even(9_000.0), told=told)
    for step in range(240):
        if step == 100:
            group.stuck = frozenset({1})
        group.pass_by()
        seen = group.seen()
        before = copy.deepcopy((seen, group.policy, group.state))
        first = decide(seen, group.policy, group.state)
        assert (seen, group.policy, group.state) == before
        assert decide(seen, group.policy, group.state) == first
        group.state, group.replicas = first.state, first.target
