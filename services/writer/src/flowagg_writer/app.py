"""The writer's HTTP side: POST /flows."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from flowagg.access import Gate, Grant
from flowagg.docs_routes import docs_routes
from flowagg.flow import InvalidFlow, decode_flow_lines, decode_flows
from flowagg.idempotency import MAX_KEY_CHARACTERS, is_key
from flowagg.kafka import KafkaUnavailable
from flowagg.position import encode_token
from flowagg.problem import HANDLERS, Problem
from flowagg.service import OK, Checks, operational_routes
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from flowagg_writer import metrics
from flowagg_writer.batch import Batch, KeyReused, plan
from flowagg_writer.body import BrokenGzip, Form, Gunzip, form_of, is_gzip
from flowagg_writer.log import Log, LogFull, NotAppended, TooFewPartitions
from flowagg_writer.settings import WriterSettings

_log = logging.getLogger(__name__)

_DRAIN_FACTOR = 4
RETRY_LATER = {"Retry-After": "1"}


class _Accepted(msgspec.Struct, frozen=True):
    accepted: int
    position: str


class Flows:
    """The endpoint POST /flows."""

    def __init__(self, settings: WriterSettings, log: Log, gate: Gate) -> None:
        self._settings = settings
        self._log = log
        self._gate = gate
        self._waiting = 0
        self._held = 0  # bytes of bodies in hand

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one POST by ASGI, at the door: Starlette's middleware and routing cost a fifth of a single flow."""
        request = Request(scope, receive)
        began = time.perf_counter()
        try:
            response = await self._bounded(request)
        except Problem as problem:
            response = problem.response()
        except ClientDisconnect:
            # It gets no answer; the status is for the metrics.
            response = Problem(400, "The client closed the connection before the body was whole.").response()
        except asyncio.CancelledError:
            response = Problem(
                503,
                "This writer ends before Kafka has acknowledged every record. Some may have been kept.",
                headers={**RETRY_LATER, "Connection": "close"},
            ).response()
        except Exception:
            _log.exception("a POST failed", extra={"request_id": scope.get("state", {}).get("request_id")})
            response = Problem(500, "This is a fault of FlowAggregator's own: its log has the details.").response()
        metrics.POSTS.labels(response.status_code).inc()
        metrics.POST_SECONDS.observe(time.perf_counter() - began)
        await response(scope, receive, send)

    async def _bounded(self, request: Request) -> Response:
        settings = self._settings
        if self._waiting >= settings.max_waiting_requests:
            raise Problem(
                503,
                "This writer has as many requests in hand as it may: send the same again later.",
                headers=RETRY_LATER,
            )
        headers = request.headers
        grant = self._gate.enter(headers.getlist("authorization"), "write")
        if request.scope["query_string"]:
            raise Problem(400, "Nothing was kept: POST /flows has no query parameters.")
        key = _idempotency_key(headers)
        form = form_of(headers.getlist("content-type"))
        zipped = is_gzip(headers.getlist("content-encoding"))
        if int(headers.get("content-length", 0)) > settings.max_body_bytes:
            raise self._too_large()
        self._waiting += 1
        request.state.held = 0
        metrics.WAITING.set(self._waiting)
        deadline = asyncio.get_running_loop().time() + settings.post_timeout_seconds
        try:
            async with asyncio.timeout_at(deadline):
                body = await self._inflated(request) if zipped else b"".join([c async for c in self._chunks(request)])
            batch = self._plan(body, form, key, grant)
            del body  # only the batch has to outlive the wait for Kafka
            return await self._append(batch, deadline)
        except TimeoutError:
            raise Problem(
                503,
                "The body did not arrive in time; nothing of it was kept.",
                headers={**RETRY_LATER, "Connection": "close"},
            ) from None
        finally:
            self._waiting -= 1
            self._held -= request.state.held
            metrics.WAITING.set(self._waiting)

    def _too_large(self) -> Problem:
        return Problem(
            413,
            f"The body may have {self._settings.max_body_bytes} bytes at most: send fewer flows at a time.",
            headers={"Connection": "close"},
        )

    async def _chunks(self, request: Request) -> AsyncIterator[bytes]:
        """The body as it was sent, while it is within its bound. Raises Problem 413 or 503."""
        limit = self._settings.max_body_bytes
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size <= limit:
                self._hold(request, len(chunk))
                yield chunk
            elif size > _DRAIN_FACTOR * limit:
                break
            # Else read on without keeping: a client in the middle of sending would see a reset
            # connection instead of the answer.
        if size > limit:
            raise self._too_large()

    def _hold(self, request: Request, size: int) -> None:
        request.state.held += size
        self._held += size
        if self._held > self._settings.max_in_flight_bytes:
            raise Problem(
                503,
                "Bodies in hand hold as much as this writer may: send the same again later.",
                headers={**RETRY_LATER, "Connection": "close"},
            )

    async def _inflated(self, request: Request) -> bytes:
        """The body with gzip undone, piece by piece. Raises Problem 400, 413 or 503."""
        limit = self._settings.max_inflated_bytes
        gunzip = Gunzip()
        pieces: list[bytes] = []
        size = 0
        try:
            async for chunk in self._chunks(request):
                for piece in gunzip.feed(chunk):
                    size += len(piece)
                    if size > limit:
                        raise Problem(
                            413,
                            f"The body may have {limit} bytes at most once gzip is undone: send fewer flows at a time.",
                            headers={"Connection": "close"},
                        )
                    self._hold(request, len(piece))
                    pieces.append(piece)
                    await asyncio.sleep(0)
            gunzip.end()
        except BrokenGzip as error:
            raise Problem(
                400, f"Nothing was kept: the body is not gzip as its Content-Encoding says: {error}."
            ) from None
        return b"".join(pieces)

    def _plan(self, body: bytes, form: Form, key: str | None, grant: Grant) -> Batch:
        """The batch of a body. Raises Problem 400, 403 or 413."""
        decode = decode_flows if form is Form.ARRAY else decode_flow_lines
        try:
            batch = plan(body, key, self._settings.keyed_partitions, decode)
        except InvalidFlow as error:
            place = {"index": error.index, "field": error.field, "rule": error.rule}
            members = {name: value for name, value in place.items() if value is not None}
            raise Problem(400, f"Nothing was kept: {error}.", members=members) from None
        if (count := len(batch.flows)) > self._settings.max_flows:
            raise Problem(413, f"A POST may have {self._settings.max_flows} flows at most, not {count}.")
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

    async def _append(self, batch: Batch, deadline: float) -> Response:
        count, key = len(batch.flows), batch.key
        left = deadline - asyncio.get_running_loop().time()
        try:
            position = await self._log.append(batch, left)
        except KeyReused as error:
            raise Problem(422, f"Nothing was kept: {error}.") from None
        except KafkaUnavailable:
            # Its text may name brokers: it is in the log and in /readyz, which are not for clients.
            raise Problem(
                503,
                "Nothing was kept: Kafka, which keeps the log, takes no records now: send the same again later.",
                headers=RETRY_LATER,
            ) from None
        except (TooFewPartitions, LogFull) as error:
            raise Problem(503, f"Nothing was kept: {error}.", headers=RETRY_LATER) from None
        except NotAppended as error:
            again = (
                "send the same batch again with the same Idempotency-Key, and it counts once"
                if key is not None
                else "the same batch sent again may count them twice, as it has no Idempotency-Key"
            )
            raise Problem(503, f"{error}. Some records may have been kept: {again}.", headers=RETRY_LATER) from None
        answer = _Accepted(accepted=count, position=encode_token(position))
        return Response(msgspec.json.encode(answer), media_type="application/json")


