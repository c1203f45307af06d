"""Candidates, an API server and the ways between them in virtual time; every run is replayed by its seed.

The model does what the real server does: compare-and-swap by resourceVersion, watches in order, reads of the store
itself. It delays, loses requests and answers, stops, and forgets objects; candidates are killed, stopped and
continued. Who serves is what the slice says.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from flowagg.election import (
    LEASE,
    Candidate,
    Done,
    Effect,
    Ending,
    Event,
    Failed,
    Read,
    Seen,
    Serve,
    Timing,
    Woken,
    Write,
)
from flowagg.election_lease import Lease
from flowagg.election_slice import Pod, Slice

TIMING = Timing()
SLICE = "main-writer"
TARGETS = (LEASE, SLICE)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
QUICK = (0.001, 0.02)
Body = dict[str, Any]


@dataclass
class Ways:
    """How the network is: seconds that a leg takes, and the share of requests and of answers that are lost."""

    leg: tuple[float, float] = QUICK
    lost_requests: float = 0.0
    lost_answers: float = 0.0


class World:
    """One run. Times are seconds since its begin."""

    def __init__(self, seed: int, ways: Ways | None = None) -> None:
        self.random = random.Random(seed)
        self.ways = ways or Ways()
        self.now = 0.0
        self.up = True
        self.frozen = False  # requests are taken in, and carried out later
        self._frozen_requests = list[Callable[[], None]]()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self.version = 100
        self.objects: dict[str, Body | None] = {}
        self.processes: dict[str, Process] = {}
        self.named: list[tuple[float, str]] = []  # when the slice began to name whom
        self.renewed = list[float]()  # when the lease was written
        self.conflicts = 0
        self.rightful = True  # whether nobody but candidates touched the lease
        self.make(LEASE, {"metadata": {"name": SLICE}})
        self.make(SLICE, {"metadata": {"name": SLICE}, "addressType": "IPv4", "endpoints": []})

    # Time ----------------------------------------------------------------------------------------

    def at(self, moment: float, do: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (moment, self._number, do))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._queue and self._queue[0][0] <= until:
            self.now, _, do = heapq.heappop(self._queue)
            do()
        self.now = until

    def run_until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Seconds until the condition held."""
        began = self.now
        while not condition():
            assert self.now - began <= seconds, f"not within {seconds} s: {self.named}, {self.objects[LEASE]}"
            assert self._queue
            self.now, _, do = heapq.heappop(self._queue)
            do()
        return self.now - began

    def freeze(self, request: Callable[[], None]) -> None:
        self._frozen_requests.append(request)

    def thaw(self) -> None:
        self.frozen = False
        requests, self._frozen_requests = self._frozen_requests, []
        self.random.shuffle(requests)  # one goroutine each
        for request in requests:
            self.at(self.now + self.random.uniform(0, 0.01), request)

    # The API server --------------------------------------------------------------------------------

    def make(self, target: str, body: Body | None) -> None:
        """Set an object from outside; None: delete it."""
        self.version += 1
        self.objects[target] = body if body is None else self._stamped(body)
        for process in self.processes.values():
            process.watch(target, self.objects[target])

    def replace(self, target: str, body: Body, writer: str) -> Body | str:
        current = self.objects[target]
        if current is None:
            return "not_found"
        if body["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"]:
            self.conflicts += 1
            return "conflict"
        if target == SLICE:
            self._check(current, body, writer)
        else:
            self.renewed.append(self.now)
        self.make(target, body)
        return self.objects[target] or "not_found"

    def _check(self, current: Body, body: Body, writer: str) -> None:
        """The invariants of the slice."""
        assert len(body["endpoints"]) == 1, "the slice names one endpoint, never none"
        assert name_of(body) == writer
        if name_of(current) != writer:
            assert not self.rightful or self.holder != name_of(current) or not self.holder, "taken from its holder"
            self.named.append((self.now, writer))

    def _stamped(self, body: Body) -> Body:
        return {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}

    @property
    def holder(self) -> str:
        return ((self.objects[LEASE] or {}).get("spec") or {}).get("holderIdentity") or ""

    @property
    def transitions(self) -> int:
        return int(((self.objects[LEASE] or {}).get("spec") or {}).get("leaseTransitions") or 0)

    @property
    def served_by(self) -> str:
        """Whom the slice names."""
        return name_of(self.objects[SLICE] or {"endpoints": []})

    def leg(self) -> float:
        return self.random.uniform(*self.ways.leg)

    # Candidates ------------------------------------------------------------------------------------

    def start(self, name: str, address: str = "") -> "Process":
        process = Process(self, name, address or f"10.0.0.{len(self.processes) + 1}")
        self.processes[name] = process
        return process

    def start_settled(self, *names: str) -> None:
        for name in names:
            self.start(name)
        self.run_until(lambda: self.served_by != "", 60)
        self.run(5)

    @property
    def serving(self) -> "Process":
        return self.processes[self.served_by]


