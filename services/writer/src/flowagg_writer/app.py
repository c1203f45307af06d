"""The writer's HTTP side: POST /flows."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from flowagg.flow import InvalidFlow
from flowagg.idempotency import MAX_KEY_CHARACTERS, is_key
from flowagg.kafka import KafkaUnavailable
from flowagg.position import encode_token
from flowagg.problem import HANDLERS, Problem
from flowagg.service import OK, operational_routes
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from flowagg_writer import metrics
from flowagg_writer.batch import KeyReused, plan
from flowagg_writer.log import Log, LogFull, NotAppended, TooFewPartitions
from flowagg_writer.settings import WriterSettings

_DRAIN_FACTOR = 4
RETRY_LATER = {"Retry-After": "1"}


class _Accepted(msgspec.Struct, frozen=True):
    accepted: int
    position: str


class Flows:
    """The endpoint POST /flows."""

    def __init__(self, settings: WriterSettings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._waiting = 0
        self._held = 0  # bytes of bodies in hand

    async def post(self, request: Request) -> Response:
        """Answer one POST: 200 once Kafka has every record, else a problem document."""
        began = time.perf_counter()
        try:
            response = await self._bounded(request)
        except Problem as problem:
            response = problem.response()
        metrics.POSTS.labels(response.status_code).inc()
        metrics.POST_SECONDS.observe(time.perf_counter() - began)
        return response

    async def _bounded(self, request: Request) -> Response:
        if self._waiting >= self._settings.max_waiting_requests:
            raise Problem(
                503,
                "This writer has as many requests in hand as it may: send the same again later.",
                headers=RETRY_LATER,
            )
        key = _idempotency_key(request.headers)
        self._waiting += 1
        request.state.held = 0
        metrics.WAITING.set(self._waiting)
        deadline = asyncio.get_running_loop().time() + self._settings.post_timeout_seconds
        try:
            async with asyncio.timeout_at(deadline):
                body = await self._body(request)
            return await self._append(body, key, deadline)
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

    async def _body(self, request: Request) -> bytes:
        headers = request.headers
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise Problem(
                415,
                f"Send application/json, not {media_type or 'a body without a Content-Type'}.",
                headers={"Accept": "application/json"},
            )
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":
            raise Problem(
                415,
                f"Send the body as it is, not in Content-Encoding {encoding}.",
                headers={"Accept-Encoding": "identity"},
            )
        limit = self._settings.max_body_bytes
        chunks: list[bytes] = []
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size <= limit:
                chunks.append(chunk)
                request.state.held += len(chunk)
                self._held += len(chunk)
                if self._held > self._settings.max_in_flight_bytes:
                    raise Problem(
                        503,
                        "Bodies in hand hold as much as this writer may: send the same again later.",
                        headers={**RETRY_LATER, "Connection": "close"},
                    )
            elif size > _DRAIN_FACTOR * limit:
                break
            else:
                # Read on without keeping: a client in the middle of sending would see a reset
                # connection instead of the answer.
                chunks.clear()
        if size > limit:
            raise Problem(
                413,
                f"The body may have {limit} bytes at most: send fewer flows at a time.",
                headers={"Connection": "close"},
            )
        return b"".join(chunks)

    async def _append(self, body: bytes, key: str | None, deadline: float) -> Response:
        try:
            batch = plan(body, key, self._settings.keyed_partitions)
        except InvalidFlow as error:
            place = {"index": error.index, "field": error.field, "rule": error.rule}
            members = {name: value for name, value in place.items() if value is not None}
            raise Problem(400, f"Nothing was kept: {error}.", members=members) from None
        count = len(batch.flows)
        if count > self._settings.max_flows:
            raise Problem(413, f"A POST may have {self._settings.max_flows} flows at most, not {count}.")
        left = deadline - asyncio.get_running_loop().time()
        try:
            position = await self._log.append(batch, left)
        except KeyReused as error:
            raise Problem(422, f"Nothing was kept: {error}.") from None
        except (KafkaUnavailable, TooFewPartitions, LogFull) as error:
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


async def _refuse(_: Request, error: Exception) -> Response:
    """A client that has gone gets no answer; the status is for the metrics of whoever stands between."""
    assert isinstance(error, ClientDisconnect)  # noqa: S101 - starlette's registry guarantees it
    return Problem(400, "The client closed the connection before the body was whole; nothing was kept.").response()


def create_app(settings: WriterSettings, log: Log) -> Starlette:
    """The writer's application; the log is entered when the server starts and left when it ends."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with log:
            yield

    return Starlette(
        routes=[
            Route("/flows", Flows(settings, log).post, methods=["POST"]),
            *operational_routes(
                live=lambda: {"producer": log.broken or OK}, ready=lambda: {"kafka": log.trouble or OK}
            ),
        ],
        exception_handlers=HANDLERS | {ClientDisconnect: _refuse},
        lifespan=lifespan,
    )