def _idempotency_key(headers: Headers) -> str | None:
    """The Idempotency-Key of a POST, None without one. Raises Problem 400 for one that cannot be kept."""
    keys = headers.getlist("idempotency-key")
    if not keys:
        return None
    if len(keys) > 1:
        raise Problem(400, "Nothing was kept: send one Idempotency-Key, not several.")
    if not is_key(keys[0]):
        raise Problem(
            400, f"Nothing was kept: an Idempotency-Key has 1 to {MAX_KEY_CHARACTERS} printable ASCII characters."
        )
    return keys[0]


class _Entrance:
    """POST /flows straight to its endpoint, everything else to Starlette."""

    def __init__(self, flows: Flows, others: Starlette) -> None:
        self._flows = flows
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/flows" and scope["method"] == "POST":
            await self._flows(scope, receive, send)
        else:
            await self._others(scope, receive, send)


async def _never(_: Request) -> Response:
    raise AssertionError("POST /flows is answered at the entrance")


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
            Route("/flows", _never, methods=["POST"]),  # so that other methods are answered 405 with Allow
            *operational_routes(live=lambda: {"producer": log.broken or OK}, ready=ready),
            *docs_routes(),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    others.router.redirect_slashes = False
    return _Entrance(Flows(settings, log, gate), others)
