"""Heads of requests that have come before, byte by byte.

An agent says the same of all of its POSTs, and a dashboard asks the same again and again. What the parser makes of a
head depends on its bytes alone, where they begin with a request: so a head that comes again need not be parsed again,
nor what it says be read again (docs/decisions/0026-heads-that-come-again.md has what that is worth).
"""

from typing import Final

import msgspec

KNOWN_HEADS: Final = 512
"""Heads that are kept, of all connections; all are let go when there are more."""
KNOWN_HEAD_BYTES: Final = 1024
"""Longest head that is kept. An agent's takes 1 KiB of memory, and one that is made for it some 20 KiB."""
_SEEN_ONCE: Final = 8 * KNOWN_HEADS

_END: Final = b"\r\n\r\n"


class KnownHead(msgspec.Struct, frozen=True):
    """What a head says. body_bytes: behind it. said: what the endpoint has read."""

    target: bytes
    body_bytes: int
    said: object


def end_of_head(data: bytes) -> int:
    """Where a head ends that begins with data; no head has so few bytes where it does not end there."""
    return data.find(_END) + len(_END)


class KnownHeads:
    """Those of a server. get: the known head of these bytes, or None."""

    def __init__(self) -> None:
        self._heads = dict[bytes, KnownHead]()
        self._once = set[int]()  # hashes: many a head comes never again, and would push out those that do
        self.get = self._heads.get

    def __len__(self) -> int:
        return len(self._heads)

    def keep(self, data: bytes, target: bytes, body_bytes: int, said: object) -> None:
        """Keep a head that the parser has read in data, which are it and its body, and nothing before or behind them.

        It is kept once it has come twice. One in which the parser sees another end than end_of_head does is not.
        """
        size = len(data) - body_bytes
        if size > KNOWN_HEAD_BYTES or end_of_head(data) != size:
            return
        head = data[:size]
        mark = hash(head)
        if mark not in self._once:
            if len(self._once) >= _SEEN_ONCE:
                self._once.clear()
            self._once.add(mark)
            return
        if len(self._heads) >= KNOWN_HEADS and head not in self._heads:
            self._heads.clear()
        self._heads[head] = KnownHead(target, body_bytes, said)
