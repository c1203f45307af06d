"""Bearer tokens, HTTPS and the access log, through writer and reader."""

import hashlib
import json
import ssl
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from flowagg_stack.certificates import Authority
from flowagg_stack.processes import Processes
from flowagg_stack.services import Service, Stack, service_environment, start_service

from tests.conftest import Place
from tests.integration.tools import wait_for

pytestmark = pytest.mark.operations

StartStack = Callable[..., Stack]


def entry(name: str, *access: str, **more: Any) -> dict[str, Any]:
    """A token whose text is its name with -secret."""
    digest = hashlib.sha256(f"{name}-secret".encode()).hexdigest()
    return {"name": name, "sha256": digest, "access": access, **more}


def put(path: Path, *entries: dict[str, Any]) -> None:
    """Put a file in place in one go, as Kubernetes does."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"tokens": entries}))
    new.replace(path)


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}-secret"}


def flow(vpc_id: str, count: int = 1) -> dict[str, Any]:
    return {"src_app": "a", "dest_app": "b", "vpc_id": vpc_id, "hour": 1, "bytes_tx": count, "bytes_rx": 0}


def test_tokens_say_who_may_write_and_what_is_shown(start_stack: StartStack, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    everything, europe = entry("all", "read", "write"), entry("europe", "read", "write", vpc_ids=["eu-*"])
    put(tokens, everything, europe, entry("writer", "write"))
    stack = start_stack(FLOWAGG_TOKENS_FILE=str(tokens))
    posts, gets = f"{stack.writer.url}/flows", f"{stack.reader.url}/flows?hour=1"

    for name, status in (("all", 200), ("europe", 200), ("writer", 200), ("nobody", 401)):
        assert httpx.post(posts, json=[flow("eu-1")], headers=bearer(name)).status_code == status
    assert httpx.post(posts, json=[flow("eu-1")]).status_code == 401
    assert httpx.post(posts, json=[flow("us-1", 7)], headers=bearer("all")).status_code == 200
    refused = httpx.post(posts, json=[flow("eu-1"), flow("us-1")], headers=bearer("europe"))
    assert (refused.status_code, refused.json()["index"], refused.json()["field"]) == (403, 1, "vpc_id")

    seen = httpx.get(gets, headers=bearer("all"))
    assert [(row["vpc_id"], row["bytes_tx"]) for row in seen.json()] == [("eu-1", 3), ("us-1", 7)]
    part = httpx.get(gets, headers=bearer("europe"))
    assert [(row["vpc_id"], row["bytes_tx"]) for row in part.json()] == [("eu-1", 3)]
    assert part.headers["etag"] != seen.headers["etag"]
    assert httpx.get(gets, headers=bearer("all") | {"If-None-Match": seen.headers["etag"]}).status_code == 304
    assert httpx.get(gets, headers=bearer("europe") | {"If-None-Match": seen.headers["etag"]}).status_code == 200
    for reply, status in ((httpx.get(gets), 401), (httpx.get(gets, headers=bearer("writer")), 403)):
        assert reply.status_code == status
        assert reply.headers["www-authenticate"].startswith("Bearer")
        assert reply.headers["content-type"] == "application/problem+json"
    for service in stack.services:
        for path in ("/livez", "/readyz", "/metrics"):
            assert httpx.get(service.url + path).status_code == 200

    put(tokens, everything | {"sha256": entry("other")["sha256"]})
    for ask in (lambda: httpx.get(gets, headers=bearer("all")), lambda: httpx.post(posts, headers=bearer("all"))):
        wait_for(partial(_is_refused, ask), "the changed file is read", 10)
    assert httpx.get(gets, headers=bearer("other")).status_code == 200
    tokens.write_text("{")
    for service, let_in in (
        (stack.writer, lambda: httpx.post(posts, headers=bearer("other")).status_code == 415),
        (stack.reader, lambda: httpx.get(gets, headers=bearer("other")).status_code == 200),
    ):
        wait_for(partial(_keeps, service, let_in), f"{service.name} keeps the former tokens and says so", 10)


def _is_refused(ask: Callable[[], httpx.Response]) -> bool:
    return ask().status_code == 401


def _keeps(service: Service, let_in: Callable[[], bool]) -> bool:
    return let_in() and "tokens.json" in service.checks().get("tokens", "")


@pytest.mark.parametrize("service", ["writer", "reader"])
def test_a_file_of_tokens_that_is_no_good_ends_the_start(
    processes: Processes, place: Place, tmp_path: Path, service: str
) -> None:
    (tmp_path / "tokens.json").write_text('{"tokens": [{"name": "a", "token": "in clear"}]}')
    child = processes.start(
        "refused",
        [sys.executable, "-m", f"flowagg_{service}"],
        service_environment(service, place.environment | {"FLOWAGG_TOKENS_FILE": str(tmp_path / "tokens.json")}),
    )
    assert child.process.wait(30) == 1
    said = child.log.read_text()
    assert "tokens.json" in said
    assert "Traceback" not in said
    assert "in clear" not in said


@pytest.mark.parametrize("service", ["writer", "reader"])
def test_a_service_speaks_https_and_takes_a_renewed_certificate(
    processes: Processes, place: Place, tmp_path: Path, service: str
) -> None:
    former, later = Authority(tmp_path, "former"), Authority(tmp_path, "later")
    files = former.issue("server")
    given = {"FLOWAGG_TLS_CERTIFICATE_FILE": str(files.certificate), "FLOWAGG_TLS_KEY_FILE": str(files.key)}
    started = start_service(processes, service, place.environment | given)
    url = started.url.replace("http:", "https:") + "/livez"

    def trusted(authority: Authority) -> bool:
        context = ssl.create_default_context(cafile=str(authority.certificate))
        try:
            return httpx.get(url, verify=context, timeout=5).status_code == 200
        except httpx.ConnectError:
            return False

    wait_for(lambda: trusted(former), "the service speaks HTTPS", 60)
    assert not trusted(later)
    later.issue("server")  # over the same files
    wait_for(lambda: trusted(later), "the renewed certificate is served", 20)
    files.certificate.write_text("broken")
    assert trusted(later)


def test_the_access_log_has_a_line_for_each_request_and_no_secret(
    processes: Processes, place: Place, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.json"
    put(tokens, entry("all", "read", "write"))
    given = {"FLOWAGG_ACCESS_LOG": "true", "FLOWAGG_TOKENS_FILE": str(tokens)}
    writer = start_service(processes, "writer", place.environment | given)
    writer.wait_ready()
    reply = httpx.post(
        f"{writer.url}/flows", json=[flow("v")], headers=bearer("all") | {"X-Request-Id": "the-one"}, timeout=30
    )
    assert reply.headers["x-request-id"] == "the-one"

    def lines() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in writer.child.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if line.get("request_id") == "the-one"]

    (line,) = wait_for(lines, "the request is logged", 10)
    assert (line["method"], line["path"], line["status"]) == ("POST", "/flows", 200)
    assert "all-secret" not in writer.child.log.read_text()
