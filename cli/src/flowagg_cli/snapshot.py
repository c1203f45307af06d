"""How one partition of a live view is taken as of one position. Pure: a generator of what to ask Redis.

Everything stored of a partition at a position is a function of the log up to it, and an hour's mark tells the
position after the hour's last record. So an hour that was read under one mark is still what a later position
holds, as long as its mark is the same there. Hours are therefore read group by group while the view moves on,
those that have rested longest first; in the end one atomic call reads the meta, all marks, and only those hours
whose mark has changed since they were read. That call's position is the snapshot's.

Idempotency marks have nothing that tells when a bucket was written last, so the last call reads all buckets.
"""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from flowagg.view import Meta, decode_hour

from flowagg_cli.errors import Unsettled

LEAST_WINDOW_MS: Final = 60_000
"""The least dedupe window: a bucket of marks lives longer than that, in log time."""


@dataclass(frozen=True, slots=True)
class Look:
    """A partition's meta and its hours' marks, as stored, from one atomic call."""

    meta: Meta
    hours: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class LookAt:
    """Ask for a Look, or None where the partition has no meta."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Ask for the number of flow keys of each of the hours, in this order; it need not be exact."""

    incarnation: str
    hours: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FindBuckets:
    """Ask for the buckets of marks: all that exist from before the question until after the answer, maybe more."""

    incarnation: str


@dataclass(frozen=True, slots=True)
class Take:
    """Ask for a Look, and hand on the totals of the hours and the marks of the buckets from the same atomic call.

    What is handed on replaces what was handed on of the same hour or bucket before.
    """

    incarnation: str
    hours: tuple[int, ...]
    buckets: tuple[int, ...] = ()


Ask = LookAt | Measure | FindBuckets | Take
_T = TypeVar("_T")
Steps = Generator[Ask, Any, _T]


@dataclass(frozen=True, slots=True)
class Limits:
    """group_entries: flow keys that one call reads, unless a single hour has more; how long Redis is held up.

    last_entries: flow keys below which the rest is left to the last call. attempts: of the last call.
    """

    group_entries: int = 2_000
    last_entries: int = 2_000
    attempts: int = 30


@dataclass(frozen=True, slots=True)
class Taken:
    """The partition as of its meta's position. hours: with their marks, as stored. buckets: that hold marks, or did."""

    meta: Meta
    hours: Mapping[int, bytes]
    buckets: frozenset[int]


class _Course:
    """What has been seen of the partition so far."""

    def __init__(self, first: Look) -> None:
        self.incarnation = first.meta.incarnation
        self.look = first
        self.read: dict[int, bytes] = {}  # hour -> the mark under which its totals were read
        self.changed: set[int] = set()  # hours whose mark changed between the last two looks

    def see(self, look: Look | None, taken: Iterable[int] = ()) -> None:
        """Take in an answer. Raises Unsettled where it is not a later state of the same partition."""
        if look is None or look.meta.incarnation != self.incarnation:
            raise Unsettled("the partition was removed or begun anew while it was read")
        if look.meta.position < self.look.meta.position:
            raise Unsettled(
                f"the position went back from {self.look.meta.position} to {look.meta.position}: Redis failed over"
            )
        self.changed = {hour for hour, mark in look.hours.items() if self.look.hours.get(hour) != mark}
        self.read |= {hour: look.hours[hour] for hour in taken if hour in look.hours}
        self.look = look

    def stale(self) -> tuple[int, ...]:
        """The hours whose totals as they are now were not read yet; those that have rested longest come first."""
        hours = self.look.hours
        found = [hour for hour, mark in hours.items() if self.read.get(hour) != mark]
        return tuple(sorted(found, key=lambda hour: (decode_hour(hours[hour]).position, hour)))


def steps(limits: Limits) -> Steps[Taken | None]:
    """Take one partition; None where it has no meta. Raises Unsettled, DamagedView."""
    first: Look | None = yield LookAt()
    if first is None:
        return None
    course = _Course(first)
    yield from _rounds(course, limits)
    return (yield from _last(course, limits))


def _rounds(course: _Course, limits: Limits) -> Steps[None]:
    """Read hours group by group, until little is left, or as much again has changed meanwhile."""
    left_before: int | None = None
    while stale := course.stale():
        sizes: list[int] = yield Measure(course.incarnation, stale)
        left = sum(sizes)
        if left <= limits.last_entries or (left_before is not None and left > left_before / 2):
            return
        left_before = left
        waiting = dict(zip(stale, sizes, strict=True))
        while waiting:
            group = first_group(waiting, limits.group_entries)
            course.see((yield Take(course.incarnation, group)), group)
            # What changes now would be read again anyway; what has expired need not be read.
            gone = {*group, *course.changed, *(waiting.keys() - course.look.hours.keys())}
            waiting = {hour: size for hour, size in waiting.items() if hour not in gone}


def first_group(sizes: Mapping[int, int], bound: int) -> tuple[int, ...]:
    """The first hours that hold no more than bound together; at least one."""
    group: list[int] = []
    total = 0
    for hour, size in sizes.items():
        total += size
        if group and total > bound:
            break
        group.append(hour)
    return tuple(group)


def _last(course: _Course, limits: Limits) -> Steps[Taken]:
    """Read everything that is left in one atomic call, until nothing had changed before it."""
    hot: set[int] = set()
    for _ in range(limits.attempts):
        time_before = course.look.meta.time
        buckets: frozenset[int] = frozenset()
        if time_before >= 0:  # else there was no keyed record ever
            buckets = yield FindBuckets(course.incarnation)
        course.see((yield LookAt()))
        wanted = tuple(sorted({*course.stale(), *(hot & course.look.hours.keys())}))
        course.see((yield Take(course.incarnation, wanted, tuple(sorted(buckets)))), wanted)
        last, stale = course.look, course.stale()
        if not stale and (last.meta.time < 0 or (yield from _had_all(course, buckets, time_before))):
            return Taken(last.meta, last.hours, buckets)
        hot = {*stale, *course.changed}
    raise Unsettled(
        f"{limits.attempts} times something more had changed than the last call read: "
        "export from a replica, or while less is written"
    )


def _had_all(course: _Course, buckets: frozenset[int], time_before: int) -> Steps[bool]:
    """Whether no other bucket of marks existed when the last call was made.

    One that did was still there at the second search, unless log time has run for longer than a bucket lives.
    """
    found: frozenset[int] = yield FindBuckets(course.incarnation)
    course.see((yield LookAt()))
    return found <= buckets and course.look.meta.time - time_before < LEAST_WINDOW_MS