def name_of(body: Body) -> str:
    endpoints = body.get("endpoints") or [{}]
    return str(endpoints[0].get("targetRef", {}).get("name", endpoints[0].get("addresses", [""])[0]))


@dataclass
class Process:
    """A candidate with its threads: what it is told while it is stopped waits."""

    world: World
    name: str
    address: str
    alive: bool = True
    stopped: bool = False
    done_at: float | None = None
    stood_by_at: float | None = None
    changes: int = 0
    wall_offset: timedelta = timedelta()
    watching: bool = True
    _alarms: int = 0
    _waiting: list[Callable[[], None]] = field(default_factory=list)
    _watched_at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pod = Pod(self.name, "flows", f"uid-{self.name}", "node", (self.address,))
        self.candidate = Candidate(pod, (SLICE,), TIMING, self.world.now)
        self.tell(Woken())
        for target in TARGETS:
            self._look(target)

    def _look(self, target: str) -> None:
        """A watch's own read, every 10 s."""
        if self.alive:
            if self.watching:
                self._request(Read(0, target, False))
            self.world.at(self.world.now + 10, lambda: self._look(target))

    def in_process(self, do: Callable[[], None]) -> None:
        if not self.alive:
            return
        if self.stopped:
            self._waiting.append(do)
        else:
            do()

    def tell(self, event: Event) -> None:
        self.in_process(lambda: self._handle(event))

    def _handle(self, event: Event) -> None:
        world = self.world
        if self.done_at is not None:
            return
        for effect in self.candidate.handle(event, world.now, EPOCH + timedelta(seconds=world.now) + self.wall_offset):
            self._do(effect)
        wake_at = self.candidate.wake_at
        assert wake_at > world.now or self.done_at is not None, "wakes itself without end"
        self._alarms += 1
        alarm = self._alarms
        world.at(wake_at, lambda: self.tell(Woken()) if alarm == self._alarms else None)

    def _do(self, effect: Effect) -> None:
        match effect:
            case Read() | Write():
                # A thread's start takes a moment, in which the process may be stopped.
                send = lambda: self.in_process(lambda: self._request(effect))  # noqa: E731
                self.world.at(self.world.now + self.world.random.uniform(0, 0.002), send)
            case Serve(active, _):
                self.changes += 1
                if not active:
                    self.stood_by_at = self.world.now
            case Done():
                self.done_at = self.world.now

    def _request(self, call: Read | Write) -> None:
        world, asked_at = self.world, self.world.now
        answered = False

        def answer(event: Event) -> None:
            nonlocal answered
            if not answered:
                answered = True
                if call.call or isinstance(event, Seen):
                    self.tell(event)

        def arrive() -> None:
            if world.frozen:
                world.freeze(arrive)
                return
            if not world.up:
                answer(Failed(call.call, "unreachable"))
                return
            reply: Event
            if isinstance(call, Write):
                result = world.replace(call.target, dict(call.body), self.name)
                if result in ("conflict", "not_found"):
                    reply = Failed(call.call, result)  # type: ignore[arg-type]
                else:
                    assert isinstance(result, dict)
                    reply = Seen(call.target, parsed(call.target, result), asked_at, call.call, True)
            else:
                reply = Seen(call.target, parsed(call.target, world.objects[call.target]), asked_at, call.call)
            if world.random.random() >= world.ways.lost_answers:
                world.at(world.now + world.leg(), lambda: answer(reply))

        if world.random.random() >= world.ways.lost_requests:
            world.at(world.now + world.leg(), arrive)
        world.at(world.now + 2 * TIMING.lease_seconds, lambda: answer(Failed(call.call, "unreachable")))

    def watch(self, target: str, body: Body | None) -> None:
        if not (self.alive and self.watching and self.world.up):
            return
        moment = max(self._watched_at.get(target, 0.0), self.world.now + self.world.leg())
        self._watched_at[target] = moment
        self.world.at(moment, lambda: self.tell(Seen(target, parsed(target, body))))

    def kill(self) -> None:
        self.alive = False

    def stop(self) -> None:
        self.stopped = True

    def go_on(self) -> None:
        self.stopped = False
        waiting, self._waiting = self._waiting, []
        if self.world.random.random() < 0.5:
            self.world.random.shuffle(waiting)  # threads go on in any order
        for do in waiting:
            self.in_process(do)


