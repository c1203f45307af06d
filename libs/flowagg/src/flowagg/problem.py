"""Problem documents (RFC 9457): how every HTTP error of FlowAggregator looks."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from flowagg.errors import FlowaggError

MEDIA_TYPE = "application/problem+json"


class Problem(FlowaggError):
    """An error that a client is told of.

    status: HTTP status. detail: what is wrong and what to do. members: further members of the
    document, such as a record's index. headers: such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = dict(members or {})
        super().__init__(f"{status} {HTTPStatus(status).phrase}: {detail}")

    @property
    def phrase(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase

    def response(self) -> Response:
        """The problem document as a response."""
        document = {
            "type": "about:blank",
            "title": self.phrase,
            "status": self.status,
            "detail": self.detail,
            **self.members,
        }
        return Response(
            msgspec.json.encode(document),
            status_code=self.status,
            media_type=MEDIA_TYPE,
            headers=self.headers,
        )


def fault() -> Problem:
    """The answer where nothing else is known: whoever gives it logs why."""
    return Problem(500, "This is a fault of FlowAggregator's own: its log has the details.")


async def _answer_unexpected(_: Request, __: Exception) -> Response:
    """Starlette handler of everything else; the server logs the traceback."""
    return fault().response()


async def _answer_problem(_: Request, error: Exception) -> Response:
    """Starlette handler of Problem."""
    assert isinstance(error, Problem)  # noqa: S101 - starlette's registry guarantees it
    return error.response()


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """Starlette handler of its own HTTPException (404, 405) as a problem document."""
    assert isinstance(error, HTTPException)  # noqa: S101 - starlette's registry guarantees it
    headers = dict(error.headers or {})
    detail = {
        404: f"There is nothing at {request.url.path}.",
        405: f"{request.method} is not allowed here; allowed: {headers.get('Allow', 'see the docs')}.",
    }.get(error.status_code, error.detail)
    return Problem(error.status_code, detail, headers=headers).response()


HANDLERS: dict[Any, Any] = {
    Problem: _answer_problem,
    HTTPException: _answer_http_exception,
    Exception: _answer_unexpected,
}
"""The exception handlers of every application."""
