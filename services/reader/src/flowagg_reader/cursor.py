"""Cursors: where the next page of a query begins, as a token that clients send back as it is."""

import base64
import binascii
from collections.abc import Sequence
from typing import Final

import msgspec
from flowagg.errors import FlowaggError
from flowagg.flow import MAX_INTEGER

MAX_CURSOR_CHARACTERS: Final = 8192


class InvalidCursor(FlowaggError):
    """No cursor of such a query."""


def encode_cursor(key: Sequence[str | int]) -> str:
    """The cursor behind a row. key: its values of the fields that are grouped by, in the flow key's order."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).rstrip(b"=").decode("ascii")


def decode_cursor(text: str, fields: Sequence[str]) -> tuple[str | int, ...]:
    """The key of a cursor of a query that is grouped by these fields. Raises InvalidCursor."""
    if len(text) > MAX_CURSOR_CHARACTERS:
        raise InvalidCursor("it is too long")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        key = msgspec.json.decode(raw, type=list[str | int])
    except (binascii.Error, msgspec.MsgspecError, UnicodeError, ValueError):
        raise InvalidCursor("send back the one of the Link header, as it is") from None
    fits = len(key) == len(fields) and all(
        (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INTEGER)
        if name == "hour"
        else isinstance(value, str)
        for name, value in zip(fields, key, strict=True)
    )
    if not fits:
        raise InvalidCursor("it is of a query with another group_by")
    return tuple(key)
