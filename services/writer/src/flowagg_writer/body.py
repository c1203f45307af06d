"""Bodies of POSTs: what may be sent, and gzip undone within bounds. Pure."""

import zlib
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Final

from flowagg.problem import Problem

_STEP_BYTES: Final = 2**20
_GZIP: Final = 16 + zlib.MAX_WBITS

_ENCODINGS: Final = {"": False, "identity": False, "gzip": True, "x-gzip": True}


class Form(Enum):
    """How flows are written in a body."""

    ARRAY = "application/json"
    LINES = "application/x-ndjson"


_FORMS: Final = {form.value: form for form in Form}


def form_of(content_types: Sequence[str]) -> Form:
    """The form that the Content-Type headers name. Raises Problem 400 or 415."""
    if len(content_types) > 1:
        raise Problem(400, "Nothing was kept: send one Content-Type, not several.")
    form = _FORMS.get(content_types[0]) if content_types else None
    if form is not None:
        return form
    media_type = content_types[0].partition(";")[0].strip().lower() if content_types else ""
    form = _FORMS.get(media_type)
    if form is None:
        given = media_type or "a body without a Content-Type"
        raise Problem(415, f"Send {' or '.join(_FORMS)}, not {given}.", headers={"Accept": ", ".join(_FORMS)})
    return form


def is_gzip(content_encodings: Sequence[str]) -> bool:
    """Whether the Content-Encoding headers name gzip. Raises Problem 415 for anything but that or nothing."""
    if not content_encodings:
        return False
    coding = ", ".join(content_encodings).strip().lower()
    known = _ENCODINGS.get(coding)
    if known is None:
        raise Problem(
            415,
            f"Send the body as it is or with gzip, not in Content-Encoding {coding}.",
            headers={"Accept-Encoding": "gzip"},
        )
    return known


class BrokenGzip(Exception):
    """A body is not what gzip makes; the text says how."""


class Gunzip:
    """Undoes gzip as the body arrives, a bounded piece at a time. Several members follow one another (RFC 1952)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._inside = False  # a member has begun and not ended
        self._any = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What the data brings, in pieces of at most 1 MiB. Raises BrokenGzip."""
        while data:
            if not self._inside:
                self._member = zlib.decompressobj(_GZIP)
                self._inside = self._any = True
            try:
                piece = self._member.decompress(data, _STEP_BYTES)
            except zlib.error as error:
                raise BrokenGzip(str(error)) from None
            if piece:
                yield piece
            if self._member.eof:
                self._inside = False
                data = self._member.unused_data
            else:
                data = self._member.unconsumed_tail

    def end(self) -> None:
        """The body has ended. Raises BrokenGzip where a member has not, or where there is none."""
        if self._inside or not self._any:
            raise BrokenGzip("the body ends in the middle" if self._any else "the body is empty")
