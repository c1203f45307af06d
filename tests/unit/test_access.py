"""Bearer tokens."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from flowagg.access import Gate, Grant, InvalidTokens, read_tokens
from flowagg.problem import Problem


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def write(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"tokens": entries}))
    return path


AGENTS = {"name": "agents", "sha256": digest("secret-a"), "access": ["write"], "vpc_ids": ["eu-*", "test-?"]}
READERS = {"name": "readers", "sha256": digest("secret-r"), "access": ["read", "write"]}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "tokens.json", AGENTS, READERS)


def test_without_a_file_everybody_may() -> None:
    grant = Gate(None).enter([], "write")
    assert grant.covers is None
    assert grant.scope == ""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        (["Basic c2VjcmV0"], 401),
        (["Bearer"], 401),
        (["Bearer "], 401),
        (["Bearer wrong"], 401),
        (["Bearer secret-r x"], 401),
        (["Bearer é"], 401),
        (["Bearer " + "a" * 5000], 401),
        (["Bearer secret-r", "Bearer secret-r"], 401),
        (["Bearer secret-a"], 403),
    ],
)
def test_a_request_without_a_good_token_is_refused(file: Path, headers: list[str], status: int) -> None:
    with pytest.raises(Problem) as caught:
        Gate(file).enter(headers, "read")
    assert caught.value.status == status
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("header", ["Bearer secret-r", "bearer secret-r", "BEARER   secret-r  "])
def test_a_token_gives_its_grant(file: Path, header: str) -> None:
    assert Gate(file).enter([header], "read").name == "readers"


@pytest.mark.parametrize(
    ("vpc_id", "covered"),
    [
        ("eu-1", True),
        ("eu-", True),
        ("eu", False),
        ("xeu-1", False),
        ("test-1", True),
        ("test-12", False),
        ("eu-\U0001f600", True),
        ("EU-1", False),
    ],
)
def test_patterns_match_whole_vpc_ids(file: Path, vpc_id: str, covered: bool) -> None:
    covers = Gate(file).enter(["Bearer secret-a"], "write").covers
    assert covers is not None
    assert [covers(vpc_id), covers(vpc_id)] == [covered, covered]


def test_patterns_hold_no_regular_expressions() -> None:
    covers = Grant("n", ["read"], ["a.c", "[x]|y"]).covers
    assert covers is not None
    assert [covers(text) for text in ("a.c", "abc", "[x]|y", "x", "y")] == [True, False, True, False, False]


def test_grants_that_show_other_rows_have_other_scopes() -> None:
    scopes = {Grant("n", ["read"], vpc_ids).scope for vpc_ids in (None, ["a"], ["b"], ["a", "b"], ["*", "a"])}
    assert len(scopes) == 4
    assert Grant("n", ["read"], ["a", "b"]).scope == Grant("m", ["write"], ["b", "a"]).scope


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"tokens": [{"name": "a"}]}',
        json.dumps({"tokens": [AGENTS | {"sha256": "ABC"}]}),
        json.dumps({"tokens": [AGENTS | {"access": ["admin"]}]}),
        json.dumps({"tokens": [AGENTS | {"access": []}]}),
        json.dumps({"tokens": [AGENTS | {"vpc_ids": []}]}),
        json.dumps({"tokens": [AGENTS | {"token": "in clear"}]}),
        json.dumps({"tokens": [AGENTS, AGENTS]}),
    ],
)
def test_a_file_that_is_no_good_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(text)
    with pytest.raises(InvalidTokens, match=r"tokens\.json") as caught:
        read_tokens(path)
    assert digest("secret-a") not in str(caught.value)


def test_a_changed_file_is_read_within_a_second_and_a_bad_one_leaves_the_former(file: Path) -> None:
    clock = Clock()
    gate = Gate(file, clock)
    other = write(file.with_name("new"), READERS | {"sha256": digest("other")})
    other.replace(file)
    gate.enter(["Bearer secret-r"], "read")
    clock.now = 1.5
    with pytest.raises(Problem):
        gate.enter(["Bearer secret-r"], "read")
    gate.enter(["Bearer other"], "read")
    file.write_text("{")
    clock.now = 3
    gate.enter(["Bearer other"], "read")
    assert gate.trouble is not None
    assert "tokens.json" in gate.trouble
    write(file, AGENTS)
    clock.now = 6
    assert gate.enter(["Bearer secret-a"], "write").name == "agents"
    assert gate.trouble is None
