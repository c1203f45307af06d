"""How much memory the C library holds beside what is in use.

glibc gives threads heaps ("arenas") of their own, eight a core, and each keeps what it once had. A service has one
thread that works and dozens that librdkafka begins and ends with each client, so that a consumer's memory went on
growing through the stalls of a broker: by 1.5 MiB in forty of them, and not at all with two arenas.

And once something that was large enough to get pages of its own is freed, glibc puts all that is no larger among the
small from then on. A reader's bodies come and go by the thousand in all sizes, and what they leave between those that
stay could not be used again. A reader with a full cache of 16 MiB grew by 10 MiB in 20 minutes; with a limit that does
not move, by 1 MiB in 12.
"""

import contextlib
import ctypes
import logging
import os
import sys
from typing import Final

_log = logging.getLogger(__name__)

VARIABLE: Final = "MALLOC_ARENA_MAX"
_THRESHOLD_VARIABLE: Final = "MALLOC_MMAP_THRESHOLD_"
LARGE_BYTES: Final = 16 * 2**10
ARENAS: Final = 2
_M_ARENA_MAX: Final = -8
_M_MMAP_THRESHOLD: Final = -3
"""Of mallopt(3)."""


def bound_arenas() -> bool:
    """Have glibc make no more arenas; whether it will. Whoever has set MALLOC_ARENA_MAX has chosen already.

    To be called before any thread begins, and so before whatever begins some when it is imported: arenas that are
    there stay. Other C libraries have no such thing, and need none.
    """
    return _set(VARIABLE, _M_ARENA_MAX, ARENAS)


def keep_large_apart() -> bool:
    """Give what is larger than LARGE_BYTES pages of its own, for good; whether that will be so.

    For those whose memory is large things of all sizes that come and go. Each costs the system's calls and fresh pages,
    some microseconds. Whoever has set MALLOC_MMAP_THRESHOLD_ has chosen already.
    """
    return _set(_THRESHOLD_VARIABLE, _M_MMAP_THRESHOLD, LARGE_BYTES)


def _set(variable: str, option: int, value: int) -> bool:
    if not sys.platform.startswith("linux") or variable in os.environ:
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(option, value))
    except (OSError, AttributeError):
        _log.debug("this C library has no mallopt")
        return False


def give_back() -> None:
    """Give what is free back to the system: of use where much was let go at once. Takes milliseconds."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
