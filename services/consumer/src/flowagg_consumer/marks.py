"""Marks: what a partition remembers of keyed POSTs, so that a repeat counts nothing more.

Pure. A mark's entry is found again for at least the dedupe window of log time: the running maximum
of the timestamps of the partition's keyed records. Entries lie in buckets of a quarter of the
window; a bucket goes, whole, when the running maximum is more than four buckets further. So which
entries exist at a position is a function of the log alone, wherever batches were cut.
"""

from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum
from typing import Final

from flowagg.idempotency import Mark
from flowagg.view import DamagedView

BUCKETS_A_WINDOW: Final = 4
NO_TIME: Final = -1
"""The running maximum before the first keyed record."""
ENTRY_BYTES: Final = 500
"""Estimate of an entry's memory beside its key."""


@dataclass(frozen=True, slots=True)
class Window:
    """The dedupe window, in milliseconds of log time."""

    window_ms: int

    def bucket(self, time_ms: int) -> int:
        """The bucket of a running maximum."""
        return time_ms * BUCKETS_A_WINDOW // self.window_ms

    def live(self, time_ms: int) -> range:
        """The buckets that exist at a running maximum; none before the first keyed record."""
        if time_ms == NO_TIME:
            return range(0)
        newest = self.bucket(time_ms)
        return range(newest - BUCKETS_A_WINDOW, newest + 1)

    def expired(self, before_ms: int, after_ms: int) -> list[int]:
        """The buckets that exist at before_ms and no longer at after_ms."""
        kept = self.live(after_ms)
        return [bucket for bucket in self.live(before_ms) if bucket not in kept]


class Verdict(Enum):
    """What a keyed record is."""

    NEW = "new"
    REPEAT = "repeat"
    OTHER_BODY = "other body"


class MarkEntry:
    """What is remembered of one key: the digest of its body, and the indexes that were counted."""

    __slots__ = ("bucket", "digest", "starts", "stops")

    def __init__(self, digest: str, bucket: int) -> None:
        self.digest = digest
        self.bucket = bucket
        self.starts: list[int] = []  # ranges start..stop-1, ascending, apart
        self.stops: list[int] = []

    def judge(self, mark: Mark) -> Verdict:
        """Whether the record of a mark counts; one that does is remembered."""
        if mark.digest != self.digest:
            return Verdict.OTHER_BODY
        starts, stops, index = self.starts, self.stops, mark.index
        place = bisect_right(starts, index)
        if place and index < stops[place - 1]:
            return Verdict.REPEAT
        joins_left = place > 0 and stops[place - 1] == index
        joins_right = place < len(starts) and starts[place] == index + 1
        if joins_left and joins_right:
            stops[place - 1] = stops.pop(place)
            starts.pop(place)
        elif joins_left:
            stops[place - 1] = index + 1
        elif joins_right:
            starts[place] = index
        else:
            starts.insert(place, index)
            stops.insert(place, index + 1)
        return Verdict.NEW

    def encode(self) -> bytes:
        """The entry as it is stored: `<digest> 0-16,20-21`, ranges without their end."""
        ranges = ",".join(f"{start}-{stop}" for start, stop in zip(self.starts, self.stops, strict=True))
        return f"{self.digest} {ranges}".encode("ascii")


def decode_entry(raw: bytes, bucket: int) -> MarkEntry:
    """Read a stored entry. Raises DamagedView."""
    try:
        digest, ranges = raw.decode("ascii").split(" ")
        entry = MarkEntry(digest, bucket)
        for part in ranges.split(","):
            start, stop = part.split("-")
            entry.starts.append(int(start))
            entry.stops.append(int(stop))
    except ValueError:
        raise DamagedView(f"an idempotency mark in Redis is damaged: {raw[:80]!r}") from None
    return entry
