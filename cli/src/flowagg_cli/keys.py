"""The Redis keys of a view that only the commands use, and how the others are found. Beside flowagg.view."""

import re
from typing import Final

MEMBERS: Final = "flowagg:view:*:partitions"
"""Pattern of the sets of partitions, one a view."""

_OF_VIEW = re.compile(rb"flowagg:view:([a-z0-9-]+):partitions")
_BUCKET = re.compile(rb":marks:(-?[0-9]+)$")


def import_key(view: str, partition: int) -> str:
    """Key of a partition's import, while one is under way: hash of incarnation, source and, once complete, position."""
    return f"flowagg:{{{view}:{partition}}}:import"


def partition_pattern(view: str, partition: int | str = "*") -> str:
    """Pattern of all keys of a partition, of whatever incarnation; of all partitions by default."""
    return f"flowagg:{{{view}:{partition}}}:*"


def incarnation_pattern(view: str, partition: int, incarnation: str) -> str:
    """Pattern of the keys of one incarnation."""
    return f"flowagg:{{{view}:{partition}}}:{incarnation}:*"


def marks_pattern(view: str, partition: int, incarnation: str) -> str:
    """Pattern of a partition's buckets of marks."""
    return f"flowagg:{{{view}:{partition}}}:{incarnation}:marks:*"


def view_of(key: bytes) -> str | None:
    """The view whose set of partitions a key is."""
    match = _OF_VIEW.fullmatch(key)
    return None if match is None else match[1].decode("ascii")


def bucket_of(key: bytes) -> int | None:
    """The bucket whose marks a key holds."""
    match = _BUCKET.search(key)
    return None if match is None else int(match[1])
