"""Flows in files, cut into batches: NDJSON, a JSON array or CSV, as they are or by gzip.

A file is always cut in the same way, so that a batch can be sent again under its key. Each batch is checked by the
writer's own rules before it is sent: what is past a bad record is not, and the error has its line.
"""

import csv
import gzip
import hashlib
import io
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec
from flowagg.flow import Flow, InvalidFlow, decode_flow_lines, decode_flows

from flowagg_cli.errors import CommandError, WrongUsage

FORMATS: Final = ("ndjson", "json", "csv")
STDIN: Final = "-"
_BODY_BYTES: Final = 4 * 2**20
"""Of a batch at most, or a record more: half of what a writer takes by default."""
_GZIP_MAGIC: Final = b"\x1f\x8b"
_FIELDS: Final = Flow.__struct_fields__
_BLANKS: Final = b" \t\r\n"

Convert = Callable[[bytes], bytes | None]
"""A line of input as a flow in JSON; None: it holds none. Raises ValueError."""


class BadRecord(CommandError):
    """A record breaks a rule. Nothing past the batches before it was sent."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Flows to be sent together, one a line. number: from 0. last: where it was cut by the end of the input.

    consumed: bytes of the input, once it is unpacked, up to its end. digest: of these. lines: of each of its flows.
    """

    number: int
    body: bytes
    flows: int
    consumed: int
    digest: str
    lines: Sequence[int]
    last: bool = False


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """A file for reading, or standard input for `-`, unpacked where it is gzip. Raises WrongUsage, CommandError."""
    try:
        raw = cast(BinaryIO, sys.stdin.buffer) if name == STDIN else Path(name).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise WrongUsage(f"{name} cannot be read: {error.strerror}") from None
    try:
        buffered = io.BufferedReader(cast(io.RawIOBase, raw), 2**20)
        if buffered.peek(2)[:2] == _GZIP_MAGIC:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=buffered))
        else:
            yield cast(BinaryIO, buffered)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CommandError(f"{name} cannot be read to its end: {error}") from error
    finally:
        if name != STDIN:
            raw.close()


