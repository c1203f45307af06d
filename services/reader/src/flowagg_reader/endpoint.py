"""The endpoint GET /flows: the core's effects carried out, by ASGI or by exchanges."""

import asyncio
import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
import redis
from flowagg.deadlines import Deadlines
from flowagg.exchange import Headers
from flowagg.kafka import KafkaUnavailable
from flowagg.position import Position
from flowagg.problem import Problem, fault
from flowagg.view import DamagedView
from prometheus_client import Counter
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flowagg_reader import metrics
from flowagg_reader.access import Access
from flowagg_reader.bodies import Bodies, Counts, Turns
from flowagg_reader.cache import Entry
from flowagg_reader.compiled import render_compiled
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
from flowagg_reader.formats import accepted
from flowagg_reader.freshness import Freshness
from flowagg_reader.hour import Seen
from flowagg_reader.log import Log
from flowagg_reader.lookup import Ends
from flowagg_reader.query import Consistency, Format, Query, Selection, parse_query
from flowagg_reader.response import EntryResponse, HeadResponse
from flowagg_reader.settings import ReaderSettings
from flowagg_reader.store import Store
from flowagg_reader.union import EMPTY, Body, render
from flowagg_reader.views import View, Views

_log = logging.getLogger(__name__)

NOT_FRESH = {"Flowagg-Fresh": "false"}
RETRY_LATER = {"Retry-After": "1", **NOT_FRESH}
_KEPT_QUERY_BYTES: Final = 256
_LOOKED_UP: Final = metrics.LOOKUPS.labels("ok")
ENDS: Final = Problem(503, "This reader ends: ask again.", headers={**RETRY_LATER, "Connection": "close"})

AccessOf = Callable[[Sequence[str]], Access]
"""What the client of a request may see, by its Authorization headers. Raises Problem where that is nothing."""


class Asked(msgspec.Struct, frozen=True):
    """What the head of a GET says. held: the answers that the client has."""

    raw_query: bytes
    authorizations: Sequence[str]
    held: Held


@dataclass(slots=True)
class Get:
    """A GET in hand. steps: of its answer. entry: a body that is held for it."""

    wanted: Wanted
    view: View
    access: Access
    steps: Generator[Effect, Any, Answer]
    entry: Entry[Body] | None = None

    def release(self) -> None:
        """Give the body back that was not sent."""
        if self.entry is not None:
            self.entry.release()
            self.entry = None


