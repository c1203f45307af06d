"""Letters, places and markers: what is read from records, and what counts as one letter."""

import msgspec
import pytest
from flowagg.flow import encode_value
from flowagg.idempotency import Mark
from flowagg_cli.dead_letter_records import (
    KEY_REUSED,
    REASONS,
    DamagedJournal,
    InvalidPlace,
    Journal,
    Kind,
    Letter,
    Marker,
    Place,
    decode_letter,
    encode_marker,
    marker_key,
    parse_place,
)
from flowagg_consumer.partition import DeadLetterReason

PLACE = Place("wZTQoHIrQgmDkzrTjDVSZQ", 3, 17)
MARK = Mark("key-1", "0" * 32, 4)
MARKER = encode_marker(Marker("ann@desk", "why"))


def letter(place: Place = PLACE, reason: str = "InvalidValue", value: bytes | None = b"{}") -> Letter:
    return Letter(place, "flows", (reason,), "detail", b"key", value, 1000)


def headers(**changed: bytes | None) -> dict[str, bytes | str | None]:
    found: dict[str, bytes | str | None] = {
        "flowagg-topic": b"flows",
        "flowagg-topic-id": PLACE.topic_id.encode(),
        "flowagg-partition": b"3",
        "flowagg-offset": b"17",
        "flowagg-reason": b"InvalidKey",
        "flowagg-detail": b"why",
    }
    return found | {f"flowagg-{name.replace('_', '-')}": value for name, value in changed.items()}


def test_the_reasons_are_the_consumers() -> None:
    assert set(REASONS) == {reason.value for reason in DeadLetterReason}


def test_a_letter_is_read_from_its_headers() -> None:
    assert decode_letter(headers(), b"k", None, 5) == Letter(PLACE, "flows", ("InvalidKey",), "why", b"k", None, 5)


@pytest.mark.parametrize(
    "changed", [{"topic": None}, {"topic_id": None}, {"partition": b"x"}, {"offset": None}, {"reason": b"\xff"}]
)
def test_a_record_without_a_letters_headers_is_none(changed: dict[str, bytes | None]) -> None:
    assert decode_letter(headers(**changed), b"k", b"v", 5) is None


def test_copies_are_one_letter_that_keeps_every_reason() -> None:
    first, second = letter(reason=KEY_REUSED), letter(reason="ExpiredHour")
    both = first.with_copy(second).with_copy(first)
    assert (both.reasons, both.copies, both.detail) == ((KEY_REUSED, "ExpiredHour"), 3, "detail")


@pytest.mark.parametrize("text", ["", "1", "1:", ":1", "a:b:c", "id:1:-2", "1:2", ":1:2", "id:١:2"])
def test_a_text_that_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InvalidPlace, match="is no place"):
        parse_place(text)


def test_a_place_is_read_as_it_is_printed_and_without_the_topic_of_today() -> None:
    assert parse_place(str(PLACE)) == PLACE
    assert parse_place("3:17", PLACE.topic_id) == PLACE


def test_a_letter_is_open_until_a_marker_says_otherwise() -> None:
    journal = Journal()
    assert journal.state(letter()) == "open"
    journal.take(marker_key(Kind.DISMISSED, PLACE), MARKER)
    assert journal.state(letter()) == "dismissed"
    journal.take(marker_key(Kind.DISMISSED, PLACE), None)
    assert journal.state(letter()) == "open"
    journal.take(marker_key(Kind.REPLAYED, PLACE), MARKER)
    assert journal.state(letter()) == "replayed"


@pytest.mark.parametrize("value", [MARKER, None])
def test_no_later_marker_hides_a_replay(value: bytes | None) -> None:
    journal = Journal()
    journal.take(marker_key(Kind.REPLAYED, PLACE), MARKER)
    for kind in Kind:
        journal.take(marker_key(kind, PLACE), value)
    assert journal.state(letter()) == "replayed"


def test_kinds_of_markers_have_keys_of_their_own_so_that_compaction_keeps_both() -> None:
    assert marker_key(Kind.REPLAYED, PLACE) != marker_key(Kind.DISMISSED, PLACE)


def test_a_repeat_of_a_replayed_keyed_record_counts_as_replayed() -> None:
    journal = Journal()
    journal.take(marker_key(Kind.REPLAYED, PLACE), encode_marker(Marker("ann", mark=MARK)))
    repeat = letter(Place(PLACE.topic_id, 3, 99), KEY_REUSED, encode_value(1, 2, MARK))
    assert (journal.repeats(repeat), journal.state(repeat)) == (PLACE, "replayed")
    for place, value in [
        (Place(PLACE.topic_id, 4, 99), encode_value(1, 2, MARK)),  # another partition
        (Place("another", 3, 99), encode_value(1, 2, MARK)),  # another topic
        (repeat.place, encode_value(1, 2, msgspec.structs.replace(MARK, index=5))),  # another record of the POST
        (repeat.place, b"no value"),
    ]:
        assert journal.state(letter(place, KEY_REUSED, value)) == "open"
    assert journal.state(letter(repeat.place, "InvalidKey", encode_value(1, 2, MARK))) == "open"


@pytest.mark.parametrize(
    ("key", "value"),
    [(None, MARKER), (b"x", MARKER), (b'["other","a",1,2]', MARKER), (marker_key(Kind.REPLAYED, PLACE), b"{}")],
)
def test_a_journal_that_somebody_else_writes_to_is_not_trusted(key: bytes | None, value: bytes) -> None:
    with pytest.raises(DamagedJournal, match="nothing is replayed"):
        Journal().take(key, value)
