"""Tokens by Secret: switched on, changed and switched off again under load."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable

from tests.e2e.release import Release
from tests.e2e.traffic import Traffic

SECRET = "tokens"
FIRST, SECOND = "the-first-token-of-the-e2e-tests", "the-second-token-of-the-e2e-tests"


def tokens(*given: str) -> dict[str, object]:
    """A Secret with the hashes of tokens that may do all."""
    entries = [
        {"name": f"token-{number}", "sha256": hashlib.sha256(one.encode()).hexdigest(), "access": ["read", "write"]}
        for number, one in enumerate(given)
    ]
    data = {"tokens.json": b64encode(json.dumps({"tokens": entries}).encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "data": data}


def test_tokens_come_change_and_go_under_load(release: Release, load: Callable[..., Traffic]) -> None:
    with release.target.client() as client:

        def status(token: str | None, method: str) -> int:
            headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
            body = b"[]" if method == "POST" else None
            query = {"hour": 1} if method == "GET" else None
            return client.request(method, "/flows", headers=headers, content=body, params=query).status_code

        def statuses(token: str | None) -> set[int]:
            return {status(token, method) for method in ("POST", "GET")}

        release.kube.apply(tokens(FIRST))
        with load(token=FIRST) as traffic:
            traffic.wait_flowing()
            release.upgrade({"tokens": {"existingSecret": SECRET}})
            release.wait(lambda: statuses(None) == {401}, "nobody without a token", 120)
            release.wait_healthy()
            assert statuses(FIRST) == {200}
            assert statuses(SECOND) == {401}
            release.kube.apply(tokens(FIRST, SECOND))
            release.wait(lambda: statuses(SECOND) == {200}, "the second token is known", 120)
            release.wait_healthy()
            release.upgrade()
            release.wait(lambda: statuses(None) == {200}, "everybody again", 120)
            release.wait_healthy()
        release.kube.delete("secret", SECRET)
    print(traffic.record.summary())
    assert traffic.record.uncured() == []
