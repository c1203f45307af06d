"""The OpenAPI 3.1 document of the HTTP API: plain data, made of the code's own types and constants.

The library knows neither the writer nor the reader: tests/unit/test_openapi.py holds what is said
here of them (parameters, statuses, media types, limits) to what their code has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import msgspec

from flowagg.flow import MAX_INTEGER, Flow
from flowagg.idempotency import MAX_KEY_CHARACTERS
from flowagg.position import MAX_TOKEN_CHARACTERS
from flowagg.problem import MEDIA_TYPE as PROBLEM
from flowagg.view import VIEW_NAME

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
_HOUR: Final = "(0|[1-9][0-9]{0,14})-?"
_PRINTABLE: Final = r"^[^\u0000-\u001f\u007f-\u009f]*$"
_ADDRESS: Final = "http://127.0.0.1:8080"
_TOKEN: Final = "eyJ0IjoiYktlTldQVXZSVnF3aXZUcW9fRTBUUSIsInAiOnsiMSI6MywiNCI6Mn19"  # noqa: S105 - a position, no secret


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


def document(limits: Limits, version: str) -> Json:
    """The OpenAPI document of a system with these limits."""
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "FlowAggregator",
            "version": version,
            "summary": "Exact totals of network flows.",
            "description": "POST flow records, GET their sums by flow key and hour. "
            "Each record is counted exactly once, and a GET reflects every POST acknowledged before it.",
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The address that served this document."}],
        "security": [],
        "tags": [
            {"name": "flows", "description": "Send records, read totals."},
            {"name": "operation", "description": "Probes and metrics, of each service on its own."},
            {"name": "reference", "description": "This reference."},
        ],
        "paths": {
            "/flows": {"post": _post(limits), "get": _get(limits), "head": _head(limits)},
            "/hours": {"get": _hours(limits, body=True), "head": _hours(limits, body=False)},
            "/livez": {"get": _probe("livez", "Is the process alive?", "A failure here asks for a restart.")},
            "/readyz": {
                "get": _probe("readyz", "Can it serve?", "A failure here asks for no requests until it has passed.")
            },
            "/metrics": {"get": _metrics()},
            "/openapi.json": {"get": _reference("getOpenapi", "This document", JSON, {"type": "object"})},
            "/docs": {"get": _reference("getDocs", "This reference as a page", "text/html", {"type": "string"})},
        },
        "components": {
            "schemas": _schemas(limits),
            "parameters": {"RequestId": _request_id()},
            "headers": _headers(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Only where the system has tokens. A token may read, write or both, and may be "
                    "bound to some vpc_ids: a POST with others is refused, a GET leaves others out.",
                }
            },
        },
    }


# /flows ------------------------------------------------------------------------------------------


def _post(limits: Limits) -> Json:
    window = f"{limits.dedupe_window_seconds / 3600:g} hours"
    again = f"safe within {window} of log time"
    return {
        "operationId": "postFlows",
        "tags": ["flows"],
        "summary": "Send flows",
        "description": "Answers 200 once Kafka has acknowledged every record. All or nothing: one flow that breaks a "
        "rule refuses the whole batch before anything is kept. A 503 whose detail says that some records may have "
        "been kept can be repeated without counting twice only with an `Idempotency-Key`.",
        "security": [{}, {"bearer": []}],
        "parameters": [
            _parameter(
                "Idempotency-Key",
                "header",
                {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MAX_KEY_CHARACTERS,
                    # Blanks at the ends are not part of a header's value (RFC 9110, 5.5).
                    "pattern": f"^[!-~]([ -~]{{0,{MAX_KEY_CHARACTERS - 2}}}[!-~])?$",
                },
                f"A new one for each batch makes repeats of it {again}: the same key with the same body counts once. "
                "With another body it counts nothing more.",
                example="agent-7/2026-03-01T00:00",
            ),
            _parameter(
                "Content-Encoding",
                "header",
                {"type": "string", "enum": ["identity", GZIP], "default": "identity"},
                f"`gzip` where the body is compressed, to {_size(limits.max_inflated_bytes)} at most when inflated.",
            ),
            {"$ref": "#/components/parameters/RequestId"},
        ],
        "requestBody": {
            "required": True,
            "description": f"At most {limits.max_flows:,} flows and {_size(limits.max_body_bytes)} as sent. "
            "Extra fields are ignored.",
            "content": {
                JSON: {
                    "schema": {"$ref": "#/components/schemas/Flows"},
                    "examples": {
                        "batch": {"summary": "Five records of four flow keys", "value": _sent()},
                        "nothing": {"summary": "No record", "value": []},
                    },
                },
                NDJSON: {
                    "schema": {
                        "$ref": "#/components/schemas/Flows",
                        "description": "One flow a line, without brackets or commas between them. "
                        "Blank lines are skipped.",
                    },
                },
            },
        },
        "responses": {
            "200": {
                "description": "Kafka has every record.",
                "headers": _named("X-Request-Id"),
                "content": {
                    JSON: {
                        "schema": {"$ref": "#/components/schemas/Accepted"},
                        "examples": {"batch": {"value": {"accepted": 5, "position": _TOKEN}}},
                    }
                },
                "links": {
                    "read": {
                        "operationId": "getFlows",
                        "parameters": {"after": "$response.body#/position"},
                        "description": "Send `position` as `after` to read what this POST wrote.",
                    }
                },
            },
            **_problems(
                {
                    400: "Not JSON, not an array of flows, or a flow breaks a rule; broken gzip; a bad "
                    "`Idempotency-Key`. Nothing was kept.",
                    401: "The system has tokens, and this request has none, or an unknown one.",
                    403: "The token may not write, or not for a vpc_id in the batch. Nothing was kept.",
                    405: "Not a method of this address.",
                    408: "The request did not arrive in time.",
                    413: f"More than {_size(limits.max_body_bytes)} as sent, {_size(limits.max_inflated_bytes)} "
                    f"inflated or {limits.max_flows:,} flows. Nothing was kept.",
                    415: "Another Content-Type, or another Content-Encoding than gzip.",
                    422: "The `Idempotency-Key` stands for another body. Nothing more was kept.",
                    431: "The request's line and headers are too large.",
                    503: f"Kafka is away, too slow (past {limits.post_timeout_seconds:g} s), or the writer has as much "
                    "in hand as it may. The detail says whether records may have been kept.",
                },
                {400: _invalid_flow()},
                also={403: ["WWW-Authenticate"], 415: ["Accept", "Accept-Encoding"]},
            ),
        },
        "x-codeSamples": [
            _curl(
                "Send flows",
                f"curl {_ADDRESS}/flows \\",
                "  -H 'Content-Type: application/json' \\",
                "  -H 'Idempotency-Key: agent-7/2026-03-01T00:00' \\",
                """  -d '[{"src_app": "foo", "dest_app": "bar", "vpc_id": "vpc-0",""",
                """        "hour": 1, "bytes_tx": 100, "bytes_rx": 300}]'""",
            ),
            _curl(
                "Send a compressed file of one flow a line",
                f"gzip -c flows.ndjson | curl {_ADDRESS}/flows \\",
                "  -H 'Content-Type: application/x-ndjson' \\",
                "  -H 'Content-Encoding: gzip' \\",
                "  --data-binary @-",
            ),
        ],
    }


