"""The repair guide, its tests and the code name the same repairs."""

import re
from collections import Counter
from pathlib import Path

import pytest
from flowagg_consumer.partition import StopReason

from tests.integration.repair_guide import GUIDE, blocks

REPOSITORY = Path(__file__).parents[2]
TESTS = REPOSITORY / "tests" / "integration" / "test_repairs.py"
TEXT = GUIDE.read_text(encoding="utf-8")
SECTIONS = {title: found for title, found in blocks(TEXT).items() if title != "Before you begin"}


def anchor(title: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("reason", StopReason)
def test_every_reason_to_stop_has_a_section(reason: StopReason) -> None:
    assert reason.value in SECTIONS
    stopped = (REPOSITORY / "docs" / "guides" / "stopped-partitions.md").read_text(encoding="utf-8")
    assert f"repair.md#{anchor(reason.value)}" in stopped


def test_every_command_of_the_guide_is_tried_by_a_test() -> None:
    tried = re.findall(r'\.run\("([^"]+)", (\d+)', TESTS.read_text(encoding="utf-8"))
    written = {(title, str(number)) for title, found in SECTIONS.items() for number in range(1, len(found) + 1)}
    assert set(tried) == written


def test_every_section_is_in_the_table_and_says_what_is_over_and_what_is_lost() -> None:
    table = Counter(re.findall(r"^\|.*\]\(#([\w-]+)\) \|$", TEXT, re.M))
    assert table == Counter(anchor(title) for title in SECTIONS)
    for section in re.split(r"^## ", TEXT, flags=re.M)[1:]:
        title = section.partition("\n")[0]
        if title in SECTIONS and title != "LogTruncated":  # which goes as PositionBeyondLog does
            assert "**You see**" in section, title
            assert "over**" in section.lower(), title
            assert "**Lost:**" in section or "nothing is lost" in section, title


def test_links_to_the_guide_lead_to_sections() -> None:
    anchors = {anchor(title) for title in SECTIONS} | {anchor("Before you begin")}
    links: set[str] = set()
    for page in (REPOSITORY / "docs").rglob("*.md"):
        links |= set(re.findall(r"repair\.md#([\w-]+)", page.read_text(encoding="utf-8")))
    assert links <= anchors
    assert {anchor(title) for title in SECTIONS} <= links, "a section that no other page leads to"
