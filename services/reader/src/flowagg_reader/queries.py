"""The endpoints of queries: GET /flows with more than an hour, and GET /hours. By ASGI."""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar
from urllib.parse import parse_qsl, urlencode

from flowagg.exchange import Headers
from flowagg.kafka import KafkaUnavailable
from flowagg.problem import Problem, fault
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flowagg_reader import metrics
from flowagg_reader.access import Access
from flowagg_reader.bodies import Bodies, Counts
from flowagg_reader.cache import Entry
from flowagg_reader.core import Effect, FindBody, HourRead, LogAway, LookHours, LookUpEnd, Pause, ReadHour
from flowagg_reader.endpoint import ENDS, Flows, known_end, log_away, query_of, reading_headers
from flowagg_reader.etag import Held
from flowagg_reader.evaluate import Result, Row, effort, evaluate
from flowagg_reader.formats import MEDIA_TYPES, accepted, compressed, takes_gzip, written
from flowagg_reader.many import AnswerHours, Bounds, TooLarge, WantedHours, answer_hours
from flowagg_reader.query import MAX_LIMIT, Consistency, Format, Hours, Query, Selection, parse_hours_query
from flowagg_reader.response import HeadResponse, RowsResponse
from flowagg_reader.table import Table, tabulate
from flowagg_reader.views import View

_log = logging.getLogger(__name__)

_VARY: Final = {"Vary": "Accept, Accept-Encoding, Authorization"}
_LARGE_AT_A_TIME: Final = 2
"""Queries of many flow keys: so many hold their tables, and are evaluated."""
_SENT_AT_A_TIME: Final = 64
"""Long answers: each holds up to some MB until the client has it."""
_LEAST_COMPRESSED_ROWS: Final = 8
_T = TypeVar("_T")


class _Gone(Exception):
    """The client has gone."""


@dataclass(slots=True)
class _Asked:
    """A query in hand. entries: tables that are held for it. rows: flow keys in its hours, by the last look. turn: at
    queries of many of them, once it has its own."""

    selection: Selection
    access: Access
    view: View
    entries: list[Entry[Table]] = field(default_factory=list)
    rows: int = 0
    turn: asyncio.Semaphore | None = None

    def release(self) -> None:
        """Give the tables back, and the turn."""
        while self.entries:
            self.entries.pop().release()
        if self.turn is not None:
            self.turn.release()
            self.turn = None