def _get(limits: Limits) -> Json:
    return {
        "operationId": "getFlows",
        "tags": ["flows"],
        "summary": "Read totals",
        "description": "Of one hour, one object per flow key, sorted by (src_app, dest_app, vpc_id) by code point; of "
        "several hours, by hour last. By default the answer reflects every POST acknowledged before the request. "
        "Hours without flows are `[]`. Filters, groups, an order, a top, pages and formats are by the parameters.",
        "security": [{}, {"bearer": []}],
        "parameters": _query(limits),
        "responses": _answers(limits, body=True),
        "x-codeSamples": [
            _curl("Read an hour", f"curl -i '{_ADDRESS}/flows?hour=1'"),
            _curl("Read what one POST wrote", f"curl -i '{_ADDRESS}/flows?hour=1&after=POSITION'"),
            _curl(
                "The ten pairs with the most traffic of a day, and the rest",
                f"curl '{_ADDRESS}/flows?hour=0-23&group_by=src_app,dest_app&top=10'",
            ),
            _curl(
                "All of what goes to an application, as CSV",
                f"curl '{_ADDRESS}/flows?hour=0-23&dest_app=payments*&format=csv'",
            ),
        ],
    }


def _hours(limits: Limits, *, body: bool) -> Json:
    kept = {"after", "consistency", "view", "format", "If-None-Match"}
    parameters = [given for given in _query(limits) if given.get("name", "") in kept or "$ref" in given]
    answers = _answers(limits, body=body, schema="Hours", link=False)
    if body:
        value = [{"hour": 1, "flow_keys": 2}, {"hour": 2, "flow_keys": 2}]
        answers["200"]["content"][JSON]["examples"] = {"hours": {"value": value}}
    return {
        "operationId": "getHours" if body else "headHours",
        "tags": ["flows"],
        "summary": "The hours that there are" if body else "Headers of the hours that there are",
        "description": "The hours that the view keeps, ascending, with the number of flow keys in each; a flow key "
        "that stands in two partitions, since the topic has grown, counts twice. Without that number for a token that "
        "is bound to some vpc_ids."
        if body
        else "What GET answers, without the body.",
        "security": [{}, {"bearer": []}],
        "parameters": parameters,
        "responses": answers,
        "x-codeSamples": [_curl("Which hours are there?", f"curl {'' if body else '-I '}{_ADDRESS}/hours")],
    }


