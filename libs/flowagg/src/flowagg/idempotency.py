"""Idempotency marks: how a keyed POST's records are told apart from their repeats.

A POST with an `Idempotency-Key` puts three headers on each of its records. The consumer keeps, per
key and partition, the body's digest and the indexes that it has counted, for the dedupe window.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from flowagg.errors import FlowaggError

KEY_HEADER: Final = "flowagg-idempotency-key"
DIGEST_HEADER: Final = "flowagg-body-digest"
INDEX_HEADER: Final = "flowagg-index"

MAX_KEY_CHARACTERS: Final = 128
MAX_INDEX: Final = 10_000_000
_DIGEST_CHARACTERS: Final = 32

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
    return [
        (KEY_HEADER, mark.key.encode("ascii")),
        (DIGEST_HEADER, mark.digest.encode("ascii")),
        (INDEX_HEADER, b"%d" % mark.index),
    ]


def decode_mark(headers: Headers | None) -> Mark | None:
    """The mark in a record's headers; None where it has none. Raises InvalidMark."""
    if not headers:
        return None
    found: dict[str, bytes] = {}
    for name, value in headers:
        if name in (KEY_HEADER, DIGEST_HEADER, INDEX_HEADER):
            if not isinstance(value, bytes) or name in found:
                raise InvalidMark(f"the header {name} must stand once, with a value")
            found[name] = value
    if not found:
        return None
    try:
        key, digest, index = (found[name].decode("ascii") for name in (KEY_HEADER, DIGEST_HEADER, INDEX_HEADER))
    except (KeyError, UnicodeDecodeError):
        raise InvalidMark("idempotency headers must be all there and ASCII") from None
    well = is_key(key) and len(digest) == _DIGEST_CHARACTERS and set(digest) <= set("0123456789abcdef")
    if not well or not index.isdigit() or len(index) > 8 or int(index) > MAX_INDEX:
        raise InvalidMark("idempotency headers are not as the writer makes them")
    return Mark(key, digest, int(index))
