"""The reader's HTTP side: GET /flows, probes and docs."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import redis
from flowagg.access import Gate
from flowagg.docs_routes import docs_routes
from flowagg.problem import HANDLERS
from flowagg.service import OK, Checks, Entrance, answered_at_the_entrance, operational_routes
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from flowagg_reader import metrics
from flowagg_reader.access import EVERYTHING, Access
from flowagg_reader.endpoint import AccessOf, Flows, is_plain
from flowagg_reader.exchanged import Exchanges
from flowagg_reader.log import Log
from flowagg_reader.page import page_routes
from flowagg_reader.queries import Queries
from flowagg_reader.settings import ReaderSettings
from flowagg_reader.store import Store

_log = logging.getLogger(__name__)

_WATCH_SECONDS = 1.0


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

    def by_token(authorizations: Sequence[str]) -> Access:
        grant = gate.enter(authorizations, "read")
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

    flows = Flows(settings, store, log, access or by_token)
    queries = Queries(flows)

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        plain = is_plain(scope["query_string"], scope["headers"])
        await (flows if plain else queries.flows)(scope, receive, send)

    hours = answered_at_the_entrance("/hours", ["GET"])
    hours.app = queries.hours
    others = Starlette(
        routes=[
            answered_at_the_entrance("/flows", ["GET"]),
            hours,
            *operational_routes(live=dict, ready=ready),
            *docs_routes(),
            *page_routes(),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    others.router.redirect_slashes = False
    return Entrance("/flows", {"GET", "HEAD"}, endpoint, others, Exchanges(flows))
