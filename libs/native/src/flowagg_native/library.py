"""The compiled library, and what its functions take and give; c/ says what they do.

Handles are addresses (int). A function that may wait is called by `waits`, which lets other threads of Python's run
meanwhile; all others by `calls`, which does not, and costs less.
"""

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_uint64, c_void_p
from pathlib import Path
from typing import Final

PATH: Final = str(Path(__file__).with_name("libflowagg.so"))


class ChunkHead(ctypes.Structure):
    """The beginning of `chunk` in chunk.h."""

    _fields_ = (
        ("count", c_uint64),
        ("run_count", c_uint64),
        ("event_count", c_uint64),
        ("records", c_void_p),
        ("offsets", c_void_p),
        ("timestamps", c_void_p),
        ("runs", c_void_p),
        ("events", c_void_p),
    )


class Record(ctypes.Structure):
    """`record` in chunk.h."""

    _fields_ = (
        ("key", c_void_p),
        ("value", c_void_p),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("bytes_tx", c_uint64),
        ("bytes_rx", c_uint64),
        ("state", ctypes.c_uint32),
    )


class Run(ctypes.Structure):
    """`run` in chunk.h."""

    _fields_ = (
        ("partition", c_int32),
        ("leader_epoch", c_int32),
        ("start", c_uint64),
        ("stop", c_uint64),
        ("broker", c_int32),
    )


class Event(ctypes.Structure):
    """`event` in chunk.h."""

    _fields_ = (("partition", c_int32), ("error", c_int32), ("offset", c_int64), ("text", c_char_p))


class HourView(ctypes.Structure):
    """`hour_view` in totals.c."""

    _fields_ = (
        ("hour", c_uint64),
        ("last_offset", c_int64),
        ("touched", c_uint64),
        ("missing", c_uint64),
        ("size", c_uint64),
    )


class ParcelView(ctypes.Structure):
    """`parcel_view` in outlet.c."""

    _fields_ = (
        ("taken", c_uint64),
        ("all", c_int32),
        ("error", c_int32),
        ("lost", c_int32),
        ("partitions", c_int32),
    )


_PROTOTYPES: Final = {
    "chunk_of": (c_void_p, (c_uint64, c_char_p, c_void_p, c_void_p, c_void_p)),
    "chunk_free": (None, (c_void_p,)),
    "chunk_release": (None, (c_void_p,)),
    "chunk_timestamps": (c_int, (c_void_p, c_uint64, c_uint64, c_void_p)),
    "chunk_read": (c_int64, (c_void_p, c_uint64, c_uint64, c_void_p)),
    "chunk_set": (c_int, (c_void_p, c_uint64, c_void_p, c_void_p, c_void_p)),
    "chunk_join": (c_int64, (c_void_p, c_uint64, c_void_p, POINTER(c_void_p))),
    "intake_function": (c_char_p, (c_uint64,)),
    "intake_use": (None, (c_void_p,)),
    "intake_open": (c_void_p, ()),
    "intake_lead": (c_int, (c_void_p, c_char_p, c_int32)),
    "intake_take": (c_void_p, (c_void_p, c_uint64, c_int, c_int)),
    "intake_shelved": (c_uint64, (c_void_p,)),
    "intake_close": (None, (c_void_p,)),
    "parcel_of": (c_void_p, (c_char_p, c_uint64, POINTER(c_uint64))),
    "parcel_free": (None, (c_void_p,)),
    "parcel_record": (
        c_int,
        (c_void_p, c_uint64, POINTER(c_void_p), POINTER(c_uint64), POINTER(c_void_p), POINTER(c_uint64)),
    ),
    "parcel_address": (None, (c_void_p, c_void_p, c_int32)),
    "parcel_hand_over": (c_int64, (c_void_p, c_void_p, c_uint64)),
    "parcel_close": (None, (c_void_p, c_int)),
    "parcel_send": (None, (c_void_p, c_void_p, c_void_p, c_int32, c_int)),
    "parcel_answer": (c_uint64, (c_void_p, c_char_p, c_uint64, c_char_p, c_uint64)),
    "parcel_told": (None, (c_void_p, POINTER(ParcelView), c_void_p, c_int32)),
    "tray_new": (c_void_p, ()),
    "tray_ring": (None, (c_void_p, c_int)),
    "tray_take": (c_void_p, (c_void_p,)),
    "outlet_open": (c_void_p, (c_char_p,)),
    "outlet_close": (None, (c_void_p,)),
    "error_text": (c_char_p, (c_int,)),
    "rows_new": (c_void_p, ()),
    "rows_free": (None, (c_void_p,)),
    "rows_add": (c_int, (c_void_p, c_char_p, c_uint64, c_uint64)),
    "rows_merge": (c_uint64, (c_void_p,)),
    "rows_repeat": (c_int, (c_void_p,)),
    "rows_write": (c_uint64, (c_void_p, c_char_p, c_uint64, POINTER(c_void_p))),
    "totals_new": (c_void_p, (c_uint64, c_uint64, c_uint64)),
    "totals_free": (None, (c_void_p,)),
    "totals_count": (c_uint64, (c_void_p,)),
    "totals_bytes": (c_uint64, (c_void_p,)),
    "totals_touched": (c_uint64, (c_void_p,)),
    "totals_missing": (c_uint64, (c_void_p,)),
    "totals_open": (None, (c_void_p, c_int)),
    "totals_fold": (c_int64, (c_void_p, c_void_p, c_uint64, c_uint64, c_char_p, c_void_p)),
    "totals_fold_as": (c_int, (c_void_p, c_void_p, c_uint64, c_char_p, c_uint64, c_uint64)),
    "totals_pack": (c_uint64, (c_void_p, c_int, POINTER(c_void_p), POINTER(c_void_p))),
    "totals_fill": (c_int, (c_void_p, c_char_p, c_uint64)),
    "totals_expire": (None, (c_void_p, c_uint64)),
    "totals_forget": (None, (c_void_p, c_uint64)),
}


class Functions:
    """The library's functions, without their common beginning."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, f"flowagg_{name}")
            function.restype = result
            function.argtypes = arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> "ctypes._NamedFuncPointer":  # what setattr has set, for type checkers
        raise AttributeError(name)


calls: Final = Functions(ctypes.PyDLL(PATH))
waits: Final = Functions(ctypes.CDLL(PATH))
