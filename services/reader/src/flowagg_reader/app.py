"""The reader's HTTP side: GET /flows."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec
import redis
from flowagg.kafka import KafkaUnavailable
from flowagg.position import Position
from flowagg.problem import HANDLERS, Problem
from flowagg.service import OK, Checks, operational_routes
from flowagg.view import DamagedView, Meta
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flowagg_reader import metrics
from flowagg_reader.freshness import Freshness, TopicChanged, judge
from flowagg_reader.log import Log
from flowagg_reader.lookup import JoinedLookup
from flowagg_reader.query import Consistency, Query, parse_query
from flowagg_reader.settings import ReaderSettings
from flowagg_reader.store import PartitionHour, Store
from flowagg_reader.union import unite

_log = logging.getLogger(__name__)

RETRY_LATER = {"Retry-After": "1"}
_POLL_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016)
_WATCH_SECONDS = 1.0


class Flows:
    """The endpoint GET /flows."""

    def __init__(self, settings: ReaderSettings, store: Store, log: Log) -> None:
        self._settings = settings
        self._store = store
        self._ends = JoinedLookup(log.end)
        self._waiting = 0
        self._reads = asyncio.Semaphore(settings.max_large_reads)

    async def get(self, request: Request) -> Response:
        """Answer one GET: the hour's rows, or a problem document."""
        began = time.perf_counter()
        try:
            response = await self._bounded(request)
        except Problem as problem:
            response = problem.response()
        metrics.GETS.labels(response.status_code).inc()
        metrics.GET_SECONDS.observe(time.perf_counter() - began)
        return response

    async def _bounded(self, request: Request) -> Response:
        query = parse_query(request.query_params.multi_items())
        if self._waiting >= self._settings.max_waiting_requests:
            raise Problem(
                503,
                "This reader has as many requests in hand as it may: ask again later.",
                headers=RETRY_LATER,
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(self._settings.get_timeout_seconds):
                return await self._answer(query)
        except redis.RedisError as error:
            _log.warning("redis failed", extra={"reason": f"{type(error).__name__}: {error}"})
            raise Problem(
                503,
                "Redis, which holds the totals, does not answer: ask again later.",
                headers=RETRY_LATER,
            ) from None
        except DamagedView as error:
            _log.exception("view damaged")
            raise Problem(503, f"The totals cannot be read: {error}.", headers=RETRY_LATER) from None
        except TimeoutError:
            raise Problem(503, "The answer took too long: ask again later.", headers=RETRY_LATER) from None
        finally:
            self._waiting -= 1

    async def _answer(self, query: Query) -> Response:
        required = await self._required(query)
        partitions = await self._store.partitions()
        deadline = asyncio.get_running_loop().time() + self._settings.fresh_wait_seconds
        freshness: Freshness | None = None
        while True:
            if required is not None:
                await self._wait(required, deadline)
            async with self._reads:
                parts = await self._store.read_hour(
                    partitions | (required.offsets.keys() if required else set()), query.hour
                )
                # Judged from this very reply: no other connection is asked, a demoted master answers too.
                if required is not None:
                    freshness = _judge(required, {number: part.meta for number, part in parts.items()}, query)
                final = freshness is None or freshness.fresh or freshness.lag_records < 0
                if final or asyncio.get_running_loop().time() + _POLL_SECONDS[-1] >= deadline:
                    return self._render(query, parts, freshness)
            await asyncio.sleep(_POLL_SECONDS[-1])

    async def _required(self, query: Query) -> Position | None:
        """The position that the answer must reflect; None where none is asked for or none can be had."""
        if query.consistency is Consistency.EVENTUAL:
            return None
        if query.after is not None:
            return query.after
        try:
            required = await self._ends.get()
        except KafkaUnavailable as error:
            metrics.LOOKUPS.labels("failed").inc()
            if query.consistency is Consistency.STRICT:
                raise Problem(
                    503,
                    f"It cannot be shown that the totals are fresh: {error}.",
                    headers=RETRY_LATER,
                ) from None
            return None
        metrics.LOOKUPS.labels("ok").inc()
        return required

    async def _wait(self, required: Position, deadline: float) -> None:
        """Wait until the view has reached the position, or until the deadline."""
        loop = asyncio.get_running_loop()
        turn = 0
        while True:
            metas = await self._store.metas(required.offsets)
            try:
                if judge(required, metas).fresh:
                    return
            except TopicChanged:
                return
            pause = _POLL_SECONDS[min(turn, len(_POLL_SECONDS) - 1)]
            if loop.time() + pause >= deadline:
                return
            await asyncio.sleep(pause)
            turn += 1

    def _render(self, query: Query, parts: Mapping[int, PartitionHour], freshness: Freshness | None) -> Response:
        fresh = freshness is not None and freshness.fresh
        lag = "unknown" if freshness is None or freshness.lag_records < 0 else str(freshness.lag_records)
        if not fresh:
            metrics.STALE.inc()
            if query.consistency is Consistency.STRICT:
                raise Problem(
                    503,
                    f"The totals are not fresh yet: {lag} records are still to be applied.",
                    headers=RETRY_LATER,
                )
        rows = unite(query.hour, (part.totals for part in parts.values()))
        metrics.ROWS.inc(len(rows))
        return Response(
            msgspec.json.encode(rows),
            media_type="application/json",
            headers={"Flowagg-Fresh": "true" if fresh else "false", "Flowagg-Lag-Records": lag},
        )


def _judge(required: Position, metas: Mapping[int, Meta | None], query: Query) -> Freshness:
    try:
        return judge(required, metas)
    except TopicChanged:
        if query.after is not None:
            raise Problem(
                410,
                "The position is of a topic that no longer exists: its records are gone with it.",
            ) from None
        return Freshness(fresh=False, lag_records=-1)


class Watch:
    """Looks at Redis and Kafka every second, for /readyz."""

    def __init__(self, store: Store, log: Log) -> None:
        self._store = store
        self._log = log
        self._checks: Checks = {"redis": "not looked at yet"}

    def ready(self) -> Checks:
        """Ready where Redis answers: without Kafka the answers are marked as not fresh, but they come."""
        return self._checks

    async def run(self) -> None:
        """Look, again and again."""
        while True:
            checks = {"redis": OK}
            try:
                await self._store.ping()
            except redis.RedisError as error:
                checks["redis"] = f"{type(error).__name__}: {error}"
            if checks != self._checks:
                _log.info("readiness", extra={"checks": checks})
            self._checks = checks
            self._log.serve_logs()
            await asyncio.sleep(_WATCH_SECONDS)


def create_app(settings: ReaderSettings, store: Store, log: Log) -> Starlette:
    """The reader's application."""
    watch = Watch(store, log)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(watch.run())
        yield
        watching.cancel()
        await store.close()

    return Starlette(
        routes=[
            Route("/flows", Flows(settings, store, log).get, methods=["GET"]),
            *operational_routes(live=dict, ready=watch.ready),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
