"""The reader's HTTP side: GET /flows."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import redis
from flowagg.kafka import KafkaUnavailable
from flowagg.position import Position
from flowagg.problem import HANDLERS, Problem
from flowagg.service import OK, Checks, operational_routes
from flowagg.view import DamagedView
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flowagg_reader import metrics
from flowagg_reader.core import (
    UNKNOWN_LAG,
    Answer,
    Effect,
    ListPartitions,
    LogAway,
    LookUpEnd,
    NotFresh,
    Pause,
    ReadHour,
    ReadMetas,
    TopicGone,
    answer,
)
from flowagg_reader.log import Log
from flowagg_reader.lookup import JoinedLookup
from flowagg_reader.query import Query, parse_query
from flowagg_reader.settings import ReaderSettings
from flowagg_reader.store import Store
from flowagg_reader.union import unite

_log = logging.getLogger(__name__)

RETRY_LATER = {"Retry-After": "1"}
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
        steps = answer(query, iter(asyncio.get_running_loop().time, None), self._settings.fresh_wait_seconds)
        effect = next(steps)
        try:
            while True:
                try:
                    reply = await self._carry_out(effect)
                except LogAway as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(reply)
        except StopIteration as end:
            return self._render(query, end.value)
        except NotFresh as error:
            metrics.STALE.inc()
            raise Problem(503, f"{error}.", headers=RETRY_LATER) from None
        except TopicGone as error:
            raise Problem(410, f"{error}: its records are gone with it.") from None

    async def _carry_out(self, effect: Effect) -> object:
        match effect:
            case LookUpEnd():
                return await self._look_up_end()
            case ListPartitions():
                return await self._store.partitions()
            case ReadMetas():
                return await self._store.metas(effect.partitions)
            case ReadHour():
                async with self._reads:
                    return await self._store.read_hour(effect.partitions, effect.hour)
            case Pause():
                await asyncio.sleep(effect.seconds)
                return None

    async def _look_up_end(self) -> Position:
        try:
            end = await self._ends.get()
        except KafkaUnavailable as error:
            metrics.LOOKUPS.labels("failed").inc()
            raise LogAway(str(error)) from error
        metrics.LOOKUPS.labels("ok").inc()
        return end

    def _render(self, query: Query, found: Answer) -> Response:
        lag = found.freshness.lag_records
        if not found.freshness.fresh:
            metrics.STALE.inc()
        rows = [] if found.expired else unite(query.hour, (part.totals for part in found.parts.values()))
        metrics.ROWS.inc(len(rows))
        headers = {
            "Flowagg-Fresh": "true" if found.freshness.fresh else "false",
            "Flowagg-Lag-Records": "unknown" if lag == UNKNOWN_LAG else str(lag),
        }
        if found.expired:
            headers["Flowagg-Expired"] = "true"
        return Response(msgspec.json.encode(rows), media_type="application/json", headers=headers)


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
