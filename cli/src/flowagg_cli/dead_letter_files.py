"""The file of letters that a person mends: what is proposed, and what may be replayed of it. No I/O.

One JSON object a line. `place` and `flow` are read back; the rest is there for the person:

    {"place":"<topic id>:<partition>:<offset>","reason":"InvalidValue","detail":"...",
     "flow":{"src_app":"foo","dest_app":"bar","vpc_id":"vpc-0","hour":1,"bytes_tx":100,"bytes_rx":null},
     "key":"[\\"foo\\",...]","value":"{...}"}
"""

import base64
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from flowagg.flow import Flow, InvalidFlow, decode_flows
from flowagg.idempotency import Mark

from flowagg_cli.dead_letter_records import OF_A_VIEW, InvalidPlace, Journal, Letter, Place, parse_place
from flowagg_cli.errors import Refused, WrongUsage

NAMES: Final = ("src_app", "dest_app", "vpc_id")
NUMBERS: Final = ("hour", "bytes_tx", "bytes_rx")
FIELDS: Final = (*NAMES, *NUMBERS)
_IN_KEY: Final = (*NAMES, "hour")
_PROBLEMS_SHOWN: Final = 20
_UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class InvalidFile(Refused):
    """A file of letters cannot be replayed as it is: nothing was sent. Each problem names its line."""

    def __init__(self, problems: list[str]) -> None:
        more = len(problems) - _PROBLEMS_SHOWN
        shown = problems[:_PROBLEMS_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        super().__init__("nothing was sent, for:\n  " + "\n  ".join(shown))


class InvalidChange(WrongUsage):
    """A change given as field=value is none of a flow's."""


def parse_changes(texts: Iterable[str]) -> dict[str, object]:
    """The fields and values in `field=value` texts. Raises InvalidChange."""
    changes: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in FIELDS:
            raise InvalidChange(f"{text!r}: write FIELD=VALUE with one of {', '.join(FIELDS)}")
        if name in NUMBERS and not (value.isascii() and value.isdecimal()):
            raise InvalidChange(f"{text!r}: {name} is a number, 0 or larger")
        changes[name] = int(value) if name in NUMBERS else value
    return changes


def propose(key: bytes | None, value: bytes | None) -> dict[str, object]:
    """The flow that a record seems to mean, field by field; None where it cannot be understood.

    What the record says is taken as it is, also where it breaks a rule: a person sees what is to be mended. A value
    that holds all of a flow is understood, too, where the key is none.
    """
    key_says, value_says = _json(key), _json(value)
    found: dict[str, object] = dict.fromkeys(FIELDS)
    if isinstance(value_says, dict):
        found |= {name: value_says[name] for name in FIELDS if name in value_says}
    if isinstance(key_says, list) and len(key_says) == len(_IN_KEY):
        found |= dict(zip(_IN_KEY, key_says, strict=True))
    elif isinstance(key_says, dict):
        found |= {name: key_says[name] for name in _IN_KEY if name in key_says}
    return found


def _json(text: bytes | None) -> Any:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except _UNDECODABLE:
        return None


def readable(name: str, raw: bytes | None) -> dict[str, object]:
    """Bytes as a member of a JSON object: name, or name_base64 where they are no text."""
    if raw is None:
        return {name: None}
    try:
        return {name: raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(raw).decode("ascii")}


def encode_line(letter: Letter, changes: Mapping[str, object]) -> bytes:
    """The line of a letter, without line end. changes: fields of the proposed flow, over what the record says."""
    return msgspec.json.encode(
        {
            "place": str(letter.place),
            "reason": letter.reasons[0],
            "detail": letter.detail,
            "flow": propose(letter.key, letter.value) | dict(changes),
            **readable("key", letter.key),
            **readable("value", letter.value),
        }
    )


class _Line(msgspec.Struct):
    place: str
    flow: msgspec.Raw


_decode_line = msgspec.json.Decoder(_Line).decode


@dataclass(frozen=True, slots=True)
class Mended:
    """A line: its number from 1, the letter's place, and the valid flow."""

    number: int
    place: Place
    flow: Flow


def decode_file(content: bytes) -> list[Mended]:
    """The lines of a file, by the writer's rules, all or nothing; blank lines are skipped. Raises InvalidFile."""
    mended: list[Mended] = []
    problems: list[str] = []
    seen: dict[Place, int] = {}
    for number, raw in enumerate(content.split(b"\n"), 1):
        text = raw.strip()
        if not text:
            continue
        try:
            line = _decode_line(text)
            place = parse_place(line.place)
            (flow,) = decode_flows(b"[" + bytes(line.flow) + b"]")
        except InvalidFlow as error:
            problems.append(f"line {number}: {InvalidFlow(error.rule, None, error.field)}")
        except InvalidPlace as error:
            problems.append(f"line {number}: {error}")
        except _UNDECODABLE as error:
            problems.append(f"line {number}: not a line of this file: {error}")
        else:
            first = seen.setdefault(place, number)
            if first != number:
                problems.append(f"line {number}: the place of line {first} again: a letter is replayed once")
            mended.append(Mended(number, place, flow))
    if problems:
        raise InvalidFile(problems)
    return mended


@dataclass(frozen=True, slots=True)
class Replay:
    """A flow to be appended for a letter. mark: to be remembered with it."""

    place: Place
    flow: Flow
    mark: Mark | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay does. left: lines left out, as sentences."""

    send: list[Replay]
    left: list[str]


def plan(
    mended: Iterable[Mended],
    letters: Mapping[Place, Letter],
    journal: Journal,
    topic_id: str,
    accepted: Collection[str] = (),
    former_topics: bool = False,
) -> Plan:
    """What to append for a file's lines. letters: those of the topic's that the dead-letter topic holds.

    accepted: reasons of OF_A_VIEW that are replayed all the same. former_topics: whether letters of a topic that
    had the name before are replayed into this one. Raises InvalidFile: then nothing may be sent.
    """
    send: list[Replay] = []
    left: list[str] = []
    problems: list[str] = []
    marks: dict[tuple[str, int, Mark], Place] = {}
    for line in mended:
        letter = letters.get(line.place)
        if line.place in journal.replayed:
            left.append(f"line {line.number}: {line.place} was replayed before, by {journal.replayed[line.place].by}")
            continue
        if letter is None:
            problems.append(
                f"line {line.number}: the dead-letter topic holds no letter {line.place}: its retention has taken it, "
                "or the place was edited"
            )
            continue
        if line.place in journal.dismissed:
            marker = journal.dismissed[line.place]
            left.append(f"line {line.number}: {line.place} was dismissed by {marker.by}: {marker.note}")
            continue
        repeated, mark = journal.repeats(letter), letter.mark
        if repeated is None and mark is not None:
            first = marks.setdefault((line.place.topic_id, line.place.partition, mark), line.place)
            repeated = None if first == line.place else first
        if repeated is not None:
            left.append(f"line {line.number}: {line.place} is a repeat of the same POST's record as {repeated}")
            continue
        problems += [
            f"line {line.number}: {reason}: {OF_A_VIEW[reason]}; where that is known not to be so: --accept {reason}"
            for reason in letter.reasons
            if reason in OF_A_VIEW and reason not in accepted
        ]
        if line.place.topic_id != topic_id and not former_topics:
            problems.append(
                f"line {line.number}: {line.place} is of a topic that was made again since: --former-topics takes its "
                "flow into the topic of today"
            )
        send.append(Replay(line.place, line.flow, mark))
    if problems:
        raise InvalidFile(problems)
    return Plan(send, left)
