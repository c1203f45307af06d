"""Requests that schemathesis makes of the OpenAPI document: each answer must be one that the document names.

Valid requests must be taken, and each kind of invalid one refused. A failure is printed with the curl
command that repeats it. This module is schemathesis's hooks too: the command imports it.
"""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import schemathesis
from flowagg.openapi import document
from flowagg.openapi_parts import GZIP, KEY, MEASURES, NDJSON, Limits

from tests.contract.flows import new_hour

MAX_EXAMPLES: Final = 30
ROOT: Final = Path(__file__).parents[2]
POSITION: Final = "CONTRACT_POSITION"
BESIDE: Final = ("/livez", "/readyz", "/metrics", "/openapi.json", "/docs")
CONFIG: Final = """
[phases.coverage]
generate-duplicate-query-parameters = true

[checks.positive_data_acceptance]
# 304: to a drawn If-None-Match. 422: one Idempotency-Key is drawn for several bodies.
expected-statuses = ["2xx", "304", "422"]
"""


@schemathesis.serializer(NDJSON)
def _lines(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """One flow a line; what is no array is one line."""
    return b"".join(json.dumps(flow).encode() + b"\n" for flow in (value if isinstance(value, list) else [value]))


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Make true of a valid request what a schema cannot say."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    body: Any = case.body
    for flow in body if isinstance(body, list) else ():
        # To JSON Schema 1.0 is an integer; here it is not, as a client that writes it may round (documented: 400).
        flow |= {name: int(value) for name, value in flow.items() if isinstance(value, float) and value.is_integer()}
    if "after" in case.query:
        # A position is opaque: only a POST makes one. And with it, eventual contradicts it (documented: 400).
        case.query["after"] = os.environ[POSITION]
        if case.query.get("consistency") == "eventual":
            del case.query["consistency"]
    # What one page has, and what an order goes by (documented: 400). A cursor is opaque: only an answer has one.
    case.query.pop("cursor", None)
    for name in KEY[:3]:
        if isinstance(values := case.query.get(name), list):
            case.query[name] = values[:10]  # more of them may not have wildcards (documented: 400)
    if "top" in case.query:
        case.query.pop("limit", None)
    ordered = str(case.query.get("order_by", "bytes")).partition(":")[0]
    grouped = case.query.get("group_by")
    fields = KEY if grouped is None else [grouped] if isinstance(grouped, str) else grouped
    if "limit" in case.query or ordered not in (*fields, *MEASURES):
        case.query.pop("order_by", None)
    # No schema knows which views are kept: one that is drawn is 404, as test_queries.py has it.
    case.query.pop("view", None)
    if case.headers.get("Content-Encoding") == GZIP:
        # schemathesis sends the body as it is, whatever the header says.
        sent = case.as_transport_kwargs()
        raw = sent["data"] if sent.get("data") is not None else json.dumps(sent["json"]).encode()
        kwargs |= {"data": gzip.compress(raw), "json": None}


@pytest.fixture
def served(base_url: str) -> dict[str, Any]:
    """The document that the system serves; else the one of this checkout."""
    reply = httpx.get(f"{base_url}/openapi.json", timeout=20)
    found: dict[str, Any] = reply.json() if reply.status_code == 200 else document(Limits(), "0")
    # A gateway keeps what each service says of itself from clients; tests/unit/test_openapi.py holds those to it.
    for path in BESIDE:
        if httpx.get(base_url + path, timeout=20).status_code == 404:
            del found["paths"][path]
    return found


def test_the_document_and_its_page_are_served(base_url: str) -> None:
    document_reply, page = (httpx.get(base_url + path, timeout=20) for path in ("/openapi.json", "/docs"))
    assert document_reply.json()["openapi"].startswith("3.1")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!doctype html>")


def test_each_answer_is_one_that_the_document_names(base_url: str, served: dict[str, Any], tmp_path: Path) -> None:
    flow = {"src_app": "schema", "dest_app": "b", "vpc_id": "c", "hour": new_hour(), "bytes_tx": 1, "bytes_rx": 1}
    position = httpx.post(f"{base_url}/flows", json=[flow], timeout=20).json()["position"]
    config, schema = tmp_path / "schemathesis.toml", tmp_path / "openapi.json"
    config.write_text(CONFIG, encoding="utf-8")
    schema.write_text(json.dumps(served), encoding="utf-8")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", str(schema)]
    command += ["--url", base_url, "--generation-deterministic", "--max-examples", str(MAX_EXAMPLES)]
    command += ["--continue-on-failure", "--request-timeout", "20", "--suppress-health-check", "all"]
    command += ["--no-color", "--output-sanitize", "false", "--warnings", "off"]
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": __name__,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        POSITION: position,
    }
    # Its files of the last run go to the working directory.
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    operations = sum(len(path) for path in served["paths"].values())
    assert f"Tested: {operations}\n" in done.stdout
