"""The file of an export: what is written is read, and whatever is cut or altered is noticed before it is used."""

import io
from pathlib import Path

import msgspec
import pytest
import zstandard
from flowagg.view import Meta
from flowagg_cli.archive import (
    FORMAT,
    MAGIC,
    Begin,
    End,
    Frame,
    Header,
    Hour,
    Marks,
    Trailer,
    Writer,
    meta_fields,
    meta_of,
    read,
)
from flowagg_cli.errors import DamagedFile
from hypothesis import given
from hypothesis import strategies as st

META = Meta(
    9,
    "topic-id",
    3,
    0,
    incomplete=True,
    incarnation="abc",
    time=17,
    lost="1-2",
    floor=4,
    tick=32,
    diverged="it ends at 8",
)
PAIRS = [b'["foo","bar","vpc-0"]', b"100 300"]


def header(*partitions: int, format_: int = FORMAT) -> Header:
    return Header(format_, "default", "flows", "topic-id", "2026-11-27T12:00:00Z", "flowagg 0", list(partitions))


def archive(given_header: Header | None = None) -> bytes:
    out = io.BytesIO()
    writer = Writer(out, given_header or header(0))
    for number in (given_header or header(0)).partitions:
        writer.begin(number)
        writer.hour(5, PAIRS)
        writer.marks(2, [b"key", b"digest 0-1"])
        writer.end(End(number, meta_fields(META), [(5, b"9", 1)], [(2, 1)]))
    writer.finish()
    return out.getvalue()


def frames(data: bytes) -> list[Frame]:
    return list(read(io.BytesIO(data)))


def inflate(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()


def deflate(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def test_what_is_written_is_read() -> None:
    found = frames(archive())
    assert found[:-1] == [
        header(0),
        Begin(0),
        Hour(5, PAIRS),
        Marks(2, [b"key", b"digest 0-1"]),
        End(0, meta_fields(META), [(5, b"9", 1)], [(2, 1)]),
    ]
    trailer = found[-1]
    assert isinstance(trailer, Trailer)
    assert (trailer.partitions, trailer.frames, trailer.entries) == (1, 5, 2)


def test_a_meta_keeps_all_but_who_wrote_it() -> None:
    assert meta_of(meta_fields(META)) == META
    plain = Meta(0, "t", -1, 0, incomplete=False, incarnation="i", writer="somebody")
    assert meta_of(meta_fields(plain)) == Meta(0, "t", -1, 0, incomplete=False, incarnation="i")


def test_large_hours_go_in_frames_of_bounded_size() -> None:
    pairs = [part for number in range(20_000) for part in (b"%d" % number, b"x" * (number % 7 * 500))]
    out = io.BytesIO()
    writer = Writer(out, header(0))
    writer.begin(0)
    writer.hour(1, pairs)
    writer.end(End(0, meta_fields(META), [(1, b"9", 20_000)], []))
    writer.finish()
    parts = [frame.pairs for frame in frames(out.getvalue()) if isinstance(frame, Hour)]
    assert [part for some in parts for part in some] == pairs
    assert all(len(part) % 2 == 0 and sum(map(len, part)) < 2**20 + 4_000 for part in parts)


@given(st.data())
def test_a_file_that_was_cut_anywhere_is_noticed(data: st.DataObject) -> None:
    whole = archive(header(0, 1, 2))
    kept = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DamagedFile):
        frames(whole[:kept])


@given(st.data())
def test_a_byte_that_was_altered_anywhere_is_noticed(data: st.DataObject) -> None:
    plain = inflate(archive(header(0, 1)))
    place = data.draw(st.integers(0, len(plain) - 1))
    altered = plain[:place] + bytes([plain[place] ^ data.draw(st.integers(1, 255))]) + plain[place + 1 :]
    with pytest.raises(DamagedFile):
        frames(deflate(altered))


@pytest.mark.parametrize("more", [b"\0", archive()], ids=["a byte", "another file"])
def test_what_follows_the_end_is_noticed(more: bytes) -> None:
    with pytest.raises(DamagedFile):
        frames(archive() + more)
    with pytest.raises(DamagedFile):
        frames(deflate(inflate(archive()) + more))


@pytest.mark.parametrize(
    "data", [b"", b"{}", deflate(b""), deflate(b"something else, and long enough for it")], ids=range(4)
)
def test_what_is_no_export_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedFile):
        frames(data)


def test_a_later_format_is_refused_with_the_version_that_wrote_it() -> None:
    with pytest.raises(DamagedFile, match=r"format 2.*flowagg 0"):
        frames(archive(header(0, format_=2)))


def written(*parts: Frame) -> bytes:
    """A file of these frames, whatever their order."""
    plain = MAGIC
    for part in parts:
        body = msgspec.msgpack.encode(part)
        plain += len(body).to_bytes(4, "little") + body
    return deflate(plain)


END = End(0, meta_fields(META), [], [])


@pytest.mark.parametrize(
    "parts",
    [
        (Begin(0),),
        (header(0), Hour(1, PAIRS)),
        (header(0), Begin(0), Hour(1, PAIRS[:1])),
        (header(0), Begin(1), END),
        (header(0), END),
        (header(0), header(0)),
        (header(0), Begin(0), Trailer(0, 2, 0, "")),
        (header(0, 1), Begin(0), END, Trailer(1, 3, 0, "")),
        (header(0), Begin(0), End(0, {"position": "x"}, [], [])),
        (header(0), Begin(0), End(0, {}, [], [])),
    ],
    ids=range(10),
)
def test_frames_out_of_order_are_refused(parts: tuple[Frame, ...]) -> None:
    with pytest.raises(DamagedFile):
        frames(written(*parts))


def test_a_partition_that_is_begun_again_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "export"
    with path.open("wb") as file:
        writer = Writer(file, header(0))
        writer.begin(0)
        writer.hour(1, PAIRS)
        writer.begin(0)
        writer.hour(5, PAIRS)
        writer.end(End(0, meta_fields(META), [(5, b"9", 1)], []))
        writer.finish()
    with path.open("rb") as file:
        trailer = list(read(file))[-1]
    assert isinstance(trailer, Trailer)
    assert (trailer.partitions, trailer.entries) == (1, 2)
