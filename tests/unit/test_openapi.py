"""The OpenAPI document says what the code does, and the page says what the document does."""

import ast
import asyncio
import inspect
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import flowagg_reader
import flowagg_writer
import httpx
import pytest
from flowagg import access, http_guard
from flowagg.docs_page import page
from flowagg.docs_routes import docs_routes
from flowagg.flow import Flow, InvalidFlow, decode_flows
from flowagg.idempotency import is_key
from flowagg.openapi import document
from flowagg.openapi_parts import Limits
from flowagg.position import Position
from flowagg.problem import HANDLERS, Problem
from flowagg.service import operational_routes
from flowagg_consumer.settings import ConsumerSettings
from flowagg_reader import formats, query
from flowagg_reader.settings import ReaderSettings
from flowagg_writer.app import create_app
from flowagg_writer.batch import Batch
from flowagg_writer.log import Log
from flowagg_writer.settings import WriterSettings
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette
from starlette.types import ASGIApp

FLOW = {"src_app": "a", "dest_app": "b", "vpc_id": "c", "hour": 1, "bytes_tx": 1, "bytes_rx": 2}
DOCUMENT = document(Limits(), "0.1.0")
OPERATIONS = [(path, method) for path, item in DOCUMENT["paths"].items() for method in item]


class AcceptingLog:
    async def append(self, batch: Batch, timeout_seconds: float) -> Position:
        return Position("topic", {})


def operation(method: str, path: str = "/flows") -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method]
    return found


def parameters(method: str, place: str) -> dict[str, dict[str, Any]]:
    resolved = [
        DOCUMENT["components"]["parameters"][given["$ref"].rpartition("/")[2]] if "$ref" in given else given
        for given in operation(method)["parameters"]
    ]
    return {parameter["name"]: parameter for parameter in resolved if parameter["in"] == place}


def check(schema: dict[str, Any], value: Any) -> None:
    OAS31Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def sources(module: ModuleType) -> Iterator[str]:
    for directory in module.__path__:
        for path in sorted(Path(directory).glob("*.py")):
            yield path.read_text(encoding="utf-8")


def statuses(*texts: str) -> set[int]:
    """The statuses of all problems that the code raises."""
    found = set()
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
                status = node.args[0] if node.args else None
                if isinstance(status, ast.Constant) and isinstance(status.value, int):
                    found.add(status.value)
    return found


