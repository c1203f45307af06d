"""The page at /ui, as somebody uses it: by mouse, by keyboard, and as a reader of the screen has it read."""

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
from flowagg_stack.processes import Processes
from flowagg_stack.services import Stack, start_service

from tests.conftest import Place

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Response

pytestmark = [pytest.mark.page, pytest.mark.timeout(180)]

APPS: Final = ("web", "cart", "payments", "search", "auth", "mail", "ledger", "stock", "images", "video", "chat", "ads")
ODD: Final = 'a "quoted", <b>bold</b> & *starred* name'
HUGE: Final = 2**53 - 1
DAY: Final = 480_000
"""The first of the hours."""


def post(stack: Stack, *flows: dict[str, Any]) -> None:
    reply = httpx.post(f"{stack.writer.url}/flows", json=list(flows), timeout=30)
    assert reply.status_code == 200, reply.text
    after = reply.json()["position"]
    for hour in {flow["hour"] for flow in flows}:
        query = {"hour": hour, "after": after, "consistency": "strict"}
        for _ in range(100):
            if httpx.get(f"{stack.reader.url}/flows", params=query, timeout=30).status_code == 200:
                break


def flow(hour: int, src: str, dest: str, vpc: str = "vpc-0", tx: int = 1000, rx: int = 2000) -> dict[str, Any]:
    return {"src_app": src, "dest_app": dest, "vpc_id": vpc, "hour": hour, "bytes_tx": tx, "bytes_rx": rx}


@pytest.fixture(scope="module", autouse=True)
def filled(stack: Stack) -> None:
    """A day of traffic, with an odd name and numbers that JavaScript's cannot hold."""
    rng = random.Random(1)
    flows = [
        flow(
            DAY + hour,
            source,
            destination,
            f"vpc-{rng.randrange(3)}",
            int(rng.paretovariate(0.8) * 1e6 * (1.2 + rng.random()) * (3 if 8 <= hour <= 18 else 1)),
            int(rng.paretovariate(0.8) * 1e5),
        )
        for hour in range(24)
        for source in APPS
        for destination in rng.sample(APPS, 6)
        if source != destination
    ]
    post(stack, *flows, flow(DAY + 23, ODD, "web", tx=HUGE, rx=HUGE), flow(DAY + 23, ODD, "web", tx=HUGE, rx=0))


@pytest.fixture
def context(browser: "Browser") -> "Iterator[BrowserContext]":
    made = browser.new_context(viewport={"width": 1280, "height": 1100}, color_scheme="light", locale="en-US")
    made.set_default_timeout(15_000)
    yield made
    made.close()


Open = Callable[..., "Page"]


@pytest.fixture
def open_page(context: "BrowserContext", stack: Stack) -> Iterator[Open]:
    """Opens the page. In the end it must have asked nobody else, and complained of nothing."""
    complaints: list[str] = []
    asked: list[str] = []

    def opened(query: str = "", url: str = stack.reader.url) -> "Page":
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{url}/ui/{query}")
        return page

    yield opened
    # A browser tells of every answer past 399 itself.
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []
    assert {httpx.URL(url).host for url in asked} == {"127.0.0.1"}


