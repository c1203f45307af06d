"""What a POST is answered once all of its records are in the log."""

import msgspec
from flowagg.position import Position, encode_token


class _Accepted(msgspec.Struct, frozen=True):
    accepted: int
    position: str


def accepted_body(count: int, position: Position) -> bytes:
    """The body of the answer. count: of the flows."""
    return msgspec.json.encode(_Accepted(count, encode_token(position)))
