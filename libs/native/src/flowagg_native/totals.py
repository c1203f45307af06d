"""Totals of one partition's flow keys, and what an open batch has changed of them, in memory of the library's."""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

from flowagg_native.chunk import Chunk
from flowagg_native.library import HourView, calls


@dataclass(frozen=True, slots=True)
class PackedHour:
    """An hour that the open batch has touched.

    last_offset: of its last record. count: byte strings in packed, which are arguments of Redis' protocol:
    fields, or fields and totals in turns.
    """

    hour: int
    last_offset: int
    count: int
    packed: bytes


class Totals:
    """Exact sums by flow key. Batches come one after the other: open, fold, fill what is missing, pack."""

    def __init__(self, seed: int, floor: int = 0) -> None:
        """seed: 128 secret bits, so that nobody can choose keys that are slow to find. floor: hours below expired."""
        self._handle = calls.totals_new(seed & (2**64 - 1), seed >> 64 & (2**64 - 1), floor)

    def __del__(self) -> None:
        calls.totals_free(self._handle)

    def __len__(self) -> int:
        """Number of flow keys."""
        count: int = calls.totals_count(self._handle)
        return count

    @property
    def memory_bytes(self) -> int:
        """Memory of them all."""
        size: int = calls.totals_bytes(self._handle)
        return size

    @property
    def touched(self) -> int:
        """Flow keys that the open batch has touched."""
        count: int = calls.totals_touched(self._handle)
        return count

    @property
    def missing(self) -> int:
        """Those of them whose stored totals are still to be added."""
        count: int = calls.totals_missing(self._handle)
        return count

    def open(self, *, read_back: bool) -> None:
        """Begin a batch. read_back: what is new in it may be stored already."""
        calls.totals_open(self._handle, read_back)

    def fold(self, chunk: Chunk, start: int, stop: int, counted: bytes | None) -> list[int]:
        """Add records at places start..stop-1 of a chunk, whose values have been read.

        counted: a byte each, 0 for those that count nothing; None: all count. Returns the places whose keys are not
        known and not spelled as writers spell them, or whose hour has expired; they are not added.
        """
        if counted is not None and len(counted) != stop - start:
            raise ValueError("not as many bytes as places")
        odd = (ctypes.c_uint32 * max(0, stop - start))()
        count = calls.totals_fold(self._handle, chunk.handle, start, stop, counted, odd)
        if count < 0:
            raise ValueError("a place that is none, or whose value was not read")
        return odd[:count]

    def fold_as(self, chunk: Chunk, place: int, canonical: bytes, hour: int) -> None:
        """Add one of the places that fold() has left, under a canonical key, which its spelling means from now on."""
        if calls.totals_fold_as(self._handle, chunk.handle, place, canonical, len(canonical), hour) != 0:
            raise ValueError("a place that is none, or whose value was not read")

    def missing_fields(self) -> list[PackedHour]:
        """The fields whose stored totals are to be added by fill(), in this order."""
        return [packed for packed in self._pack(missing=True) if packed.count]

    def changed(self) -> list[PackedHour]:
        """What the open batch has touched: fields and totals, by hour."""
        return list(self._pack(missing=False))

    def fill(self, lines: bytes) -> bool:
        """Add stored totals: lines `<bytes_tx> <bytes_rx>`, or empty where none are stored, in missing_fields' order.

        False, with nothing added, where a line is not plain decimal numbers of at most 38 digits, or one is missing.
        """
        filled: bool = calls.totals_fill(self._handle, lines, len(lines)) == 0
        return filled

    def expire(self, floor: int) -> None:
        """Forget all hours below a floor, and take none of them any more. Only before a batch has records."""
        calls.totals_expire(self._handle, floor)

    def forget(self, down_to_bytes: int) -> None:
        """Forget what was used least recently, down to so many bytes. Not while a batch is open."""
        calls.totals_forget(self._handle, max(0, down_to_bytes))

    def _pack(self, *, missing: bool) -> Iterator[PackedHour]:
        views, text = ctypes.c_void_p(), ctypes.c_void_p()
        count = calls.totals_pack(self._handle, missing, ctypes.byref(views), ctypes.byref(text))
        if count == 0:
            return
        at = text.value or 0
        for view in (HourView * count).from_address(views.value or 0):
            strings = view.missing if missing else 2 * view.touched
            yield PackedHour(view.hour, view.last_offset, strings, ctypes.string_at(at, view.size) if strings else b"")
            at += view.size