class Flows:
    """The endpoint GET /flows by ASGI, and what answering it takes."""

    def __init__(self, settings: ReaderSettings, store: Store, log: Log, access: AccessOf) -> None:
        self.settings = settings
        self.access_of = access
        self.ends = Ends(log.end, time.monotonic)
        self.views = Views(settings.view, store, settings.max_views)
        self.waiting = 0
        self.deadlines = Deadlines(settings.get_timeout_seconds)
        self.turns = Turns(settings.max_large_reads, settings.large_read_rows)
        counts = Counts(metrics.BODIES, metrics.CACHE_BYTES, metrics.RENDER_SECONDS)
        self._bodies = Bodies(
            render_compiled if settings.native else render, settings.body_cache_bytes, self.turns, counts
        )
        self._answers: dict[int, Counter] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one GET by ASGI: the hour's rows, or a problem document."""
        began = time.perf_counter()
        try:
            response = await self._bounded(scope)
        except Problem as problem:
            response = problem.response()
        except asyncio.CancelledError:
            response = ENDS.response()
        except Exception:
            _log.exception("a GET failed", extra={"request_id": scope.get("state", {}).get("request_id")})
            response = fault().response()
        self.observe(response.status_code, began)
        await response(scope, receive, send)

    def observe(self, status: int, began: float) -> None:
        """Count an answer. began: by time.perf_counter."""
        if status not in self._answers:
            self._answers[status] = metrics.GETS.labels(status)  # it takes a lock and looks it up
        self._answers[status].inc()
        metrics.GET_SECONDS.observe(time.perf_counter() - began)

    def enter(self, asked: Asked, *, head: bool = False) -> Get:
        """Begin the answer of a GET. Raises Problem."""
        access = self.access_of(asked.authorizations)
        query = query_of(asked.raw_query)
        assert isinstance(query, Query)  # noqa: S101 - is_plain has said so
        self.check_waiting()
        view = self.views.get(query.view)
        wanted = Wanted(query, access.scope, asked.held, head=head, view=view.name, named=not view.own)
        steps = answer(wanted, iter(time.monotonic, None), self.settings.fresh_wait_seconds, view.pace)
        return Get(wanted, view, access, steps)

    def check_waiting(self) -> None:
        """Raises Problem where as many requests are in hand as may be."""
        if self.waiting >= self.settings.max_waiting_requests:
            raise Problem(
                503,
                "This reader has as many requests in hand as it may: ask again later.",
                headers=RETRY_LATER,
            )

    async def _bounded(self, scope: Scope) -> Response:
        get = self.enter(asked_by(scope["query_string"], scope["headers"]), head=scope["method"] == "HEAD")
        self.waiting += 1
        try:
            async with asyncio.timeout(self.settings.get_timeout_seconds):
                return self._response(get, await self.go_on(get, None))
        except Exception as error:
            raise self.problem(error, get.view) from None
        finally:
            self.waiting -= 1
            get.release()

    def problem(self, error: BaseException, view: View | None) -> Problem:  # noqa: PLR0911 - one an error
        """What a client is told. view: that it asks for, if that is known. Raises what is no such error."""
        match error:
            case Problem():
                return error
            case redis.RedisError():
                _log.warning("redis failed", extra={"reason": f"{type(error).__name__}: {error}"})
                return Problem(
                    503,
                    "Redis, which holds the totals, does not answer: ask again later.",
                    headers=RETRY_LATER,
                )
            case DamagedView():
                _log.error("view damaged", exc_info=error)
                return Problem(503, f"The totals cannot be read: {error}.", headers=RETRY_LATER)
            case TimeoutError():
                return Problem(503, "The answer took too long: ask again later.", headers=RETRY_LATER)
            case NotFresh():
                metrics.STALE.inc()
                return Problem(503, f"{error}.", headers=RETRY_LATER)
            case UnknownView() if view is not None:
                self.views.gone(view)
                return Problem(
                    404,
                    f"view: there is no view {view.name!r}. Leave the parameter out for the view that this reader is "
                    "for, or name one that is kept: status.views of the FlowAggregator has their names.",
                    headers=NOT_FRESH,
                )
            case TopicGone():
                return Problem(410, f"{error}: its records are gone with it.", headers=NOT_FRESH)
        raise error

    async def go_on(self, get: Get, effect: Effect | None) -> Answer:
        """The answer. effect: the one that its steps wait for, None where they have not begun."""
        steps = get.steps
        try:
            effect = effect or next(steps)
            while True:
                try:
                    reply = await self._carry_out(get, effect)
                except LogAway as error:
                    effect = steps.throw(error)
                    continue
                self.take(get, reply.body if isinstance(reply, HourRead) else reply)
                effect = steps.send(reply)
        except StopIteration as end:
            given: Answer = end.value
            return given

    @staticmethod
    def take(get: Get, got: object) -> None:
        """Keep a body that was read or found, in the place of one before, that was not fresh enough."""
        if isinstance(got, Entry):
            get.release()
            get.entry = got

    async def _carry_out(self, get: Get, effect: Effect) -> object:
        match effect:
            case LookUpEnd():
                try:
                    end = await self.ends.get()
                except KafkaUnavailable as error:
                    raise log_away(error) from error
                return known_end(end)
            case Look():
                return self.looked(get, await get.view.looks.get(effect))
            case FindBody():
                return self.find(effect)
            case ReadHour():
                return await self._bodies.read(get.view.store, get.view.name, effect, get.access)
            case Pause():
                await asyncio.sleep(effect.seconds)
                return None
        raise AssertionError(effect)

    def looked(self, get: Get, seen: Mapping[int, Seen]) -> Mapping[int, Seen]:
        """What a look has shown."""
        if any(part.meta is not None for part in seen.values()):
            self.views.found(get.view)
        return seen

    def find(self, effect: FindBody) -> Entry[Body] | None:
        """The body of a tag, held."""
        return self._bodies.find(effect.tag)

    def settle(self, get: Get, given: Answer) -> None:
        """Count what an answer shows; a body that was taken in an earlier turn, and is not its, is not sent with it."""
        if given.body is None:
            get.release()
        if not given.found.freshness.fresh and get.wanted.query.consistency is not Consistency.EVENTUAL:
            metrics.STALE.inc()
        if given.body is not None and not given.held and not get.wanted.head:
            metrics.ROWS.inc(given.body.body.rows)

    def _response(self, get: Get, given: Answer) -> Response:
        self.settle(get, given)
        headers = headers_of(given)
        if given.held:
            return Response(status_code=304, headers=headers)
        if get.wanted.head and given.found.hour.rows:
            return HeadResponse(given.body and given.body.body.size, headers)
        if get.wanted.head:
            return HeadResponse(EMPTY.size, headers)
        return self.sending(get, headers)

    def sending(self, get: Get, headers: Mapping[str, str]) -> EntryResponse:
        """The answer of the body that is held, or of none; it releases it when it is sent."""
        entry, get.entry = get.entry or Entry("", EMPTY).hold(), None
        return EntryResponse(entry, headers, self.settings.stall_seconds)


