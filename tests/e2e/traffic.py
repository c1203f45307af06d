"""Clients under load: they post with Idempotency-Keys, retry as good clients do, and keep a ledger of their own.

POSTs and GETs start at a steady pace, whether earlier ones are answered or not, so that a pod that answers nobody is
seen at once and by many. Every try is on record: gaps and failures are told from that.
"""

import asyncio
import itertools
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import httpx
import msgspec
from flowagg.flow import Flow
from flowagg_load.generator import Ledger, Shape, flows

from tests.e2e.target import Target

_RETRIED: Final = frozenset({429, 502, 503, 504})
_IN_FLIGHT: Final = 512
"""Requests at a time; the pace waits past it."""
_hours = itertools.count(time.time_ns() // 1000, 16)


@dataclass(frozen=True, slots=True)
class Manners:
    """How the clients behave.

    posts, gets: started a second. pooled: whether connections are used again. attempt_seconds: patience with one try.
    patience_seconds: with a request and its retries. hours, keys: what the flows are about. token: a bearer token.
    """

    posts: float = 12.0
    gets: float = 12.0
    flows_a_post: int = 20
    hours: int = 3
    keys: int = 60
    pooled: bool = True
    token: str | None = None
    attempt_seconds: float = 5.0
    patience_seconds: float = 90.0
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a request. Times of time.monotonic(), in seconds. outcome: the status, or the error's name."""

    method: str
    request: int
    number: int
    started: float
    ended: float
    outcome: int | str

    @property
    def is_ok(self) -> bool:
        """Whether it was answered with 200."""
        return self.outcome == 200


@dataclass(frozen=True, slots=True)
class Record:
    """All tries of a load, and what can be told from them."""

    attempts: Sequence[Attempt]

    def ends(self, method: str, since: float, until: float = float("inf")) -> list[float]:
        """When requests that started after since were answered with 200, ascending."""
        return sorted(
            one.ended
            for one in self.attempts
            if one.method == method and one.is_ok and one.started >= since and one.ended <= until
        )

    def next_ok(self, method: str, since: float) -> float | None:
        """Seconds from since to the first 200 of a request that started after it."""
        return next((end - since for end in self.ends(method, since)), None)

    def gap(self, method: str, since: float, until: float) -> float:
        """Longest time without a 200 of a request that started after since, up to until, in seconds."""
        marks = [since, *self.ends(method, since, until), until]
        return max((later - earlier for earlier, later in itertools.pairwise(marks)), default=0.0)

    def failures(self, since: float = 0.0) -> list[Attempt]:
        """Tries after since that were not answered with 200."""
        return [one for one in self.attempts if not one.is_ok and one.started >= since]

    def uncured(self) -> list[int]:
        """Requests whose first try and whose first retry both failed."""
        tries = defaultdict[int, int](int)
        for one in self.failures():
            tries[one.request] += 1
        return sorted(request for request, failed in tries.items() if failed > 1)

    def summary(self) -> str:
        """One line: how many tries, and how they ended."""
        outcomes = defaultdict[str, int](int)
        for one in self.attempts:
            outcomes[f"{one.method} {one.outcome}"] += 1
        return ", ".join(f"{count} x {outcome}" for outcome, count in sorted(outcomes.items()))


@dataclass(slots=True)
class _Sent:
    """bytes_tx of each hour: sent at all, and acknowledged."""

    begun: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    acknowledged: dict[int, int] = field(default_factory=lambda: defaultdict(int))


class Traffic:
    """A load in a thread of its own; a context manager.

    Its end waits for all requests in hand, then reads the totals of every hour and compares them with the ledger to
    the byte. Raises AssertionError where they differ, where a client gave up, or where an answer was wrong.
    """

    def __init__(self, target: Target, manners: Manners | None = None, seed: int | None = None) -> None:
        self._target = target
        self._manners = manners or Manners()
        self._first_hour = next(_hours)
        self._seed = random.randrange(2**32) if seed is None else seed
        self._rng = random.Random(self._seed)
        self._flows = flows(Shape(keys=self._manners.keys, hours=self._manners.hours), self._seed)
        self._numbers = itertools.count(1)
        self._sent = _Sent()
        self._attempts: list[Attempt] = []
        self._wrong: list[str] = []
        self._ends = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self.ledger = Ledger()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        if kind is None:
            self.verify()

    @property
    def record(self) -> Record:
        """All tries up to now."""
        return Record(tuple(self._attempts))

    def wait_flowing(self, seconds: float = 60.0) -> float:
        """Wait until POSTs and GETs that start now are answered with 200; the time, of time.monotonic().

        Raises AssertionError past seconds.
        """
        since = time.monotonic()
        while not all(self.record.ends(method, since) for method in ("POST", "GET")):
            self._check()
            assert time.monotonic() < since + seconds, f"no 200 within {seconds:g} s: {self.record.summary()}"
            time.sleep(0.02)
        return time.monotonic()

    def watch(self, seconds: float) -> None:
        """Let it run for some time, and end early where a client meets what it must not. Raises AssertionError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._check()
            time.sleep(0.05)

    def verify(self) -> None:
        """Compare the totals of every hour with the ledger. Raises AssertionError."""
        self._check()
        assert self.ledger.flows, f"nothing was acknowledged: {self.record.summary()}"
        verify(self._target, self.ledger, self._manners.patience_seconds)

    def _headers(self) -> dict[str, str]:
        token = self._manners.token
        return {"Host": self._target.host} | ({} if token is None else {"Authorization": f"Bearer {token}"})

    def _check(self) -> None:
        if self._failure is not None:
            raise AssertionError("the load itself failed") from self._failure
        assert not self._wrong, f"seed {self._seed}: " + "; ".join(self._wrong[:5])

    def _run(self) -> None:
        try:
            asyncio.run(self._load())
        except BaseException as error:
            self._failure = error

    async def _load(self) -> None:
        manners = self._manners
        kept = 32 if manners.pooled else 0
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=kept)
        async with httpx.AsyncClient(
            base_url=self._target.url,
            headers=self._headers(),
            limits=limits,
            timeout=manners.attempt_seconds,
            trust_env=False,
            verify=False,  # noqa: S501 - http
        ) as client:
            await asyncio.gather(
                self._pace(manners.posts, lambda: self._post(client)),
                self._pace(manners.gets, lambda: self._get(client)),
            )

    async def _pace(self, rate: float, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start requests at a rate until the end is asked for, then wait for those in hand."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        room = asyncio.Semaphore(_IN_FLIGHT)
        async with asyncio.TaskGroup() as group:
            while not self._ends.is_set():
                await room.acquire()
                group.create_task(start()).add_done_callback(lambda _: room.release())
                due = max(due + 1 / rate, loop.time())
                await asyncio.sleep(due - loop.time())

    async def _post(self, client: httpx.AsyncClient) -> None:
        batch = [self._placed(flow) for flow in itertools.islice(self._flows, self._manners.flows_a_post)]
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": str(uuid.UUID(int=self._rng.getrandbits(128))),
        }
        for flow in batch:
            self._sent.begun[flow.hour] += flow.bytes_tx
        reply = await self._ask(client, "POST", "/flows", content=msgspec.json.encode(batch), headers=headers)
        if reply is None:
            return
        if reply.json().get("accepted") != len(batch):
            self._wrong.append(f"a POST of {len(batch)} flows was answered {reply.text}")
        for flow in batch:
            self.ledger.add(flow)
            self._sent.acknowledged[flow.hour] += flow.bytes_tx

    def _placed(self, flow: Flow) -> Flow:
        """The flow in an hour that nobody else uses."""
        return msgspec.structs.replace(flow, hour=self._first_hour + flow.hour)

    async def _get(self, client: httpx.AsyncClient) -> None:
        hour = self._first_hour + self._rng.randrange(self._manners.hours)
        least = self._sent.acknowledged[hour]
        reply = await self._ask(client, "GET", f"/flows?hour={hour}")
        if reply is None:
            return
        total = sum(row["bytes_tx"] for row in reply.json())
        fresh = reply.headers.get("flowagg-fresh") == "true"
        if (fresh and total < least) or total > self._sent.begun[hour]:
            self._wrong.append(
                f"hour {hour}: {total} bytes were read (fresh: {fresh}) where {least} had been acknowledged "
                f"and {self._sent.begun[hour]} sent"
            )

    async def _ask(self, client: httpx.AsyncClient, method: str, target: str, **request: Any) -> httpx.Response | None:
        """Ask until the answer is 200; None where the client gave up, which is on record as wrong."""
        manners, number = self._manners, next(self._numbers)
        deadline = time.monotonic() + manners.patience_seconds
        for attempt in itertools.count(1):
            started = time.monotonic()
            reply: httpx.Response | None = None
            outcome: int | str
            try:
                async with asyncio.timeout(manners.attempt_seconds):
                    reply = await client.request(method, target, **request)
                outcome = reply.status_code
            except (httpx.TransportError, TimeoutError) as error:
                outcome = type(error).__name__
            ended = time.monotonic()
            self._attempts.append(Attempt(method, number, attempt, started, ended, outcome))
            if reply is not None and reply.status_code == 200:
                return reply
            if reply is not None and reply.status_code not in _RETRIED:
                self._wrong.append(f"{method} {target} was answered {reply.status_code}: {reply.text[:300]}")
                return None
            if ended > deadline:
                self._wrong.append(f"{method} {target} was given up after {attempt} tries, at last {outcome}")
                return None
            await asyncio.sleep(self._pause(attempt, reply))
        raise AssertionError("the loop returns")

    def _pause(self, attempt: int, reply: httpx.Response | None) -> float:
        asked = reply.headers.get("retry-after", "") if reply is not None else ""
        if asked.isdecimal():
            return float(asked)
        longest = self._manners.longest_pause_seconds
        bound: float = min(self._manners.first_pause_seconds * 2 ** (attempt - 1), longest)
        return bound * self._rng.uniform(0.5, 1.0)


def verify(target: Target, ledger: Ledger, seconds: float = 90.0) -> None:
    """Every hour's fresh totals equal the ledger, to the byte. Raises AssertionError."""
    with target.client() as client:
        for hour in ledger.hours():
            found, true = read_hour(client, hour, seconds), ledger.rows(hour)
            assert found == true, f"hour {hour} is wrong: {'; '.join(_differences(found, true))}"


def read_hour(client: httpx.Client, hour: int, seconds: float) -> list[dict[str, object]]:
    """An hour's fresh rows, asked for until there is an answer. Raises AssertionError past seconds."""
    deadline = time.monotonic() + seconds
    for last in _until(deadline):
        try:
            reply = client.get("/flows", params={"hour": hour, "consistency": "strict"})
        except httpx.TransportError as error:
            said = repr(error)
        else:
            if reply.status_code == 200:
                return list(reply.json())
            said = f"{reply.status_code}: {reply.text[:300]}"
            assert reply.status_code in _RETRIED, f"hour {hour} was answered {said}"
        assert not last, f"no fresh answer for hour {hour} within {seconds:g} s, at last {said}"
        time.sleep(0.2)
    raise AssertionError("the last pass returns or raises")


def _until(deadline: float) -> Iterator[bool]:
    """Passes up to a deadline; true on the last."""
    while time.monotonic() < deadline:
        yield False
    yield True


def _differences(found: Iterable[dict[str, object]], true: Iterable[dict[str, object]]) -> list[str]:
    def keyed(rows: Iterable[dict[str, object]]) -> dict[object, tuple[object, object]]:
        return {(row["src_app"], row["dest_app"], row["vpc_id"]): (row["bytes_tx"], row["bytes_rx"]) for row in rows}

    is_, should = keyed(found), keyed(true)
    wrong = [key for key in is_.keys() | should.keys() if is_.get(key) != should.get(key)]
    shown = [f"{key}: {is_.get(key)}, true {should.get(key)}" for key in sorted(wrong, key=str)[:5]]
    return [f"{len(wrong)} of {len(should)} rows differ", *shown]
