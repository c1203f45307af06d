"""The page at /ui: files of this package, which ask the API as any client does."""

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from flowagg_reader.etag import Held

_MEDIA_TYPES: Final = {
    "index.html": "text/html",
    "app.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)


def page_routes() -> list[Route]:
    """The routes; the files are read now, once."""
    routes = [Route("/ui", _redirect)]
    for name in _MEDIA_TYPES:
        routes.append(Route(f"/ui/{'' if name == 'index.html' else name}", _served(name)))
    return routes


async def _redirect(request: Request) -> Response:
    """To the page's folder, by a relative address: a gateway may have put the path somewhere else."""
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"{request.url.path.rpartition('/')[2]}/{query}", 308)


def _served(name: str) -> Callable[[Request], Awaitable[Response]]:
    data = (files("flowagg_reader") / "ui" / name).read_bytes()
    tag = hashlib.blake2b(data, digest_size=16).hexdigest()
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
        "ETag": f'"{tag}"',
    }

    async def endpoint(request: Request) -> Response:
        if Held(request.headers.getlist("if-none-match")).holds(tag):
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=_MEDIA_TYPES[name], headers=headers)

    return endpoint
