"""The OpenAPI 3.1 document of the HTTP API: plain data, made of the code's own types and constants.

The library knows neither the writer nor the reader: tests/unit/test_openapi.py holds what is said
here of them (parameters, statuses, media types, limits) to what their code has.
"""

from flowagg import openapi_parts as parts
from flowagg import openapi_reads
from flowagg.idempotency import MAX_KEY_CHARACTERS
from flowagg.openapi_parts import Json, Limits


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
            "/flows": {
                "post": _post(limits),
                "get": openapi_reads.get_flows(limits),
                "head": openapi_reads.head_flows(limits),
            },
            "/hours": {
                "get": openapi_reads.get_hours(limits, body=True),
                "head": openapi_reads.get_hours(limits, body=False),
            },
            "/livez": {"get": _probe("livez", "Is the process alive?", "A failure here asks for a restart.")},
            "/readyz": {
                "get": _probe("readyz", "Can it serve?", "A failure here asks for no requests until it has passed.")
            },
            "/metrics": {"get": _metrics()},
            "/openapi.json": {"get": _reference("getOpenapi", "This document", parts.JSON, {"type": "object"})},
            "/docs": {"get": _reference("getDocs", "This reference as a page", "text/html", {"type": "string"})},
        },
        "components": {
            "schemas": parts.schemas(limits),
            "parameters": {"RequestId": parts.request_id()},
            "headers": parts.headers(),
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
            parts.parameter(
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
            parts.parameter(
                "Content-Encoding",
                "header",
                {"type": "string", "enum": ["identity", parts.GZIP], "default": "identity"},
                "`gzip` where the body is compressed, to "
                f"{parts.size(limits.max_inflated_bytes)} at most when inflated.",
            ),
            {"$ref": "#/components/parameters/RequestId"},
        ],
        "requestBody": {
            "required": True,
            "description": f"At most {limits.max_flows:,} flows and {parts.size(limits.max_body_bytes)} as sent. "
            "Extra fields are ignored.",
            "content": {
                parts.JSON: {
                    "schema": {"$ref": "#/components/schemas/Flows"},
                    "examples": {
                        "batch": {"summary": "Five records of four flow keys", "value": parts.sent()},
                        "nothing": {"summary": "No record", "value": []},
                    },
                },
                parts.NDJSON: {
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
                "headers": parts.named("X-Request-Id"),
                "content": {
                    parts.JSON: {
                        "schema": {"$ref": "#/components/schemas/Accepted"},
                        "examples": {"batch": {"value": {"accepted": 5, "position": parts.TOKEN}}},
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
            **parts.problems(
                {
                    400: "Not JSON, not an array of flows, or a flow breaks a rule; broken gzip; a bad "
                    "`Idempotency-Key`. Nothing was kept.",
                    401: "The system has tokens, and this request has none, or an unknown one.",
                    403: "The token may not write, or not for a vpc_id in the batch. Nothing was kept.",
                    405: "Not a method of this address.",
                    408: "The request did not arrive in time.",
                    413: f"More than {parts.size(limits.max_body_bytes)} as sent, "
                    f"{parts.size(limits.max_inflated_bytes)} inflated or {limits.max_flows:,} flows. "
                    "Nothing was kept.",
                    415: "Another Content-Type, or another Content-Encoding than gzip.",
                    422: "The `Idempotency-Key` stands for another body. Nothing more was kept.",
                    431: "The request's line and headers are too large.",
                    503: f"Kafka is away, too slow (past {limits.post_timeout_seconds:g} s), or the writer has as much "
                    "in hand as it may. The detail says whether records may have been kept.",
                },
                {400: parts.invalid_flow()},
                also={403: ["WWW-Authenticate"], 415: ["Accept", "Accept-Encoding"]},
            ),
        },
        "x-codeSamples": [
            parts.curl(
                "Send flows",
                f"curl {parts.ADDRESS}/flows \\",
                "  -H 'Content-Type: application/json' \\",
                "  -H 'Idempotency-Key: agent-7/2026-03-01T00:00' \\",
                """  -d '[{"src_app": "foo", "dest_app": "bar", "vpc_id": "vpc-0",""",
                """        "hour": 1, "bytes_tx": 100, "bytes_rx": 300}]'""",
            ),
            parts.curl(
                "Send a compressed file of one flow a line",
                f"gzip -c flows.ndjson | curl {parts.ADDRESS}/flows \\",
                "  -H 'Content-Type: application/x-ndjson' \\",
                "  -H 'Content-Encoding: gzip' \\",
                "  --data-binary @-",
            ),
        ],
    }


def _probe(name: str, summary: str, description: str) -> Json:
    def answer(text: str, example: Json) -> Json:
        content = {
            parts.JSON: {"schema": {"$ref": "#/components/schemas/Health"}, "examples": {"answer": {"value": example}}}
        }
        return {"description": text, "headers": parts.named("X-Request-Id"), "content": content}

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
        "x-codeSamples": [parts.curl(summary, f"curl {parts.ADDRESS}/{name}")],
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
                "headers": parts.named("X-Request-Id"),
                "content": {parts.METRICS: {"schema": {"type": "string"}}},
            }
        },
        "x-codeSamples": [parts.curl("Metrics", f"curl {parts.ADDRESS}/metrics")],
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
                "headers": parts.named("Cache-Control", "X-Request-Id"),
                "content": {media_type: {"schema": schema}},
            }
        },
    }