def send(app: ASGIApp, method: str, path: str, **options: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            return await client.request(method, path, **options)

    return asyncio.run(ask())


def test_the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_the_query_parameters_are_those_that_the_reader_knows() -> None:
    for method in ("get", "head"):
        found = parameters(method, "query")
        assert list(found) == list(query._KNOWN)
        assert [name for name in found if found[name]["required"]] == ["hour"]
        assert found["group_by"]["schema"]["items"]["enum"] == list(query.KEY)
        assert (found["top"]["schema"]["maximum"], found["limit"]["schema"]["maximum"]) == (
            query.MAX_TOP,
            query.MAX_LIMIT,
        )
        assert found["format"]["schema"]["enum"] == [str(value) for value in query.Format]
        assert found["src_app"]["schema"]["maxItems"] == query._MAX_PATTERNS
        assert found["src_app"]["schema"]["items"]["maxLength"] == query._MAX_PATTERN_CHARACTERS
        for ordered in found["order_by"]["schema"]["enum"]:
            query.parse_query([("hour", "1"), ("order_by", ordered)])
        assert found["consistency"]["schema"]["enum"] == [str(value) for value in query.Consistency]
        assert found["consistency"]["schema"]["default"] == query.parse_query([("hour", "1")]).consistency


def test_the_parameters_and_media_types_of_hours_are_those_of_the_code() -> None:
    found = operation("get", "/hours")
    assert [one["name"] for one in found["parameters"] if one.get("in") == "query"] == list(query.KNOWN_OF_HOURS)
    for path in ("/flows", "/hours"):
        content = operation("get", path)["responses"]["200"]["content"]
        assert list(content) == [media_type.partition(";")[0] for media_type in formats.MEDIA_TYPES.values()]


@pytest.mark.parametrize("hour", [-1, 0, 1, 2**53 - 1, 2**53, "1-", "1,2", "3-,1", "1,,2", "x", "01", "-1", "1,", ""])
def test_an_hour_is_valid_where_the_reader_takes_it(hour: int | str) -> None:
    try:
        query.parse_query([("hour", str(hour))])
        taken = True
    except Problem:
        taken = False
    assert OAS31Validator(parameters("get", "query")["hour"]["schema"]).is_valid(hour) is taken


def test_the_limits_are_the_settings_defaults() -> None:
    defaults: dict[str, Any] = {}
    for settings in (WriterSettings, ReaderSettings, ConsumerSettings):
        defaults |= {name: field.default for name, field in settings.model_fields.items()}
    said = {name: getattr(Limits(), name) for name in Limits.__slots__}
    assert said == {name: defaults[name] for name in said}


BY_THE_ROUTER = {405}
# Answered to what never becomes a request of HTTP/1.1, or by a fault: no client can plan for them.
UNPLANNED = {500, 501, 505}


@pytest.mark.parametrize(("method", "service"), [("post", flowagg_writer), ("get", flowagg_reader)])
def test_the_statuses_are_those_that_the_code_answers(method: str, service: ModuleType) -> None:
    shared = [inspect.getsource(module) for module in (access, http_guard)]
    raised = statuses(*sources(service), *shared) | BY_THE_ROUTER
    said = {int(status) for status in operation(method)["responses"] if int(status) >= 400}
    assert said == raised - UNPLANNED


def test_the_headers_of_ours_are_those_in_the_code() -> None:
    named = re.compile(r'"(Flowagg-[A-Za-z-]+)"')
    coded = {header for text in sources(flowagg_reader) for header in named.findall(text)}
    assert {name for name in DOCUMENT["components"]["headers"] if name.startswith("Flowagg-")} == coded
    assert {name for name in operation("get")["responses"]["200"]["headers"] if name.startswith("Flowagg-")} == coded


def test_a_flow_has_the_rules_of_the_code() -> None:
    schema = DOCUMENT["components"]["schemas"]["Flow"]
    assert tuple(schema["required"]) == tuple(schema["properties"]) == Flow.__struct_fields__
    assert tuple(DOCUMENT["components"]["schemas"]["FlowTotals"]["properties"]) == Flow.__struct_fields__
    validator = OAS31Validator(schema)
    # In the middle: at the end Python's $ would pass a newline, ECMA-262's does not.
    names = ["", "x" * 256, "x" * 257, *(f"x{chr(point)}x" for point in (*range(0x200), 0x2028, 0xFEFF, 0x1F600))]
    for name in names:
        value = {**FLOW, "src_app": name}
        try:
            decode_flows(json.dumps([value]).encode())
            taken = True
        except InvalidFlow:
            taken = False
        assert validator.is_valid(value) is taken, repr(name)


@pytest.mark.parametrize("key", ["", "k", "a b", "k" * 128, "k" * 129, "é", "\t", "~!"])
def test_a_key_is_valid_where_the_writer_takes_it(key: str) -> None:
    assert OAS31Validator(parameters("post", "header")["Idempotency-Key"]["schema"]).is_valid(key) is is_key(key)


@pytest.mark.parametrize(
    ("media_type", "encoding", "taken"),
    [
        *((media_type, "identity", True) for media_type in operation("post")["requestBody"]["content"]),
        *(
            ("application/json", value, True)
            for value in parameters("post", "header")["Content-Encoding"]["schema"]["enum"]
        ),
        ("text/plain", "identity", False),
        ("application/json", "br", False),
    ],
)
def test_the_writer_takes_the_media_types_and_encodings_of_the_document(
    media_type: str, encoding: str, taken: bool
) -> None:
    app = create_app(WriterSettings(), cast(Log, AcceptingLog()))
    headers = {"Content-Type": media_type, "Content-Encoding": encoding}
    reply = send(app, "POST", "/flows", content=b"", headers=headers)
    assert (reply.status_code != 415) is taken, reply.text


@pytest.mark.parametrize(
    ("flows", "status"), [([FLOW], 200), ([], 200), ([{**FLOW, "hour": -1}], 400), ({}, 400), ([{}], 400)]
)
def test_what_the_writer_answers_is_as_the_document_says(flows: Any, status: int) -> None:
    reply = send(create_app(WriterSettings(), cast(Log, AcceptingLog())), "POST", "/flows", json=flows)
    assert reply.status_code == status
    content = operation("post")["responses"][str(status)]["content"]
    check(content[reply.headers["content-type"]]["schema"], reply.json())


@pytest.mark.parametrize(("checks", "status"), [({}, 200), ({"redis": "ok"}, 200), ({"redis": "away"}, 503)])
def test_what_the_probes_and_metrics_answer_is_as_the_document_says(checks: dict[str, str], status: int) -> None:
    app = Starlette(routes=operational_routes(live=lambda: checks, ready=lambda: checks), exception_handlers=HANDLERS)
    for path in ("/livez", "/readyz"):
        reply = send(app, "GET", path)
        assert reply.status_code == status
        content = operation("get", path)["responses"][str(status)]["content"]
        check(content[reply.headers["content-type"]]["schema"], reply.json())
    reply = send(app, "GET", "/metrics")
    assert (
        reply.headers["content-type"].partition(";")[0] in operation("get", "/metrics")["responses"]["200"]["content"]
    )


def test_the_examples_are_as_the_schemas_say() -> None:
    count = 0
    for path, method in OPERATIONS:
        found = operation(method, path)
        for part in (found.get("requestBody", {}), *found["responses"].values()):
            for media in part.get("content", {}).values():
                for example in media.get("examples", {}).values():
                    check(media["schema"], example["value"])
                    count += 1
    assert count > 8


# The page ----------------------------------------------------------------------------------------

_VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})


