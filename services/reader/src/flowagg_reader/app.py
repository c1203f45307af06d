"""The reader's HTTP side: GET /flows."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import redis
from flowagg.access import Gate
from flowagg.docs_routes import docs_routes
from flowagg.kafka import KafkaUnavailable
from flowagg.position import Position
from flowagg.problem import HANDLERS, Problem, fault
from flowagg.service import OK, Checks, Entrance, answered_at_the_entrance, operational_routes
from flowagg.view import DamagedView
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from flowagg_reader import metrics
from flowagg_reader.access import EVERYTHING, Access
from flowagg_reader.bodies import Bodies
from flowagg_reader.cache import Entry
from flowagg_reader.core import (
    UNKNOWN_LAG,
    Answer,
    Effect,
    FindBody,
    HourRead,
    LogAway,
    Look,
    LookUpEnd,
    NotFresh,
    Pause,
    ReadHour,
    TopicGone,
    UnknownView,
    Wanted,
    answer,
)
from flowagg_reader.etag import Held, etag
from flowagg_reader.log import Log
from flowagg_reader.lookup import Ends
from flowagg_reader.query import Consistency, parse_query
from flowagg_reader.response import EntryResponse, HeadResponse
from flowagg_reader.settings import ReaderSettings
from flowagg_reader.store import Store
from flowagg_reader.union import EMPTY
from flowagg_reader.views import View, Views

_log = logging.getLogger(__name__)

NOT_FRESH = {"Flowagg-Fresh": "false"}
RETRY_LATER = {"Retry-After": "1", **NOT_FRESH}
_WATCH_SECONDS = 1.0

AccessOf = Callable[[Request], Access]
"""What the client of a request may see. Raises Problem where that is nothing."""


class Flows:
    """The endpoint GET /flows."""

    def __init__(self, settings: ReaderSettings, store: Store, log: Log, access: AccessOf) -> None:
        self._settings = settings
        self._access = access
        self._ends = Ends(log.end, time.monotonic)
        self._views = Views(settings.view, store, settings.max_views)
        self._waiting = 0
        self._bodies = Bodies(settings.body_cache_bytes, settings.max_large_reads, settings.large_read_rows)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one GET by ASGI: the hour's rows, or a problem document."""
        began = time.perf_counter()
        try:
            response = await self._bounded(Request(scope, receive))
        except Problem as problem:
            response = problem.response()
        except asyncio.CancelledError:
            headers = {**RETRY_LATER, "Connection": "close"}
            response = Problem(503, "This reader ends: ask again.", headers=headers).response()
        except Exception:
            _log.exception("a GET failed", extra={"request_id": scope.get("state", {}).get("request_id")})
            response = fault().response()
        metrics.GETS.labels(response.status_code).inc()
        metrics.GET_SECONDS.observe(time.perf_counter() - began)
        await response(scope, receive, send)

    async def _bounded(self, request: Request) -> Response:
        access = self._access(request)
        query = parse_query(request.query_params.multi_items())
        if self._waiting >= self._settings.max_waiting_requests:
            raise Problem(
                503,
                "This reader has as many requests in hand as it may: ask again later.",
                headers=RETRY_LATER,
            )
        held = Held(request.headers.getlist("if-none-match"))
        view = self._views.get(query.view)
        head = request.method == "HEAD"
        wanted = Wanted(query, access.scope, held, head=head, view=view.name, named=not view.own)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._settings.get_timeout_seconds):
                return await self._answer(wanted, view, access)
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
        except NotFresh as error:
            metrics.STALE.inc()
            raise Problem(503, f"{error}.", headers=RETRY_LATER) from None
        except UnknownView:
            self._views.gone(view)
            raise Problem(
                404,
                f"view: there is no view {view.name!r}. Leave the parameter out for the view that this reader is for, "
                "or name one that is kept: status.views of the FlowAggregator has their names.",
                headers=NOT_FRESH,
            ) from None
        except TopicGone as error:
            raise Problem(410, f"{error}: its records are gone with it.", headers=NOT_FRESH) from None
        finally:
            self._waiting -= 1

    async def _answer(self, wanted: Wanted, view: View, access: Access) -> Response:
        steps = answer(wanted, iter(time.monotonic, None), self._settings.fresh_wait_seconds, view.pace)
        entry: Entry | None = None
        try:
            effect = next(steps)
            while True:
                try:
                    reply = await self._carry_out(effect, view, access)
                except LogAway as error:
                    effect = steps.throw(error)
                    continue
                got = reply.body if isinstance(reply, HourRead) else reply
                if isinstance(got, Entry):
                    if entry is not None:
                        entry.release()  # of a reading before, that was not fresh enough
                    entry = got
                effect = steps.send(reply)
        except StopIteration as end:
            response = self._response(wanted, end.value)
            if isinstance(response, EntryResponse):
                entry = None  # it releases the entry when it is sent
            return response
        finally:
            if entry is not None:
                entry.release()

    async def _carry_out(self, effect: Effect, view: View, access: Access) -> object:
        match effect:
            case LookUpEnd():
                return await self._look_up_end()
            case Look():
                seen = await view.looks.get(effect)
                if any(part.meta is not None for part in seen.values()):
                    self._views.found(view)
                return seen
            case FindBody():
                return self._bodies.find(effect.tag)
            case ReadHour():
                return await self._bodies.read(view.store, view.name, effect, access)
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

    def _response(self, wanted: Wanted, given: Answer) -> Response:
        if not given.found.freshness.fresh and wanted.query.consistency is not Consistency.EVENTUAL:
            metrics.STALE.inc()
        headers = _headers(given)
        if given.held:
            return Response(status_code=304, headers=headers)
        if wanted.head and given.found.hour.rows:
            return HeadResponse(given.body and given.body.body.size, headers)
        if wanted.head:
            return HeadResponse(EMPTY.size, headers)
        entry: Entry = given.body or Entry("", EMPTY).hold()
        metrics.ROWS.inc(entry.body.rows)
        return EntryResponse(entry, headers, self._settings.stall_seconds)


