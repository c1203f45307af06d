"""GET /flows, HEAD /flows and GET /hours in the OpenAPI document: parameters, queries and answers."""

from flowagg import openapi_parts as parts
from flowagg.flow import MAX_INTEGER
from flowagg.openapi_parts import Json, Limits
from flowagg.position import MAX_TOKEN_CHARACTERS
from flowagg.view import VIEW_NAME


def get_flows(limits: Limits) -> Json:
    """GET /flows."""
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
            parts.curl("Read an hour", f"curl -i '{parts.ADDRESS}/flows?hour=1'"),
            parts.curl("Read what one POST wrote", f"curl -i '{parts.ADDRESS}/flows?hour=1&after=POSITION'"),
            parts.curl(
                "The ten pairs with the most traffic of a day, and the rest",
                f"curl '{parts.ADDRESS}/flows?hour=0-23&group_by=src_app,dest_app&top=10'",
            ),
            parts.curl(
                "All of what goes to an application, as CSV",
                f"curl '{parts.ADDRESS}/flows?hour=0-23&dest_app=payments*&format=csv'",
            ),
        ],
    }


def get_hours(limits: Limits, *, body: bool) -> Json:
    """GET and HEAD /hours."""
    kept = {"after", "consistency", "view", "format", "If-None-Match"}
    parameters = [given for given in _query(limits) if given.get("name", "") in kept or "$ref" in given]
    answers = _answers(limits, body=body, schema="Hours", link=False)
    if body:
        value = [{"hour": 1, "flow_keys": 2}, {"hour": 2, "flow_keys": 2}]
        answers["200"]["content"][parts.JSON]["examples"] = {"hours": {"value": value}}
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
        "x-codeSamples": [parts.curl("Which hours are there?", f"curl {'' if body else '-I '}{parts.ADDRESS}/hours")],
    }


def head_flows(limits: Limits) -> Json:
    """HEAD /flows."""
    return {
        "operationId": "headFlows",
        "tags": ["flows"],
        "summary": "Headers of the totals of an hour",
        "description": "What GET answers, without the body.",
        "security": [{}, {"bearer": []}],
        "parameters": _query(limits),
        "responses": _answers(limits, body=False),
        "x-codeSamples": [parts.curl("Ask whether an hour is fresh", f"curl -I '{parts.ADDRESS}/flows?hour=1'")],
    }


def _query(limits: Limits) -> list[Json]:
    return [
        parts.parameter(
            "hour",
            "query",
            {
                "anyOf": [
                    {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER},
                    {"type": "string", "pattern": f"^{parts.HOUR}(,{parts.HOUR})*$", "minLength": 1, "maxLength": 1000},
                ]
            },
            "The hour, in decimal digits; a range of hours, as `3-9` or `3-`; or a list of these, as `1,3-5`.",
            required=True,
            example=1,
        ),
        parts.parameter(
            "after",
            "query",
            {"type": "string", "minLength": 1, "maxLength": MAX_TOKEN_CHARACTERS, "pattern": "^[A-Za-z0-9_-]+$"},
            "The `position` of a POST's answer: reflect that POST, and wait for no other, also while Kafka is away. "
            "Not together with `consistency=eventual`.",
        ),
        parts.parameter(
            "consistency",
            "query",
            {"type": "string", "enum": list(parts.CONSISTENCIES), "default": "fresh"},
            "What the answer must reflect. "
            + " ".join(f"`{name}`: {meaning}." for name, meaning in parts.CONSISTENCIES.items())
            + f" The wait is {limits.fresh_wait_seconds:g} s at most.",
        ),
        parts.parameter(
            "view",
            "query",
            {"type": "string", "pattern": VIEW_NAME},
            "The name of the view to read. Without it, the one that the reader is for.",
            example="default",
        ),
        *(
            parts.parameter(
                name,
                "query",
                {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": parts.MAX_PATTERNS,
                    "items": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": parts.MAX_PATTERN_CHARACTERS,
                        "pattern": parts.PRINTABLE,
                    },
                },
                f"Only rows whose {name} is one of these. `*` is any text, `?` one character, and `\\` takes the next "
                "character as it is. Ten with * or ? elsewhere than at their end, at most.",
                example=example,
            )
            for name, example in (("src_app", "foo"), ("dest_app", "pay*"), ("vpc_id", "vpc-?"))
        ),
        parts.parameter(
            "group_by",
            "query",
            {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"type": "string", "enum": list(parts.KEY)}},
            "Rows that agree in these fields are added up, and have no others. Several are parted by commas or repeat "
            "the parameter.",
            example="src_app",
        ),
        parts.parameter(
            "order_by",
            "query",
            {
                "type": "string",
                "enum": [f"{name}{way}" for name in (*parts.KEY, *parts.MEASURES) for way in ("", ":asc", ":desc")],
            },
            "In place of the order of the flow key. `bytes` is sent and received together. Names and hours ascend, "
            "bytes descend, unless it says so. Not with `limit`.",
            example="bytes_tx",
        ),
        parts.parameter(
            "top",
            "query",
            {"type": "integer", "minimum": 1, "maximum": parts.MAX_TOP},
            "So many rows, the first of the order (by default `bytes`), and in the end one row for all others, if "
            "there are any: their sums, exact, with `null` for names and hour.",
            example=10,
        ),
        parts.parameter(
            "limit",
            "query",
            {"type": "integer", "minimum": 1, "maximum": parts.MAX_LIMIT},
            "Rows of a page, in the order of the flow key. Where there is a next page, the `Link` header has its "
            f"address. Without it an answer of more than {parts.MAX_LIMIT:,} rows is refused, but that of one whole "
            "hour.",
            example=100,
        ),
        parts.parameter(
            "cursor",
            "query",
            {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9_-]+$"},
            "Where a page begins: from the `Link` header, as it is.",
        ),
        parts.parameter(
            "format",
            "query",
            {"type": "string", "enum": list(parts.FORMATS), "default": "json"},
            "How rows are written. Without it `Accept` decides.",
        ),
        parts.parameter(
            "If-None-Match",
            "header",
            {"type": "string"},
            "ETags of earlier answers: 304 where the hour has not changed since.",
        ),
        {"$ref": "#/components/parameters/RequestId"},
    ]


def _answers(limits: Limits, *, body: bool, schema: str = "Totals", link: bool = True) -> Json:
    examples = {
        "hour1": {"summary": "hour=1", "value": parts.totals(1)},
        "hour2": {"summary": "hour=2", "value": parts.totals(2)},
        "hour3": {"summary": "hour=3: no flows", "value": parts.totals(3)},
    }
    always = ("Flowagg-Fresh", "Flowagg-Lag-Records", "ETag", "Cache-Control")
    more = ("Link",) if link else ()
    headers = parts.named(
        *always, "Flowagg-Expired", "Flowagg-Incomplete", *more, "Vary", "X-Request-Id", required=always
    )
    found: Json = {"description": "The totals, also where they are stale: see `Flowagg-Fresh`.", "headers": headers}
    if body:
        rows = {"$ref": f"#/components/schemas/{schema}"}
        found["content"] = {
            parts.JSON: {"schema": rows, "examples": examples},
            parts.NDJSON: {"schema": {**rows, "description": "One object a line."}},
            parts.CSV: {"schema": {"type": "string", "description": "RFC 4180, with the names of the fields first."}},
        }
    return {
        "200": found,
        "304": {
            "description": "The hour has not changed since the answer with that ETag.",
            "headers": headers,
        },
        **parts.problems(
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
