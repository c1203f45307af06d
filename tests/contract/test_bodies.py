"""Bodies of a POST: JSON arrays, NDJSON, media types, sizes."""

import gzip
import json
from collections.abc import Iterator

import httpx
import pytest

from tests.contract.flows import (
    GZIP,
    JSON,
    NDJSON,
    accepted,
    array,
    assert_problem,
    flow,
    lines,
    new_hour,
    rows,
    with_literal,
)

MAX_BODY = 8 * 2**20
MAX_FLOWS = 100_000

NO_ARRAY_OF_FLOWS = {
    "nothing": b"",
    "a space": b" ",
    "NUL": b"\0",
    "an object": b"{}",
    "an object cut short": b"{",
    "an array cut short": b"[",
    "a comma alone": b"[,]",
    "null": b"null",
    "a number": b"3",
    "text": b'"[]"',
    "true": b"true",
    "an array of a number": b"[1]",
    "an array of null": b"[null]",
    "an array of an array": b"[[]]",
    "an array of text": b'["flow"]',
    "an array of an empty object": b"[{}]",
    "an end too many": b"[]]",
    "two arrays": b"[][]",
    "two arrays on two lines": b"[]\n[]",
    "a comment": b"[]//x",
    "single quotes": b"[{'src_app':'a'}]",
    "a byte order mark": b"\xef\xbb\xbf[]",
    "UTF-16": "[]".encode("utf-16"),
    "UTF-32": "[]".encode("utf-32"),
    "no UTF-8": b"\xff",
    "a flow without an array": array(flow(0))[1:-1],
    "a comma at the end": array(flow(0))[:-1] + b",]",
    "no comma between": array(flow(0))[:-1] + array(flow(0))[1:],
    "a flow cut short": array(flow(0))[:-5],
    "a form": b"src_app=a&dest_app=b",
    "100,000 open brackets": b"[" * 100_000,
    "100,000 nested arrays": b'[{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]",
    "100,000 nested objects": b'[{"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}]",
    "a number of 8 million digits": b'[{"bytes_tx":1' + b"0" * 8_000_000 + b"}]",
    "text of 8 million characters": b'[{"src_app":"' + b"a" * 8_000_000 + b'"}]',
}


@pytest.mark.parametrize("raw", NO_ARRAY_OF_FLOWS.values(), ids=NO_ARRAY_OF_FLOWS.keys())
def test_a_body_that_is_no_array_of_flows_is_refused(client: httpx.Client, raw: bytes) -> None:
    assert_problem(client.post("/flows", content=raw, headers=JSON), 400)


@pytest.mark.parametrize(
    "raw", [b"[]", b" [ ] ", b"\r\n[\t]\n", b"[]\n", b"[]" + b" " * (MAX_BODY - 2)], ids=lambda raw: repr(raw[:9])
)
def test_an_array_of_nothing_with_space_around_is_accepted(client: httpx.Client, raw: bytes) -> None:
    accepted(client.post("/flows", content=raw, headers=JSON), 0)


EXTRA_FIELDS_THAT_ARE_NO_UTF8 = {
    "a value": b'"x": "\xff"',
    "a value cut short": b'"x": "\xf0\x9f"',
    "a surrogate as a value": b'"x": "\xed\xa0\x80"',
    "a name": b'"\xff": 1',
    "a name cut short": b'"x\xc3": 1',
    "a name in a nested value": b'"x": {"\xff": 1}',
    "a value in a nested value": b'"x": ["\xff"]',
}


@pytest.mark.parametrize("field", EXTRA_FIELDS_THAT_ARE_NO_UTF8.values(), ids=EXTRA_FIELDS_THAT_ARE_NO_UTF8.keys())
def test_a_body_is_utf8_in_extra_fields_too(client: httpx.Client, hour: int, field: bytes) -> None:
    raw = array(flow(hour))[1:-2] + b", " + field + b"}"
    assert_problem(client.post("/flows", content=b"[" + raw + b"]", headers=JSON), 400)
    assert_problem(client.post("/flows", content=raw, headers=NDJSON), 400)
    assert rows(client, hour) == []


def test_an_extra_field_may_be_nested_200_deep(client: httpx.Client, hour: int) -> None:
    raw = array(flow(hour))[:-2] + b', "x": ' + b"[" * 200 + b"]" * 200 + b"}]"
    accepted(client.post("/flows", content=raw, headers=JSON), 1)
    assert rows(client, hour) == [flow(hour)]


def test_a_flow_with_space_everywhere(client: httpx.Client, hour: int) -> None:
    raw = json.dumps([flow(hour)], indent=4).replace(": ", "\t:\r\n").encode()
    accepted(client.post("/flows", content=raw, headers=JSON), 1)
    assert rows(client, hour) == [flow(hour)]