def rows(page: "Page") -> list[list[str]]:
    """The table's cells."""
    found: list[list[str]] = page.eval_on_selector_all(
        "#rows tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return found


def wait_rows(page: "Page", text: str) -> None:
    page.wait_for_function("text => document.getElementById('rows-note').textContent.startsWith(text)", arg=text)


def test_it_begins_with_the_latest_hour_and_totals_are_exact(open_page: Open) -> None:
    page = open_page()
    page.wait_for_selector("#rows tbody tr")
    assert page.input_value("#hour") == str(DAY + 23)
    assert rows(page)[0] == [ODD, "web", "vpc-0", str(DAY + 23), f"{2 * HUGE:,}", f"{HUGE:,}"]
    assert page.locator("#hours button").count() == 24
    assert "All that was acknowledged is here." in page.inner_text("#freshness")
    total = page.inner_text("#rows tfoot td >> nth=0")
    assert int(total.replace(",", "")) == sum(int(row[-2].replace(",", "")) for row in rows(page))
    assert page.locator("b").count() == 0, "a name is never markup"


def test_filters_narrow_everything_and_stand_in_the_address(open_page: Open) -> None:
    page = open_page(f"?hour={DAY}-{DAY + 5}")
    wait_rows(page, "100 rows, and all others")
    page.fill("#src_app", "pay*")
    page.press("#src_app", "Enter")
    page.wait_for_function(
        "() => [...document.querySelectorAll('#rows tbody tr:not(.others)')]"
        ".every(row => row.cells[0].textContent === 'payments')"
    )
    assert "src_app=pay*" in page.url.replace("%2A", "*")
    assert {row[0] for row in rows(page)} == {"payments"}
    assert page.locator("#matrix tbody tr").count() == 1
    page.go_back()
    wait_rows(page, "100 rows, and all others")
    assert page.input_value("#src_app") == ""
    page.go_forward()
    wait_rows(page, "")
    assert page.input_value("#src_app") == "pay*"
    page.click("text=Clear")
    page.wait_for_function("() => document.querySelectorAll('#rows tbody .others').length === 1")
    assert page.url.endswith("/ui/?hour=")


def test_names_are_completed_from_what_there_is(open_page: Open) -> None:
    page = open_page(f"?hour={DAY}-")
    wait_rows(page, "100")
    page.focus("#dest_app")
    page.keyboard.type("ar")
    page.wait_for_function("() => document.querySelectorAll('#dest_app-names option').length === 2")
    options = page.eval_on_selector_all("#dest_app-names option", "all => all.map(one => one.value)")
    assert sorted(options) == ["cart", "search"]
    page.fill("#dest_app", "")
    page.focus("#src_app")
    page.keyboard.type('"quo')
    page.wait_for_function("() => document.querySelectorAll('#src_app-names option').length === 1")
    (option,) = page.eval_on_selector_all("#src_app-names option", "all => all.map(one => one.value)")
    page.fill("#src_app", option)
    page.press("#src_app", "Enter")
    wait_rows(page, "1 rows")
    assert rows(page)[0][0] == ODD


def test_columns_sort_both_ways(open_page: Open) -> None:
    page = open_page(f"?hour={DAY + 2}")
    page.wait_for_selector("#rows tbody tr")
    for label, place, descending in (("Sent", 4, True), ("Source", 0, False), ("Received", 5, True)):
        for way in (descending, not descending):
            page.click(f"#rows thead button:text-is('{label}')")
            said = "descending" if way else "ascending"
            page.wait_for_selector(f"#rows thead th[aria-sort='{said}'] button:text-is('{label}')")
            found = [row[place] for row in rows(page) if len(row) == 6]
            keys = [int(text.replace(",", "")) for text in found] if place > 3 else found
            assert keys == sorted(keys, reverse=way)
            assert page.evaluate("document.activeElement.textContent") == label, "the focus stays"


def test_an_hour_and_a_talker_are_a_click_away(open_page: Open) -> None:
    page = open_page(f"?hour={DAY}-")
    page.click(f"#hours button[aria-label^='Hour {DAY + 9},']")
    page.wait_for_selector(f"#hours button[aria-pressed='true'][aria-label^='Hour {DAY + 9},']")
    assert page.input_value("#hour") == str(DAY + 9)
    page.select_option("#talkers", "src_app")
    page.wait_for_function("() => !document.querySelector('#top li').textContent.includes('→')")
    name = page.inner_text("#top li button >> nth=0")
    page.click("#top li button >> nth=0")
    page.wait_for_function("name => document.getElementById('src_app').value === name", arg=name)
    page.wait_for_function(
        "name => [...document.querySelectorAll('#rows tbody tr')].every(row => row.cells[0].textContent === name)",
        arg=name,
    )
    assert {row[0] for row in rows(page)} == {name}


def test_more_rows_come_by_a_button(open_page: Open) -> None:
    page = open_page(f"?hour={DAY}-")
    wait_rows(page, "100 rows, and all others")
    page.click("text=Show more")
    wait_rows(page, "1,000 rows")
    assert len(rows(page)) == 1001


def test_all_rows_are_downloaded_page_by_page(open_page: Open, stack: Stack) -> None:
    page = open_page(f"?hour={DAY}-")
    wait_rows(page, "100 rows")
    with page.expect_download() as download:
        page.click("text=All rows as CSV")
    text = download.value.path().read_text(encoding="utf-8")
    query = {"hour": f"{DAY}-", "format": "csv"}
    assert text.encode() == httpx.get(f"{stack.reader.url}/flows", params=query, timeout=30).content.replace(
        b"\r\n", b"\n"
    )


def test_the_focus_stays_when_things_are_drawn_anew(open_page: Open, stack: Stack) -> None:
    page = open_page("?hour=11-12")
    wait_rows(page, "No flows match.")
    post(stack, flow(11, "a", "b"))
    page.select_option("#refresh", "2")
    wait_rows(page, "1 rows")
    page.focus("#hours button[aria-label^='Hour 11,']")
    post(stack, flow(12, "a", "b"))
    wait_rows(page, "2 rows")
    assert page.evaluate("document.activeElement.dataset.key") == "11"


def test_what_came_with_a_refresh_that_broke_off_is_drawn_by_the_next(
    open_page: Open, context: "BrowserContext", stack: Stack
) -> None:
    page = open_page("?hour=13")
    wait_rows(page, "No flows match.")
    post(stack, flow(13, "late", "b"))
    failing = re.compile(r"group_by=dest_app")
    context.route(failing, lambda route: route.fulfill(status=503, json={"status": 503, "detail": "later"}))
    page.click("text=Show")
    page.wait_for_function("() => document.getElementById('trouble').textContent === 'later'")
    context.unroute(failing)
    page.click("text=Show")
    wait_rows(page, "1 rows")


def test_new_traffic_comes_by_itself_and_what_is_unchanged_is_not_sent_again(open_page: Open, stack: Stack) -> None:
    page = open_page("?hour=7")
    wait_rows(page, "No flows match.")
    replies: list[Response] = []
    page.on("response", lambda reply: replies.append(reply))  # noqa: PLW0108 - Playwright marks what it is given
    page.select_option("#refresh", "2")
    page.wait_for_timeout(5000)
    repeated = [reply for reply in replies if "/flows" in reply.url][-4:]
    assert {reply.status for reply in repeated} == {304}
    post(stack, flow(7, "new", "here", tx=5))
    wait_rows(page, "1 rows")
    assert rows(page) == [["new", "here", "vpc-0", "7", "5", "2,000"]]


def test_everything_is_reached_by_keyboard(open_page: Open) -> None:
    page = open_page(f"?hour={DAY + 1}")
    page.wait_for_selector("#rows tbody tr")
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "(one => one === document.body ? 'BODY' : one.id || one.textContent)(document.activeElement)"
        )
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or focused == "BODY"
        reached.append(focused)
    for wanted in (
        "Skip to the rows",
        "refresh",
        "theme",
        "hour",
        "src_app",
        "dest_app",
        "vpc_id",
        "Show",
        "talkers",
        "Source",
    ):
        assert wanted in reached, reached
    page.focus(f"#hours button[aria-label^='Hour {DAY + 4},']")
    page.keyboard.press("Enter")
    page.wait_for_function(f"() => document.getElementById('hour').value === '{DAY + 4}'")


