"""A consumer group on Kubernetes, modelled in virtual time: ticks of one second, seeded, no clock.

Left out: fetching, batches, the brokers. Kept: what an autoscaler can see, and what its changes cost. What arrives in a
second is applied in the next one at the earliest: a log under load is never quite empty. A pod that is added needs
seconds to start and joins then; one that is taken away leaves at once. Each such change rebalances the group: the
partitions that move rest until it is Stable again, the others go on (KIP-429, cooperative). A policy that restarts all
(Flink) has everything rest instead; its job goes on unchanged until the added pods are there, and it loses no work to
the restart, which is kinder to it than a restart from the last checkpoint.
"""

import random
from dataclasses import dataclass, field
from typing import Final

from benchmarks.autoscaling.policy import Seen
from benchmarks.autoscaling.shapes import RATE, Shape, arrivals, failures, spread

_NOISE: Final = 0.03
_STARTUP_JITTER: Final = 0.2


@dataclass(slots=True)
class Pod:
    """A pod. ready_at: when it has started. phase: of its commits. owned: its partitions; running: those that move on.

    busy_seconds, applied: what Flink's metrics would tell, since its start.
    """

    name: str
    ready_at: float
    phase: int
    ready: bool = False
    joined: bool = False
    owned: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    busy_seconds: float = 0.0
    applied: float = 0.0


