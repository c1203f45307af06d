"""The file of letters: what is proposed, which lines are refused, and what a replay would send."""

import base64
from typing import Any

import msgspec
import pytest
from flowagg.flow import Flow, encode_key, encode_value
from flowagg.idempotency import Mark
from flowagg_cli.dead_letter_files import (
    InvalidChange,
    InvalidFile,
    Mended,
    Replay,
    decode_file,
    encode_line,
    parse_changes,
    plan,
    propose,
)
from flowagg_cli.dead_letter_records import Journal, Kind, Letter, Marker, Place, encode_marker, marker_key
from hypothesis import given
from hypothesis import strategies as st

TOPIC_ID = "wZTQoHIrQgmDkzrTjDVSZQ"
FLOW = Flow("foo", "bar", "vpc-0", 1, 100, 300)
KEY = encode_key("foo", "bar", "vpc-0", 1)
VALUE = encode_value(100, 300)
WHOLE = msgspec.to_builtins(FLOW)
NOTHING = dict.fromkeys(WHOLE)
MARK = Mark("key-1", "0" * 32, 4)


def letter(
    offset: int = 7, reason: str = "InvalidValue", key: bytes | None = KEY, value: bytes | None = VALUE
) -> Letter:
    return Letter(Place(TOPIC_ID, 3, offset), "flows", (reason,), "detail", key, value, 1000)


def line(offset: int = 7, flow: Any = WHOLE) -> bytes:
    return msgspec.json.encode({"place": f"{TOPIC_ID}:3:{offset}", "flow": flow})


def of(*letters: Letter) -> dict[Place, Letter]:
    return {each.place: each for each in letters}


@pytest.mark.parametrize(
    ("key", "value", "proposed"),
    [
        (KEY, VALUE, WHOLE),
        (KEY, None, NOTHING | {"src_app": "foo", "dest_app": "bar", "vpc_id": "vpc-0", "hour": 1}),
        (b"no key", VALUE, NOTHING | {"bytes_tx": 100, "bytes_rx": 300}),
        (b"\xff", b"\xff", NOTHING),
        (None, msgspec.json.encode(WHOLE), WHOLE),  # a producer that has all in the value
        (b'{"src_app":"foo","bytes_tx":9}', b"[]", NOTHING | {"src_app": "foo"}),
        (b'["foo","bar","vpc-0","1"]', VALUE, WHOLE | {"hour": "1"}),  # as it is: a person sees it
        (KEY, b'{"bytes_tx":-1,"bytes_rx":1.5}', WHOLE | {"bytes_tx": -1, "bytes_rx": 1.5}),
        (b"[" * 100_000, VALUE, NOTHING | {"bytes_tx": 100, "bytes_rx": 300}),
        (KEY, encode_value(100, 300, MARK), WHOLE),  # a mark is never replayed
    ],
)
def test_what_a_record_says_is_proposed_field_by_field(
    key: bytes | None, value: bytes | None, proposed: dict[str, object]
) -> None:
    assert propose(key, value) == proposed


@given(st.none() | st.binary(max_size=60), st.none() | st.binary(max_size=60))
def test_any_record_makes_one_line_that_is_json(key: bytes | None, value: bytes | None) -> None:
    encoded = encode_line(letter(key=key, value=value), {})
    assert b"\n" not in encoded
    decoded = msgspec.json.decode(encoded)
    for name, raw in (("key", key), ("value", value)):
        text = decoded.get(name)
        if f"{name}_base64" in decoded:
            assert base64.b64decode(decoded[f"{name}_base64"]) == raw
        else:
            assert (None if text is None else text.encode()) == raw


def test_a_line_that_is_whole_can_be_replayed_as_it_was_written() -> None:
    encoded = encode_line(letter(key=b"lost"), parse_changes(["src_app=foo", "dest_app=bar", "vpc_id=vpc-0", "hour=1"]))
    assert decode_file(encoded + b"\n\n") == [Mended(1, letter().place, FLOW)]


