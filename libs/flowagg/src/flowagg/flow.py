"""A flow and the rules that it must keep: the one place where they are written.

A flow is one record of traffic between two applications in one hour. On the wire (HTTP) it is a
JSON object of six fields; in the log it is a key (the flow key) and a value (the byte counts).
"""

import re
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from flowagg.errors import FlowaggError
from flowagg.idempotency import Mark

MAX_NAME_CHARACTERS: Final = 256
"""Most characters (code points) of src_app, dest_app and vpc_id."""
MAX_INTEGER: Final = 2**53 - 1
"""Largest hour and byte count: what a double holds exactly, so that any JSON client can send it."""

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARACTERS)]
Natural = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]

FlowKey = tuple[Name, Name, Name, Natural]
"""(src_app, dest_app, vpc_id, hour)"""


class Flow(msgspec.Struct, frozen=True, gc=False):
    """One flow record. Byte counts are of this record alone; hour is a number the agents agree on."""

    src_app: Name
    dest_app: Name
    vpc_id: Name
    hour: Natural
    bytes_tx: Natural
    bytes_rx: Natural


class ByteCounts(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The value of a log record: bytes sent and received, 0..2^53-1 each; and the mark, where its POST had a key."""

    bytes_tx: Natural
    bytes_rx: Natural
    mark: Mark | None = None


class InvalidFlow(FlowaggError):
    """A flow, or a body of flows, breaks a rule.

    index: place of the record in the body, None where the body as a whole is at fault.
    field: the field at fault, None where the record as a whole is.
    """

    def __init__(self, rule: str, index: int | None = None, field: str | None = None) -> None:
        self.rule = rule
        self.index = index
        self.field = field
        place = "" if index is None else f"record {index}: "
        name = "" if field is None else f"{field}: "
        super().__init__(f"{place}{name}{rule}")


_decode_flows = msgspec.json.Decoder(list[Flow]).decode
_decode_flow = msgspec.json.Decoder(Flow).decode
_decode_lines = msgspec.json.Decoder(Flow).decode_lines
_decode_key = msgspec.json.Decoder(FlowKey).decode
encode_json = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
"""Compact JSON of anything: of a tuple of a flow key's parts its canonical key, of ByteCounts a canonical value."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_MSGSPEC_PATH = re.compile(r"^(?P<rule>.*) - at `\$(?:\[(?P<index>\d+)\])?(?:\.(?P<field>\w+))?.*`$", re.S)
_MISSING = re.compile(r"^Object missing required field `(?P<field>\w+)`$")
_UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_BLANKS: Final = b" \t\r"
_NAME_FIELDS: Final = ("src_app", "dest_app", "vpc_id")


def decode_flows(body: bytes) -> list[Flow]:
    """Decode a JSON array of flows, all or nothing.

    Raises InvalidFlow for the first record that breaks a rule. Extra fields are ignored.
    """
    try:
        flows = _decode_flows(body)
    except _UNDECODABLE as error:
        raise _why(error) from None
    _check_text(body, flows)
    return flows


def decode_flow_lines(body: bytes) -> list[Flow]:
    """Decode flows written one a line (NDJSON), all or nothing; blank lines are skipped.

    Raises InvalidFlow as decode_flows does; a record's index counts the lines that are not blank.

    One call decodes all lines where each stands between a `{` and a `}`: inside an object or array a
    `}` is never followed by a `{` without a comma, so no document spans two lines, and as many results as
    lines means one each. Anything else is decoded line by line.
    """
    lines = [line for raw in body.split(b"\n") if (line := raw.strip(_BLANKS))]
    if all(line.startswith(b"{") and line.endswith(b"}") for line in lines):
        try:
            flows = _decode_lines(b"\n".join(lines))
        except _UNDECODABLE:
            pass  # found again, with its line, below
        else:
            if len(flows) == len(lines):
                _check_text(body, flows)
                return flows
    flows = []
    for index, line in enumerate(lines):
        try:
            flows.append(_decode_flow(line))
        except _UNDECODABLE as error:
            found = _why(error)
            raise InvalidFlow(found.rule, index, found.field) from None
    _check_text(body, flows)
    return flows


def _why(error: Exception) -> InvalidFlow:
    """What is wrong, of an exception of msgspec's."""
    if isinstance(error, msgspec.ValidationError):
        return _invalid_flow(str(error))
    if isinstance(error, UnicodeDecodeError):
        return InvalidFlow(f"not valid UTF-8: {error.reason}")
    if isinstance(error, RecursionError):
        return InvalidFlow("JSON is nested too deeply")
    return InvalidFlow(_sentence(str(error)))


def _check_text(body: bytes, flows: list[Flow]) -> None:
    """Raises InvalidFlow for a control character in a name, or for bytes that are no text. flows: those in the body."""
    if not body.isascii():
        try:
            body.decode("utf-8")  # the decoder does not look at fields that it skips
        except UnicodeDecodeError as error:
            raise _why(error) from None
    if _may_hold_control_characters(body):
        for index, flow in enumerate(flows):
            for field in _NAME_FIELDS:
                if _CONTROL.search(getattr(flow, field)):
                    raise InvalidFlow("must not hold control characters", index, field)


def _may_hold_control_characters(raw: bytes) -> bool:
    """Whether JSON may hold a control character in a string.

    It gets there only by an escape, as a raw DEL or as a raw C1 (C2 80..C2 9F).
    """
    return b"\\" in raw or b"\x7f" in raw or b"\xc2" in raw


def encode_key(src_app: str, dest_app: str, vpc_id: str, hour: int) -> bytes:
    """The canonical key of a flow in the log: `["foo","bar","vpc-0",1]`, compact JSON in UTF-8."""
    return encode_json((src_app, dest_app, vpc_id, hour))


def encode_value(bytes_tx: int, bytes_rx: int, mark: Mark | None = None) -> bytes:
    """The canonical value of a flow in the log: `{"bytes_tx":100,"bytes_rx":300}`; with a mark one more member."""
    return encode_json(ByteCounts(bytes_tx, bytes_rx, mark))


def encode_column(items: Sequence[FlowKey | ByteCounts]) -> list[bytes]:
    """Keys or values, as encode_key and encode_value make them, in one call: measured, a sixth less time."""
    lines = _encode_lines(items).split(b"\n")  # a string holds no line end: JSON escapes it
    lines.pop()  # behind the last line's end
    return lines


def decode_key(raw: bytes | None) -> FlowKey:
    """Decode a log record's key in any JSON spelling. Raises InvalidFlow."""
    if raw is None:
        raise InvalidFlow("the record has no key")
    try:
        key: FlowKey = _decode_key(raw)
    except msgspec.MsgspecError as error:
        raise InvalidFlow(f"the key {raw[:80]!r} is not a flow key: {error}") from None
    except (UnicodeDecodeError, RecursionError):
        raise InvalidFlow(f"the key {raw[:80]!r} is not a flow key") from None
    for field, name in zip(_NAME_FIELDS, key, strict=False) if _may_hold_control_characters(raw) else ():
        if _CONTROL.search(str(name)):
            raise InvalidFlow("must not hold control characters", field=field)
    return key


def _invalid_flow(message: str) -> InvalidFlow:
    """An InvalidFlow from a msgspec validation message, `Expected ... - at `$[3].hour``."""
    match = _MSGSPEC_PATH.match(message)
    if match is None:
        return InvalidFlow(
            "the body must be a JSON array of flows" if message.startswith("Expected `array`") else _sentence(message)
        )
    rule, index, field = match["rule"], match["index"], match["field"]
    missing = _MISSING.match(rule)
    if missing is not None:
        rule, field = "is missing", missing["field"]
    return InvalidFlow(_sentence(rule), None if index is None else int(index), field)


def _sentence(message: str) -> str:
    return message.replace("`", "").replace("Expected", "expected", 1)