class Queries:
    """Answers queries from tables of their hours, which are kept."""

    def __init__(self, flows: Flows) -> None:
        self._flows = flows
        settings = flows.settings
        counts = Counts(metrics.TABLES, metrics.TABLE_CACHE_BYTES, metrics.TABLE_SECONDS)
        # What a query holds is bounded by the turns at large ones: it holds many tables, and a turn at reading for each
        # could be more than there are.
        self._tables = Bodies(tabulate, settings.table_cache_bytes, flows.turns, counts, keeps_turns=False)
        self._bounds = Bounds(settings.max_query_hours, settings.max_query_rows)
        self._large = asyncio.Semaphore(_LARGE_AT_A_TIME)
        self._evaluations = asyncio.Semaphore(_LARGE_AT_A_TIME)
        self._sending = asyncio.Semaphore(_SENT_AT_A_TIME)

    async def flows(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /flows, of a query that is not plain."""
        await self._answer(scope, receive, send, _selection, self._rows)

    async def hours(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /hours: the hours that the view keeps."""
        await self._answer(scope, receive, send, _hours_selection, self._hours)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        parse: Callable[[bytes], Selection],
        respond: "Callable[[Scope, _Asked], Awaitable[Response]]",
    ) -> None:
        began = time.perf_counter()
        try:
            response = await _unless_gone(self._bounded(scope, parse, respond), receive)
        except _Gone:
            return
        except Problem as problem:
            response = problem.response()
        except asyncio.CancelledError:
            response = ENDS.response()
        except Exception:
            _log.exception("a query failed", extra={"request_id": scope.get("state", {}).get("request_id")})
            response = fault().response()
        self._flows.observe(response.status_code, began)
        await response(scope, receive, send)

    async def _bounded(
        self,
        scope: Scope,
        parse: Callable[[bytes], Selection],
        respond: "Callable[[Scope, _Asked], Awaitable[Response]]",
    ) -> Response:
        flows = self._flows
        access = flows.access_of(_values(scope["headers"], b"authorization"))
        selection = parse(scope["query_string"])
        flows.check_waiting()
        asked = _Asked(selection, access, flows.views.get(selection.view))
        flows.waiting += 1
        try:
            async with asyncio.timeout(flows.settings.get_timeout_seconds):
                return await respond(scope, asked)
        except TooLarge as error:
            raise Problem(400, f"{error}.") from None
        except Exception as error:
            raise flows.problem(error, asked.view) from None
        finally:
            flows.waiting -= 1
            asked.release()

    async def _rows(self, scope: Scope, asked: _Asked) -> Response:
        format_ = _format(scope, asked)
        given = await self._read(scope, asked, form=format_, tables=True)
        headers = _headers(given)
        if given.held or scope["method"] == "HEAD":
            return _bare(given, headers, format_)
        selection = asked.selection
        tables = [(hour, entry.body) for hour, entry in given.tables]
        result = await self._evaluated(tables, selection)
        asked.release()
        if selection.top is None and selection.limit is None and result.rows > MAX_LIMIT:
            raise Problem(
                400,
                f"The answer has {result.rows:,} rows: ask for pages of up to {MAX_LIMIT:,} with limit, and follow "
                "the Link header.",
            )
        if result.next_cursor is not None:
            headers["Link"] = f'<{_next(scope["query_string"], result.next_cursor)}>; rel="next"'
        fields = (*result.fields, "bytes_tx", "bytes_rx")
        return await self._written(scope, headers, format_, fields, result.slices(), result.rows)

    async def _evaluated(self, tables: Sequence[tuple[int, Table]], selection: Selection) -> Result:
        if effort(tables, selection) <= self._flows.settings.large_read_rows:
            return evaluate(tables, selection)
        # In a thread: NumPy lets others go on for most of it. The turn ends with the thread, whoever waits for it.
        await self._evaluations.acquire()
        abandoned = threading.Event()
        evaluation = asyncio.ensure_future(asyncio.to_thread(evaluate, tables, selection, abandoned.is_set))
        evaluation.add_done_callback(self._evaluation_ended)
        try:
            return await asyncio.shield(evaluation)
        finally:
            abandoned.set()

    def _evaluation_ended(self, done: "asyncio.Future[Result]") -> None:
        self._evaluations.release()
        if not done.cancelled():
            done.exception()  # counts as seen, also where nobody waits any more

    async def _hours(self, scope: Scope, asked: _Asked) -> Response:
        format_ = _format(scope, asked)
        given = await self._read(scope, asked, form=f"hours {format_}", tables=False)
        headers = _headers(given)
        if given.held or scope["method"] == "HEAD":
            return _bare(given, headers, format_)
        hours = given.found.hours
        shown = {number: hour.rows for number, hour in hours.items() if hour.rows}
        fields: tuple[str, ...] = ("hour", "flow_keys")
        rows: list[Row] = list(shown.items())
        if asked.access.visible is not None:  # how many flow keys there are of others is nothing to be seen
            fields, rows = ("hour",), [(number,) for number in shown]
        return await self._written(scope, headers, format_, fields, [rows], len(rows))

    async def _written(
        self,
        scope: Scope,
        headers: dict[str, str],
        format_: Format,
        fields: Sequence[str],
        slices: Iterable[Sequence[Row]],
        rows: int,
    ) -> Response:
        metrics.ROWS.inc(rows)
        headers["Content-Type"] = MEDIA_TYPES[format_]
        pieces: Iterator[bytes] = written(fields, slices, format_)
        if rows >= _LEAST_COMPRESSED_ROWS and takes_gzip(_values(scope["headers"], b"accept-encoding")):
            headers["Content-Encoding"] = "gzip"
            pieces = compressed(pieces)
        response = RowsResponse(pieces, headers, self._flows.settings.stall_seconds)
        if not response.whole:
            await self._sending.acquire()
            response.sent = self._sending.release
        return response

    # Reading -----------------------------------------------------------------------------------

    async def _read(self, scope: Scope, asked: _Asked, *, form: str, tables: bool) -> AnswerHours:
        view, flows = asked.view, self._flows
        wanted = WantedHours(
            asked.selection,
            self._bounds,
            asked.access.scope,
            Held(_values(scope["headers"], b"if-none-match")),
            head=scope["method"] == "HEAD",
            view=view.name,
            named=not view.own,
            form=form,
            tables=tables,
        )
        steps = answer_hours(wanted, iter(time.monotonic, None), flows.settings.fresh_wait_seconds, view.pace)
        try:
            effect = next(steps)
            while True:
                try:
                    reply = await self._carry_out(asked, effect)
                except LogAway as error:
                    effect = steps.throw(error)
                    continue
                got = reply.body if isinstance(reply, HourRead) else reply
                if isinstance(got, Entry):
                    asked.entries.append(got)
                effect = steps.send(reply)
        except StopIteration as end:
            given: AnswerHours = end.value
            if not given.found.freshness.fresh and asked.selection.consistency is not Consistency.EVENTUAL:
                metrics.STALE.inc()
            return given

    async def _carry_out(self, asked: _Asked, effect: Effect) -> object:
        view = asked.view
        match effect:
            case LookUpEnd():
                try:
                    return known_end(await self._flows.ends.get())
                except KafkaUnavailable as error:
                    raise log_away(error) from error
            case LookHours():
                asked.release()  # what an earlier look has led to
                seen = await view.store.look_hours(effect.partitions, effect.hours)
                asked.rows = sum(rows for part in seen.values() for _, rows in part.hours.values())
                if any(part.meta is not None for part in seen.values()):
                    self._flows.views.found(view)
                return seen
            case FindBody():
                if asked.turn is None and asked.rows > self._flows.settings.large_read_rows:
                    await self._large.acquire()
                    asked.turn = self._large
                return self._tables.find(effect.tag)
            case ReadHour():
                return await self._tables.read(view.store, view.name, effect, asked.access)
            case Pause():
                await asyncio.sleep(effect.seconds)
                return None
        raise AssertionError(effect)


