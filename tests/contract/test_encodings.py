"""Content-Encoding of a POST: gzip, identity, nothing else; what inflates past the limit is refused on the way."""

import gzip
import random
import struct
import zlib
from itertools import pairwise

import httpx
import pytest
from flowagg_stack.services import Service

from tests.contract.flows import GZIP, JSON, NDJSON, accepted, array, assert_problem, flow, lines, rows
from tests.contract.memory import bounded_growth

MAX_BODY = 8 * 2**20
MAX_INFLATED = 64 * 2**20
BOMB_GROWTH_MIB = 150


def bomb(size: int) -> bytes:
    """A gzip member of spaces, without inflating it here. size: in bytes, whole MiB."""
    block = b" " * 2**20
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = compressor.compress(block) + compressor.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(size // len(block)):
        checksum = zlib.crc32(block, checksum)
    head, end = b"\x1f\x8b\x08" + b"\0" * 6 + b"\xff", b"\x03\x00" + struct.pack("<II", checksum, size % 2**32)
    return head + packed * (size // len(block)) + end


def test_the_bomb_is_gzip() -> None:
    assert gzip.decompress(bomb(3 * 2**20)) == b" " * (3 * 2**20)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "Gzip", "x-gzip"])
@pytest.mark.parametrize("media", [JSON, NDJSON], ids=["JSON", "NDJSON"])
def test_gzip_is_taken(client: httpx.Client, hour: int, media: dict[str, str], encoding: str) -> None:
    raw = gzip.compress(array(flow(hour)) if media is JSON else lines(flow(hour)))
    accepted(client.post("/flows", content=raw, headers=media | {"Content-Encoding": encoding}), 1)
    assert rows(client, hour) == [flow(hour)]


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_identity_and_an_empty_encoding_are_the_body_as_it_is(client: httpx.Client, hour: int, encoding: str) -> None:
    headers = JSON | {"Content-Encoding": encoding}
    accepted(client.post("/flows", content=array(flow(hour)), headers=headers), 1)
    assert rows(client, hour) == [flow(hour)]


@pytest.mark.parametrize(
    "encoding", ["br", "deflate", "zstd", "compress", "gzip, gzip", "gzip, identity", "identity, gzip", "gzip;q=1", "*"]
)
def test_another_encoding_is_refused(client: httpx.Client, hour: int, encoding: str) -> None:
    raw = gzip.compress(array(flow(hour)))
    reply = client.post("/flows", content=raw, headers=JSON | {"Content-Encoding": encoding})
    assert_problem(reply, 415)
    assert "gzip" in reply.headers["accept-encoding"]
    assert rows(client, hour) == []


def test_two_encodings_in_two_headers_are_refused(client: httpx.Client) -> None:
    headers = [*JSON.items(), *GZIP.items(), *GZIP.items()]
    assert_problem(client.post("/flows", content=gzip.compress(b"[]"), headers=headers), 415)