def format_of(name: str, given: str | None) -> str:
    """The format of a file: as given, else by its name. Raises WrongUsage."""
    if given is not None:
        return given
    suffixes = {".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "json", ".csv": "csv"}
    found = suffixes.get(Path(name.removesuffix(".gz")).suffix)
    if found is None and name != STDIN:
        raise WrongUsage(f"{name}: say by --format what it is ({', '.join(FORMATS)}); its name does not tell")
    return found or "ndjson"


def unpacked_digest(name: str, length: int) -> tuple[str, bool] | None:
    """The digest of the first bytes of a file, once it is unpacked, and whether it has more; None: it has fewer."""
    digest = hashlib.sha256()
    with opened(name) as file:
        left = length
        while left:
            piece = file.read(min(left, 2**20))
            if not piece:
                return None
            digest.update(piece)
            left -= len(piece)
        return digest.hexdigest(), bool(file.read(1))


def batches(name: str, file: BinaryIO, format_: str, size: int) -> Iterator[Batch]:
    """Cut flows into batches of that many at most. name: for errors. Raises BadRecord."""
    if format_ == "json":
        return _of_array(name, file, size)
    if format_ == "csv":
        header = file.readline()
        return lines_in_batches(name, file, size, _csv_rows(name, header), header, 2)
    return _as_they_are(name, file, size)


def _as_they_are(name: str, file: BinaryIO, size: int) -> Iterator[Batch]:
    """Lines that are flows in JSON already: nothing is done line by line."""
    digest = hashlib.sha256()
    consumed = number = 0
    first = 1
    # Where it is cut depends on the lines before alone, however much is read at a time.
    following = file.readlines(_BODY_BYTES)
    while lines := following:
        following = file.readlines(_BODY_BYTES)
        for start in range(0, len(lines), size):
            part = lines[start : start + size]
            body = b"".join(part)
            digest.update(body)
            consumed += len(body)
            places: Sequence[int] = range(first, first + len(part))
            if not all(map(bytes.strip, part)):
                places = [place for place, line in zip(places, part, strict=True) if line.strip(_BLANKS)]
            first += len(part)
            if places:
                _check(name, body, places)
                last = not following and len(part) < size
                yield Batch(number, body, len(places), consumed, digest.hexdigest(), places, last)
                number += 1


def lines_in_batches(
    name: str, lines: Iterable[bytes], size: int, convert: Convert | None = None, before: bytes = b"", first: int = 1
) -> Iterator[Batch]:
    """Cut lines into batches of that many flows. convert: makes a flow of a line; None: lines are flows in JSON.

    before: what was read of the input already; first: the number of the line that comes next. Raises BadRecord.
    """
    digest = hashlib.sha256(before)
    consumed = len(before)
    number = held = 0
    kept: list[bytes] = []
    places: list[int] = []

    def batch(*, last: bool = False) -> Batch:
        body = b"\n".join(kept)
        _check(name, body, places)
        return Batch(number, body, len(kept), consumed, digest.hexdigest(), tuple(places), last)

    for place, raw in enumerate(lines, first):
        digest.update(raw)
        consumed += len(raw)
        line: bytes | None = raw.rstrip(b"\r\n")  # in CSV, blanks at the ends are a part of the names
        if convert is not None and line and line.strip(_BLANKS):
            try:
                line = convert(line)
            except ValueError as error:
                raise BadRecord(f"{name}, line {place}: {error}") from None
        if not line or not line.strip(_BLANKS):
            continue
        kept.append(line)
        places.append(place)
        held += len(line) + 1
        if len(kept) == size or held >= _BODY_BYTES:
            yield batch()
            number, held, kept, places = number + 1, 0, [], []
    if kept:
        yield batch(last=True)


def _check(name: str, body: bytes, places: Sequence[int]) -> None:
    try:
        decode_flow_lines(body)
    except InvalidFlow as error:
        index = _index(body) if error.index is None else error.index
        place = "" if index is None else f", line {places[index]}"
        field = "" if error.field is None else f"{error.field}: "
        raise BadRecord(f"{name}{place}: {field}{error.rule}") from None


def _index(body: bytes) -> int | None:
    """Of the first record that is at fault by itself, where it is not told: in text that is not UTF-8."""
    for index, line in enumerate(line for line in body.split(b"\n") if line.strip(_BLANKS)):
        try:
            decode_flow_lines(line)
        except InvalidFlow:
            return index
    return None


def _of_array(name: str, file: BinaryIO, size: int) -> Iterator[Batch]:
    """A JSON array is read as a whole: it has no lines to be cut by."""
    raw = file.read()
    try:
        flows = decode_flows(raw)
    except InvalidFlow as error:
        raise BadRecord(f"{name}: {error}") from None
    digest = hashlib.sha256(raw).hexdigest()
    number = start = held = 0
    kept: list[bytes] = []
    for place, flow in enumerate(flows, 1):
        kept.append(msgspec.json.encode(flow))
        held += len(kept[-1]) + 1
        if len(kept) == size or held >= _BODY_BYTES or place == len(flows):
            # All of the array was read for any of it, so all of it must stay.
            yield Batch(number, b"\n".join(kept), len(kept), len(raw), digest, range(start + 1, place + 1), last=True)
            number, start, held, kept = number + 1, place, 0, []


def _csv_rows(name: str, header: bytes) -> Convert:
    """Rows of a CSV file whose first line names the six fields, in any order, among others. Raises WrongUsage."""
    try:
        names = next(csv.reader([header.decode("utf-8-sig").rstrip("\r\n")]), [])
    except UnicodeDecodeError:
        raise WrongUsage(f"{name} is not UTF-8 text") from None
    missing = [field for field in _FIELDS if field not in names]
    if missing:
        raise WrongUsage(
            f"{name}: the first line must name the columns {', '.join(_FIELDS)}; it lacks {', '.join(missing)}"
        )
    places = [(field, names.index(field)) for field in _FIELDS]

    def convert(line: bytes) -> bytes:
        cells = next(csv.reader([line.decode()], strict=True))
        if len(cells) != len(names):
            raise ValueError(f"{len(cells)} columns, where the first line names {len(names)}")
        found: dict[str, str | int] = {}
        for field, place in places:
            text = cells[place]
            found[field] = text if field in ("src_app", "dest_app", "vpc_id") else _number(field, text)
        return msgspec.json.encode(found)

    return _with_csv_errors(convert)


def _with_csv_errors(convert: Callable[[bytes], bytes]) -> Convert:
    def converted(line: bytes) -> bytes:
        try:
            return convert(line)
        except csv.Error as error:
            raise ValueError(f"{error}; a row must stand on one line") from None

    return converted


def _number(field: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{field}: {text!r} is no whole number")
    return int(text)
