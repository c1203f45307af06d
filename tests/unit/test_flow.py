"""The rules of a flow, as tables."""

import json

import pytest
from flowagg.flow import InvalidFlow, decode_flows, decode_key, encode_key, encode_value
from hypothesis import given
from hypothesis import strategies as st

GOOD = {"src_app": "foo", "dest_app": "bar", "vpc_id": "vpc-0", "hour": 1, "bytes_tx": 100, "bytes_rx": 300}
MAX = 2**53 - 1
NOT_NATURAL: list[object] = [-1, MAX + 1, 2**70, "1", True, None, 1.5, [], {}]


def body(*changes: dict[str, object]) -> bytes:
    return json.dumps([GOOD | change for change in changes], ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"src_app": "a" * 256},
        {"src_app": "\U0001f600" * 256},
        {"dest_app": 'commas, "quotes", colons: and \\backslashes\\'},
        {"vpc_id": "\u0645\u0631\u062d\u0628\u0627"},
        {"vpc_id": "\u00a0£°é"},
        {"hour": 0, "bytes_tx": 0, "bytes_rx": 0},
        {"hour": MAX, "bytes_tx": MAX, "bytes_rx": MAX},
        {"extra": {"deep": [1, 2, {"x": None}]}},
    ],
)
def test_a_valid_flow_is_accepted_unchanged(change: dict[str, object]) -> None:
    (flow,) = decode_flows(body(change))
    expected = GOOD | change
    assert {name: getattr(flow, name) for name in GOOD} == {name: expected[name] for name in GOOD}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, value) for name in ("src_app", "dest_app", "vpc_id") for value in ("", "a" * 257, 1, None, ["x"])),
        *((name, f"x{chr(code)}") for name in ("src_app", "vpc_id") for code in (0, 9, 10, 13, 31, 127, 128, 159)),
        *((name, value) for name in ("hour", "bytes_tx", "bytes_rx") for value in NOT_NATURAL),
    ],
)
def test_a_broken_rule_is_refused_with_the_index_and_the_field(field: str, value: object) -> None:
    with pytest.raises(InvalidFlow) as caught:
        decode_flows(body({}, {}, {field: value}))
    assert (caught.value.index, caught.value.field) == (2, field)
    assert caught.value.rule


@pytest.mark.parametrize("number", ["1.0", "1e3", "NaN", "Infinity", "01", "+1", "0x1", "-0.0"])
def test_numbers_must_be_plain_integers(number: str) -> None:
    raw = body({"bytes_tx": 77}).replace(b"77", number.encode())
    with pytest.raises(InvalidFlow):
        decode_flows(raw)


@pytest.mark.parametrize("field", list(GOOD))
def test_a_missing_field_is_named(field: str) -> None:
    flow = {name: value for name, value in GOOD.items() if name != field}
    with pytest.raises(InvalidFlow) as caught:
        decode_flows(json.dumps([GOOD, flow]).encode())
    assert (caught.value.index, caught.value.field, caught.value.rule) == (1, field, "is missing")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"{}",
        b"3",
        b'"x"',
        b"[",
        b"[]x",
        b"[,]",
        b"\xef\xbb\xbf[]",
        b"\xff",
        b'[{"src_app":"\\ud800"}]',
        b"[" * 100_000,
        b'[{"x":' + b"[" * 100_000,
        body({}) + body({}),
        body({}).replace(b"foo", b"\xed\xa0\x80"),
    ],
)
def test_a_body_that_is_no_json_array_of_flows_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidFlow):
        decode_flows(raw)


def test_an_empty_array_has_no_flows() -> None:
    assert decode_flows(b" [ ] ") == []


def test_the_key_in_the_log_is_compact_json() -> None:
    assert encode_key("foo", "bar", "vpc-0", 1) == b'["foo","bar","vpc-0",1]'
    assert encode_value(100, 300) == b'{"bytes_tx":100,"bytes_rx":300}'


names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=256)
keys = st.tuples(names, names, names, st.integers(0, MAX))


@given(keys)
def test_every_spelling_of_a_key_has_one_canonical_form(key: tuple[str, str, str, int]) -> None:
    canonical = encode_key(*key)
    for spelling in (canonical, json.dumps(key).encode(), json.dumps(key, indent=1, ensure_ascii=False).encode()):
        assert encode_key(*decode_key(spelling)) == canonical


@given(keys, keys)
def test_no_two_flow_keys_share_a_key(one: tuple[str, str, str, int], other: tuple[str, str, str, int]) -> None:
    assert (encode_key(*one) == encode_key(*other)) == (one == other)


@pytest.mark.parametrize(
    "raw", [None, b"", b"foo", b"[]", b'["a","b","c"]', b'["a","b","c",1,2]', b'["a","","c",1]', b'["a","b","c",-1]']
)
def test_a_key_that_is_no_flow_key_is_refused(raw: bytes | None) -> None:
    with pytest.raises(InvalidFlow):
        decode_key(raw)


def test_a_key_with_a_control_character_is_refused() -> None:
    with pytest.raises(InvalidFlow, match="control"):
        decode_key(b'["a","b\\u0007","c",1]')