MEDIA_TYPES = [
    "application/json", "Application/JSON", "application/json;", "application/json; charset=utf-8",
    "application/json;charset=UTF-8", "application/json ; charset=utf-8", 'application/json;profile="a;b"',
    "application/json; charset=utf-16", "application/json; version=2; q=1",
]  # fmt: skip
NDJSON_TYPES = ["application/x-ndjson", "APPLICATION/X-NDJSON", "application/x-ndjson; charset=utf-8; a=b"]
OTHER_TYPES = [
    "", "application", "application/", "/json", "json", "text/plain", "text/json", "application/jsonx",
    "application/json5", "application/problem+json", "application/ld+json", "application/ndjson",
    "application/x-ndjsonx", "application/jsonlines", "application/octet-stream", "application/*", "*/*",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json, text/plain",
]  # fmt: skip


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_json_in_any_spelling_is_taken(client: httpx.Client, media_type: str) -> None:
    accepted(client.post("/flows", content=b"[]", headers={"Content-Type": media_type}), 0)


@pytest.mark.parametrize("media_type", NDJSON_TYPES)
def test_ndjson_in_any_spelling_is_taken(client: httpx.Client, hour: int, media_type: str) -> None:
    reply = client.post("/flows", content=lines(flow(hour)), headers={"Content-Type": media_type})
    accepted(reply, 1)
    assert rows(client, hour) == [flow(hour)]


@pytest.mark.parametrize("media_type", OTHER_TYPES, ids=lambda media_type: media_type or "an empty one")
def test_another_media_type_is_refused(client: httpx.Client, media_type: str) -> None:
    reply = client.post("/flows", content=b"[]", headers={"Content-Type": media_type})
    assert "application/json" in assert_problem(reply, 415)["detail"]


def test_no_media_type_is_refused(client: httpx.Client) -> None:
    assert_problem(client.post("/flows", content=b"[]"), 415)


@pytest.mark.parametrize("second", ["application/json", "text/plain"])
def test_two_media_types_are_refused(client: httpx.Client, second: str) -> None:
    headers = [("Content-Type", "application/json"), ("Content-Type", second)]
    assert_problem(client.post("/flows", content=b"[]", headers=headers), 400)


