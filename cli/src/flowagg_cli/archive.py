"""The file of an exported view: a zstd stream of MessagePack frames. docs/reference/backup-format.md describes it.

Line, header, then per partition its begin, its totals and marks and its end, then a trailer with counts and a
checksum. Frames come in the order in which a live view was read: of one partition, a later value of a flow key
replaces an earlier one, only the hours and buckets that its end names are in it, and a further begin of the same
partition voids what came before.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, Final, Protocol

import msgspec
import zstandard
from flowagg.view import DamagedView, Meta, decode_meta

from flowagg_cli.errors import DamagedFile

FORMAT: Final = 1
MAGIC: Final = b"FlowAggregator view export\n"
SUFFIX: Final = ".flowagg.zst"

_PAIRS_A_FRAME: Final = 3_000
_FRAME_BYTES: Final = 2**20
"""Past it a frame takes no further pair."""
_MOST_FRAME_BYTES: Final = 2**28
_LENGTH_BYTES: Final = 4
_LEVEL: Final = 1
_READ_BYTES: Final = 2**20


class Header(msgspec.Struct, tag="header", frozen=True):
    """What the file is. exported_at: RFC 3339, UTC. partitions: that the view has begun.

    topic_id: of the log that the positions count in.
    """

    format: int
    view: str
    topic: str
    topic_id: str
    exported_at: str
    program: str
    partitions: list[int]


class Begin(msgspec.Struct, tag="begin", frozen=True):
    """Totals and marks of a partition follow; what came of it before is void."""

    partition: int


class Hour(msgspec.Struct, tag="hour", frozen=True):
    """Totals of an hour. pairs: field, totals, field, totals, ... as in Redis."""

    hour: int
    pairs: list[bytes]


class Marks(msgspec.Struct, tag="marks", frozen=True):
    """Idempotency marks of a bucket. pairs: Idempotency-Key, entry, ... as in Redis."""

    bucket: int
    pairs: list[bytes]


class End(msgspec.Struct, tag="end", frozen=True):
    """A partition is complete, as of its meta's position.

    meta: the fields of the meta as in Redis. hours: hour, its mark as in Redis, number of flow keys.
    buckets: bucket, number of marks.
    """

    partition: int
    meta: dict[str, str]
    hours: list[tuple[int, bytes, int]]
    buckets: list[tuple[int, int]]


class Trailer(msgspec.Struct, tag="trailer", frozen=True):
    """The end of the file. sha256: of every byte before this frame's length, uncompressed."""

    partitions: int
    frames: int
    entries: int
    sha256: str


Frame = Header | Begin | Hour | Marks | End | Trailer
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


class Sink(Protocol):
    """Where a partition goes to, piece by piece."""

    def begin(self, partition: int) -> None:
        """A partition begins, or begins anew."""

    def hour(self, hour: int, pairs: list[bytes]) -> None:
        """Totals of an hour."""

    def marks(self, bucket: int, pairs: list[bytes]) -> None:
        """Marks of a bucket."""

    def end(self, end: End) -> None:
        """The partition is complete."""


def meta_fields(meta: Meta) -> dict[str, str]:
    """The fields of a meta as in Redis, without those of whoever wrote it last."""
    fields = {
        "position": str(meta.position),
        "topic_id": meta.topic_id,
        "leader_epoch": str(meta.leader_epoch),
        "start": str(meta.start),
        "incomplete": str(int(meta.incomplete)),
        "incarnation": meta.incarnation,
        "time": str(meta.time),
        "writer": "",
    }
    if meta.lost is not None:
        fields["lost"] = meta.lost
    if meta.diverged is not None:
        fields["diverged"] = meta.diverged
    if meta.tick >= 0 or meta.floor:
        fields |= {"floor": str(meta.floor), "tick": str(meta.tick)}
    return fields


def meta_of(fields: Mapping[str, str]) -> Meta:
    """The meta of an End. Raises DamagedFile."""
    try:
        meta = decode_meta({name.encode(): value.encode() for name, value in fields.items()})
    except DamagedView as error:
        raise DamagedFile(f"the file holds a meta that no consumer wrote: {error}") from None
    if meta is None:
        raise DamagedFile("the file holds an empty meta")
    return meta


class Writer:
    """Writes an archive; a Sink. Nothing is complete before finish."""

    def __init__(self, out: BinaryIO, header: Header) -> None:
        self._out = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).stream_writer(out, closefd=False)
        self._digest = hashlib.sha256()
        self._frames = self._entries = self._partitions = 0
        self._write(MAGIC)
        self._frame(header)

    def begin(self, partition: int) -> None:
        """See Sink."""
        self._frame(Begin(partition))

    def hour(self, hour: int, pairs: list[bytes]) -> None:
        """See Sink."""
        for part in _parts(pairs):
            self._frame(Hour(hour, part))
        self._entries += len(pairs) // 2

    def marks(self, bucket: int, pairs: list[bytes]) -> None:
        """See Sink."""
        for part in _parts(pairs):
            self._frame(Marks(bucket, part))
        self._entries += len(pairs) // 2

    def end(self, end: End) -> None:
        """See Sink."""
        self._frame(end)
        self._partitions += 1

    def finish(self) -> Trailer:
        """Write the trailer, and flush; the file under it stays open."""
        trailer = Trailer(self._partitions, self._frames, self._entries, self._digest.hexdigest())
        self._frame(trailer)
        self._out.close()  # type: ignore[no-untyped-call]
        return trailer

    def _frame(self, frame: Frame) -> None:
        body = _encode(frame)
        self._write(len(body).to_bytes(_LENGTH_BYTES, "little"))
        self._write(body)
        self._frames += 1

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._out.write(data)


