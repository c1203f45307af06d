"""What the parts of the OpenAPI document share: limits, media types, schemas, headers, problems and examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import msgspec

from flowagg.flow import MAX_INTEGER, Flow
from flowagg.problem import MEDIA_TYPE as PROBLEM

Json = dict[str, Any]

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
GZIP: Final = "gzip"
METRICS: Final = "text/plain"
CONSISTENCIES: Final = {
    "fresh": "every POST acknowledged before, waiting for it up to a limit; else an answer marked as stale",
    "strict": "every POST acknowledged before; else 503",
    "eventual": "what is there now: never waits, never claims to be fresh",
}
KEY: Final = ("src_app", "dest_app", "vpc_id", "hour")
"""The fields of a flow key."""
MEASURES: Final = ("bytes_tx", "bytes_rx", "bytes")
FORMATS: Final = ("json", "ndjson", "csv")
MAX_TOP: Final = 10_000
MAX_LIMIT: Final = 100_000
MAX_PATTERNS: Final = 100
MAX_PATTERN_CHARACTERS: Final = 512
HOUR: Final = "(0|[1-9][0-9]{0,14})-?"
PRINTABLE: Final = r"^[^\u0000-\u001f\u007f-\u009f]*$"
ADDRESS: Final = "http://127.0.0.1:8080"
TOKEN: Final = "eyJ0IjoiYktlTldQVXZSVnF3aXZUcW9fRTBUUSIsInAiOnsiMSI6MywiNCI6Mn19"  # noqa: S105 - a position, no secret


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that clients meet, with their defaults."""

    max_body_bytes: int = 8 * 2**20
    max_inflated_bytes: int = 64 * 2**20
    max_flows: int = 100_000
    post_timeout_seconds: float = 15.0
    get_timeout_seconds: float = 15.0
    fresh_wait_seconds: float = 1.0
    dedupe_window_seconds: float = 86_400.0


def schemas(limits: Limits) -> Json:
    """The document's schemas."""
    flow: Json = msgspec.json.schema_components([Flow], ref_template="#/components/schemas/{name}")[1]["Flow"]
    flow["description"] = "One record of traffic between two applications in one hour."
    for name, text in _FIELDS.items():
        schema = flow["properties"][name]
        schema["description"] = text
        if schema["type"] == "string":
            # msgspec checks types and bounds; that a name holds no control character is flowagg.flow's own rule.
            schema["pattern"] = PRINTABLE
            schema["description"] += " No control characters."
    totals = {name: dict(schema) for name, schema in flow["properties"].items()}
    for name, text in (("bytes_tx", "Bytes sent, of all records."), ("bytes_rx", "Bytes received, of all records.")):
        totals[name] = {"type": "integer", "minimum": 0, "description": f"{text} Exact, of any size."}
    for name in KEY:
        totals[name]["type"] = [totals[name]["type"], "null"]
    return {
        "Flow": {key: value for key, value in flow.items() if key != "title"},
        "Flows": {"type": "array", "items": {"$ref": "#/components/schemas/Flow"}, "maxItems": limits.max_flows},
        "FlowTotals": {
            "type": "object",
            "description": "The totals of one flow key: (src_app, dest_app, vpc_id, hour). With `group_by`, of all "
            "flow keys that agree in its fields, without the others. In the last row of a `top` names and hour are "
            "`null`: it has the sums of all others.",
            "properties": totals,
            "required": ["bytes_tx", "bytes_rx"],
        },
        "Hour": {
            "type": "object",
            "properties": {
                "hour": {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER},
                "flow_keys": {"type": "integer", "minimum": 1, "description": "Flow keys in the hour."},
            },
            "required": ["hour"],
        },
        "Hours": {"type": "array", "items": {"$ref": "#/components/schemas/Hour"}},
        "Totals": {"type": "array", "items": {"$ref": "#/components/schemas/FlowTotals"}},
        "Accepted": {
            "type": "object",
            "properties": {
                "accepted": {"type": "integer", "minimum": 0, "description": "Records that Kafka has."},
                "position": {"type": "string", "description": "Opaque: send it back as `after`."},
            },
            "required": ["accepted", "position"],
        },
        "Problem": {
            "type": "object",
            "description": "What is wrong and what to do (RFC 9457).",
            "properties": {
                "type": {"type": "string", "const": "about:blank"},
                "title": {"type": "string", "description": "The status in words."},
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": {"type": "string", "description": "What is wrong and what to do."},
                "index": {"type": "integer", "minimum": 0, "description": "Place of the bad record, from 0."},
                "field": {"type": "string", "description": "The field at fault, where one is."},
                "rule": {"type": "string", "description": "The rule that it breaks."},
            },
            "required": ["type", "title", "status", "detail"],
        },
        "Health": {
            "type": "object",
            "properties": {
                "status": {"type": "string", "enum": ["ok", "failing"]},
                "checks": {
                    "type": "object",
                    "additionalProperties": {"type": "string"},
                    "description": "What was looked at: `ok`, or what is wrong.",
                },
            },
            "required": ["status", "checks"],
        },
    }


_FIELDS: Final = {
    "src_app": "The application that the traffic came from.",
    "dest_app": "The application that it went to.",
    "vpc_id": "The network.",
    "hour": "A number that the agents agree on.",
    "bytes_tx": "Bytes sent.",
    "bytes_rx": "Bytes received.",
}


