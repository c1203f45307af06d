"""Freshness: whether a view reflects all that was acknowledged before a GET arrived."""

from collections.abc import Mapping
from dataclasses import dataclass

from flowagg.position import Position
from flowagg.view import Meta


class TopicChanged(Exception):
    """The view counts in a log that no longer exists: of a deleted topic, or one whose end Kafka has lost."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """fresh: the view has applied all that was asked for. lag_records: how many records it lacks."""

    fresh: bool
    lag_records: int


def lags(required: Position, metas: Mapping[int, Meta | None]) -> dict[int, int]:
    """How many records each partition lacks of what a GET must reflect.

    A partition that the view does not know counts as unapplied from its first offset. Raises
    TopicChanged where the view counts in another topic than the position, or is past an end of a later leader
    epoch: what was appended since the end was looked up would have that epoch or a later one, so the view's
    last record was lost in an election, and what stands in its place now is not in the view.
    """
    found = {}
    for partition, end in required.offsets.items():
        meta = metas.get(partition)
        if meta is None:
            found[partition] = end
            continue
        cut = meta.position > end and 0 <= meta.leader_epoch < required.epochs.get(partition, -1)
        if cut or meta.topic_id != required.topic_id:
            raise TopicChanged
        found[partition] = max(0, end - meta.position)
    return found
