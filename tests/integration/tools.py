"""What the integration tests share."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import msgspec
from flowagg.flow import Flow
from flowagg_load.generator import Ledger
from flowagg_stack.services import Service, Stack


def post(stack: Stack, flows: Iterable[Flow], ledger: Ledger, batch: int = 500) -> None:
    """POST flows and count them in the ledger."""
    pending = list(flows)
    with httpx.Client(base_url=stack.writer.url, timeout=30) as client:
        for start in range(0, len(pending), batch):
            part = pending[start : start + batch]
            reply = client.post(
                "/flows", content=msgspec.json.encode(part), headers={"Content-Type": "application/json"}
            )
            assert reply.status_code == 200, reply.text
            for flow in part:
                ledger.add(flow)


def get(stack: Stack, hour: int, **query: str) -> httpx.Response:
    return httpx.get(f"{stack.reader.url}/flows", params={"hour": hour, **query}, timeout=30)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """The condition's first true result."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)
    return result


def wait_fresh(stack: Stack, hour: int, seconds: float = 60) -> httpx.Response:
    """The first fresh answer."""

    def fresh() -> httpx.Response | None:
        reply = get(stack, hour)
        return reply if reply.headers.get("flowagg-fresh") == "true" else None

    found: httpx.Response = wait_for(fresh, f"a fresh answer for hour {hour}", seconds)
    return found


def assert_exact(stack: Stack, ledger: Ledger, seconds: float = 60) -> None:
    """Every hour's fresh answer equals the ledger."""
    for hour in ledger.hours():
        assert wait_fresh(stack, hour, seconds).json() == ledger.rows(hour)


def wait_check(service: Service, name: str, text: str, seconds: float = 60) -> None:
    """Wait until /readyz explains itself so."""
    wait_for(
        lambda: text in service.checks().get(name, ""), f"{service.name}'s /readyz says {text!r} of {name}", seconds
    )
