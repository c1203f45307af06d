"""The front: one address for POST and GET, as the gateway is on Kubernetes."""

import argparse
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
from flowagg.problem import HANDLERS, Problem
from flowagg.service import serve
from flowagg.settings import HttpSettings
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "host", "x-request-id"}
)
_OF_A_BODY = frozenset({"content-length", "content-type", "content-encoding", "expect"})
_INDEX = """FlowAggregator

  POST /flows           a JSON array of flows
  GET  /flows?hour=1    the totals of an hour
  GET  /hours           the hours that there are
  GET  /ui              a page to look at them
  GET  /docs            the reference, also as /openapi.json
"""


def create_app(writer: str, reader: str) -> Starlette:
    """POST /flows goes to the writer, GET and HEAD to the reader, and so do /hours, /ui, /docs and /openapi.json."""
    client = httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=512))

    async def forward(request: Request) -> Response:
        upstream = writer if request.method == "POST" else reader
        has_body = request.method == "POST"
        dropped = _HOP_BY_HOP if has_body else _HOP_BY_HOP | _OF_A_BODY
        headers = [(n, v) for n, v in request.headers.raw if n.decode("latin-1") not in dropped]
        headers.append((b"x-request-id", request.state.request_id.encode("ascii")))
        forwarded = client.build_request(
            request.method,
            upstream + request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            headers=headers,
            content=request.stream() if has_body else None,
        )
        try:
            reply = await client.send(forwarded, stream=True)
        except httpx.ConnectError as error:
            name = "writer" if upstream is writer else "reader"
            raise Problem(
                502, f"The {name} does not answer; nothing was kept.", headers={"Retry-After": "1"}
            ) from error
        except httpx.HTTPError as error:
            doubt = " Some records may have been kept." if request.method == "POST" else ""
            raise Problem(502, f"The connection behind was lost: {type(error).__name__}.{doubt}") from error
        kept = {n: v for n, v in reply.headers.items() if n not in _HOP_BY_HOP and n != "date"}
        return StreamingResponse(reply.aiter_raw(), reply.status_code, kept, background=BackgroundTask(reply.aclose))

    async def index(_: Request) -> Response:
        return PlainTextResponse(_INDEX)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await client.aclose()

    app = Starlette(
        routes=[
            Route("/flows", forward, methods=["GET", "POST"]),
            Route("/hours", forward),
            Route("/docs", forward),
            Route("/ui", forward),
            Route("/ui/{file}", forward),
            Route("/ui/", forward),
            Route("/openapi.json", forward),
            Route("/", index),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the front until SIGTERM."""
    parser = argparse.ArgumentParser(prog="flowagg-front", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--writer", required=True, help="the writer's URL")
    parser.add_argument("--reader", required=True, help="the reader's URL")
    given = parser.parse_args(arguments)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    serve(create_app(given.writer, given.reader), HttpSettings(host="127.0.0.1", port=given.port))


if __name__ == "__main__":
    main()
