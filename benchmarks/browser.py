"""A headless Chromium for benchmarks of the page: times from the click to what a reader sees."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowagg_stack.provision import provision_chromium


@contextmanager
def chromium() -> Iterator[Any]:
    """Playwright's browser, ended at the end. It needs the dependency group `browser`."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - of a dependency group of its own

    path = provision_chromium(print)
    with sync_playwright() as playwright:
        # As root, in a container, Chromium has no sandbox; the only pages that it sees are ours.
        launched = playwright.chromium.launch(executable_path=path, chromium_sandbox=False)
        yield launched
        launched.close()


def seconds_until_usable(browser: Any, url: str, shot: Path | None = None) -> float:
    """From asking for the page, by a browser that has never seen it, to its hours, top talkers and rows being drawn."""
    context = browser.new_context(viewport={"width": 1280, "height": 1100}, locale="en-US")
    try:
        page = context.new_page()
        began = time.perf_counter()
        page.goto(url, wait_until="commit")
        page.wait_for_function(
            "() => ['#hours button', '#top li', '#matrix tbody tr', '#rows tbody tr']"
            ".every(part => document.querySelector(part))",
            polling="raf",
        )
        took = time.perf_counter() - began
        if shot is not None:
            page.screenshot(path=str(shot))
        return took
    finally:
        context.close()