def log_away(error: KafkaUnavailable) -> LogAway:
    """Kafka did not say where the log ends: what the core is told."""
    metrics.LOOKUPS.labels("failed").inc()
    return LogAway(str(error))


def known_end(end: Position) -> Position:
    """Kafka said where the log ends."""
    _LOOKED_UP.inc()
    return end


def asked_by(raw_query: bytes, headers: Headers) -> Asked:
    """What a GET's head says."""

    def values(wanted: bytes) -> list[str]:
        return [value.decode("latin-1") for name, value in headers if name == wanted]

    return Asked(raw_query, values(b"authorization"), Held(values(b"if-none-match")))


def is_plain(raw_query: bytes, headers: Headers) -> bool:
    """Whether a GET asks for the rows of one hour, as they are, in JSON. So is one whose query is refused."""
    try:
        query = query_of(raw_query)
    except Problem:
        return True
    if not isinstance(query, Query):
        return False
    accepts = [value.decode("latin-1") for name, value in headers if name == b"accept" and value != b"*/*"]
    return not accepts or accepted(accepts) is Format.JSON


def query_of(raw: bytes) -> Query | Selection:
    """The query of a GET. Raises Problem."""
    return _kept_query(raw) if len(raw) <= _KEPT_QUERY_BYTES else _parsed(raw)


def _parsed(raw: bytes) -> Query | Selection:
    return parse_query(parse_qsl(raw.decode("latin-1"), keep_blank_values=True))


_kept_query = lru_cache(maxsize=1024)(_parsed)


def headers_of(given: Answer) -> dict[str, str]:
    """The header fields of an answer."""
    hour = given.found.hour
    return reading_headers(hour.tag, given.found.freshness, expired=hour.expired, incomplete=hour.incomplete)


def reading_headers(tag: str, freshness: Freshness, *, expired: bool, incomplete: bool) -> dict[str, str]:
    """What an answer says of the view that it was read from."""
    lag = freshness.lag_records
    headers = {
        "ETag": etag(tag),
        "Cache-Control": "no-cache",
        "Flowagg-Fresh": "true" if freshness.fresh else "false",
        "Flowagg-Lag-Records": "unknown" if lag == UNKNOWN_LAG else str(lag),
    }
    if expired:
        headers["Flowagg-Expired"] = "true"
    if incomplete:
        headers["Flowagg-Incomplete"] = "true"
    return headers
