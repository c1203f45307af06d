"""The HTTP API as the commands use it: one address, a token if there is one, and errors that say what to do."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
import urllib3
from urllib3.util import Timeout

from flowagg_cli.errors import CommandError, WrongUsage

DEFAULT_URL: Final = "http://127.0.0.1:8080"
URL_VARIABLE: Final = "FLOWAGG_URL"
TOKEN_FILE_VARIABLE: Final = "FLOWAGG_TOKEN_FILE"  # noqa: S105 - a variable's name
_CONNECT_SECONDS: Final = 5.0


class ApiError(CommandError):
    """The API has answered with a problem. status: of the answer. index: of the record at fault, if it names one."""

    def __init__(self, status: int, text: str, index: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.index = index


class ApiAway(CommandError):
    """The API cannot be reached."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Api:
    """One system. connections: that are kept open. For several threads."""

    def __init__(self, url: str, token: str | None, timeout_seconds: float, connections: int = 1) -> None:
        self.url = url.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._pool = urllib3.PoolManager(
            maxsize=connections, retries=False, timeout=Timeout(connect=_CONNECT_SECONDS, read=timeout_seconds)
        )

    def ask(
        self,
        method: str,
        path: str,
        parameters: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        """One request; any answer. Raises ApiAway."""
        address = f"{self.url}{path}" + (f"?{urlencode(parameters)}" if parameters else "")
        try:
            reply = self._pool.request(method, address, headers={**self._headers, **(headers or {})}, body=body)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiAway(f"{self.url} cannot be reached: {_told(error)}") from error
        return Reply(reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.data)

    def get(self, path: str, parameters: Sequence[tuple[str, str]] = (), tag: str | None = None) -> Reply:
        """GET, answered 200, or 304 where the answer of that tag still holds. Raises ApiAway, ApiError."""
        reply = self.ask("GET", path, parameters, {} if tag is None else {"If-None-Match": tag})
        if reply.status not in (200, 304):
            raise problem_of(reply)
        return reply


def problem_of(reply: Reply) -> ApiError:
    """What an answer that is no success says."""
    try:
        document: Any = msgspec.json.decode(reply.body)
        detail, index = str(document["detail"]), document.get("index")
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        detail, index = f"answered {reply.status}, and not as FlowAggregator does: is this its address?", None
    if reply.status == 401:
        detail += f" Give a token by --token-file or {TOKEN_FILE_VARIABLE}."
    return ApiError(reply.status, detail, index if isinstance(index, int) else None)


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which system is meant."""
    parser.add_argument(
        "--url",
        default=os.environ.get(URL_VARIABLE, DEFAULT_URL),
        help=f"address of the system; default: {URL_VARIABLE}, or {DEFAULT_URL}",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        default=os.environ.get(TOKEN_FILE_VARIABLE) or None,
        help=f"file with a bearer token; default: {TOKEN_FILE_VARIABLE}, or none",
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="longest wait for an answer (default: 30)"
    )


def api_of(given: argparse.Namespace, connections: int = 1) -> Api:
    """The system that the options mean. Raises WrongUsage."""
    if not given.url.startswith(("http://", "https://")):
        raise WrongUsage(f"--url must begin with http:// or https://, and is {given.url!r}")
    token = None
    if given.token_file is not None:
        try:
            token = Path(given.token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise WrongUsage(f"the token's file {given.token_file} cannot be read: {error}") from None
    return Api(given.url, token, given.timeout, connections)


def _told(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition(": ")[2] or type(error).__name__
