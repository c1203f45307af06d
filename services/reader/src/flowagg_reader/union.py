"""One answer from many partitions: the union of their totals, summed and sorted."""

from collections.abc import Iterable, Mapping

import msgspec
from flowagg.view import decode_field, decode_totals


class FlowTotals(msgspec.Struct, frozen=True, gc=False):
    """A row of GET /flows: a flow key and its totals, integers of any size."""

    src_app: str
    dest_app: str
    vpc_id: str
    hour: int
    bytes_tx: int
    bytes_rx: int


def unite(hour: int, partitions: Iterable[Mapping[bytes, bytes]]) -> list[FlowTotals]:
    """The rows of an hour, one per flow key, sorted by (src_app, dest_app, vpc_id) by code point.

    A flow key stands in two partitions when the topic has grown in between: its totals are added.
    Raises DamagedView.
    """
    sums: dict[bytes, tuple[int, int]] = {}
    for totals in partitions:
        for field, raw in totals.items():
            bytes_tx, bytes_rx = decode_totals(raw)
            known = sums.get(field)
            sums[field] = (bytes_tx, bytes_rx) if known is None else (known[0] + bytes_tx, known[1] + bytes_rx)
    keyed = [(decode_field(field), counts) for field, counts in sums.items()]
    keyed.sort()
    return [FlowTotals(*names, hour, *counts) for names, counts in keyed]
