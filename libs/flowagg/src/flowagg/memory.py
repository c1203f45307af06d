"""How much memory the C library holds beside what is in use.

glibc gives threads heaps ("arenas") of their own, eight a core, and each keeps what it once had. A service has one
thread that works and dozens that librdkafka begins and ends with each client, so that a consumer's memory went on
growing through the stalls of a broker: by 1.5 MiB in forty of them, and not at all with two arenas.
"""

import contextlib
import ctypes
import logging
import os
import sys
from typing import Final

_log = logging.getLogger(__name__)

VARIABLE: Final = "MALLOC_ARENA_MAX"
ARENAS: Final = 2
_M_ARENA_MAX: Final = -8
"""Of mallopt(3)."""


def bound_arenas() -> bool:
    """Have glibc make no more arenas; whether it will. Whoever has set MALLOC_ARENA_MAX has chosen already.

    To be called before any thread begins, and so before whatever begins some when it is imported: arenas that are
    there stay. Other C libraries have no such thing, and need none.
    """
    if not sys.platform.startswith("linux") or VARIABLE in os.environ:
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS))
    except (OSError, AttributeError):
        _log.debug("this C library has no arenas to bound")
        return False


def give_back() -> None:
    """Give what is free back to the system: of use where much was let go at once. Takes milliseconds."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
