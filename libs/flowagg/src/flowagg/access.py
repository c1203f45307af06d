"""Access by bearer tokens: who may write or read flows, and of which vpc_ids.

Tokens stand in a file, hashed, as JSON:

    {"tokens": [
      {"name": "agents-eu", "sha256": "<hex>", "access": ["write"], "vpc_ids": ["eu-*"]},
      {"name": "dashboards", "sha256": "<hex>", "access": ["read"]}
    ]}

A token is a random secret, so a plain SHA-256 of it is enough: there is nothing to guess. vpc_ids are
patterns in which `*` stands for any text and `?` for one character; without them all are meant. The
file is read again when it changes; one that is no good is refused whole, and the former one stays.
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from flowagg.errors import FlowaggError
from flowagg.problem import Problem

_log = logging.getLogger(__name__)

MAX_TOKEN_CHARACTERS: Final = 1024
_LOOK_SECONDS: Final = 1.0
_CACHED_ANSWERS: Final = 10_000

Right = Literal["read", "write"]


class InvalidTokens(FlowaggError):
    """The tokens' file cannot be read. Its text never shows a hash."""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=100)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    access: Annotated[list[Right], Meta(min_length=1)]
    vpc_ids: Annotated[list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(min_length=1)] | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tokens: list[_Entry]


class Grant:
    """What one token allows. name: of the token, for logs. scope: tells grants apart that show different rows."""

    def __init__(self, name: str, rights: Sequence[Right], vpc_ids: Sequence[str] | None) -> None:
        self.name = name
        self._rights = frozenset(rights)
        self._pattern = None if vpc_ids is None or "*" in vpc_ids else _pattern(vpc_ids)
        self.scope = "" if self._pattern is None else hashlib.sha256(self._pattern.pattern.encode()).hexdigest()[:16]
        self._answers: dict[str, bool] = {}

    def may(self, right: Right) -> bool:
        """Whether the token has a right."""
        return right in self._rights

    @property
    def covers(self) -> Callable[[str], bool] | None:
        """Whether a vpc_id may be touched; None where all of them may."""
        return None if self._pattern is None else self._covers

    def _covers(self, vpc_id: str) -> bool:
        known = self._answers.get(vpc_id)
        if known is None:
            assert self._pattern is not None  # noqa: S101 - covers gives this only then
            known = self._pattern.fullmatch(vpc_id) is not None
            if len(self._answers) >= _CACHED_ANSWERS:
                self._answers.clear()
            self._answers[vpc_id] = known
        return known


EVERYTHING: Final = Grant("", ("read", "write"), None)
"""The grant of everybody where no tokens are set."""


def _pattern(vpc_ids: Sequence[str]) -> re.Pattern[str]:
    wild = {"*": ".*", "?": "."}
    parts = [
        "".join(wild.get(character) or re.escape(character) for character in text) for text in sorted(set(vpc_ids))
    ]
    return re.compile("|".join(parts), re.S)


def read_tokens(path: Path) -> dict[bytes, Grant]:
    """The grants of a file by their tokens' SHA-256. Raises InvalidTokens."""
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=_File).tokens
    except OSError as error:
        raise InvalidTokens(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidTokens(f"{path}: {error}") from None
    grants = {bytes.fromhex(entry.sha256): Grant(entry.name, entry.access, entry.vpc_ids) for entry in entries}
    if len(grants) < len(entries):
        raise InvalidTokens(f"{path}: two tokens have the same sha256")
    return grants


class Gate:
    """Lets requests in by their Authorization header. path: the tokens' file; None lets everybody in."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._grants = {} if path is None else read_tokens(path)
        self._seen = None if path is None else _identity(path)
        self._look_at = clock() + _LOOK_SECONDS
        self.trouble: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether no tokens are asked for."""
        return self._path is None

    def enter(self, authorizations: Sequence[str], right: Right) -> Grant:
        """The grant of a request. authorizations: its Authorization headers. Raises Problem 401 or 403."""
        if self._path is None:
            return EVERYTHING
        self._look(self._path)
        scheme, _, token = authorizations[0].strip().partition(" ") if authorizations else ("", "", "")
        if len(authorizations) != 1 or scheme.lower() != "bearer":
            raise Problem(
                401,
                "Send a token: Authorization: Bearer <token>.",
                headers={"WWW-Authenticate": 'Bearer realm="flowagg"'},
            )
        token = token.strip()
        known = token.isascii() and 0 < len(token) <= MAX_TOKEN_CHARACTERS
        grant = self._grants.get(hashlib.sha256(token.encode("ascii")).digest()) if known else None
        if grant is None:
            raise Problem(
                401,
                "This token is not known here.",
                headers={"WWW-Authenticate": 'Bearer realm="flowagg", error="invalid_token"'},
            )
        if not grant.may(right):
            raise Problem(
                403,
                f"This token may not {right} flows.",
                headers={"WWW-Authenticate": f'Bearer realm="flowagg", error="insufficient_scope", scope="{right}"'},
            )
        return grant

    def _look(self, path: Path) -> None:
        """Read the file again where it has changed, at most once a second."""
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        seen = _identity(path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._grants = read_tokens(path)
        except InvalidTokens as error:
            self.trouble = f"{error}; the tokens read before still hold"
            _log.error("tokens not read", extra={"reason": str(error)})
        else:
            self.trouble = None
            _log.info("tokens read", extra={"tokens": len(self._grants)})


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written anew or its link is moved, as Kubernetes does with Secrets."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