def _head(limits: Limits) -> Json:
    return {
        "operationId": "headFlows",
        "tags": ["flows"],
        "summary": "Headers of the totals of an hour",
        "description": "What GET answers, without the body.",
        "security": [{}, {"bearer": []}],
        "parameters": _query(limits),
        "responses": _answers(limits, body=False),
        "x-codeSamples": [_curl("Ask whether an hour is fresh", f"curl -I '{_ADDRESS}/flows?hour=1'")],
    }


def _query(limits: Limits) -> list[Json]:
    return [
        _parameter(
            "hour",
            "query",
            {
                "anyOf": [
                    {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER},
                    {"type": "string", "pattern": f"^{_HOUR}(,{_HOUR})*$", "minLength": 1, "maxLength": 1000},
                ]
            },
            "The hour, in decimal digits; a range of hours, as `3-9` or `3-`; or a list of these, as `1,3-5`.",
            required=True,
            example=1,
        ),
        _parameter(
            "after",
            "query",
            {"type": "string", "minLength": 1, "maxLength": MAX_TOKEN_CHARACTERS, "pattern": "^[A-Za-z0-9_-]+$"},
            "The `position` of a POST's answer: reflect that POST, and wait for no other, also while Kafka is away. "
            "Not together with `consistency=eventual`.",
        ),
        _parameter(
            "consistency",
            "query",
            {"type": "string", "enum": list(CONSISTENCIES), "default": "fresh"},
            "What the answer must reflect. "
            + " ".join(f"`{name}`: {meaning}." for name, meaning in CONSISTENCIES.items())
            + f" The wait is {limits.fresh_wait_seconds:g} s at most.",
        ),
        _parameter(
            "view",
            "query",
            {"type": "string", "pattern": VIEW_NAME},
            "The name of the view to read. Without it, the one that the reader is for.",
            example="default",
        ),
        *(
            _parameter(
                name,
                "query",
                {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_PATTERNS,
                    "items": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": MAX_PATTERN_CHARACTERS,
                        "pattern": _PRINTABLE,
                    },
                },
                f"Only rows whose {name} is one of these. `*` is any text, `?` one character, and `\\` takes the next "
                "character as it is. Ten with * or ? elsewhere than at their end, at most.",
                example=example,
            )
            for name, example in (("src_app", "foo"), ("dest_app", "pay*"), ("vpc_id", "vpc-?"))
        ),
        _parameter(
            "group_by",
            "query",
            {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"type": "string", "enum": list(KEY)}},
            "Rows that agree in these fields are added up, and have no others. Several are parted by commas or repeat "
            "the parameter.",
            example="src_app",
        ),
        _parameter(
            "order_by",
            "query",
            {
                "type": "string",
                "enum": [f"{name}{way}" for name in (*KEY, *MEASURES) for way in ("", ":asc", ":desc")],
            },
            "In place of the order of the flow key. `bytes` is sent and received together. Names and hours ascend, "
            "bytes descend, unless it says so. Not with `limit`.",
            example="bytes_tx",
        ),
        _parameter(
            "top",
            "query",
            {"type": "integer", "minimum": 1, "maximum": MAX_TOP},
            "So many rows, the first of the order (by default `bytes`), and in the end one row for all others, if "
            "there are any: their sums, exact, with `null` for names and hour.",
            example=10,
        ),
        _parameter(
            "limit",
            "query",
            {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
            "Rows of a page, in the order of the flow key. Where there is a next page, the `Link` header has its "
            f"address. Without it an answer of more than {MAX_LIMIT:,} rows is refused, but that of one whole hour.",
            example=100,
        ),
        _parameter(
            "cursor",
            "query",
            {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9_-]+$"},
            "Where a page begins: from the `Link` header, as it is.",
        ),
        _parameter(
            "format",
            "query",
            {"type": "string", "enum": list(FORMATS), "default": "json"},
            "How rows are written. Without it `Accept` decides.",
        ),
        _parameter(
            "If-None-Match",
            "header",
            {"type": "string"},
            "ETags of earlier answers: 304 where the hour has not changed since.",
        ),
        {"$ref": "#/components/parameters/RequestId"},
    ]


