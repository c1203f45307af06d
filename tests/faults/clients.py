"""Clients who know the addresses of all writers and readers, and go to the next one where one fails them."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from flowagg_load.generator import Ledger

from tests.e2e.target import Target
from tests.e2e.traffic import Manners, Traffic, read_hour
from tests.faults.measure import Watch

_KEPT_CONNECTIONS: Final = 32
_END_SECONDS: Final = 120.0


@dataclass(slots=True)
class Addresses:
    """The URLs of services that do the same; all clients go to one of them until it fails one of them."""

    urls: Sequence[str]
    turn: int = 0

    @property
    def current(self) -> str:
        """Where to go now."""
        return self.urls[self.turn % len(self.urls)]

    def failed(self, url: str) -> None:
        """Leave it, unless others have left it already."""
        if url == self.current:
            self.turn += 1


class InTurn(httpx.AsyncBaseTransport):
    """Sends a request to the address that serves its method now."""

    def __init__(self, addresses: Mapping[str, Addresses], limits: httpx.Limits) -> None:
        self._addresses = addresses
        self._inner = httpx.AsyncHTTPTransport(limits=limits, trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        addresses = self._addresses[request.method]
        url = addresses.current
        parts = urlsplit(url)
        request.url = request.url.copy_with(host=parts.hostname, port=parts.port)
        try:
            reply = await self._inner.handle_async_request(request)
        except (httpx.TransportError, asyncio.CancelledError):  # cancelled: the client's patience is over
            addresses.failed(url)
            raise
        if reply.status_code >= 500:
            addresses.failed(url)
        return reply

    async def aclose(self) -> None:
        await self._inner.aclose()


@dataclass(frozen=True, slots=True)
class Totals:
    """What all hours hold in the end, beside the ledger: bytes that are missing, and bytes that are too many.

    flows: acknowledged ones. rows: flow keys that differ.
    """

    flows: int
    lost_bytes: int
    doubled_bytes: int
    rows: int


class Clients(Traffic):
    """The load of the end-to-end tests, on several writers and readers. What it sees goes to a watch."""

    def __init__(
        self, writers: Sequence[str], readers: Sequence[str], watch: Watch, manners: Manners, seed: int
    ) -> None:
        self._reader = readers[0]
        super().__init__(_target(self._reader), manners, seed)
        self.addresses = {"POST": Addresses(writers), "GET": Addresses(readers)}
        self._watch = watch

    @property
    def false_fresh(self) -> list[str]:
        """Answers that said they were fresh and lacked what had been acknowledged."""
        return [text for text in self._wrong if text.startswith("hour ") and "(fresh: True)" in text]

    @property
    def others(self) -> list[str]:
        """What else clients met that they must not: totals too high, requests refused or given up."""
        return [text for text in self._wrong if text not in self.false_fresh]

    @property
    def alive(self) -> bool:
        """Whether the load runs."""
        return self._failure is None and self._thread.is_alive()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Start no more requests and wait for those in hand. Raises AssertionError where the load itself failed."""
        self._ends.set()
        self._thread.join()
        if self._failure is not None:
            raise AssertionError("the load itself failed") from self._failure

    def totals(self, seconds: float = _END_SECONDS) -> Totals:
        """Compare every hour with the ledger, to the byte, once the load is over. Raises AssertionError: no answer."""
        deadline = time.monotonic() + seconds
        with self._target.client() as client:
            found = {
                hour: read_hour(client, hour, max(5.0, deadline - time.monotonic())) for hour in self.ledger.hours()
            }
        return compare(found, self.ledger)

    async def _load(self) -> None:
        manners = self._manners
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=_KEPT_CONNECTIONS)
        transport = InTurn(self.addresses, limits)
        async with httpx.AsyncClient(
            base_url=self._target.url, headers=self._headers(), transport=transport, timeout=manners.attempt_seconds
        ) as client:
            await asyncio.gather(
                self._pace(manners.posts, lambda: self._post(client)),
                self._pace(manners.gets, lambda: self._get(client)),
            )

    async def _ask(self, client: httpx.AsyncClient, method: str, target: str, **request: Any) -> httpx.Response | None:
        reply = await super()._ask(client, method, target, **request)
        if reply is not None and method == "POST":
            self._watch.writes.append(time.monotonic())
        elif reply is not None and reply.headers.get("flowagg-fresh") == "true":
            self._watch.reads.append(time.monotonic())
        return reply


def compare(found: Mapping[int, Sequence[Mapping[str, object]]], ledger: Ledger) -> Totals:
    """The rows of each hour beside the ledger."""
    lost = doubled = rows = 0
    for hour, answer in found.items():
        is_, should = _counts(answer), _counts(ledger.rows(hour))
        for key in is_.keys() | should.keys():
            more = [one - other for one, other in zip(is_.get(key, (0, 0)), should.get(key, (0, 0)), strict=True)]
            lost += sum(-one for one in more if one < 0)
            doubled += sum(one for one in more if one > 0)
            rows += any(more)
    return Totals(ledger.flows, lost, doubled, rows)


def _counts(rows: Sequence[Mapping[str, object]]) -> dict[tuple[object, ...], tuple[int, int]]:
    return {
        (row["src_app"], row["dest_app"], row["vpc_id"]): (int(str(row["bytes_tx"])), int(str(row["bytes_rx"])))
        for row in rows
    }


def _target(url: str) -> Target:
    """A target that is an address and no cluster."""
    host = urlsplit(url).netloc
    nothing = Path("/nonexistent")
    return Target(
        kubeconfig=nothing, url=url, host=host, own=None, registry="", tag="", ingress_class="", search_path=""
    )
