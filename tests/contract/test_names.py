"""Names: any text of 1 to 256 characters but control characters, and it comes back as it was sent."""

import httpx
import pytest

from tests.contract.flows import JSON, NDJSON, array, assert_problem, flow, lines, new_hour, post, rows, with_literal

NAMES = ["src_app", "dest_app", "vpc_id"]

GOOD = {
    "one character": "x",
    "256 characters": "x" * 256,
    "256 emoji": "\U0001f600" * 256,
    "256 combining characters": "e" + "\u0301" * 255,
    "a comma": "a,b",
    "a double quote": 'q"q',
    "only double quotes": '""',
    "a single quote": "o'clock",
    "a backslash": "a\\b",
    "a backslash at the end": "a\\",
    "what looks like an escape": "\\u0041\\n",
    "a colon": "a:b",
    "a slash": "/",
    "dots": "../..",
    "braces": "{}",
    "brackets": "[1]",
    "a hash tag of Redis": "{view:1}",
    "null as text": "null",
    "a number as text": "007",
    "a sum as text": "1e3",
    "one space": " ",
    "spaces around": " a ",
    "a no-break space": "\xa0",
    "percent signs": "100%25%00%s",
    "a plus and an ampersand": "a+b&c=d",
    "HTML": "<b>&amp;</b>",
    "a template": "${x} {{y}}",
    "a wildcard": "*?[a-z]",
    "SQL": "'; DROP TABLE flows; --",
    "Latin": "déjà vu",
    "a decomposed accent": "e\u0301",
    "Cyrillic": "поток",
    "Arabic": "مرحبا",
    "Hebrew and a right-to-left mark": "א\u200fב",
    "a right-to-left override": "\u202ex",
    "Chinese": "流量",
    "an emoji": "\U0001f680",
    "a family by zero-width joiners": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "a flag": "\U0001f1e8\U0001f1ed",
    "a skin tone and a variation selector": "\U0001f44d\U0001f3fd\u2764\ufe0f",
    "a byte order mark": "a\ufeffb",
    "a line separator": "a\u2028b",
    "a paragraph separator": "a\u2029b",
    "a soft hyphen": "a\xadb",
    "a zero-width space": "\u200b",
    "a private character": "\ue000",
    "a noncharacter": "\uffff",
    "the last code point": "\U0010ffff",
    "the replacement character": "\ufffd",
}

BAD = {
    "empty": "",
    "257 characters": "x" * 257,
    "257 emoji": "\U0001f600" * 257,
    "a tab": "a\tb",
    "a line feed": "a\n",
    "a carriage return": "\ra",
    "NUL": "\0",
    "escape": "\x1b[0m",
    "the last of C0": "\x1f",
    "DEL": "\x7f",
    "the first of C1": "\x80",
    "the next line of C1": "\x85",
    "the last of C1": "\x9f",
    "a number": 5,
    "null": None,
    "a boolean": True,
    "a list": ["a"],
    "an object": {},
}

BAD_SPELLINGS = {
    "a lone high surrogate": rb'"\ud800"',
    "a lone low surrogate": rb'"\udc00"',
    "a reversed pair": rb'"\udc00\ud800"',
    "a high surrogate before a letter": rb'"\ud83dx"',
    "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "an overlong slash": b'"\xc0\xaf"',
    "a byte of Latin-1": b'"\xe9"',
    "a character cut short": b'"\xf0\x9f\x98"',
    "past the last code point": b'"\xf4\x90\x80\x80"',
    "a continuation byte alone": b'"\x80"',
    "an unknown escape": rb'"\x41"',
    "an escape cut short": rb'"\u12"',
    "a raw tab": b'"\t"',
    "a raw line feed": b'"a\nb"',
    "a raw NUL": b'"\0"',
    "an escaped NUL": rb'"\u0000"',
    "single quotes": b"'a'",
    "no quotes": b"a",
}


@pytest.mark.parametrize("name", GOOD.values(), ids=GOOD.keys())
def test_a_name_comes_back_exactly(client: httpx.Client, hour: int, name: str) -> None:
    flows = [flow(hour) | {field: name} for field in NAMES]
    for escaped in (True, False):
        reply = client.post("/flows", content=array(*flows, escaped=escaped), headers=JSON)
        assert reply.status_code == 200, reply.text
    expected = [one | {"bytes_tx": 2, "bytes_rx": 4} for one in flows]
    assert rows(client, hour) == sorted(expected, key=lambda row: [str(row[field]) for field in NAMES])


@pytest.mark.parametrize("escaped", [True, False], ids=["in escapes", "as they are"])
def test_names_come_back_exactly_from_ndjson(client: httpx.Client, hour: int, escaped: bool) -> None:
    flows = [flow(hour, src=name) for name in GOOD.values()]
    reply = client.post("/flows", content=lines(*flows, escaped=escaped), headers=NDJSON)
    assert (reply.status_code, reply.json().get("accepted")) == (200, len(flows)), reply.text
    assert rows(client, hour) == sorted(flows, key=lambda row: str(row["src_app"]))


def test_an_escaped_pair_is_one_character(client: httpx.Client, hour: int) -> None:
    raw = b"[" + with_literal(flow(hour), "src_app", b'"' + rb"\ud83d\ude00" * 256 + b'"') + b"]"
    assert client.post("/flows", content=raw, headers=JSON).status_code == 200
    assert rows(client, hour) == [flow(hour, src="\U0001f600" * 256)]


@pytest.mark.parametrize("field", NAMES)
@pytest.mark.parametrize("name", BAD.values(), ids=BAD.keys())
def test_a_bad_name_is_refused(client: httpx.Client, field: str, name: object) -> None:
    reply = client.post("/flows", json=[flow(new_hour()), flow(new_hour()) | {field: name}])
    problem = assert_problem(reply, 400)
    assert (problem["index"], problem["field"]) == (1, field)


@pytest.mark.parametrize("spelling", BAD_SPELLINGS.values(), ids=BAD_SPELLINGS.keys())
def test_text_that_is_not_json_or_not_utf8_is_refused(client: httpx.Client, hour: int, spelling: bytes) -> None:
    raw = with_literal(flow(hour), "dest_app", spelling)
    assert_problem(client.post("/flows", content=b"[" + raw + b"]", headers=JSON), 400)
    assert_problem(client.post("/flows", content=raw + b"\n", headers=NDJSON), 400)
    assert rows(client, hour) == []


def test_all_good_names_share_an_hour(client: httpx.Client, hour: int) -> None:
    flows = [flow(hour, name, other) for name, other in zip(GOOD.values(), reversed(GOOD.values()), strict=True)]
    post(client, *flows)
    assert rows(client, hour) == sorted(flows, key=lambda row: (row["src_app"], row["dest_app"]))
