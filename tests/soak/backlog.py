"""How much is still to be applied, and how much room the view takes in Redis."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import redis
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from flowagg_stack import sentinel
from flowagg_stack.processes import ProcessFailed

from tests.faults.measure import Watch
from tests.faults.world import TOPIC, World, admin_of
from tests.soak.calm import Calm

_ASK_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Level:
    """at: of time.monotonic(). calm: no fault was felt."""

    at: float
    calm: bool
    value: float


@dataclass(slots=True)
class Backlog:
    """lag: records that are in the log and not in the view. view_mib: what Redis says that its data set takes."""

    world: World
    watch: Watch
    calm: Calm
    lag: list[Level] = field(default_factory=list)
    view_mib: list[Level] = field(default_factory=list)
    _admin: AdminClient = field(init=False)

    def __post_init__(self) -> None:
        self._admin = admin_of(self.world.kafka)

    def sample(self) -> None:
        """Look once. Where somebody does not answer there is nothing to be seen: faults are for that."""
        self._note(self.lag, self._lag)
        self._note(self.view_mib, self._view_mib)

    def _note(self, levels: list[Level], of: Callable[[], float]) -> None:
        began = time.monotonic()
        try:
            value = of()
        except (KafkaException, TimeoutError, redis.RedisError, ProcessFailed):
            return
        now = time.monotonic()
        levels.append(Level(now, self.calm.between(began, now), value))

    def _lag(self) -> float:
        applied = {number: self.watch.highest.get(number, 0) for number in range(self.watch.partitions)}
        asked = self._admin.list_offsets(
            {TopicPartition(TOPIC, number): OffsetSpec.latest() for number in applied}, request_timeout=_ASK_SECONDS
        )
        ends = {place.partition: future.result(_ASK_SECONDS + 1).offset for place, future in asked.items()}
        return float(sum(max(0, ends[number] - position) for number, position in applied.items()))

    def _view_mib(self) -> float:
        with sentinel.client(self.world.redis.master()) as asked:
            memory: Any = asked.info("memory")
        return float(memory["used_memory_dataset"]) / 2**20