def parsed(target: str, body: Body | None) -> Lease | Slice | None:
    if body is None:
        return None
    return Lease.read(body, TIMING.lease_seconds) if target == LEASE else Slice.read(body)


SEEDS = pytest.mark.parametrize("seed", range(25))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("leg", [QUICK, (0.2, 0.3), (0.5, 0.5), (0.05, 0.5)], ids=["quick", "half", "second", "mixed"])
def test_nobody_changes_in_thirty_quiet_minutes_with_up_to_a_second_of_latency(
    seed: int, leg: tuple[float, float]
) -> None:
    world = World(seed, Ways(leg))
    world.start_settled("a", "b", "c")
    world.renewed.clear()
    world.conflicts = 0
    world.run(30 * 60)
    assert len(world.named) == 1
    assert max(later - earlier for earlier, later in pairwise(world.renewed)) < 1.9, "far from the lease's 3 s"
    assert world.conflicts < len(world.renewed) / 10, "few calls are repeated"
    assert world.transitions == 0
    assert sum(process.changes for process in world.processes.values()) == 1


@SEEDS
def test_latency_that_comes_and_goes_changes_nobody(seed: int) -> None:
    world = World(seed)
    world.start_settled("a", "b")
    for _ in range(20):
        world.ways = Ways(world.random.choice([QUICK, (0.5, 0.5), (0.3, 0.5)]))
        world.run(world.random.uniform(1, 20))
    assert len(world.named) == 1


@SEEDS
def test_lost_requests_and_answers_change_nobody_while_the_active_renews(seed: int) -> None:
    world = World(seed)
    world.start_settled("a", "b")
    world.ways = Ways(QUICK, lost_requests=0.05, lost_answers=0.05)
    world.run(300)
    assert len(world.named) == 1


@SEEDS
def test_a_killed_active_is_replaced_within_the_lease_and_a_second_and_a_half(seed: int) -> None:
    world = World(seed)
    world.start_settled("a", "b", "c")
    world.run(world.random.uniform(0, 2))
    first = world.served_by
    world.processes[first].kill()
    took = world.run_until(lambda: world.served_by != first, 10)
    assert TIMING.lease_seconds - TIMING.renew_seconds - 0.2 < took < TIMING.lease_seconds + 1.5


@SEEDS
def test_a_killed_active_is_replaced_though_every_answer_takes_two_seconds(seed: int) -> None:
    world = World(seed, Ways((0.9, 1.0)))
    world.start_settled("a", "b", "c")
    world.run(300)
    assert len(world.named) == 1
    first = world.served_by
    world.processes[first].kill()
    world.run_until(lambda: world.served_by != first, TIMING.lease_seconds + 5 * 2)


@SEEDS
def test_a_stopped_active_stands_by_as_soon_as_it_goes_on(seed: int) -> None:
    world = World(seed)
    world.start_settled("a", "b", "c")
    world.run(world.random.uniform(0, 2))
    first = world.serving
    first.stop()
    assert world.run_until(lambda: world.served_by != first.name, 10) < TIMING.lease_seconds + 1.5
    world.run(world.random.uniform(0, 60))
    first.go_on()
    assert world.run_until(lambda: not first.candidate.active, 5) < 0.2
    world.run(60)
    assert len(world.named) == 2