async def _unless_gone(answering: Awaitable[_T], receive: Receive) -> _T:
    """The answer. Raises _Gone once the client has gone, and then nobody works on it any more."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    work, watch = asyncio.ensure_future(answering), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise _Gone
    finally:
        for task in (work, watch):
            task.cancel()


def _selection(raw: bytes) -> Selection:
    query = query_of(raw)
    if isinstance(query, Query):  # plain, but for what the client accepts
        return Selection(Hours(((query.hour, query.hour),)), query.consistency, query.after, query.view)
    return query


def _hours_selection(raw: bytes) -> Selection:
    return parse_hours_query(parse_qsl(raw.decode("latin-1"), keep_blank_values=True))


def _format(scope: Scope, asked: _Asked) -> Format:
    return asked.selection.format or accepted(_values(scope["headers"], b"accept"))


def _headers(given: AnswerHours) -> dict[str, str]:
    found = given.found
    headers = reading_headers(found.tag, found.freshness, expired=found.expired, incomplete=found.incomplete)
    return headers | _VARY


def _bare(given: AnswerHours, headers: Mapping[str, str], format_: Format) -> Response:
    if given.held:
        return Response(status_code=304, headers=headers)
    return HeadResponse(None, {**headers, "Content-Type": MEDIA_TYPES[format_]})


def _next(raw: bytes, cursor: str) -> str:
    """The same query from the cursor on, relative to this one's address."""
    given = parse_qsl(raw.decode("latin-1"), keep_blank_values=True)
    kept = [(name, value) for name, value in given if name != "cursor"]
    return "?" + urlencode([*kept, ("cursor", cursor)])


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1") for field_, value in headers if field_ == name]