def test_a_reader_of_the_screen_is_told_what_things_are(open_page: Open) -> None:
    page = open_page(f"?hour={DAY + 1}")
    page.wait_for_selector("#rows tbody tr")
    for label in ("Hours", "Source", "Destination", "VPC", "Bytes", "Refresh", "Theme"):
        assert page.get_by_label(label, exact=True).count() == 1, label
    headings = page.locator("h1, h2").all_inner_texts()
    assert headings == ["Flows", "Traffic by hour", "Top talkers", "From source to destination", "Rows"]
    assert page.get_by_role("table").count() == 2
    assert page.get_by_role("columnheader", name="Source").count() >= 1
    assert page.locator("#freshness").get_attribute("aria-live") == "polite"
    assert page.locator("html").get_attribute("lang") == "en"
    unnamed = page.eval_on_selector_all(
        "button, input, select, a",
        "all => all.filter(one => !(one.labels?.length || one.textContent.trim() || one.ariaLabel)).length",
    )
    assert unnamed == 0


def test_themes(open_page: Open) -> None:
    page = open_page()
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.select_option("#theme", "light")
    assert page.evaluate(ground) == light
    page.reload()
    assert page.evaluate(ground) == light, "it is remembered"
    page.select_option("#theme", "auto")
    assert page.evaluate(ground) == dark


