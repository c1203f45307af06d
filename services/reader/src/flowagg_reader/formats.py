"""Rows as JSON, NDJSON or CSV, and which of them a client is given."""

import csv
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from flowagg_reader.evaluate import Row
from flowagg_reader.query import Format

MEDIA_TYPES: Final = {
    Format.JSON: "application/json",
    Format.NDJSON: "application/x-ndjson",
    Format.CSV: "text/csv; charset=utf-8; header=present",
}
_BY_TYPE: Final = {media_type.partition(";")[0]: format_ for format_, media_type in MEDIA_TYPES.items()}
_ANY: Final = {"*/*": Format.JSON, "application/*": Format.JSON, "text/*": Format.CSV}
_QUALITY: Final = re.compile(r"\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*", re.I)
_GZIP_LEVEL: Final = 4
_encoder = msgspec.json.Encoder()


def accepted(headers: Iterable[str]) -> Format:
    """The format that Accept headers like best (RFC 9110, 12.5.1); JSON where they name none of the three.

    Who accepts none of them gets JSON all the same, as RFC 9110 allows: nobody was refused before.
    """
    best, most = Format.JSON, 0.0
    for media_type, quality in _listed(headers):
        found = _BY_TYPE.get(media_type) or _ANY.get(media_type)
        if found is not None and quality > most:
            best, most = found, quality
    return best


def takes_gzip(headers: Iterable[str]) -> bool:
    """Whether Accept-Encoding headers allow gzip."""
    said = dict(_listed(headers))
    return said.get("gzip", said.get("*", 0.0)) > 0


def _listed(headers: Iterable[str]) -> Iterator[tuple[str, float]]:
    for item in ",".join(headers).split(","):
        name, *parameters = item.split(";")
        quality = 1.0
        for parameter in parameters:
            match = _QUALITY.fullmatch(parameter)
            if match is not None:
                quality = float(match[1])
        yield name.strip().lower(), quality


def written(fields: Sequence[str], slices: Iterable[Sequence[Row]], format_: Format) -> Iterator[bytes]:
    """Rows of these fields as text, piece by piece. Never without a piece."""
    if format_ is Format.CSV:
        yield _csv([fields])
        for rows in slices:
            yield _csv(rows)
    elif format_ is Format.NDJSON:
        yield b""
        for rows in slices:
            yield _encoder.encode_lines([dict(zip(fields, row, strict=True)) for row in rows])
    else:
        start = b"["
        for rows in slices:
            if rows:
                yield start + _encoder.encode([dict(zip(fields, row, strict=True)) for row in rows])[1:-1]
                start = b","
        yield b"]" if start == b"," else b"[]"


def compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces by gzip."""
    deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for piece in pieces:
        yield deflate.compress(piece)
    yield deflate.flush()


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    """RFC 4180; what is not known of the others is empty."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
