"""Heads of requests that have come before, byte by byte.

An agent says the same of all of its POSTs, and a dashboard asks the same again and again. What the parser makes of a
head depends on its bytes alone, where they begin with a request: so a head that comes again need not be parsed again,
nor what it says be read again. That takes a third of the time of a POST of one flow.
"""

from typing import Final

import msgspec

from flowagg.exchange import Exchange, Headers

KNOWN_HEADS: Final = 1024
"""Heads that are kept, of all connections; all are let go when there are more."""
KNOWN_HEAD_BYTES: Final = 1024
"""Longest head that is kept: those that are take some 4 MiB at most."""

_END: Final = b"\r\n\r\n"


class KnownHead(msgspec.Struct, frozen=True):
    """What a head says. request_id: its own, if it has one. body_bytes: behind it. said: what the endpoint has read."""

    target: bytes
    headers: Headers
    request_id: bytes | None
    body_bytes: int
    said: object


def end_of_head(data: bytes) -> int:
    """Where a head ends that begins with data; no head has so few bytes where it does not end there."""
    return data.find(_END) + len(_END)


class KnownHeads:
    """Those of a server. get: the known head of these bytes, or None."""

    def __init__(self) -> None:
        self._heads = dict[bytes, KnownHead]()
        self.get = self._heads.get

    def __len__(self) -> int:
        return len(self._heads)

    def keep(self, data: bytes, exchange: Exchange, request_id: bytes | None) -> None:
        """Keep the head of an exchange that the parser has made of data, and of nothing before or behind them.

        One that ends its connection is not kept; nor one in which the parser sees another end than end_of_head does.
        """
        size = len(data) - len(exchange.body)
        if not exchange.keep_alive or size > KNOWN_HEAD_BYTES or end_of_head(data) != size:
            return
        if len(self._heads) >= KNOWN_HEADS:
            self._heads.clear()
        headers = tuple(exchange.headers)
        self._heads[data[:size]] = KnownHead(exchange.target, headers, request_id, len(exchange.body), exchange.head)