def test_what_is_wrong_is_told(open_page: Open, context: "BrowserContext") -> None:
    page = open_page(f"?hour={DAY}")
    page.wait_for_selector("#rows tbody tr")
    problem = {"status": 503, "detail": "Redis, which holds the totals, does not answer: ask again later."}
    context.route(
        "**/flows?*",
        lambda route: route.fulfill(status=200, headers={"Flowagg-Fresh": "false"}, body="hour,bytes_tx,bytes_rx\r\n"),
    )
    page.click("text=Show")
    page.wait_for_function("() => document.getElementById('freshness').className === 'stale'")
    context.unroute("**/flows?*")
    context.route(
        "**/flows?*",
        lambda route: route.fulfill(status=400, json=problem | {"status": 400, "detail": "ask for fewer hours"}),
    )
    page.click("text=Show")
    page.wait_for_function("() => document.getElementById('trouble').textContent === 'ask for fewer hours'")


def test_a_token_is_asked_for_where_there_are_tokens(
    open_page: Open, processes: Processes, place_of_page: Place, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.json"
    digest = hashlib.sha256(b"let-me-read").hexdigest()
    entry = {"name": "people", "sha256": digest, "access": ["read"], "vpc_ids": ["vpc-1"]}
    tokens.write_text(json.dumps({"tokens": [entry]}), encoding="utf-8")
    reader = start_service(processes, "reader", place_of_page.environment | {"FLOWAGG_TOKENS_FILE": str(tokens)})
    reader.wait_ready()
    page = open_page(f"?hour={DAY + 3}", reader.url)
    page.wait_for_selector("#sign-in:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "token"
    page.keyboard.type("let-me-read")
    page.keyboard.press("Enter")
    page.wait_for_selector("#rows tbody tr")
    assert {row[2] for row in rows(page)} == {"vpc-1"}
    page.wait_for_selector("#sign-in", state="hidden")
    assert "let-me-read" not in page.url
    assert "let-me-read" not in page.content()


def test_pictures_for_the_docs(open_page: Open, shots: Path | None) -> None:
    """Taken every time; kept where that is asked for."""
    page = open_page(f"?hour={DAY + 10}&vpc_id=vpc-1")
    page.wait_for_selector("#matrix tbody tr")
    light = page.screenshot()
    page.select_option("#theme", "dark")
    page.fill("#vpc_id", "")
    page.fill("#src_app", "payments")
    page.press("#src_app", "Enter")
    page.wait_for_function("() => document.querySelectorAll('#matrix tbody tr').length === 1")
    page.wait_for_timeout(400)  # transitions
    dark = page.screenshot()
    assert light[:4] == dark[:4] == b"\x89PNG"
    if shots is not None:
        (shots / "ui-light.png").write_bytes(light)
        (shots / "ui-dark.png").write_bytes(dark)


def test_the_files_are_served_with_a_policy_and_a_tag(stack: Stack) -> None:
    page = httpx.get(f"{stack.reader.url}/ui", follow_redirects=True)
    assert page.url.path == "/ui/"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in re.findall(r'(?:src|href)="([a-z.]+\.(?:js|css|svg))"', page.text):
        reply = httpx.get(f"{stack.reader.url}/ui/{name}")
        assert reply.status_code == 200
        held = httpx.get(f"{stack.reader.url}/ui/{name}", headers={"If-None-Match": reply.headers["etag"]})
        assert (held.status_code, held.content) == (304, b"")
    assert httpx.get(f"{stack.reader.url}/ui/none.js").status_code == 404
