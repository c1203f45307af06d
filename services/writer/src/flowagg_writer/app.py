"""The writer's HTTP side: POST /flows."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec
from flowagg.access import Gate, Grant
from flowagg.docs_routes import docs_routes
from flowagg.errors import FlowaggError
from flowagg.exchange import Exchange, Headers
from flowagg.flow import InvalidFlow, decode_flow_lines, decode_flows
from flowagg.idempotency import MAX_KEY_CHARACTERS, is_key
from flowagg.kafka import KafkaUnavailable
from flowagg.problem import HANDLERS, Problem, fault
from flowagg.service import OK, Checks, Entrance, answered_at_the_entrance, operational_routes
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowagg_writer import metrics
from flowagg_writer.accepted import accepted_body
from flowagg_writer.batch import Batch, KeyReused, plan
from flowagg_writer.body import BrokenGzip, Form, Gunzip, form_of, is_gzip
from flowagg_writer.log import Appending, Log, LogFull, NotAppended, TooFewPartitions
from flowagg_writer.parcels import ParcelBatch, plan_parcel
from flowagg_writer.settings import WriterSettings

_log = logging.getLogger(__name__)

_DRAIN_FACTOR = 4
RETRY_LATER = {"Retry-After": "1"}

_AUTHORIZATION: Final = b"authorization"
_IDEMPOTENCY_KEY: Final = b"idempotency-key"
_CONTENT_TYPE: Final = b"content-type"
_CONTENT_ENCODING: Final = b"content-encoding"
_CONTENT_LENGTH: Final = b"content-length"
_READ: Final = frozenset({_AUTHORIZATION, _IDEMPOTENCY_KEY, _CONTENT_TYPE, _CONTENT_ENCODING, _CONTENT_LENGTH})


class _Accepted(msgspec.Struct, frozen=True):
    body: bytes

    status_code = 200

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer by ASGI: what Starlette's Response does, without what it does for other answers."""
        headers = [(_CONTENT_LENGTH, b"%d" % len(self.body)), (_CONTENT_TYPE, b"application/json")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class _Head(msgspec.Struct, frozen=True):  # a frozen dataclass takes seven times as long to make: measured, 0.3 us more
    """What the head of a POST says. key: its Idempotency-Key. zipped: the body is in gzip. length: 0 without one."""

    authorizations: Sequence[str]
    key: str | None
    form: Form
    zipped: bool
    length: int


@dataclass(slots=True)
class _Hand:
    """Bytes that one request holds."""

    held: int = 0


_ENDS: Final = Problem(
    503,
    "This writer ends before Kafka has acknowledged every record. Some may have been kept.",
    headers={**RETRY_LATER, "Connection": "close"},
)


class Flows:
    """The endpoint POST /flows, by ASGI or, for small whole requests, by an exchange.

    A POST of one flow is all overhead, so little is asked of Starlette for each request: no Request, no Headers.
    """

    def __init__(self, settings: WriterSettings, log: Log, gate: Gate) -> None:
        self._settings = settings
        self._log = log
        self._gate = gate
        self._waiting = 0
        self._held = 0  # bytes of bodies in hand
        self._answers = {200: metrics.POSTS.labels(200)}  # labels() takes a lock and looks it up
        metrics.WAITING.set_function(lambda: self._waiting)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one POST by ASGI."""
        began = time.perf_counter()
        response: Response | _Accepted
        try:
            response = await self._bounded(scope, receive)
        except Problem as problem:
            response = problem.response()
        except ClientDisconnect:
            # It gets no answer; the status is for the metrics.
            response = Problem(400, "The client closed the connection before the body was whole.").response()
        except asyncio.CancelledError:
            response = _ENDS.response()
        except Exception:
            _log.exception("a POST failed", extra={"request_id": scope.get("state", {}).get("request_id")})
            response = fault().response()
        self._observe(response.status_code, began)
        await response(scope, receive, send)

    def read_head(self, method: bytes, target: bytes, headers: Headers) -> _Head | None:
        """What a POST's head says whose body can be read in one go, and that is not refused for what it says."""
        if method != b"POST" or target != b"/flows":
            return None
        try:
            head = _read_head(_fields(headers), b"")
        except Problem:
            return None
        return None if head.zipped else head

    def begin(self, exchange: Exchange) -> None:
        """Answer one POST by its exchange."""
        began = time.perf_counter()
        try:
            head: Any = exchange.head
            self._append_whole(exchange, began, head, self._enter(head.authorizations))
            exchange.on_cancel = partial(self._refuse, exchange, began, _ENDS)
        except Problem as problem:
            self._refuse(exchange, began, problem)
        except Exception:
            self._failed(exchange, began)

    def _append_whole(self, exchange: Exchange, began: float, head: _Head, grant: Grant) -> None:
        size = len(exchange.body)
        if not self._fits(size):
            raise self._too_large()
        hand = _Hand()
        self._waiting += 1
        try:
            self._hold(hand, size)
            batch = self._plan(exchange.body, head.form, head.key, grant)
            exchange.body = b""  # only the batch has to outlive the wait for Kafka
            self._log.begin(batch, partial(self._ended, exchange, began, hand, head.key))
        except _NOT_APPENDED as error:
            self._let_go(hand)
            raise _not_appended(error, head.key) from None
        except BaseException:
            self._let_go(hand)
            raise

    def _ended(self, exchange: Exchange, began: float, hand: _Hand, key: str | None, appending: Appending) -> None:
        """Answer: Kafka has acknowledged every record, or the time is over."""
        self._let_go(hand)
        try:
            body = appending.answer()
            if not exchange.response_started:
                self._observe(200, began)
            exchange.answer(200, b"content-length: %d\r\ncontent-type: application/json\r\n" % len(body), body)
        except _NOT_APPENDED as error:
            self._refuse(exchange, began, _not_appended(error, key))
        except Exception:
            self._failed(exchange, began)

    def _refuse(self, exchange: Exchange, began: float, problem: Problem) -> None:
        if not exchange.response_started:
            self._observe(problem.status, began)
            exchange.respond(problem.response())

    def _failed(self, exchange: Exchange, began: float) -> None:
        """In the handling of an exception."""
        _log.exception("a POST failed", extra={"request_id": exchange.request_id})
        self._refuse(exchange, began, fault())

    def _observe(self, status: int, began: float) -> None:
        if status not in self._answers:
            self._answers[status] = metrics.POSTS.labels(status)
        self._answers[status].inc()
        metrics.POST_SECONDS.observe(time.perf_counter() - began)

    def _let_go(self, hand: _Hand) -> None:
        self._waiting -= 1
        self._held -= hand.held

    def _enter(self, authorizations: Sequence[str]) -> Grant:
        """What the sender of a POST may do. Raises Problem."""
        if self._waiting >= self._settings.max_waiting_requests:
            raise Problem(
                503,
                "This writer has as many requests in hand as it may: send the same again later.",
                headers=RETRY_LATER,
            )
        return self._gate.enter(authorizations, "write")

    async def _bounded(self, scope: Scope, receive: Receive) -> _Accepted:
        fields = _fields(scope["headers"])
        grant = self._enter(fields.get(_AUTHORIZATION, ()))  # who may not write learns nothing else
        head = _read_head(fields, scope["query_string"])
        if not self._fits(head.length):
            raise self._too_large()
        self._waiting += 1
        hand = _Hand()
        deadline = asyncio.get_running_loop().time() + self._settings.post_timeout_seconds
        try:
            async with asyncio.timeout_at(deadline):
                body = await (self._inflated(receive, hand) if head.zipped else self._plain(receive, hand))
            batch = self._plan(body, head.form, head.key, grant)
            del body  # only the batch has to outlive the wait for Kafka
            return await self._append(batch, deadline)
        except TimeoutError:
            raise Problem(
                503,
                "The body did not arrive in time; nothing of it was kept.",
                headers={**RETRY_LATER, "Connection": "close"},
            ) from None
        finally:
            self._let_go(hand)

    def _too_large(self) -> Problem:
        return Problem(
            413,
            f"The body may have {self._settings.max_body_bytes} bytes at most: send fewer flows at a time.",
            headers={"Connection": "close"},
        )

    async def _plain(self, receive: Receive, hand: _Hand) -> bytes:
        """The body. Raises Problem 413 or 503."""
        message = await receive()
        whole: bytes = message.get("body", b"")
        if message["type"] == "http.request" and not message.get("more_body") and self._fits(len(whole)):
            self._hold(hand, len(whole))
            return whole
        return b"".join([chunk async for chunk in self._chunks(message, receive, hand)])

    def _fits(self, size: int) -> bool:
        return size <= self._settings.max_body_bytes

    async def _chunks(self, message: Message, receive: Receive, hand: _Hand) -> AsyncIterator[bytes]:
        """The body as it was sent, from its first message on, while within its bound. Raises Problem 413 or 503."""
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if self._fits(size):
                self._hold(hand, len(chunk))
                yield chunk
            elif size > _DRAIN_FACTOR * self._settings.max_body_bytes:
                break
            # Else read on without keeping: a client in the middle of sending would see a reset
            # connection instead of the answer.
            if not message.get("more_body"):
                break
            message = await receive()
        if not self._fits(size):
            raise self._too_large()

    def _hold(self, hand: _Hand, size: int) -> None:
        hand.held += size
        self._held += size
        if self._held > self._settings.max_in_flight_bytes:
            raise Problem(
                503,
                "Bodies in hand hold as much as this writer may: send the same again later.",
                headers={**RETRY_LATER, "Connection": "close"},
            )

    async def _inflated(self, receive: Receive, hand: _Hand) -> bytes:
        """The body with gzip undone, piece by piece. Raises Problem 400, 413 or 503."""
        limit = self._settings.max_inflated_bytes
        gunzip = Gunzip()
        pieces: list[bytes] = []
        size = 0
        try:
            async for chunk in self._chunks(await receive(), receive, hand):
                for piece in gunzip.feed(chunk):
                    size += len(piece)
                    if size > limit:
                        raise Problem(
                            413,
                            f"The body may have {limit} bytes at most once gzip is undone: send fewer flows at a time.",
                            headers={"Connection": "close"},
                        )
                    self._hold(hand, len(piece))
                    pieces.append(piece)
                    await asyncio.sleep(0)
            gunzip.end()
        except BrokenGzip as error:
            raise Problem(
                400, f"Nothing was kept: the body is not gzip as its Content-Encoding says: {error}."
            ) from None
        return b"".join(pieces)

    def _bound(self, count: int) -> None:
        if count > self._settings.max_flows:
            raise Problem(413, f"A POST may have {self._settings.max_flows} flows at most, not {count}.")

    def _plan(self, body: bytes, form: Form, key: str | None, grant: Grant) -> Batch | ParcelBatch:
        """The batch of a body. Raises Problem 400, 403 or 413."""
        if self._settings.native and form is Form.ARRAY and key is None and grant.covers is None:
            parcel = plan_parcel(body)
            if parcel is not None:
                self._bound(parcel.count)
                return parcel
        decode = decode_flows if form is Form.ARRAY else decode_flow_lines
        try:
            batch = plan(body, key, self._settings.keyed_partitions, decode)
        except InvalidFlow as error:
            place = {"index": error.index, "field": error.field, "rule": error.rule}
            members = {name: value for name, value in place.items() if value is not None}
            raise Problem(400, f"Nothing was kept: {error}.", members=members) from None
        self._bound(batch.count)
        covers = grant.covers
        if covers is not None:
            for index, flow in enumerate(batch.flows):
                if not covers(flow.vpc_id):
                    raise Problem(
                        403,
                        f"Nothing was kept: record {index}: this token may not write flows of this vpc_id.",
                        members={"index": index, "field": "vpc_id", "rule": "not among the vpc_ids of this token"},
                    )
        return batch

    async def _append(self, batch: Batch | ParcelBatch, deadline: float) -> _Accepted:
        count, key = batch.count, batch.key
        left = deadline - asyncio.get_running_loop().time()
        try:
            position = await self._log.append(batch, left)
        except _NOT_APPENDED as error:
            raise _not_appended(error, key) from None
        return _Accepted(accepted_body(count, position))


_NOT_APPENDED: Final = (KeyReused, KafkaUnavailable, TooFewPartitions, LogFull, NotAppended)


def _not_appended(error: FlowaggError, key: str | None) -> Problem:
    """What a client is told. key: the POST's Idempotency-Key."""
    match error:
        case KeyReused():
            return Problem(422, f"Nothing was kept: {error}.")
        case KafkaUnavailable():
            # Its text may name brokers: it is in the log and in /readyz, which are not for clients.
            return Problem(
                503,
                "Nothing was kept: Kafka, which keeps the log, takes no records now: send the same again later.",
                headers=RETRY_LATER,
            )
        case NotAppended():
            again = (
                "send the same batch again with the same Idempotency-Key, and it counts once"
                if key is not None
                else "the same batch sent again may count them twice, as it has no Idempotency-Key"
            )
            return Problem(503, f"{error}. Some records may have been kept: {again}.", headers=RETRY_LATER)
    return Problem(503, f"Nothing was kept: {error}.", headers=RETRY_LATER)


def _fields(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[bytes, Sequence[str]]:
    """The values of the fields that a POST is judged by."""
    found: dict[bytes, list[str]] = {}
    for name, value in headers:
        if name in _READ:
            found.setdefault(name, []).append(value.decode("latin-1"))
    return found


def _read_head(fields: Mapping[bytes, Sequence[str]], query: bytes) -> _Head:
    """Raises Problem."""
    if query:
        raise Problem(400, "Nothing was kept: POST /flows has no query parameters.")
    return _Head(
        fields.get(_AUTHORIZATION, ()),
        _idempotency_key(fields.get(_IDEMPOTENCY_KEY, ())),
        form_of(fields.get(_CONTENT_TYPE, ())),
        is_gzip(fields.get(_CONTENT_ENCODING, ())),
        int(fields.get(_CONTENT_LENGTH, ("0",))[0]),
    )


def _idempotency_key(keys: Sequence[str]) -> str | None:
    """The Idempotency-Key of a POST, None without one. Raises Problem 400 for one that cannot be kept."""
    if not keys:
        return None
    if len(keys) > 1:
        raise Problem(400, "Nothing was kept: send one Idempotency-Key, not several.")
    if not is_key(keys[0]):
        raise Problem(
            400, f"Nothing was kept: an Idempotency-Key has 1 to {MAX_KEY_CHARACTERS} printable ASCII characters."
        )
    return keys[0]


def create_app(settings: WriterSettings, log: Log) -> ASGIApp:
    """The writer's application; the log is entered when the server starts and left when it ends.

    Raises InvalidTokens.
    """
    gate = Gate(settings.tokens_file)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with log:
            yield

    def ready() -> Checks:
        checks = {"kafka": log.trouble or OK}
        return checks if gate.trouble is None else checks | {"tokens": gate.trouble}

    others = Starlette(
        routes=[
            answered_at_the_entrance("/flows", ["POST"]),
            *operational_routes(live=lambda: {"producer": log.broken or OK}, ready=ready),
            *docs_routes(),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    others.router.redirect_slashes = False
    flows = Flows(settings, log, gate)
    return Entrance("/flows", {"POST"}, flows, others, flows)
