"""`flowagg dead-letters`: list, show, mend, replay and dismiss letters."""

import argparse
import getpass
import os
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from flowagg_cli.dead_letter_files import decode_file, encode_line, parse_changes, plan, propose, readable
from flowagg_cli.dead_letter_log import DeadLetterLog, Replayer
from flowagg_cli.dead_letter_records import (
    OF_A_VIEW,
    REASONS,
    Journal,
    Letter,
    Marker,
    Place,
    parse_place,
)
from flowagg_cli.dead_letter_settings import DeadLetterSettings
from flowagg_cli.errors import Refused, WrongUsage
from flowagg_cli.settings import read_settings

_STATES: Final = ("open", "replayed", "dismissed")
_DURATION: Final = re.compile(r"(\d+)([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_STANDARD_INPUT: Final = Path("-")
_CUT: Final = 60
_DETAIL_CUT: Final = 200

Visit = Callable[[Letter], bool]


class NoSuchLetter(Refused):
    """The dead-letter topic holds no letter of a place."""


class CannotWrite(WrongUsage):
    """A file cannot be read or written."""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `dead-letters` to the command line."""
    parser = subparsers.add_parser(
        "dead-letters",
        help="list, show, mend, replay and dismiss letters",
        description="Dead letters: records that count nothing. Settings are read from FLOWAGG_* variables, "
        "as the consumers have them: FLOWAGG_KAFKA_BOOTSTRAP_SERVERS, FLOWAGG_KAFKA_TOPIC, "
        "FLOWAGG_KAFKA_PROPERTIES_FILE, FLOWAGG_DEAD_LETTER_TOPIC.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    listed = commands.add_parser("list", help="list letters, with a count by reason")
    _add_filters(listed)
    listed.add_argument("--state", choices=_STATES, help="only letters that are so")
    listed.add_argument("--limit", type=_natural, default=1000, help="most letters that are shown (default 1000)")
    listed.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    listed.set_defaults(run=_list)

    shown = commands.add_parser("show", help="show one letter whole")
    shown.add_argument("place", help="its place, as list prints it; PARTITION:OFFSET of the topic of today will do")
    shown.add_argument("--json", action="store_true", help="one JSON document instead of text")
    shown.set_defaults(run=_show)

    mended = commands.add_parser("mend", help="write open letters to a file, to be mended there and replayed")
    _add_filters(mended)
    mended.add_argument("--place", action="append", default=[], help="only the letter of this place; may be repeated")
    mended.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", dest="changes",
        help="give a field of every proposed flow this value; may be repeated",
    )  # fmt: skip
    mended.add_argument("--limit", type=_natural, default=10_000, help="most letters that are written (default 10000)")
    mended.add_argument(
        "--to", type=Path, metavar="FILE", help="file that must not exist yet; default: standard output"
    )
    mended.set_defaults(run=_mend)

    replayed = commands.add_parser("replay", help="append the flows of a mended file to the log, each exactly once")
    replayed.add_argument("file", type=Path, help="file that mend wrote; - for standard input")
    replayed.add_argument(
        "--accept", action="append", default=[], choices=sorted(OF_A_VIEW), metavar="REASON",
        help="replay letters of this reason, which other views may have counted; may be repeated",
    )  # fmt: skip
    replayed.add_argument(
        "--former-topics", action="store_true", help="replay letters of a topic that had the name before, too"
    )
    replayed.add_argument("--dry-run", action="store_true", help="check the file and say what would be done")
    _add_signature(replayed, note_required=False)
    replayed.set_defaults(run=_replay)

    dismissed = commands.add_parser("dismiss", help="mark letters as done without")
    dismissed.add_argument("place", nargs="+", help="their places, as list prints them")
    dismissed.add_argument("--undo", action="store_true", help="they are no longer done without")
    _add_signature(dismissed, note_required=True)
    dismissed.set_defaults(run=_dismiss)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reason", action="append", default=[], choices=REASONS, metavar="REASON",
        help=f"only letters of this reason ({', '.join(REASONS)}); may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--since", type=_moment, metavar="TIME",
        help="only letters first written then or later: 2026-11-27T12:00:00Z, or 30m, 12h, 7d ago",
    )  # fmt: skip
    parser.add_argument("--until", type=_moment, metavar="TIME", help="only letters first written before")


def _add_signature(parser: argparse.ArgumentParser, note_required: bool) -> None:
    parser.add_argument("--by", help="who does it, kept with the letter (default: user@host)")
    parser.add_argument("--note", required=note_required, default="", help="why, kept with the letter")


def _natural(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _moment(text: str) -> int:
    """A time in milliseconds since 1970. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is not None:
        return round((time.time() - int(match[1]) * _UNITS[match[2]]) * 1000)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _wanted(parsed: argparse.Namespace) -> Visit:
    """Whether a letter passes the filters. By its first copy: a later one never makes it pass."""

    def wanted(letter: Letter) -> bool:
        return (
            (not parsed.reason or letter.reasons[0] in parsed.reason)
            and (parsed.since is None or letter.written_ms >= parsed.since)
            and (parsed.until is None or letter.written_ms < parsed.until)
        )

    return wanted


def _list(parsed: argparse.Namespace) -> int:
    settings = read_settings(DeadLetterSettings)
    with DeadLetterLog(settings) as log:
        topic_id = log.topic(settings.kafka_topic).topic_id
        letters, strange = log.letters(_wanted(parsed))
        journal = log.journal()
    chosen = [letter for letter in letters.values() if parsed.state in {None, journal.state(letter)}]
    shown = chosen[: parsed.limit]
    counts = Counter((letter.reasons[0], journal.state(letter)) for letter in chosen)
    if parsed.json:
        document = {
            "letters": [_document(letter, journal) for letter in shown],
            "counts": [
                {"reason": reason, "state": state, "letters": n} for (reason, state), n in sorted(counts.items())
            ],
            "left_out": len(chosen) - len(shown),
            "no_letters": strange,
        }
        _write(msgspec.json.format(msgspec.json.encode(document)).decode())
        return 0
    rows: list[tuple[str, ...]] = [("PLACE", "WRITTEN", "REASON", "STATE", "COPIES", "KEY", "DETAIL")]
    rows += [
        (
            _short(letter.place, topic_id),
            _utc(letter.written_ms),
            "+".join(letter.reasons),
            journal.state(letter),
            str(letter.copies),
            _cut(_text(letter.key)),
            _cut(_printable(letter.detail), _DETAIL_CUT),
        )
        for letter in shown
    ]
    _write(*_table(rows))
    if len(chosen) > len(shown):
        _write(f"and {len(chosen) - len(shown)} more: raise --limit, or filter by --reason, --since, --until")
    totals = Counter(letter.reasons[0] for letter in chosen)
    rows = [("REASON", "LETTERS", *map(str.upper, _STATES))]
    rows += [
        (reason, str(count), *(str(counts[reason, state]) for state in _STATES))
        for reason, count in totals.most_common()
    ]
    _write("", *_table(rows))
    if strange:
        _write(f"{strange} records of {settings.letters} are no letters of the topic {settings.kafka_topic}")
    return 0


def _show(parsed: argparse.Namespace) -> int:
    settings = read_settings(DeadLetterSettings)
    with DeadLetterLog(settings) as log:
        place = parse_place(parsed.place, log.topic(settings.kafka_topic).topic_id)
        letter = _found(log, [place], settings)[place]
        journal = log.journal()
    document = _document(letter, journal)
    if parsed.json:
        _write(msgspec.json.format(msgspec.json.encode(document)).decode())
        return 0
    for name, value in document.items():
        shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        _write(f"{name:12} {_printable(shown)}")
    return 0


def _mend(parsed: argparse.Namespace) -> int:
    settings = read_settings(DeadLetterSettings)
    changes = parse_changes(parsed.changes)
    with DeadLetterLog(settings) as log:
        topic_id = log.topic(settings.kafka_topic).topic_id
        places = {parse_place(text, topic_id) for text in parsed.place}
        passes = _wanted(parsed)
        journal = log.journal()
        letters, _ = log.letters(lambda letter: passes(letter) and (not places or letter.place in places))
    _refuse_missing(places - letters.keys(), settings)
    still_open = [letter for letter in letters.values() if journal.state(letter) == "open"]
    named = {*parsed.reason} if not places else {*REASONS}
    left = Counter(r for letter in still_open for r in letter.reasons if r in OF_A_VIEW and r not in named)
    chosen = [letter for letter in still_open if not any(r in OF_A_VIEW and r not in named for r in letter.reasons)]
    written = chosen[: parsed.limit]
    lines = b"".join(encode_line(letter, changes) + b"\n" for letter in written)
    if parsed.to is None:
        sys.stdout.buffer.write(lines)
        sys.stdout.flush()
    else:
        try:
            with parsed.to.open("xb") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CannotWrite(f"{parsed.to} cannot be written: {error.strerror}") from None
    _say(f"{len(written)} letters written" + ("" if parsed.to is None else f" to {parsed.to}"))
    if len(chosen) > len(written):
        _say(f"{len(chosen) - len(written)} more are open: raise --limit, or mend and replay these first")
    for reason, count in left.items():
        _say(f"{count} letters left out: {reason}: {OF_A_VIEW[reason]}; --reason {reason} writes them")
    return 0


def _replay(parsed: argparse.Namespace) -> int:
    settings = read_settings(DeadLetterSettings)
    try:
        content = sys.stdin.buffer.read() if parsed.file == _STANDARD_INPUT else parsed.file.read_bytes()
    except OSError as error:
        raise CannotWrite(f"{parsed.file} cannot be read: {error.strerror}") from None
    mended = decode_file(content)
    places = {line.place for line in mended}
    with DeadLetterLog(settings) as log:
        topic_id = log.topic(settings.kafka_topic).topic_id
        replayer = None
        if not parsed.dry_run:
            log.ensure_journal()
            # 1. Fence whoever began before; what they had left open is aborted. 2. Only now read what was done.
            replayer = Replayer(settings)
        letters, _ = log.letters(lambda letter: letter.place in places)
        planned = plan(
            mended, letters, log.journal(there=not parsed.dry_run), topic_id, parsed.accept, parsed.former_topics
        )
    for sentence in planned.left:
        _say(f"left out: {sentence}")
    if replayer is None:
        _write(f"{len(planned.send)} letters would be replayed, {len(planned.left)} left out")
        return 0
    # 3. Flow and marker together, or neither.
    done, by = 0, _by(parsed)
    for chunk in _chunks(planned.send, settings.replay_batch):
        replayer.replay(chunk, by, parsed.note)
        done += len(chunk)
        _say(f"{done} of {len(planned.send)} letters replayed")
    _write(f"{done} letters replayed, {len(planned.left)} left out")
    return 0


def _dismiss(parsed: argparse.Namespace) -> int:
    settings = read_settings(DeadLetterSettings)
    with DeadLetterLog(settings) as log:
        topic_id = log.topic(settings.kafka_topic).topic_id
        places = list(dict.fromkeys(parse_place(text, topic_id) for text in parsed.place))
        letters = _found(log, places, settings)
        log.ensure_journal()
        replayer = Replayer(settings)
        journal = log.journal(there=True)
    replayed = [place for place in places if journal.state(letters[place]) == "replayed"]
    for place in replayed:
        _say(f"left out: {place} was replayed before")
    chosen = [place for place in places if place not in replayed]
    marker = None if parsed.undo else Marker(_by(parsed), parsed.note)
    for chunk in _chunks(chosen, settings.replay_batch):
        replayer.dismiss(chunk, marker)
    _write(f"{len(chosen)} letters {'open again' if parsed.undo else 'dismissed'}, {len(replayed)} left out")
    return 0


def _found(log: DeadLetterLog, places: Sequence[Place], settings: DeadLetterSettings) -> dict[Place, Letter]:
    letters, _ = log.letters(lambda letter: letter.place in places)
    _refuse_missing(set(places) - letters.keys(), settings)
    return letters


def _refuse_missing(missing: Iterable[Place], settings: DeadLetterSettings) -> None:
    for place in missing:
        raise NoSuchLetter(
            f"{settings.letters} holds no letter {place}: `flowagg dead-letters list` shows those it holds"
        )


def _chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _by(parsed: argparse.Namespace) -> str:
    if parsed.by is not None:
        return str(parsed.by)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _document(letter: Letter, journal: Journal) -> dict[str, object]:
    """A letter as JSON has it."""
    marker = journal.replayed.get(letter.place) or journal.dismissed.get(letter.place)
    repeated = journal.repeats(letter)
    return {
        "place": str(letter.place),
        "topic": letter.topic,
        "written": _utc(letter.written_ms),
        "reasons": letter.reasons,
        "detail": letter.detail,
        "state": journal.state(letter),
        **({} if marker is None else {"by": marker.by, "note": marker.note}),
        **({} if repeated is None else {"repeats": str(repeated)}),
        "copies": letter.copies,
        "proposed": propose(letter.key, letter.value),
        **readable("key", letter.key),
        **readable("value", letter.value),
    }


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _short(place: Place, topic_id: str) -> str:
    return f"{place.partition}:{place.offset}" if place.topic_id == topic_id else str(place)


def _text(raw: bytes | None) -> str:
    return "(none)" if raw is None else _printable(raw.decode("utf-8", "backslashreplace"))


def _printable(text: str) -> str:
    """Text that does nothing to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _cut(text: str, most: int = _CUT) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _write(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _say(line: str) -> None:
    sys.stderr.write(f"flowagg: {line}\n")
