"""Notices that the group and its member disagree over which partitions the member owns.

With KIP-848 the coordinator tells an assignment once, in the answer to a heartbeat. librdkafka (2.16) drops an answer
that comes after the time between two heartbeats, and its next heartbeat does not ask again. Seen with 0.6 s of delay
each way: a member kept all partitions that it was told to share; the coordinator waits for max.poll.interval.ms then.
One that is not told of partitions would never read them. So the member asks, beside its heartbeats, what the group
thinks it owns.
"""

from collections.abc import Callable, Set
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from confluent_kafka.admin import ConsumerGroupDescription

_PATIENCE_SECONDS: Final = 30.0
"""For an answer: that of a client that has been replaced never comes."""


@dataclass(frozen=True, slots=True)
class _Look:
    """Partitions that the member owned when it asked, and those that the group says it has."""

    owned: frozenset[int]
    assigned: frozenset[int]


class Membership:
    """Looks at the group now and then. Not for several threads.

    seconds: between two looks. A rebalance takes a moment on either side, so only two looks with the same
    disagreement count, between which the member had time to be told.
    """

    def __init__(self, topic: str, seconds: float) -> None:
        self._topic = topic
        self._seconds = seconds
        self._asked: Future[ConsumerGroupDescription] | None = None
        self._owned: frozenset[int] = frozenset()
        self._next_at = float("-inf")
        self._before: _Look | None = None

    def disagreement(
        self,
        now: float,
        member_id: Callable[[], str],
        owned: Set[int],
        ask: "Callable[[], Future[ConsumerGroupDescription]]",
    ) -> str | None:
        """What the two disagree over for good, or None. Returns at once.

        now: seconds on a monotonic clock. member_id: called once a look, as librdkafka answers it in another thread.
        owned: partitions of the topic. ask: starts a description of the group, or has one under way.
        """
        if self._asked is None:
            if now >= self._next_at:
                self._next_at = now + self._seconds
                self._asked, self._owned = ask(), frozenset(owned)
            return None
        if not self._asked.done():
            if now >= self._next_at + _PATIENCE_SECONDS:
                self._asked = None
            return None
        asked, self._asked = self._asked, None
        look = self._look(asked, member_id, owned)
        same, self._before = look is not None and look == self._before, look
        if look is None or not same:
            return None
        self._before = None
        return f"it owns partitions {sorted(look.owned)}, and the group says {sorted(look.assigned)}"

    def _look(
        self, asked: "Future[ConsumerGroupDescription]", member_id: Callable[[], str], owned: Set[int]
    ) -> _Look | None:
        """What the two disagree over at the moment; None where they agree, change, or nothing is known."""
        if self._owned != owned or asked.cancelled() or asked.exception() is not None:
            return None
        own = member_id()
        for member in asked.result().members:
            if member.member_id == own:
                parts = member.assignment.topic_partitions if member.assignment is not None else []
                assigned = frozenset(part.partition for part in parts if part.topic == self._topic)
                return None if assigned == self._owned else _Look(self._owned, assigned)
        return None  # fenced: its next heartbeat says so
