"""Positions: how far each partition of a log is read, and the token that a POST answers with."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from flowagg.errors import FlowaggError

MAX_TOKEN_CHARACTERS: Final = 16_384
"""Longest token that is read: thousands of partitions."""


class InvalidToken(FlowaggError):
    """A text that is no position token."""


@dataclass(frozen=True, slots=True)
class Position:
    """What a view must have applied: partition -> next offset, in the log with this topic id.

    epochs: the leader epochs at the ends of partitions, where it is a log's end and the broker tells them;
    not part of a token.
    """

    topic_id: str
    offsets: Mapping[int, int]
    epochs: Mapping[int, int] = field(default_factory=dict)


class _Token(msgspec.Struct, frozen=True):
    t: Annotated[str, Meta(min_length=1, max_length=64)]
    p: dict[Annotated[int, Meta(ge=0, le=2**31 - 1)], Annotated[int, Meta(ge=0, le=2**63 - 1)]]


_decode = msgspec.json.Decoder(_Token).decode


def encode_token(position: Position) -> str:
    """The opaque token of a position: URL-safe, without padding."""
    raw = msgspec.json.encode(_Token(position.topic_id, dict(sorted(position.offsets.items()))))
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode_token(token: str) -> Position:
    """Read a token that encode_token made. Raises InvalidToken."""
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise InvalidToken(f"a position token has at most {MAX_TOKEN_CHARACTERS} characters")
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        decoded = _decode(raw)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise InvalidToken("not a position token: send the `position` of a POST's answer as it is") from None
    return Position(decoded.t, decoded.p)