@SEEDS
def test_a_pause_shorter_than_the_lease_changes_nobody(seed: int) -> None:
    world = World(seed)
    world.start_settled("a", "b")
    for _ in range(10):
        first = world.serving
        first.stop()
        world.run(world.random.uniform(0, TIMING.lease_seconds - TIMING.renew_seconds - 0.2))
        first.go_on()
        world.run(world.random.uniform(1, 5))
    assert len(world.named) == 1


@SEEDS
@pytest.mark.parametrize("leg", [QUICK, (0.5, 0.5)], ids=["quick", "second"])
def test_an_ending_active_serves_until_its_successor_is_named_and_two_seconds_more(
    seed: int, leg: tuple[float, float]
) -> None:
    world = World(seed, Ways(leg))
    world.start_settled("a", "b", "c")
    world.run(world.random.uniform(0, 2))
    first, began = world.serving, world.now
    first.tell(Ending())
    took = world.run_until(lambda: world.served_by != first.name, 10)
    assert took < 0.2 if leg == QUICK else 4.0
    named_at = world.now
    world.run_until(lambda: first.done_at is not None, 15)
    assert first.done_at is not None
    assert first.done_at >= named_at + TIMING.linger_seconds
    assert first.done_at - began < TIMING.handover_seconds + 0.01
    assert first.done_at - named_at < TIMING.linger_seconds + (0.2 if leg == QUICK else 2.0)
    world.run(30)
    assert len(world.named) == 2
    assert world.transitions == 1


@SEEDS
def test_a_lone_replica_ends_after_as_long_as_a_successor_would_take(seed: int) -> None:
    world = World(seed)
    world.start_settled("a")
    world.serving.tell(Ending())
    took = world.run_until(lambda: world.serving.done_at is not None, 15)
    assert took < TIMING.lease_seconds + 0.5
    assert world.served_by == "a", "the slice is never emptied"
    assert world.holder == ""


def test_an_active_that_cannot_reach_the_api_server_ends_within_the_hand_over() -> None:
    world = World(0)
    world.start_settled("a", "b")
    world.up = False
    first = world.serving
    first.tell(Ending())
    assert world.run_until(lambda: first.done_at is not None, 15) <= TIMING.handover_seconds + 0.01


def test_a_standby_ends_at_once() -> None:
    world = World(0)
    world.start_settled("a", "b")
    standby = next(p for p in world.processes.values() if p.name != world.served_by)
    standby.tell(Ending())
    assert standby.done_at == world.now


@SEEDS
def test_all_replicas_may_be_told_to_end_together(seed: int) -> None:
    world = World(seed)
    world.start_settled("a", "b", "c")
    for process in world.processes.values():
        process.tell(Ending())
    world.run_until(lambda: all(p.done_at is not None for p in world.processes.values()), 15)


@SEEDS
def test_an_api_server_that_is_away_for_twenty_seconds_changes_nobody(seed: int) -> None:
    world = World(seed)
    world.start_settled("a", "b", "c")
    first = world.serving
    for _ in range(5):
        world.up = False
        world.run(world.random.uniform(15, 25))
        assert first.candidate.active, "the active serves on"
        world.up = True
        world.run(world.random.uniform(5, 15))
    assert len(world.named) == 1


@SEEDS
def test_an_api_server_that_is_stopped_for_longer_than_the_lease_changes_nobody(seed: int) -> None:
    world = World(seed)
    world.start_settled("a", "b", "c")
    first = world.serving
    for _ in range(5):
        world.frozen = True
        world.run(world.random.uniform(4, 25))
        assert first.candidate.active, "the active serves on"
        world.thaw()
        world.run(world.random.uniform(5, 15))
    assert len(world.named) == 1


@SEEDS
def test_an_active_that_dies_while_the_api_server_is_away_is_replaced_after(seed: int) -> None:
    world = World(seed)
    world.start_settled("a", "b")
    world.up = False
    world.run(world.random.uniform(1, 10))
    first = world.served_by
    world.processes[first].kill()
    world.run(world.random.uniform(0, 10))
    world.up = True
    assert world.run_until(lambda: world.served_by != first, 20) < 2 * TIMING.lease_seconds + 1.5


