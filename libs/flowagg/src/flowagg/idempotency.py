"""Idempotency marks: how a keyed POST's records are told apart from their repeats.

A POST with an `Idempotency-Key` puts a mark into the value of each of its records. The consumer keeps,
per key and partition, the body's digest and the indexes that it has counted, for the dedupe window.
"""

import hashlib
import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from flowagg.errors import FlowaggError

MAX_KEY_CHARACTERS: Final = 128
MAX_INDEX: Final = 10_000_000
_DIGEST_CHARACTERS: Final = 32
_DIGEST: Final = re.compile(r"[0-9a-f]{32}")


class InvalidMark(FlowaggError):
    """A record's mark is not as the writer makes it."""


class Mark(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """In JSON `["<key>","<digest>",<index>]`.

    key: the POST's Idempotency-Key. digest: of its body. index: the record's place among those of
    the body that go to the same partition.
    """

    key: str
    digest: str
    index: Annotated[int, Meta(ge=0, le=MAX_INDEX)]

    def check(self) -> None:
        """Raises InvalidMark where the key or the digest are none of the writer's."""
        if not is_key(self.key) or not _DIGEST.fullmatch(self.digest):
            raise InvalidMark(f"the mark {[self.key, self.digest, self.index]!r} is not as the writer makes it")


def body_digest(body: bytes) -> str:
    """The digest of a POST's body: the first 128 bits of its SHA-256, in hexadecimal."""
    return hashlib.sha256(body).hexdigest()[:_DIGEST_CHARACTERS]


def is_key(text: str) -> bool:
    """Whether a text may be an Idempotency-Key: 1 to 128 printable ASCII characters."""
    return 0 < len(text) <= MAX_KEY_CHARACTERS and text.isascii() and text.isprintable()