ARRAY = gzip.compress(array(flow(0)))
BROKEN = {
    "nothing": b"",
    "no gzip": b"[]",
    "the magic alone": b"\x1f\x8b",
    "a head alone": ARRAY[:10],
    "cut short": ARRAY[: len(ARRAY) // 2],
    "without its trailer": ARRAY[:-8],
    "without its last byte": ARRAY[:-1],
    "a wrong checksum": ARRAY[:-8] + b"\0\0\0\0" + ARRAY[-4:],
    "a wrong length": ARRAY[:-4] + b"\xff\0\0\0",
    "an unknown method": ARRAY[:2] + b"\x07" + ARRAY[3:],
    "reserved flags": ARRAY[:3] + b"\xe0" + ARRAY[4:],
    "a damaged middle": ARRAY[:20] + b"\xff\xff\xff\xff" + ARRAY[24:],
    "garbage after it": ARRAY + b"xx",
    "a second member cut short": ARRAY + gzip.compress(b" ")[:-3],
    "zlib": zlib.compress(array(flow(0))),
    "bare deflate": zlib.compress(array(flow(0)), wbits=-15),
    "gzip of gzip": gzip.compress(ARRAY),
    "gzip of nothing": gzip.compress(b""),
    "gzip of no JSON": gzip.compress(b"nonsense"),
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN.keys())
def test_broken_gzip_is_refused(client: httpx.Client, raw: bytes) -> None:
    assert_problem(client.post("/flows", content=raw, headers=JSON | GZIP), 400)


def test_nothing_of_a_body_with_a_wrong_checksum_is_kept(client: httpx.Client, hour: int) -> None:
    whole = gzip.compress(lines(flow(hour), flow(hour)))
    for raw in (whole[:-8], whole[:-8] + b"\0\0\0\0" + whole[-4:], whole + b"x"):
        assert_problem(client.post("/flows", content=raw, headers=NDJSON | GZIP), 400)
    assert rows(client, hour) == []


def test_gzip_of_nothing_is_ndjson_of_no_flow(client: httpx.Client) -> None:
    accepted(client.post("/flows", content=gzip.compress(b""), headers=NDJSON | GZIP), 0)


def test_a_gzip_head_may_have_a_name_a_comment_and_a_time(client: httpx.Client, hour: int) -> None:
    plain = gzip.compress(array(flow(hour)))
    named = b"\x1f\x8b\x08\x18" + struct.pack("<I", 1) + plain[8:10] + b"flows.json\0a comment\0" + plain[10:]
    accepted(client.post("/flows", content=named, headers=JSON | GZIP), 1)
    assert rows(client, hour) == [flow(hour)]


@pytest.mark.parametrize("members", [2, 3, 100])
def test_gzip_in_several_members_is_one_body(client: httpx.Client, hour: int, members: int) -> None:
    raw = array(flow(hour), flow(hour))
    cuts = [place * len(raw) // members for place in range(members + 1)]
    packed = b"".join(gzip.compress(raw[start:end]) for start, end in pairwise(cuts))
    accepted(client.post("/flows", content=packed, headers=JSON | GZIP), 2)
    assert rows(client, hour) == [flow(hour, tx=2, rx=4)]


def test_10_000_empty_members_after_a_body_are_taken(client: httpx.Client) -> None:
    raw = gzip.compress(b"[]") + gzip.compress(b"") * 10_000
    accepted(client.post("/flows", content=raw, headers=JSON | GZIP), 0)


def test_gzip_in_chunks_is_taken(client: httpx.Client, hour: int) -> None:
    raw = gzip.compress(array(flow(hour)))
    chunks = (raw[place : place + 3] for place in range(0, len(raw), 3))
    accepted(client.post("/flows", content=chunks, headers=JSON | GZIP), 1)
    assert rows(client, hour) == [flow(hour)]


def test_as_much_as_may_inflate_is_taken_and_a_byte_more_is_refused(client: httpx.Client) -> None:
    full = gzip.compress(b"[]" + b" " * (MAX_INFLATED - 2), 1)
    accepted(client.post("/flows", content=full, headers=JSON | GZIP), 0)
    past = gzip.compress(b"[]" + b" " * (MAX_INFLATED - 1), 1)
    assert f"{MAX_INFLATED}" in assert_problem(client.post("/flows", content=past, headers=JSON | GZIP), 413)["detail"]


def test_gzip_larger_than_a_body_may_be_is_refused(client: httpx.Client) -> None:
    raw = gzip.compress(random.Random(1).randbytes(MAX_BODY), 0)
    assert len(raw) > MAX_BODY
    assert_problem(client.post("/flows", content=raw, headers=JSON | GZIP), 413)


@pytest.mark.parametrize("media", [JSON, NDJSON], ids=["JSON", "NDJSON"])
@pytest.mark.parametrize("shape", ["one member", "1,024 members"])
def test_a_bomb_of_1_gib_is_refused(client: httpx.Client, media: dict[str, str], shape: str) -> None:
    raw = bomb(2**30) if shape == "one member" else bomb(2**20) * 1024
    assert len(raw) < MAX_BODY
    assert_problem(client.post("/flows", content=raw, headers=media | GZIP), 413)


def test_bombs_cost_the_writer_little_memory(writer: Service) -> None:
    raw = bomb(2**30)
    with (
        bounded_growth(writer.child.process.pid, BOMB_GROWTH_MIB),
        httpx.Client(base_url=writer.url, timeout=30) as client,
    ):
        for _ in range(2):
            assert_problem(client.post("/flows", content=raw, headers=JSON | GZIP), 413)
            assert_problem(client.post("/flows", content=raw, headers=NDJSON | GZIP), 413)