class World:
    """The group. produced, applied, committed: records by partition; committed is -1 where nobody committed yet."""

    def __init__(self, shape: Shape, seed: int, replicas: int, *, restarts_all: bool = False) -> None:
        self.at = 0
        self.produced = [0.0] * shape.partitions
        self.applied = [0.0] * shape.partitions
        self.committed = [-1.0] * shape.partitions
        self.replicas = 0
        self.pods: list[Pod] = []
        self.arrivals = arrivals(shape, seed)
        self._shape = shape
        self._seed = seed
        self._restarts_all = restarts_all
        self._failures = failures(shape, seed)
        self._weights = spread(shape, seed, shape.partitions)
        self._starts = random.Random(f"starts-{seed}")
        self._speeds = random.Random(f"speeds-{seed}")
        self._dead: set[int] = set()
        self._moving: set[int] = set()
        self._members: list[Pod] = []
        self._owners: dict[int, Pod] = {}
        self._stable_at: int | None = None
        self._started = 0
        self.scale(replicas)

    @property
    def partitions(self) -> int:
        """How many the topic has now."""
        return len(self.produced)

    @property
    def behind(self) -> float:
        """Records that are not applied yet, of the partitions that are not dead."""
        return sum(self.produced) - sum(self.applied) - sum(self.produced[p] - self.applied[p] for p in self._dead)

    @property
    def living(self) -> float:
        """The share of the arrivals that goes to partitions that are not dead."""
        return 1.0 - sum(self._weights[p] for p in self._dead)

    def scale(self, replicas: int) -> None:
        """Ask for so many pods."""
        assert replicas >= 0
        if replicas == self.replicas:
            return
        self.replicas = replicas
        if replicas > len(self.pods):
            self.pods += [self._new_pod() for _ in range(replicas - len(self.pods))]
            return
        self.pods.sort(key=lambda pod: not pod.ready)
        gone = self.pods[replicas:]
        del self.pods[replicas:]
        if any(pod.joined for pod in gone):
            self._rebalance()

    def tick(self) -> None:
        """One second: who starts, what is applied, what arrives, what is committed."""
        self._happen()
        self._apply()
        came = self.arrivals[self.at]
        produced, weights = self.produced, self._weights
        for p in range(len(produced)):
            produced[p] += came * weights[p]
        every = self._shape.commit_seconds
        for pod in self._members:
            if (self.at + pod.phase) % every == 0:
                for p in pod.running:
                    self.committed[p] = self.applied[p]
        self.at += 1

    def look(self) -> Seen:
        """What a look-up finds now."""
        failed = self._failures[self.at]
        ready = sum(pod.ready for pod in self.pods)
        if failed:
            empty: tuple[int, ...] = ()
            return Seen(
                self.at, True, self.replicas, ready, len(self.pods), 0, empty, empty, empty, "", 0, {}, {}, {}, 0.0
            )
        return Seen(
            at=self.at,
            failed=False,
            replicas=self.replicas,
            ready=ready,
            updated=len(self.pods),
            partitions=self.partitions,
            committed=tuple(int(offset) for offset in self.committed),
            low=(0,) * self.partitions,
            high=tuple(int(offset) for offset in self.produced),
            state=self._state(),
            members=len(self._members),
            owners={p: pod.name for p, pod in self._owners.items() if p not in self._moving},
            busy_seconds={pod.name: pod.busy_seconds for pod in self._members},
            applied={pod.name: pod.applied for pod in self._members},
            pending=sum(self.produced) - sum(self.applied),
        )

    def _state(self) -> str:
        if not self._members:
            return "Empty"
        return "Stable" if self._stable_at is None else "PreparingRebalance"

    def _new_pod(self) -> Pod:
        jitter = 1 + self._starts.uniform(-_STARTUP_JITTER, _STARTUP_JITTER)
        phase = self._starts.randrange(self._shape.commit_seconds)
        self._started += 1
        return Pod(f"consumer-{self._started}", self.at + self._shape.startup_seconds * jitter, phase)

    def _happen(self) -> None:
        """What is due at this second."""
        shape, at = self._shape, self.at
        if shape.growth and at == shape.growth[0]:
            self._grow(shape.growth[1])
        if shape.dead and at == shape.dead[1]:
            self._dead.add(shape.dead[0])
            self._refresh()
        if len(self._members) < len(self.pods):
            for pod in self.pods:
                pod.ready = pod.ready or pod.ready_at <= at
            waiting = self._restarts_all and not all(pod.ready for pod in self.pods)
            if not waiting and any(pod.ready and not pod.joined for pod in self.pods):
                self._rebalance()
        if self._stable_at is not None and at >= self._stable_at:
            self._stable_at = None
            self._moving.clear()
            self._refresh()

    def _grow(self, partitions: int) -> None:
        more = partitions - self.partitions
        self.produced += [0.0] * more
        self.applied += [0.0] * more
        self.committed += [-1.0] * more
        self._weights = spread(self._shape, self._seed, partitions)
        self._rebalance(pause=not self._restarts_all)  # Flink finds new partitions without a restart

    def _rebalance(self, *, pause: bool = True) -> None:
        """Who is there gets an even share; who has partitions keeps what fits into it."""
        before = {p: pod.name for p, pod in self._owners.items()}
        for p in before:
            self.committed[p] = self.applied[p]
        here = set(map(id, self.pods))
        self._members = [pod for pod in self._members if id(pod) in here]
        for pod in self.pods:
            if pod.ready and not pod.joined:
                pod.joined = True
                self._members.append(pod)
        self._assign()
        if not self._members:
            self._stable_at = None
            self._moving.clear()
        elif pause:
            moved = {p for p, pod in self._owners.items() if self._restarts_all or before.get(p) != pod.name}
            self._moving |= moved
            self._stable_at = self.at + self._shape.rebalance_seconds
        self._refresh()

    def _assign(self) -> None:
        members = sorted(self._members, key=lambda pod: -len(pod.owned))
        each, over = divmod(self.partitions, len(members)) if members else (0, 0)
        rooms = [each + (number < over) for number in range(len(members))]
        for pod, room in zip(members, rooms, strict=True):
            del pod.owned[room:]
        free = sorted(set(range(self.partitions)).difference(*(pod.owned for pod in members)), reverse=True)
        for pod, room in zip(members, rooms, strict=True):
            while len(pod.owned) < room:
                pod.owned.append(free.pop())
        self._owners = {p: pod for pod in members for p in pod.owned}

    def _refresh(self) -> None:
        resting = self._moving | self._dead
        for pod in self._members:
            pod.running = [p for p in pod.owned if p not in resting]

    def _apply(self) -> None:
        produced, applied, speed = self.produced, self.applied, self._speeds.random
        work: list[tuple[Pod, float, float]] = []
        for pod in self._members:
            capacity = RATE * (1 + _NOISE * (2 * speed() - 1))
            waiting = 0.0
            for p in pod.running:
                waiting += produced[p] - applied[p]
            if waiting > 0.0:
                work.append((pod, capacity, waiting))
        sink = self._shape.sink
        limit = 1.0
        if sink and sink[0] <= self.at < sink[1]:
            wanted = sum(min(capacity, waiting) for _, capacity, waiting in work)
            limit = min(1.0, sink[2] / wanted) if wanted else 1.0
        for pod, capacity, waiting in work:
            done = min(capacity, waiting) * limit
            if done >= waiting:
                for p in pod.running:
                    applied[p] = produced[p]
            else:
                share = done / waiting
                for p in pod.running:
                    applied[p] += (produced[p] - applied[p]) * share
            pod.applied += done
            pod.busy_seconds += 1.0 if limit < 1.0 else done / capacity
