"""An hour as the partitions showed it: what an answer's tag and headers come from."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flowagg.view import DamagedView, HourMark, Meta

_FORM: Final = "2"
"""Of the rows; another one makes all tags new."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One partition and one hour, from one atomic call.

    meta: None where the view has not begun the partition. mark: None where the partition keeps nothing
    of the hour. rows: its flow keys in the hour.
    """

    meta: Meta | None
    mark: HourMark | None = None
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Hour:
    """tag: opaque, equal only for equal rows. rows: flow keys, those in two partitions twice.

    expired: a partition no longer keeps the hour; what others still hold of it would be a part, so there
    are no rows. incomplete: a partition lacks records, of whatever hour.
    """

    tag: str
    rows: int
    expired: bool
    incomplete: bool


class Parts(dict[int, Seen]):
    """Partition -> Seen, as one look has shown them to all that share it. It is not changed any more.

    hours: what it has shown of hours, by what hour_of was asked.
    """

    __slots__ = ("hours",)

    def __init__(self) -> None:
        super().__init__()
        self.hours: dict[tuple[int, str, str], Hour] = {}


def hour_of(hour: int, scope: str, seen: Mapping[int, Seen], view: str = "") -> Hour:
    """The hour in these partitions, each seen in an atomic call of its own. scope: what may be seen of it.

    view: its name, so that two views never share a tag: one may keep an hour that has expired in the other.

    Equal tags mean equal rows: what is stored at a position is a function of the log, and the hour's
    part of it changes only with a record of the hour, which moves its mark. So a partition's rows follow
    from its incarnation (which log, from which start), the mark's position, the ranges of that log that
    were lost, and, since a log that was truncated has several histories, the leader epoch of the last
    record: two histories that hold a record of one epoch are the same up to it (KIP-101).

    The partition's position stays out, so that a past hour's tag stays while others move; and so does
    a partition that keeps nothing of the hour, whatever becomes of it.

    Raises DamagedView where a mark stands without totals or totals without a mark: without this an hour
    that somebody has removed would be answered as if it had never been.
    """
    if not isinstance(seen, Parts):
        return _hour_of(hour, scope, seen, view)
    asked = (hour, scope, view)
    known = seen.hours.get(asked)
    if known is None:
        known = seen.hours[asked] = _hour_of(hour, scope, seen, view)
    return known


def _hour_of(hour: int, scope: str, seen: Mapping[int, Seen], view: str) -> Hour:
    parts = []
    for number, part in sorted(seen.items()):
        meta, mark = part.meta, part.mark
        if meta is None:
            continue
        if (mark is None) != (part.rows == 0):
            raise DamagedView(
                f"hour {hour} has {'no mark' if mark is None else 'a mark'} and {part.rows} flow keys in partition "
                f"{number}: stop the consumers and restore the view from a backup"
            )
        if mark is not None:
            parts.append((number, meta.incarnation, mark.position, meta.leader_epoch, meta.lost))
    metas = [part.meta for part in seen.values() if part.meta is not None]
    incomplete = any(meta.incomplete for meta in metas)
    expired = hour < max((meta.floor for meta in metas), default=0)
    named = (_FORM, view, hour, scope, incomplete, expired, [] if expired else parts)
    tag = hashlib.blake2b(repr(named).encode(), digest_size=16).hexdigest()
    return Hour(tag, 0 if expired else sum(part.rows for part in seen.values()), expired, incomplete)
