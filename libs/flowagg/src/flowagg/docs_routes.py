"""Routes of the API's own reference: /openapi.json and /docs."""

import base64
import hashlib
from importlib.metadata import version

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flowagg.docs_page import STYLE, page
from flowagg.openapi import document
from flowagg.openapi_parts import JSON, Limits

_CACHE = {"Cache-Control": "public, max-age=300"}


def docs_routes(limits: Limits | None = None) -> list[Route]:
    """The routes; both answers are made now, once. limits: of this system, by default the settings' defaults."""
    found = document(limits or Limits(), version("flowagg"))
    data = msgspec.json.encode(found)
    text = page(found).encode("utf-8")
    style = base64.b64encode(hashlib.sha256(STYLE.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    page_headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", **_CACHE}

    async def openapi(_: Request) -> Response:
        return Response(data, media_type=JSON, headers=_CACHE)

    async def docs(_: Request) -> Response:
        return Response(text, media_type="text/html", headers=page_headers)

    return [Route("/openapi.json", openapi), Route("/docs", docs)]
