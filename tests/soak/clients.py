"""Clients whose hours go by: each hour is checked to the byte once nobody writes to it, and then forgotten.

So the clients' own memory is bounded, and so is the view: its hours expire some time after their last record.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import httpx

from tests.e2e.traffic import Attempt, Manners
from tests.faults.clients import Clients, InTurn, Totals, compare
from tests.faults.measure import Watch

_LOOK_SECONDS: Final = 0.5


class PassingClients(Clients):
    """The newest Manners.hours hours are written and read; every hour_seconds one more begins and the oldest closes.

    checked: the closed hours' totals beside the ledger.
    """

    def __init__(
        self,
        writers: Sequence[str],
        readers: Sequence[str],
        watch: Watch,
        manners: Manners,
        seed: int,
        hour_seconds: float,
    ) -> None:
        super().__init__(writers, readers, watch, manners, seed)
        self._hour_seconds = hour_seconds
        self._in_hand: Counter[int] = Counter()
        """Requests by the oldest hour that they may be about."""
        self.checked = Totals(0, 0, 0, 0)
        self.hours_checked = 0

    def go_to(self, url: str) -> None:
        """From now on all clients go to this writer or reader, until it fails one of them."""
        for addresses in self.addresses.values():
            if url in addresses.urls:
                addresses.turn = addresses.urls.index(url)

    def take_attempts(self) -> list[Attempt]:
        """The tries that have ended since the last call; they are forgotten here."""
        count = len(self._attempts)  # the load adds to the end meanwhile
        taken = self._attempts[:count]
        del self._attempts[:count]
        return taken

    def totals(self, seconds: float = 120.0) -> Totals:
        """All hours, those that were checked on the way and the rest. Raises AssertionError: no answer."""
        rest = super().totals(seconds)
        return _sum(self.checked, rest)

    async def _load(self) -> None:
        aside = [asyncio.create_task(self._pass_hours()), asyncio.create_task(self._check_closed())]
        load = asyncio.create_task(super()._load())
        try:
            done, _ = await asyncio.wait([*aside, load], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # of the two aside, none returns: one that is done has failed
        finally:
            for task in (*aside, load):
                task.cancel()
            await asyncio.gather(*aside, load, return_exceptions=True)

    async def _pass_hours(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += self._hour_seconds
            await asyncio.sleep(due - loop.time())
            self._first_hour += 1

    async def _check_closed(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=1)
        transport = InTurn(self.addresses, limits)
        async with httpx.AsyncClient(
            base_url=self._target.url,
            headers=self._headers(),
            transport=transport,
            timeout=self._manners.attempt_seconds,
        ) as client:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                for hour in self._closed():
                    await self._check_hour(client, hour)

    def _closed(self) -> list[int]:
        """Hours that no request in hand, and none to come, is about."""
        oldest = min([self._first_hour, *self._in_hand])
        return [hour for hour in self.ledger.hours() if hour < oldest]

    async def _check_hour(self, client: httpx.AsyncClient, hour: int) -> None:
        reply = await self._ask(client, "GET", f"/flows?hour={hour}&consistency=strict")
        if reply is not None:  # else it is on record as wrong
            self.checked = _sum(self.checked, compare({hour: reply.json()}, self.ledger))
            self.hours_checked += 1
        for key in [key for key in self.ledger.totals if key[3] == hour]:
            del self.ledger.totals[key]
        for of_hours in (self._sent.begun, self._sent.acknowledged):
            of_hours.pop(hour, None)

    async def _post(self, client: httpx.AsyncClient) -> None:
        with self._held():
            await super()._post(client)

    async def _get(self, client: httpx.AsyncClient) -> None:
        with self._held():
            await super()._get(client)

    @contextmanager
    def _held(self) -> Iterator[None]:
        oldest = self._first_hour
        self._in_hand[oldest] += 1
        try:
            yield
        finally:
            self._in_hand[oldest] -= 1
            if not self._in_hand[oldest]:
                del self._in_hand[oldest]


def _sum(one: Totals, other: Totals) -> Totals:
    """Together. Each tells of all flows that are acknowledged up to then: the later one counts."""
    return Totals(
        max(one.flows, other.flows),
        one.lost_bytes + other.lost_bytes,
        one.doubled_bytes + other.doubled_bytes,
        one.rows + other.rows,
    )