@pytest.mark.parametrize("change", ["hour", "hour=x", "hour=-1", "bytes_tx=1.0", "more=1", "=1"])
def test_a_change_that_is_no_field_is_refused(change: str) -> None:
    with pytest.raises(InvalidChange):
        parse_changes([change])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (line(flow=WHOLE | {"hour": None}), "line 1: hour: expected int, got null"),
        (line(flow=WHOLE | {"bytes_tx": -1}), "line 1: bytes_tx: expected int >= 0"),
        (line(flow=WHOLE | {"bytes_rx": 1.0}), "line 1: bytes_rx: expected int, got float"),
        (line(flow=WHOLE | {"hour": 2**53}), "line 1: hour: expected int <= 9007199254740991"),
        (line(flow=WHOLE | {"src_app": ""}), "line 1: src_app: expected str of length >= 1"),
        (line(flow=WHOLE | {"vpc_id": "a\u0000"}), "line 1: vpc_id: must not hold control characters"),
        (line(flow={"src_app": "foo"}), "line 1: dest_app: is missing"),
        (line(flow=None), "line 1: expected object, got null"),
        (line() + b"\n" + line(), "line 2: the place of line 1 again"),
        (b"\n\n{", "line 3: not a line of this file"),
        (b'{"place":"nowhere","flow":{}}', "line 1: 'nowhere' is no place"),
        (line().replace(b"foo", b"\xff"), "line 1: "),
    ],
)
def test_a_line_that_breaks_a_rule_is_named_with_the_rule(content: bytes, problem: str) -> None:
    with pytest.raises(InvalidFile) as raised:
        decode_file(content)
    assert str(raised.value).startswith("nothing was sent")
    assert problem in str(raised.value)


def test_one_bad_line_refuses_the_file_and_all_bad_lines_are_told() -> None:
    with pytest.raises(InvalidFile) as raised:
        decode_file(b"\n".join([line(1), line(2, WHOLE | {"hour": -1}), line(3), line(4, {})]))
    assert [text in str(raised.value) for text in ("line 1", "line 2", "line 3", "line 4")] == [
        False,
        True,
        False,
        True,
    ]


def test_a_file_of_problems_is_told_in_part() -> None:
    with pytest.raises(InvalidFile, match="and 80 more"):
        decode_file(b"\n".join([b"{"] * 100))


def test_an_open_letter_is_sent() -> None:
    planned = plan(decode_file(line()), of(letter()), Journal(), TOPIC_ID)
    assert (planned.send, planned.left) == ([Replay(letter().place, FLOW, None)], [])


def test_what_was_replayed_or_dismissed_is_left_out_and_said() -> None:
    journal = Journal()
    journal.take(marker_key(Kind.REPLAYED, letter(1).place), encode_marker(Marker("ann")))
    journal.take(marker_key(Kind.DISMISSED, letter(2).place), encode_marker(Marker("bob", "a test's")))
    planned = plan(decode_file(b"\n".join(map(line, (1, 2, 3)))), of(letter(2), letter(3)), journal, TOPIC_ID)
    assert [item.place.offset for item in planned.send] == [3]
    assert "was replayed before, by ann" in planned.left[0]  # also where its letter is gone by now
    assert "dismissed by bob: a test's" in planned.left[1]


@pytest.mark.parametrize("reason", ["ExpiredHour", "IdempotencyKeyReused"])
def test_what_another_view_may_have_counted_is_refused_unless_it_is_accepted(reason: str) -> None:
    both = letter().with_copy(letter(reason=reason))  # one view's copy is enough
    with pytest.raises(InvalidFile, match=f"line 1: {reason}: .*--accept {reason}"):
        plan(decode_file(line()), of(both), Journal(), TOPIC_ID)
    assert len(plan(decode_file(line()), of(both), Journal(), TOPIC_ID, {reason}).send) == 1


def test_a_place_that_no_letter_has_is_refused() -> None:
    with pytest.raises(InvalidFile, match="line 1: the dead-letter topic holds no letter"):
        plan(decode_file(line()), {}, Journal(), TOPIC_ID)


def test_a_letter_of_a_former_topic_is_refused_unless_asked_for() -> None:
    with pytest.raises(InvalidFile, match="--former-topics"):
        plan(decode_file(line()), of(letter()), Journal(), "another")
    assert len(plan(decode_file(line()), of(letter()), Journal(), "another", former_topics=True).send) == 1


def test_repeats_of_one_keyed_post_are_replayed_once() -> None:
    first, second = (letter(n, "IdempotencyKeyReused", value=encode_value(100, 300, MARK)) for n in (1, 2))
    accepted = {"IdempotencyKeyReused"}
    planned = plan(decode_file(line(1) + b"\n" + line(2)), of(first, second), Journal(), TOPIC_ID, accepted)
    assert planned.send == [Replay(first.place, FLOW, MARK)]
    assert "a repeat of the same POST's record" in planned.left[0]
    journal = Journal()
    journal.take(marker_key(Kind.REPLAYED, first.place), encode_marker(Marker("ann", mark=MARK)))
    later = plan(decode_file(line(2)), of(first, second), journal, TOPIC_ID, accepted)
    assert (later.send, len(later.left)) == ([], 1)