def test_the_charset_changes_nothing_about_the_body(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json; charset=utf-16"}
    assert_problem(client.post("/flows", content="[]".encode("utf-16"), headers=headers), 400)


ONE = flow(0)
NDJSON_BODIES = {  # how three flows may be written; {} stands for each
    "a line each": b"{}\n{}\n{}\n",
    "no line end at the end": b"{}\n{}\n{}",
    "CRLF": b"{}\r\n{}\r\n{}\r\n",
    "CRLF and none at the end": b"{}\r\n{}\r\n{}",
    "blank lines": b"\n\n{}\n\n{}\n\r\n{}\n\n",
    "lines of spaces": b"  \n{}\n\t\n{}\n \r\n{}\n ",
    "space around": b" {} \n\t{}\t\n  {}  \n",
}


@pytest.mark.parametrize("template", NDJSON_BODIES.values(), ids=NDJSON_BODIES.keys())
def test_ndjson_is_taken(client: httpx.Client, hour: int, template: bytes) -> None:
    raw = template.replace(b"{}", lines(flow(hour)).rstrip())
    accepted(client.post("/flows", content=raw, headers=NDJSON), 3)
    assert rows(client, hour) == [flow(hour, tx=3, rx=6)]


@pytest.mark.parametrize("raw", [b"", b"\n", b"\r\n\r\n", b"  \n\t\n"], ids=repr)
def test_ndjson_of_no_flow_is_accepted(client: httpx.Client, raw: bytes) -> None:
    accepted(client.post("/flows", content=raw, headers=NDJSON), 0)


NO_NDJSON = {
    "an array": array(ONE),
    "an empty array": b"[]\n",
    "two flows on a line": lines(ONE).rstrip() * 2,
    "two flows on a line with a space": lines(ONE).rstrip() + b" " + lines(ONE),
    "a comma between lines": lines(ONE).rstrip() + b",\n" + lines(ONE),
    "a flow cut short": lines(ONE)[:-6],
    "a flow over two lines": lines(ONE).replace(b", ", b",\n"),
    "a number": b"1\n",
    "null": b"null\n",
    "a byte order mark": b"\xef\xbb\xbf" + lines(ONE),
    "a separator of JSON sequences": b"\x1e" + lines(ONE),
    "lines ended by CR alone": lines(ONE).rstrip() + b"\r" + lines(ONE),
    "lines ended by NEL": lines(ONE).rstrip() + "\x85".encode() + lines(ONE),
    "lines ended by a form feed": lines(ONE).rstrip() + b"\f" + lines(ONE),
    "UTF-16": lines(ONE).decode().encode("utf-16"),
    "no UTF-8": b"\xff\n",
}


@pytest.mark.parametrize("raw", NO_NDJSON.values(), ids=NO_NDJSON.keys())
def test_what_is_no_ndjson_of_flows_is_refused(client: httpx.Client, raw: bytes) -> None:
    assert_problem(client.post("/flows", content=raw, headers=NDJSON), 400)


@pytest.mark.parametrize(
    ("before", "index"),
    [(b"", 0), (b"\n\r\n  \n", 0), (lines(ONE), 1), (b"\n" + lines(ONE) + b"\n\n", 1), (lines(ONE) * 7, 7)],
    ids=["first", "after blank lines", "second", "second among blank lines", "eighth"],
)
@pytest.mark.parametrize("kind", ["a broken rule", "broken JSON"])
def test_a_bad_line_is_named_by_the_index_of_its_flow(
    client: httpx.Client, hour: int, before: bytes, index: int, kind: str
) -> None:
    bad = lines(flow(hour, rx=-1)) if kind == "a broken rule" else lines(flow(hour))[:-4] + b"\n"
    raw = before.replace(b'"hour": 0', b'"hour": %d' % hour) + bad + lines(flow(hour))
    problem = assert_problem(client.post("/flows", content=raw, headers=NDJSON), 400)
    assert problem["index"] == index
    if kind == "a broken rule":
        assert problem["field"] == "bytes_rx"
        assert problem["rule"]
    assert rows(client, hour) == []


def test_a_line_separator_of_unicode_ends_no_line(client: httpx.Client, hour: int) -> None:
    flows = [flow(hour, src=f"a{character}b") for character in "\u2028\u2029"]
    accepted(client.post("/flows", content=lines(*flows, escaped=False), headers=NDJSON), 2)
    assert rows(client, hour) == flows


def test_json_and_ndjson_of_a_flow_are_one_flow_key(client: httpx.Client, hour: int) -> None:
    accepted(client.post("/flows", content=lines(flow(hour)), headers=NDJSON), 1)
    accepted(client.post("/flows", content=array(flow(hour)), headers=JSON), 1)
    assert rows(client, hour) == [flow(hour, tx=2, rx=4)]


def _small(hour: int) -> bytes:
    return json.dumps(flow(hour, "a", "b", "c", 1, 1), separators=(",", ":")).encode()


@pytest.mark.parametrize("kind", ["JSON", "NDJSON"])
def test_as_many_flows_as_allowed_and_one_more(client: httpx.Client, hour: int, kind: str) -> None:
    one, headers = _small(hour), (JSON if kind == "JSON" else NDJSON) | GZIP

    def body(count: int) -> bytes:
        raw = b"[" + b",".join([one] * count) + b"]" if kind == "JSON" else b"\n".join([one] * count)
        return gzip.compress(raw, 1)

    detail = assert_problem(client.post("/flows", content=body(MAX_FLOWS + 1), headers=headers), 413)["detail"]
    assert f"{MAX_FLOWS}" in detail.replace(",", "")
    accepted(client.post("/flows", content=body(MAX_FLOWS), headers=headers), MAX_FLOWS)
    assert rows(client, hour) == [flow(hour, "a", "b", "c", MAX_FLOWS, MAX_FLOWS)]


@pytest.mark.parametrize("headers", [JSON, NDJSON], ids=["JSON", "NDJSON"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
def test_a_body_past_the_limit_is_refused(client: httpx.Client, headers: dict[str, str], chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(9):
            yield b" " * 2**20

    content = chunks() if chunked else b" " * (MAX_BODY + 1)
    assert f"{MAX_BODY}" in assert_problem(client.post("/flows", content=content, headers=headers), 413)["detail"]


def test_a_body_in_chunks_is_taken(client: httpx.Client, hour: int) -> None:
    raw = array(flow(hour), flow(hour))
    chunks = (raw[place : place + 7] for place in range(0, len(raw), 7))
    accepted(client.post("/flows", content=chunks, headers=JSON), 2)
    assert rows(client, hour) == [flow(hour, tx=2, rx=4)]


def test_nothing_of_a_refused_body_is_kept(client: httpx.Client, hour: int) -> None:
    other = new_hour()
    good = array(flow(hour), flow(other))[1:-1]
    for bad in (with_literal(flow(hour), "bytes_tx", "1.0"), b"null", b"{", with_literal(flow(other), "src_app", '""')):
        assert_problem(client.post("/flows", content=b"[" + good + b"," + bad + b"]", headers=JSON), 400)
        assert_problem(client.post("/flows", content=good.replace(b"}, {", b"}\n{") + b"\n" + bad, headers=NDJSON), 400)
    assert (rows(client, hour), rows(client, other)) == ([], [])