def _answers(limits: Limits, *, body: bool, schema: str = "Totals", link: bool = True) -> Json:
    examples = {
        "hour1": {"summary": "hour=1", "value": _totals(1)},
        "hour2": {"summary": "hour=2", "value": _totals(2)},
        "hour3": {"summary": "hour=3: no flows", "value": _totals(3)},
    }
    always = ("Flowagg-Fresh", "Flowagg-Lag-Records", "ETag", "Cache-Control")
    more = ("Link",) if link else ()
    headers = _named(*always, "Flowagg-Expired", "Flowagg-Incomplete", *more, "Vary", "X-Request-Id", required=always)
    found: Json = {"description": "The totals, also where they are stale: see `Flowagg-Fresh`.", "headers": headers}
    if body:
        rows = {"$ref": f"#/components/schemas/{schema}"}
        found["content"] = {
            JSON: {"schema": rows, "examples": examples},
            NDJSON: {"schema": {**rows, "description": "One object a line."}},
            CSV: {"schema": {"type": "string", "description": "RFC 4180, with the names of the fields first."}},
        }
    return {
        "200": found,
        "304": {
            "description": "The hour has not changed since the answer with that ETag.",
            "headers": headers,
        },
        **_problems(
            {
                400: "`hour` is missing, bad or repeated; another parameter is bad or unknown (the known ones are "
                "listed); or a query covers more than the reader answers at once.",
                401: "The system has tokens, and this request has none, or an unknown one.",
                403: "The token may not read.",
                404: "There is no view of the name in `view`.",
                405: "Not a method of this address.",
                408: "The request did not arrive in time.",
                410: "`after` is of a topic that no longer exists.",
                431: "The request's line and headers are too large.",
                503: "Redis is away, `strict` could not be kept, the answer took longer than "
                f"{limits.get_timeout_seconds:g} s, or the reader has as many requests in hand as it may.",
            },
            also={403: ["WWW-Authenticate"], 404: ["Flowagg-Fresh"], 410: ["Flowagg-Fresh"], 503: ["Flowagg-Fresh"]},
            body=body,
        ),
    }


# The rest ----------------------------------------------------------------------------------------


def _probe(name: str, summary: str, description: str) -> Json:
    def answer(text: str, example: Json) -> Json:
        content = {
            JSON: {"schema": {"$ref": "#/components/schemas/Health"}, "examples": {"answer": {"value": example}}}
        }
        return {"description": text, "headers": _named("X-Request-Id"), "content": content}

    failing = {"status": "failing", "checks": {"redis": "ConnectionError: Connection refused"}}
    return {
        "operationId": name,
        "tags": ["operation"],
        "summary": summary,
        "description": description,
        "security": [],
        "responses": {
            "200": answer("All checks are ok.", {"status": "ok", "checks": {"redis": "ok"}}),
            "503": answer("A check fails; it says what is wrong.", failing),
        },
        "x-codeSamples": [_curl(summary, f"curl {_ADDRESS}/{name}")],
    }


