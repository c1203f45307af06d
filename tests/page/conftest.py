"""A system of the session's own, and a browser."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flowagg_stack.embedded import Server
from flowagg_stack.processes import Processes
from flowagg_stack.provision import provision_chromium
from flowagg_stack.services import Stack

from tests.conftest import Place, _place

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def place_of_page(kafka: Server, redis_server: Server) -> Place:
    return _place(kafka, redis_server)


@pytest.fixture(scope="session")
def stack(session_processes: Processes, place_of_page: Place) -> Stack:
    started = Stack(session_processes, place_of_page.environment)
    started.wait_ready()
    return started


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - of a dependency group of its own

    path = provision_chromium(print)
    with sync_playwright() as playwright:
        # As root, in a container, Chromium has no sandbox; the only pages that it sees are ours.
        launched = playwright.chromium.launch(executable_path=path, chromium_sandbox=False)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def shots() -> Path | None:
    """Where pictures of the page are kept, for the docs."""
    given = os.environ.get("FLOWAGG_TESTS_SHOTS")
    return Path(given) if given else None
