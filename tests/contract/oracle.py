"""What a body of a POST is worth, judged by the contract with Python's own json: slow, plain and independent."""

import json
import re
import unicodedata
import zlib
from collections.abc import Callable
from typing import Any, Final

from tests.contract.flows import MAX

_MOST_DIGITS: Final = 4000
"""Python refuses to read longer numbers."""
_MOST_BRACKETS: Final = 500
"""Far more than a body here has, unless it nests too deeply."""


class Unsure(Exception):
    """The contract leaves this open."""


class _Refused(Exception):
    pass


class _NoInteger:
    """Stands for a number that is not written in digits alone."""


def accepted_flows(body: bytes, ndjson: bool, packed: bool) -> int | None:
    """How many flows are accepted, None where the body is refused. Raises Unsure."""
    try:
        text = (_inflated(body) if packed else body).decode("utf-8")
        flows = [_parsed(line) for line in text.split("\n") if line.strip(" \t\r")] if ndjson else _parsed(text)
        if not isinstance(flows, list):
            return None
        for flow in flows:
            _check(flow)
    except (_Refused, UnicodeDecodeError, zlib.error):
        return None
    return len(flows)


def _inflated(body: bytes) -> bytes:
    """All members of a gzip file."""
    inflated = b""
    while True:
        member = zlib.decompressobj(31)
        inflated += member.decompress(body)
        if not member.eof:
            raise _Refused
        body = member.unused_data
        if not body:
            return inflated


def _parsed(text: str) -> Any:
    deep = text.count("[") + text.count("{") > _MOST_BRACKETS
    if deep or re.search(rf"[0-9]{{{_MOST_DIGITS}}}|\\u[dD][89a-fA-F]", text):
        raise Unsure  # an escaped surrogate: whether a lone one in an extra field is JSON is open
    decoder = json.JSONDecoder(
        parse_float=lambda _: _NoInteger(), parse_constant=_refuse, object_pairs_hook=_without_repetition
    )
    stripped = text.strip(" \t\r\n")
    try:
        value, end = decoder.raw_decode(stripped)
    except json.JSONDecodeError as error:
        raise _Refused from error
    if end != len(stripped):
        raise _Refused
    return value


def _refuse(_: str) -> Any:
    raise _Refused


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The last of a repeated field counts; whether those before it must keep the rules is open."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unsure
    return found


def _check(flow: Any) -> None:
    if not isinstance(flow, dict):
        raise _Refused
    rules: dict[str, Callable[[Any], bool]] = {
        **dict.fromkeys(("src_app", "dest_app", "vpc_id"), _is_name),
        **dict.fromkeys(("hour", "bytes_tx", "bytes_rx"), _is_number),
    }
    for field, keeps in rules.items():
        if field not in flow or not keeps(flow[field]):
            raise _Refused


def _is_name(value: Any) -> bool:
    return (
        isinstance(value, str)
        and 1 <= len(value) <= 256
        and not any(unicodedata.category(character) in {"Cc", "Cs"} for character in value)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX
