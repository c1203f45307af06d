"""Idempotency marks: how a keyed POST's records are told apart from their repeats.

A POST with an `Idempotency-Key` puts a header on each of its records. The consumer keeps, per
key and partition, the body's digest and the indexes that it has counted, for the dedupe window.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from flowagg.errors import FlowaggError

MARK_HEADER: Final = "flowagg-mark"
"""The header's value: `<index> <digest> <Idempotency-Key>`."""

MAX_KEY_CHARACTERS: Final = 128
MAX_INDEX: Final = 10_000_000
_DIGEST_CHARACTERS: Final = 32
_MARK: Final = re.compile(rb"([0-9]{1,8}) ([0-9a-f]{32}) ([ -~]{1,128})")

Headers = Sequence[tuple[str, bytes | str | None]]


class InvalidMark(FlowaggError):
    """A record's idempotency headers are not as the writer makes them."""


@dataclass(frozen=True, slots=True)
class Mark:
    """key: the POST's Idempotency-Key. digest: of its body. index: the record's place among those of
    the body that go to the same partition."""

    key: str
    digest: str
    index: int


def body_digest(body: bytes) -> str:
    """The digest of a POST's body: the first 128 bits of its SHA-256, in hexadecimal."""
    return hashlib.sha256(body).hexdigest()[:_DIGEST_CHARACTERS]


def is_key(text: str) -> bool:
    """Whether a text may be an Idempotency-Key: 1 to 128 printable ASCII characters."""
    return 0 < len(text) <= MAX_KEY_CHARACTERS and text.isascii() and text.isprintable()


def encode_mark(mark: Mark) -> list[tuple[str, bytes]]:
    """The headers of a record."""
    return [(MARK_HEADER, b"%d" % mark.index + mark_tail(mark.key, mark.digest))]


def mark_tail(key: str, digest: str) -> bytes:
    """What follows the index in the header's value, the same for all records of a body."""
    return f" {digest} {key}".encode("ascii")


def decode_mark(headers: Headers | None) -> Mark | None:
    """The mark in a record's headers; None where it has none. Raises InvalidMark."""
    if not headers:
        return None
    found: bytes | str | None = None
    for name, value in headers:
        if name == MARK_HEADER:
            if found is not None or not isinstance(value, bytes):
                raise InvalidMark(f"the header {MARK_HEADER} must stand once, with a value")
            found = value
    if found is None:
        return None
    match = _MARK.fullmatch(found)  # type: ignore[arg-type] # bytes, as checked
    if match is None or int(match[1]) > MAX_INDEX:
        raise InvalidMark(f"the header {MARK_HEADER} is not as the writer makes it")
    return Mark(match[3].decode("ascii"), match[2].decode("ascii"), int(match[1]))
