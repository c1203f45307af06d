"""A steady load on the writer, as a process of its own: until it is ended.

    ingest.py WRITER_URL FLOWS_A_SECOND

POSTs of 1,000 flows, each at its time; those that are late are sent as soon as a connection is free.
"""

import asyncio
import sys
import time
from itertools import count
from typing import Final

from common import JSON, Connection, bodies

_CONNECTIONS: Final = 16
_FLOWS: Final = 1000


async def main(url: str, flows_a_second: float) -> None:
    """Post for ever. Raises RuntimeError where a POST is not acknowledged."""
    ready = bodies(_FLOWS)
    numbers = count()
    began = time.monotonic()

    async def post() -> None:
        connection = Connection(url)
        for number in numbers:
            due = began + number * _FLOWS / flows_a_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            reply = await connection.request("POST", "/flows", ready[number % len(ready)], JSON)
            if reply.status != 200:
                raise RuntimeError(f"a POST was answered {reply.status}: {reply.body!r}")

    await asyncio.gather(*(post() for _ in range(_CONNECTIONS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