def read(source: BinaryIO) -> Iterator[Frame]:
    """The frames of an archive: the header first, the trailer last, and the trailer only where all agrees with it.

    Raises DamagedFile.
    """
    inflated = _Inflated(source)
    try:
        yield from _frames(inflated)
    except zstandard.ZstdError as error:
        raise DamagedFile(f"the file is no export of a view, or damaged: {error}") from None


class _Inflated:
    """What a zstd stream holds. Its own readers pass over what is cut off, or follows, at the very end."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._stream = zstandard.ZstdDecompressor().decompressobj()
        self._buffer = memoryview(b"")

    def read(self, count: int) -> bytes:
        """The next count bytes; fewer only at the end."""
        parts = []
        while count:
            if not self._buffer:
                data = b"" if self._stream.eof else self._source.read(_READ_BYTES)
                if not data:
                    break
                self._buffer = memoryview(self._stream.decompress(bytes(data)))
                continue
            part, self._buffer = self._buffer[:count], self._buffer[count:]
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def check_end(self) -> None:
        """Raise DamagedFile unless the stream is complete, and nothing more is there."""
        if self._buffer or self._stream.unused_data or not self._at_end() or self._source.read(1):
            raise DamagedFile("the file was cut at its very end, or something follows: it is damaged")

    def _at_end(self) -> bool:
        while not self._stream.eof and (data := self._source.read(_READ_BYTES)):
            if self._stream.decompress(bytes(data)):
                return False
        return self._stream.eof


def _frames(stream: _Inflated) -> Iterator[Frame]:
    digest = hashlib.sha256(MAGIC)
    if _exactly(stream, len(MAGIC), "its first line") != MAGIC:
        raise DamagedFile("the file is no export of a view")
    frames = entries = 0
    ended: set[int] = set()
    began: int | None = None
    header: Header | None = None
    while True:
        head = _exactly(stream, _LENGTH_BYTES, f"frame {frames + 1}")
        length = int.from_bytes(head, "little")
        if length > _MOST_FRAME_BYTES:
            raise DamagedFile(f"frame {frames + 1} would be {length} bytes long: the file is damaged")
        body = _exactly(stream, length, f"frame {frames + 1}")
        try:
            frame = _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DamagedFile(f"frame {frames + 1} cannot be read: {error}") from None
        if isinstance(frame, Header) != (header is None):
            raise DamagedFile(f"frame {frames + 1} is out of order: a header comes first, and once")
        match frame:
            case Header():
                header = _known(frame)
            case Begin():
                began = frame.partition
                ended.discard(began)
            case Hour() | Marks():
                if began is None or len(frame.pairs) % 2:
                    raise DamagedFile(f"frame {frames + 1} is out of order")
                entries += len(frame.pairs) // 2
            case End():
                if frame.partition != began:
                    raise DamagedFile(f"frame {frames + 1} ends a partition that was not begun")
                meta_of(frame.meta)
                ended.add(frame.partition)
                began = None
            case Trailer():
                _check(frame, Trailer(len(ended), frames, entries, digest.hexdigest()), began, header, ended)
                stream.check_end()
                yield frame
                return
        digest.update(head)
        digest.update(body)
        frames += 1
        yield frame


def _known(header: Header) -> Header:
    if header.format != FORMAT:
        raise DamagedFile(
            f"the file has format {header.format}, and this is flowagg for format {FORMAT}: "
            f"use the version that wrote it ({header.program}), or a later one"
        )
    return header


def _check(told: Trailer, counted: Trailer, began: int | None, header: Header | None, ended: set[int]) -> None:
    if began is not None or header is None or ended != set(header.partitions):
        raise DamagedFile("the trailer comes before all partitions are complete: the file is damaged")
    if told != counted:
        raise DamagedFile(f"the file is damaged: its trailer tells {told}, its content is {counted}")


def _exactly(stream: _Inflated, count: int, what: str) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise DamagedFile(f"the file ends in {what}: it was cut")
    return data


def _parts(pairs: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Pairs in parts of bounded number and size."""
    for start in range(0, len(pairs), 2 * _PAIRS_A_FRAME):
        part = list(pairs[start : start + 2 * _PAIRS_A_FRAME])
        if sum(map(len, part)) <= _FRAME_BYTES:
            yield part
            continue
        begin = size = 0
        for place in range(0, len(part), 2):
            size += len(part[place]) + len(part[place + 1])
            if size > _FRAME_BYTES:
                yield part[begin : place + 2]
                begin, size = place + 2, 0
        if begin < len(part):
            yield part[begin:]