@SEEDS
def test_jumps_of_the_wall_clock_change_nobody(seed: int) -> None:
    world = World(seed)
    world.start_settled("a", "b", "c")
    for _ in range(20):
        process = world.random.choice(list(world.processes.values()))
        process.wall_offset = timedelta(hours=world.random.uniform(-1000, 1000))
        world.run(world.random.uniform(0, 10))
    assert len(world.named) == 1


@SEEDS
def test_standbys_without_their_watches_do_not_take_over(seed: int) -> None:
    world = World(seed)
    world.start_settled("a", "b", "c")
    for process in world.processes.values():
        process.watching = False
    world.run(120)
    assert len(world.named) == 1
    world.serving.kill()
    first = world.served_by
    assert world.run_until(lambda: world.served_by != first, 20) < 2 * TIMING.lease_seconds + 1.5


@SEEDS
def test_a_deleted_lease_changes_nobody_and_the_new_one_is_taken_by_the_active(seed: int) -> None:
    world = World(seed)
    world.start_settled("a", "b", "c")
    world.rightful = False
    for _ in range(5):
        world.make(LEASE, None)
        world.run(world.random.choice([0.0, 0.5, 5.0]))
        world.make(LEASE, {"metadata": {"name": SLICE}})
        world.run_until(lambda: world.holder != "", 5)
        assert world.holder == world.served_by
        world.run(world.random.uniform(0, 5))
    assert len(world.named) == 1


@SEEDS
def test_a_slice_that_was_changed_or_deleted_leads_to_the_active_again(seed: int) -> None:
    world = World(seed)
    world.start_settled("a", "b")
    empty = {"metadata": {"name": SLICE}, "addressType": "IPv4", "endpoints": []}
    for change in (empty, {**empty, "endpoints": [{"addresses": ["10.9.9.9"]}]}, None):
        world.run(2)
        world.make(SLICE, change)
        if change is None:
            world.run(3)
            world.make(SLICE, empty)
        assert world.run_until(lambda: world.served_by == world.holder, 5) < TIMING.renew_seconds + 0.2


@SEEDS
def test_a_container_that_starts_again_in_its_pod_goes_on_as_the_active(seed: int) -> None:
    world = World(seed)
    world.start_settled("a", "b")
    first = world.serving
    first.kill()
    world.run(1)
    again = world.start(first.name, first.address)
    world.run_until(lambda: again.candidate.active, 3)
    world.run(30)
    assert len(world.named) == 1
    assert world.transitions == 0


@pytest.mark.parametrize("seed", range(150))
def test_whatever_happens_somebody_alive_is_named_soon_after(seed: int) -> None:
    world = World(seed)
    names = ["a", "b", "c"]
    world.start_settled(*names)
    for number in range(world.random.randrange(5, 25)):
        process = world.random.choice(list(world.processes.values()))
        match world.random.randrange(9):
            case 0:
                process.kill()
                world.start(f"n{number}")
            case 1:
                process.stop()
            case 2:
                process.go_on()
            case 3:
                world.up = not world.up
            case 4:
                world.ways = Ways(world.random.choice([QUICK, (0.3, 0.5), (0.0, 1.5)]))
            case 5:
                world.ways = Ways(QUICK, world.random.uniform(0, 0.5), world.random.uniform(0, 0.5))
            case 6:
                process.tell(Ending())
                world.start(f"n{number}")
            case 7:
                process.watching = not process.watching
            case 8:
                world.frozen = not world.frozen
                if not world.frozen:
                    world.thaw()
        world.run(world.random.uniform(0, 8))
    world.up, world.ways = True, Ways()
    world.thaw()
    for process in world.processes.values():
        process.watching = True
        process.go_on()
    if not any(p.alive and p.done_at is None for p in world.processes.values()):
        world.start("last")
    world.run(30)
    assert world.served_by == world.holder
    serving = world.serving
    assert serving.alive
    assert serving.candidate.active
    assert serving.done_at is None
    assert [p.name for p in world.processes.values() if p.alive and p.candidate.active] == [serving.name]
    changes = len(world.named)
    world.run(120)
    assert len(world.named) == changes, "then nobody changes any more"
