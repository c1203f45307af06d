"""Which of a view's consumer groups its consumers are members of: the first one whose coordinator can answer.

Positions are the view's, in Redis: a group only shares the partitions out, so another one does as well. Seen after a
crash of all brokers (Kafka 4.1.1): the coordinator's partition held records that it could not load again,
and so no member of any group there ever got a partition. Other groups' coordinators are other partitions.

Nobody has to agree on the choice: every consumer sees the same coordinators, and comes to the same group within
seconds. Meanwhile two may read a partition; the fence has one of them apply.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

CANNOT_ANSWER: Final = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.UNKNOWN,
    }
)
"""What brokers say of a coordinator that cannot answer. A look without any answer says nothing: Kafka may be away."""
NOT_ALLOWED: Final = KafkaError.GROUP_AUTHORIZATION_FAILED
_FORGOTTEN_SECONDS: Final = 30.0
"""After so long a look counts for nothing: that of a client that has been replaced never ends."""
_EARLIER_SLOWER: Final = 5
"""Looks at the groups before are so much rarer."""
_MOST_DOUBLINGS: Final = 5
_ENOUGH: Final = 2
"""Answers in a row by which a coordinator is well again."""

Ask = Callable[[str], "Future[Any]"]
"""Starts a look at a group, or gives the one that is under way."""


class _Looks:
    """Looks at one group after the other, one at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._asked: tuple[str, Future[Any]] | None = None
        self._next_at = float("-inf")

    def result(self, now: float, name: str, ask: Ask) -> tuple[str, BaseException | None] | None:
        """The group of the look that has ended, and its error if it had one; starts one where none is under way."""
        if self._asked is None:
            if now >= self._next_at:
                self._next_at = now + self._seconds
                self._asked = name, ask(name)
            return None
        asked, future = self._asked
        if not future.done():
            if now < self._next_at + _FORGOTTEN_SECONDS:
                return None
            self._asked = None
            return asked, TimeoutError("no answer")
        self._asked = None
        return asked, None if future.cancelled() else future.exception()


class Groups:
    """Chooses among groups. patience_seconds: after which a coordinator that cannot answer is given up.

    look_seconds: between two looks at the coordinator. Not for several threads.
    """

    def __init__(self, names: Sequence[str], patience_seconds: float, look_seconds: float) -> None:
        self._names = names
        self._patience_seconds = patience_seconds
        self._look_seconds = look_seconds
        self._place = 0
        self._moves = 0  # since a coordinator has answered
        self._begin()

    def _begin(self) -> None:
        self._own = _Looks(self._look_seconds)
        self._earlier = _Looks(_EARLIER_SLOWER * self._look_seconds)
        self._failing_since: float | None = None
        self._answers = 0  # in a row, of the earlier group that is looked at
        self._looked_at = 0  # its place

    @property
    def name(self) -> str:
        """The group to be a member of."""
        return self._names[self._place]

    def check(self, now: float, ask: Ask, ask_earlier: Ask) -> str | None:
        """Why another group is the one to be in now; None: it is the same. Returns at once.

        now: seconds on a monotonic clock. ask: looks at the own group; ask_earlier: at those before it.
        """
        return self._check_own(now, ask) or (self._check_earlier(now, ask_earlier) if self._place else None)

    def _check_own(self, now: float, ask: Ask) -> str | None:
        found = self._own.result(now, self.name, ask)
        if found is None:
            return None
        _, error = found
        if _is_well(error):
            self._moves = 0
        if not (_code(error) in CANNOT_ANSWER or (self._place and _code(error) == NOT_ALLOWED)):
            self._failing_since = None
            return None
        if self._failing_since is None:
            self._failing_since = now
        # Where none of them can be used, each round takes longer than the one before.
        patience = self._patience_seconds * 2 ** min(self._moves // len(self._names), _MOST_DOUBLINGS)
        if now - self._failing_since < patience:
            return None
        self._moves += 1
        return self._move(
            (self._place + 1) % len(self._names), f"the coordinator of {self.name} cannot answer: {error}"
        )

    def _check_earlier(self, now: float, ask: Ask) -> str | None:
        found = self._earlier.result(now, self._names[self._looked_at], ask)
        if found is None:
            return None
        name, error = found
        if not _is_well(error):
            self._answers, self._looked_at = 0, (self._looked_at + 1) % self._place
            return None
        self._answers += 1
        return self._move(self._names.index(name), f"{name} is well again") if self._answers >= _ENOUGH else None

    def _move(self, place: int, why: str) -> str:
        self._place = place
        self._begin()
        return f"{why}; the group is {self.name} from now on"


def _is_well(error: BaseException | None) -> bool:
    """Whether the coordinator has answered, be it that there is no such group."""
    return error is None or _code(error) == KafkaError.GROUP_ID_NOT_FOUND


def _code(error: BaseException | None) -> int | None:
    found = error.args[0] if isinstance(error, KafkaException) and error.args else None
    return found.code() if isinstance(found, KafkaError) else None