class Reading(HTMLParser):
    """Reads a page; fails where elements are not nested well."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data

    def attributes(self, name: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(name)) is not None]


PAGE = Reading(page(DOCUMENT))


def test_the_page_tells_of_each_operation_parameter_status_header_and_field() -> None:
    identifiers = PAGE.attributes("id")
    for path, method in OPERATIONS:
        found = operation(method, path)
        assert found["operationId"] in identifiers
        assert path in PAGE.words
        assert all(sample["source"] in PAGE.words for sample in found.get("x-codeSamples", ()))
        assert all(f"{status}" in PAGE.words for status in found["responses"])
    for name in (*parameters("post", "header"), *parameters("get", "query"), *Flow.__struct_fields__):
        assert name in PAGE.words
    assert {f"header-{name}" for name in DOCUMENT["components"]["headers"]} < set(identifiers)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    assert {tag for tag, _ in PAGE.elements}.isdisjoint({"script", "link", "img", "iframe", "form"})
    assert PAGE.attributes("src") == PAGE.attributes("style") == []
    assert "url(" not in page(DOCUMENT)
    assert "@import" not in page(DOCUMENT)


def test_the_links_of_the_page_lead_somewhere() -> None:
    identifiers = PAGE.attributes("id")
    assert len(identifiers) == len(set(identifiers))
    links = set(PAGE.attributes("href"))
    assert links - {f"#{identifier}" for identifier in identifiers} == {"openapi.json"}


def test_text_of_the_document_is_never_markup() -> None:
    hostile = json.loads(json.dumps(DOCUMENT).replace("Send flows", "<script>alert(1)</script> & more"))
    assert "<script>" not in page(hostile)
    assert "<script>alert(1)</script> & more" in Reading(page(hostile)).words


def test_both_are_served_with_a_policy_that_allows_the_style_alone() -> None:
    app = Starlette(routes=docs_routes())
    data, text = send(app, "GET", "/openapi.json"), send(app, "GET", "/docs")
    assert data.headers["content-type"] == "application/json"
    assert data.json()["paths"] == DOCUMENT["paths"]
    assert text.headers["content-type"] == "text/html; charset=utf-8"
    assert data.headers["cache-control"] == text.headers["cache-control"] == "public, max-age=300"
    policy = dict(part.strip().split(" ", 1) for part in text.headers["content-security-policy"].split(";"))
    assert policy.pop("style-src").startswith("'sha256-")
    assert set(policy) == {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert set(policy.values()) == {"'none'"}
    assert send(app, "HEAD", "/docs").status_code == 200
