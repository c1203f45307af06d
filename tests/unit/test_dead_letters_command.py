"""The command line of `flowagg dead-letters`: what it takes, and what it never shows a terminal."""

import argparse
from datetime import UTC, datetime

import pytest
from flowagg_cli import dead_letters
from flowagg_cli.dead_letter_settings import DeadLetterSettings
from flowagg_cli.settings import read_settings


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(exit_on_error=False)
    dead_letters.register(made.add_subparsers(required=True))
    return made


def test_times_are_moments_or_ages(parser: argparse.ArgumentParser) -> None:
    at = parser.parse_args(["dead-letters", "list", "--since", "2026-11-27T12:00:00Z"]).since
    assert at == datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp() * 1000
    assert parser.parse_args(["dead-letters", "list", "--since", "2026-11-27T12:00:00"]).since == at
    parsed = parser.parse_args(["dead-letters", "list", "--since", "2d", "--until", "12h"])
    assert parsed.until - parsed.since == pytest.approx(36 * 3_600_000, abs=1000)


@pytest.mark.parametrize(
    "words",
    [
        ["list", "--since", "yesterday"],
        ["list", "--limit", "0"],
        ["list", "--reason", "Any"],
        ["replay", "file", "--accept", "InvalidKey"],  # needs no acceptance
    ],
)
def test_what_makes_no_sense_is_refused(parser: argparse.ArgumentParser, words: list[str]) -> None:
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parser.parse_args(["dead-letters", *words])


def test_a_dismissal_says_why(parser: argparse.ArgumentParser) -> None:
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parser.parse_args(["dead-letters", "dismiss", "3:4711"])


def test_what_a_record_holds_does_nothing_to_a_terminal() -> None:
    assert dead_letters._text(b"\x1b[31m\xff\n\xc2\x9b") == "\\x1b[31m\\xff\\n\\x9b"
    assert dead_letters._text(None) == "(none)"
    assert len(dead_letters._cut("x" * 1000)) == 60


def test_the_journal_is_the_topics_and_the_letters_may_be_a_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWAGG_KAFKA_TOPIC", "traffic")
    assert (read_settings(DeadLetterSettings).letters, read_settings(DeadLetterSettings).journal) == (
        "traffic.dead-letters",
        "traffic.replayed",
    )
    monkeypatch.setenv("FLOWAGG_DEAD_LETTER_TOPIC", "of-a-view")
    monkeypatch.setenv("FLOWAGG_BATCH_RECORDS", "17")  # a consumer's environment will do
    assert (read_settings(DeadLetterSettings).letters, read_settings(DeadLetterSettings).journal) == (
        "of-a-view",
        "traffic.replayed",
    )
