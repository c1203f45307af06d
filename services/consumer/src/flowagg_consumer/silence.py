"""Notices partitions of which no more records come, though their log has more.

librdkafka's fetcher of a partition was seen to stop for good, without an error, after its leader had been stopped and
had gone on, and after leader epochs had gone back: it waits for an answer that it has dropped. A new member of the
group begins anew. So whoever fetches asks, where nothing comes, how far the log goes.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from confluent_kafka.admin import ListOffsetsResultInfo

Ask = Callable[[list[int]], Mapping[int, "Future[ListOffsetsResultInfo]"]]
"""Starts look-ups of where the committed records of partitions end."""


_PATIENCE_SECONDS: Final = 30.0
"""For answers: those of a client that has been replaced never come."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A look-up under way. place: the next offset to come when it began."""

    place: int
    end: "Future[ListOffsetsResultInfo]"


class Silence:
    """The partitions that are fetched, and the next offset of each to come. Not for several threads.

    seconds: between two looks. Only what two looks find at the same place counts, if all that had been fetched was
    handed over in between: records may have waited behind those of other partitions.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next_at = float("-inf")
        self._places: dict[int, int] = {}
        self._looked: dict[int, int] = {}
        self._suspects: dict[int, int] = {}
        self._asked: dict[int, _Asked] = {}
        self._drained = False

    @property
    def places(self) -> Mapping[int, int]:
        """The next offset to come, of each partition that is fetched."""
        return self._places

    def started(self, number: int, offset: int) -> None:
        """A partition is fetched from there on."""
        self._forget(number)
        self._places[number] = offset

    def ended(self, numbers: Iterable[int]) -> None:
        """Partitions are not fetched any more."""
        for number in numbers:
            self._forget(number)

    def took(self, places: Mapping[int, int], *, drained: bool) -> None:
        """The next offsets to come, of partitions of which something came. drained: nothing more had been fetched."""
        for number, place in places.items():
            if number in self._places:
                self._places[number] = place
        self._drained = self._drained or drained

    def stuck(self, now: float, ask: Ask) -> str | None:
        """What does not come though it is there, or None. Returns at once. now: seconds on a monotonic clock."""
        if self._asked:
            if all(asked.end.done() for asked in self._asked.values()):
                return self._judge()
            if now < self._next_at + _PATIENCE_SECONDS:
                return None
            self._asked = {}
        if now < self._next_at:
            return None
        self._next_at = now + self._seconds
        silent = [number for number, place in self._places.items() if self._looked.get(number) == place]
        self._looked = dict(self._places)
        self._suspects = {number: place for number, place in self._suspects.items() if number in silent}
        if silent:
            ends = ask(silent)
            self._asked = {number: _Asked(self._places[number], ends[number]) for number in silent}
        return None

    def _judge(self) -> str | None:
        asked, self._asked = self._asked, {}
        ends = {number: _offset(one.end) for number, one in asked.items()}
        behind = {
            number: one.place for number, one in asked.items() if ends[number] > one.place == self._places.get(number)
        }
        stuck = [number for number, place in behind.items() if self._drained and self._suspects.get(number) == place]
        self._suspects, self._drained = behind, False
        if not stuck:
            return None
        where = ", ".join(f"partition {n} at {behind[n]}, which ends at {ends[n]}" for n in sorted(stuck))
        return f"records do not come: {where}"

    def _forget(self, number: int) -> None:
        for known in (self._places, self._looked, self._suspects, self._asked):
            known.pop(number, None)


def _offset(end: "Future[ListOffsetsResultInfo]") -> int:
    """Where the log ends; -1 where that is not known."""
    if end.cancelled() or end.exception() is not None:
        return -1
    return int(end.result().offset)
