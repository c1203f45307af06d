"""Dead letters and what was done about them, as records of Kafka and as values.

A letter is known by its place: the topic id, partition and offset of the record that it is a copy of.
Copies of one letter (several views, a crash) are one letter. What was done about a letter is told by markers in
the journal, a compacted topic `<topic>.replayed`:

    key    ["replayed","<topic id>",<partition>,<offset>]     a flow was appended for it, in the same transaction
           ["dismissed","<topic id>",<partition>,<offset>]     the letter is done without; no value: no longer so
    value  {"by":"...","note":"...","mark":["<key>","<digest>",<index>]}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

import msgspec
from flowagg.flow import ByteCounts
from flowagg.idempotency import Mark

from flowagg_cli.errors import DamagedFile, WrongUsage

EXPIRED_HOUR: Final = "ExpiredHour"
KEY_REUSED: Final = "IdempotencyKeyReused"
REASONS: Final = ("InvalidKey", "InvalidValue", "InvalidIdempotencyMark", KEY_REUSED, EXPIRED_HOUR)
"""Why a record became a letter, as the consumers write it."""

OF_A_VIEW: Final[Mapping[str, str]] = {
    EXPIRED_HOUR: "views that keep their hours for longer have counted the record, and would count it twice",
    KEY_REUSED: "a view that began later, or has another dedupe window, may have counted the record, and the client "
    "may have sent the flows again with a key of their own",
}
"""Reasons that are no function of the record alone, and why a replay may therefore count it twice."""

_decode_counts = msgspec.json.Decoder(ByteCounts).decode


class InvalidPlace(WrongUsage):
    """A text is not the place of a letter."""


class DamagedJournal(DamagedFile):
    """The journal holds a record that this command did not write."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where the record of a letter stands in the log."""

    topic_id: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic_id}:{self.partition}:{self.offset}"


def parse_place(text: str, topic_id: str | None = None) -> Place:
    """The place in `TOPIC_ID:PARTITION:OFFSET`, or in `PARTITION:OFFSET` of topic_id. Raises InvalidPlace."""
    *named, partition, offset = text.rsplit(":", 2) if text.count(":") else ("", "")
    identity = named[0] if named else topic_id
    if not identity or not (partition.isascii() and partition.isdecimal() and offset.isascii() and offset.isdecimal()):
        raise InvalidPlace(f"{text!r} is no place: write TOPIC_ID:PARTITION:OFFSET as `flowagg dead-letters list` does")
    return Place(identity, int(partition), int(offset))


@dataclass(frozen=True, slots=True)
class Letter:
    """A record that counted nothing.

    topic: its topic's name. reasons: of all copies, without repeats, the first copy's first. detail: of the first
    copy. written_ms: when the first copy was written, in milliseconds since 1970. copies: how many there are.
    """

    place: Place
    topic: str
    reasons: tuple[str, ...]
    detail: str
    key: bytes | None
    value: bytes | None
    written_ms: int
    copies: int = 1

    @property
    def mark(self) -> Mark | None:
        """The mark of a record whose Idempotency-Key was reused: a repeat of the record has the same."""
        if KEY_REUSED not in self.reasons:
            return None
        try:
            return _decode_counts(self.value or b"").mark
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def with_copy(self, other: "Letter") -> "Letter":
        """This letter and a further copy of it."""
        reasons = tuple(dict.fromkeys((*self.reasons, *other.reasons)))
        return replace(self, reasons=reasons, copies=self.copies + other.copies)


def decode_letter(
    headers: Mapping[str, bytes | str | None], key: bytes | None, value: bytes | None, written_ms: int
) -> Letter | None:
    """The letter in a record of the dead-letter topic; None where it is none of the consumers'."""
    found = {name: text for name, text in headers.items() if isinstance(text, bytes)}
    try:
        place = Place(
            found["flowagg-topic-id"].decode("ascii"), int(found["flowagg-partition"]), int(found["flowagg-offset"])
        )
        topic, reason = found["flowagg-topic"].decode("ascii"), found["flowagg-reason"].decode("ascii")
    except (KeyError, ValueError):
        return None
    detail = found.get("flowagg-detail", b"").decode("utf-8", "replace")
    return Letter(place, topic, (reason,), detail, key, value, written_ms)


class Kind(StrEnum):
    """What was done about a letter."""

    REPLAYED = "replayed"
    DISMISSED = "dismissed"


class Marker(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of a marker. by: who. note: why. mark: of a replayed letter whose Idempotency-Key was reused."""

    by: str
    note: str = ""
    mark: Mark | None = None


_encode = msgspec.json.Encoder().encode
_decode_marker = msgspec.json.Decoder(Marker).decode
_decode_marker_key = msgspec.json.Decoder(tuple[Kind, str, int, int]).decode


def marker_key(kind: Kind, place: Place) -> bytes:
    """The key of a marker."""
    return _encode((kind, place.topic_id, place.partition, place.offset))


def encode_marker(marker: Marker) -> bytes:
    """The value of a marker."""
    return _encode(marker)


@dataclass(slots=True)
class Journal:
    """What was done about letters, as the markers say.

    replayed, dismissed: by place. marks: (topic id, partition, mark) of replayed letters whose Idempotency-Key was
    reused, with their places.
    """

    replayed: dict[Place, Marker] = field(default_factory=dict)
    dismissed: dict[Place, Marker] = field(default_factory=dict)
    marks: dict[tuple[str, int, Mark], Place] = field(default_factory=dict)

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """Take the next record of the journal. Raises DamagedJournal."""
        try:
            kind, topic_id, partition, offset = _decode_marker_key(key or b"")
            marker = None if value is None else _decode_marker(value)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DamagedJournal(
                f"the journal of replayed letters holds what is no marker (key {(key or b'')[:80]!r}: {error}): "
                "nothing is replayed until it is known who writes there"
            ) from None
        place = Place(topic_id, partition, offset)
        if kind is Kind.DISMISSED:
            if marker is None:
                self.dismissed.pop(place, None)
            else:
                self.dismissed[place] = marker
        elif marker is not None:  # a replay is never undone
            self.replayed[place] = marker
            if marker.mark is not None:
                self.marks.setdefault((topic_id, partition, marker.mark), place)

    def repeats(self, letter: Letter) -> Place | None:
        """The replayed letter that this one is a repeat of, by its mark; None where there is none."""
        mark = letter.mark
        if mark is None:
            return None
        place = self.marks.get((letter.place.topic_id, letter.place.partition, mark))
        return None if place == letter.place else place

    def state(self, letter: Letter) -> str:
        """open, replayed, or dismissed. A repeat of a replayed letter counts as replayed."""
        if letter.place in self.replayed or self.repeats(letter) is not None:
            return Kind.REPLAYED.value
        return Kind.DISMISSED.value if letter.place in self.dismissed else "open"
