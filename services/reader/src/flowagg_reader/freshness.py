"""Freshness: whether a view reflects all that was acknowledged before a GET arrived."""

from collections.abc import Mapping
from dataclasses import dataclass

from flowagg.position import Position
from flowagg.view import Meta


class TopicChanged(Exception):
    """The position counts in a topic that no longer exists."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """fresh: the view has applied all that was asked for. lag_records: how many records it lacks."""

    fresh: bool
    lag_records: int


def judge(required: Position, metas: Mapping[int, Meta | None]) -> Freshness:
    """Compare what a GET must reflect with what the view has applied.

    A partition that the view does not know counts as unapplied from its first offset. Raises
    TopicChanged where the view counts in another topic than the position.
    """
    lag = 0
    for partition, end in required.offsets.items():
        meta = metas.get(partition)
        if meta is None:
            lag += end
            continue
        if meta.topic_id != required.topic_id:
            raise TopicChanged
        lag += max(0, end - meta.position)
    return Freshness(lag == 0, lag)