def headers() -> Json:
    """The answers' headers, by name."""

    def header(schema: Json, text: str) -> Json:
        return {"description": text, "schema": schema}

    yes = {"type": "string", "enum": ["true"]}
    text = {"type": "string"}
    return {
        "Flowagg-Fresh": header(
            {"type": "string", "enum": ["true", "false"]},
            "`true`: the answer reflects all that was asked for. `false`: that is not shown.",
        ),
        "Flowagg-Lag-Records": header(
            {"type": "string", "pattern": "^([0-9]+|unknown)$"},
            "Records that were still to be applied, or `unknown`.",
        ),
        "Flowagg-Expired": header(yes, "Only where the view no longer keeps the hour; the answer is `[]`."),
        "Flowagg-Incomplete": header(
            yes, "Only where records were lost to the view before it had applied them: totals may be too small."
        ),
        "ETag": header({"type": "string", "pattern": '^(W/)?"[^"]*"$'}, "Changes when the hour does."),
        "Cache-Control": header(text, "`no-cache`: keep the answer, but ask with its ETag before each use."),
        "Link": header(text, 'Where there is a next page: its address, with `rel="next"`.'),
        "Vary": header(text, "What of the request, beside its address, the answer depends on."),
        "Retry-After": header({"type": "string", "pattern": "^[0-9]+$"}, "Seconds to wait before the next try."),
        "WWW-Authenticate": header(
            {"type": "string", "pattern": "^Bearer"}, "The scheme, Bearer, and what the token lacks."
        ),
        "Allow": header(text, "The methods of this address."),
        "Accept": header(text, "The media types that are taken."),
        "Accept-Encoding": header(text, "The encodings that are taken."),
        "X-Request-Id": header(
            {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"}, "The request's id, as in the logs."
        ),
    }


_HEADERS_OF: Final = {401: "WWW-Authenticate", 405: "Allow", 503: "Retry-After"}


def problems(
    texts: Mapping[int, str],
    examples: Mapping[int, Json] | None = None,
    *,
    also: Mapping[int, Sequence[str]] | None = None,
    body: bool = True,
) -> Json:
    """Responses that are problem documents: status -> what it means here. also: further headers, by status."""
    responses: Json = {}
    for status, text in texts.items():
        required = [_HEADERS_OF[status]] if status in _HEADERS_OF else []
        further = (also or {}).get(status, ())
        response: Json = {
            "description": text,
            "headers": named(*required, *further, "X-Request-Id", required=required),
        }
        if body:
            media: Json = {"schema": {"$ref": "#/components/schemas/Problem"}}
            if examples is not None and status in examples:
                media["examples"] = {"problem": {"value": examples[status]}}
            response["content"] = {PROBLEM: media}
        responses[str(status)] = response
    return responses


def invalid_flow() -> Json:
    """An example of a refused flow."""
    field, rule = "bytes_tx", "expected int >= 0"
    return {
        "type": "about:blank",
        "title": HTTPStatus(400).phrase,
        "status": 400,
        "detail": f"Nothing was kept: record 1: {field}: {rule}.",
        "index": 1,
        "field": field,
        "rule": rule,
    }


def named(*names: str, required: Sequence[str] = ()) -> Json:
    """References to headers; a reference cannot say that its header is required, so those are copies."""
    return {
        name: {**headers()[name], "required": True} if name in required else {"$ref": f"#/components/headers/{name}"}
        for name in names
    }


def parameter(name: str, place: str, schema: Json, text: str, *, required: bool = False, example: Any = None) -> Json:
    """A parameter of a call. place: header or query."""
    found: Json = {"name": name, "in": place, "required": required, "description": text, "schema": schema}
    if example is not None:
        found["example"] = example
    return found


def request_id() -> Json:
    """The header that a client may name its request by."""
    return parameter(
        "X-Request-Id",
        "header",
        {"type": "string"},
        "An id of your own for the logs: 1 to 128 letters, digits, points, hyphens and underscores. "
        "Without one, or with another text, the request gets one.",
    )


def curl(label: str, *lines: str) -> Json:
    """An example of a call."""
    return {"lang": "Shell", "label": label, "source": "\n".join(lines)}


def _flow(names: str, hour: int, bytes_tx: int, bytes_rx: int) -> Json:
    return dict(zip(Flow.__struct_fields__, (*names.split("/"), hour, bytes_tx, bytes_rx), strict=True))


def sent() -> list[Json]:
    """An example of what is POSTed."""
    return [
        _flow("foo/bar/vpc-0", 1, 100, 300),
        _flow("foo/bar/vpc-0", 1, 200, 600),
        _flow("baz/qux/vpc-0", 1, 100, 500),
        _flow("baz/qux/vpc-0", 2, 100, 500),
        _flow("baz/qux/vpc-1", 2, 100, 500),
    ]


def totals(hour: int) -> list[Json]:
    """What GET answers for an hour after the example's POST."""
    found: dict[tuple[str, ...], Json] = {}
    for flow in sent():
        if flow["hour"] != hour:
            continue
        row = found.setdefault(
            tuple(flow[name] for name in ("src_app", "dest_app", "vpc_id")), {**flow, "bytes_tx": 0, "bytes_rx": 0}
        )
        row["bytes_tx"] += flow["bytes_tx"]
        row["bytes_rx"] += flow["bytes_rx"]
    return [found[key] for key in sorted(found)]


def size(count: int) -> str:
    """A number of bytes, to be read."""
    return f"{count // 2**20} MiB" if count % 2**20 == 0 else f"{count:,} bytes"