def _headers(given: Answer) -> dict[str, str]:
    found = given.found
    lag = found.freshness.lag_records
    headers = {
        "ETag": etag(found.hour.tag),
        "Cache-Control": "no-cache",
        "Flowagg-Fresh": "true" if found.freshness.fresh else "false",
        "Flowagg-Lag-Records": "unknown" if lag == UNKNOWN_LAG else str(lag),
    }
    if found.hour.expired:
        headers["Flowagg-Expired"] = "true"
    if found.hour.incomplete:
        headers["Flowagg-Incomplete"] = "true"
    return headers


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
            metrics.WAITING.labels("redis").set(checks["redis"] != OK)
            if checks != self._checks:
                _log.info("readiness", extra={"checks": checks})
            self._checks = checks
            self._log.serve_logs()
            await asyncio.sleep(_WATCH_SECONDS)


def create_app(settings: ReaderSettings, store: Store, log: Log, access: AccessOf | None = None) -> ASGIApp:
    """The reader's application. access: what a client may see; by default as its token says. Raises InvalidTokens."""
    watch = Watch(store, log)
    gate = Gate(settings.tokens_file)

    def by_token(request: Request) -> Access:
        grant = gate.enter(request.headers.getlist("authorization"), "read")
        return EVERYTHING if grant.covers is None else Access(grant.covers, grant.scope)

    def ready() -> Checks:
        checks = watch.ready()
        return checks if gate.trouble is None else checks | {"tokens": gate.trouble}

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(watch.run())
        yield
        watching.cancel()
        await store.close()

    others = Starlette(
        routes=[
            answered_at_the_entrance("/flows", ["GET"]),
            *operational_routes(live=dict, ready=ready),
            *docs_routes(),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    others.router.redirect_slashes = False
    return Entrance("/flows", {"GET", "HEAD"}, Flows(settings, store, log, access or by_token), others)