def _metrics() -> Json:
    return {
        "operationId": "metrics",
        "tags": ["operation"],
        "summary": "Metrics for Prometheus",
        "description": "In Prometheus's text format.",
        "security": [],
        "responses": {
            "200": {
                "description": "The metrics of this service.",
                "headers": _named("X-Request-Id"),
                "content": {METRICS: {"schema": {"type": "string"}}},
            }
        },
        "x-codeSamples": [_curl("Metrics", f"curl {_ADDRESS}/metrics")],
    }


def _reference(operation: str, summary: str, media_type: str, schema: Json) -> Json:
    return {
        "operationId": operation,
        "tags": ["reference"],
        "summary": summary,
        "security": [],
        "responses": {
            "200": {
                "description": summary + ".",
                "headers": _named("Cache-Control", "X-Request-Id"),
                "content": {media_type: {"schema": schema}},
            }
        },
    }


# Parts -------------------------------------------------------------------------------------------


def _schemas(limits: Limits) -> Json:
    flow: Json = msgspec.json.schema_components([Flow], ref_template="#/components/schemas/{name}")[1]["Flow"]
    flow["description"] = "One record of traffic between two applications in one hour."
    for name, text in _FIELDS.items():
        schema = flow["properties"][name]
        schema["description"] = text
        if schema["type"] == "string":
            # msgspec checks types and bounds; that a name holds no control character is flowagg.flow's own rule.
            schema["pattern"] = _PRINTABLE
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


def _headers() -> Json:
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


def _problems(
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
            "headers": _named(*required, *further, "X-Request-Id", required=required),
        }
        if body:
            media: Json = {"schema": {"$ref": "#/components/schemas/Problem"}}
            if examples is not None and status in examples:
                media["examples"] = {"problem": {"value": examples[status]}}
            response["content"] = {PROBLEM: media}
        responses[str(status)] = response
    return responses


def _invalid_flow() -> Json:
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


def _named(*names: str, required: Sequence[str] = ()) -> Json:
    """References to headers; a reference cannot say that its header is required, so those are copies."""
    return {
        name: {**_headers()[name], "required": True} if name in required else {"$ref": f"#/components/headers/{name}"}
        for name in names
    }


def _parameter(name: str, place: str, schema: Json, text: str, *, required: bool = False, example: Any = None) -> Json:
    found: Json = {"name": name, "in": place, "required": required, "description": text, "schema": schema}
    if example is not None:
        found["example"] = example
    return found


def _request_id() -> Json:
    return _parameter(
        "X-Request-Id",
        "header",
        {"type": "string"},
        "An id of your own for the logs: 1 to 128 letters, digits, points, hyphens and underscores. "
        "Without one, or with another text, the request gets one.",
    )


def _curl(label: str, *lines: str) -> Json:
    return {"lang": "Shell", "label": label, "source": "\n".join(lines)}


def _flow(names: str, hour: int, bytes_tx: int, bytes_rx: int) -> Json:
    return dict(zip(Flow.__struct_fields__, (*names.split("/"), hour, bytes_tx, bytes_rx), strict=True))


def _sent() -> list[Json]:
    return [
        _flow("foo/bar/vpc-0", 1, 100, 300),
        _flow("foo/bar/vpc-0", 1, 200, 600),
        _flow("baz/qux/vpc-0", 1, 100, 500),
        _flow("baz/qux/vpc-0", 2, 100, 500),
        _flow("baz/qux/vpc-1", 2, 100, 500),
    ]


def _totals(hour: int) -> list[Json]:
    """What GET answers for an hour after the example's POST."""
    found: dict[tuple[str, ...], Json] = {}
    for flow in _sent():
        if flow["hour"] != hour:
            continue
        row = found.setdefault(
            tuple(flow[name] for name in ("src_app", "dest_app", "vpc_id")), {**flow, "bytes_tx": 0, "bytes_rx": 0}
        )
        row["bytes_tx"] += flow["bytes_tx"]
        row["bytes_rx"] += flow["bytes_rx"]
    return [found[key] for key in sorted(found)]


def _size(count: int) -> str:
    return f"{count // 2**20} MiB" if count % 2**20 == 0 else f"{count:,} bytes"
