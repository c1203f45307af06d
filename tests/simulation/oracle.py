"""What must be stored, worked out anew from the log by the plainest code: the independent oracle."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowagg.view import Meta, hours_key, marks_key, meta_key, totals_key

from tests.simulation.kafka_model import Entry, Topic
from tests.simulation.redis_model import Data

MAX = 2**53 - 1


@dataclass(slots=True)
class State:
    """A partition's totals, hours and marks at a position."""

    totals: dict[tuple[int, bytes], tuple[int, int]] = field(default_factory=dict)
    hours: dict[int, list[int]] = field(default_factory=dict)  # position, and the tick where hours expire
    marks: dict[str, tuple[str, set[int], int]] = field(default_factory=dict)
    time: int = -1
    floor: int = 0
    tick: int = -1
    dead: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Rules:
    """The dedupe window, and the time for which an hour is kept after its last record (None: for ever)."""

    window: int
    keep: int | None


def fold(entries: Sequence[Entry], start: int, stop: int, lost: Sequence[tuple[int, int]], rules: Rules) -> State:
    """The state at stop of a view that began at start and lacks the lost ranges."""
    state = State()
    for offset in range(start, stop):
        entry = entries[offset]
        if entry.state == "committed" and not any(low <= offset < high for low, high in lost):
            if rules.keep is not None:
                _expire(state, entry, rules.keep)
            _count(state, offset, entry, rules)
    return state


def _expire(state: State, entry: Entry, keep: int) -> None:
    """A record shows the time: hours that were not touched for long go, from the lowest up to one in use."""
    length = max(1, keep // 16)
    tick = entry.time - entry.time % length
    if tick <= state.tick:
        return
    state.tick = tick
    in_use = [hour for hour, (_, touched) in state.hours.items() if touched + length + keep > tick]
    key = parse_key(entry.key)
    if key is not None and key[1] >= state.floor:
        in_use.append(key[1])
    while state.hours and in_use and min(state.hours) < min(in_use):
        gone = min(state.hours)
        del state.hours[gone]
        state.totals = {at: counts for at, counts in state.totals.items() if at[0] != gone}
        state.floor = gone + 1


def _count(state: State, offset: int, entry: Entry, rules: Rules) -> None:
    value = parse_value(entry.value)
    if value is None:
        state.dead.add(offset)
        return
    mark = value.get("mark")
    if mark is not None:
        if not _is_mark(mark):
            state.dead.add(offset)
            return
        key, digest, index = mark[:3]
        state.time = max(state.time, entry.time)
        newest = state.time * 4 // rules.window
        state.marks = {k: mark for k, mark in state.marks.items() if mark[2] >= newest - 4}
        known = state.marks.setdefault(key, (digest, set(), newest))
        if known[0] != digest:
            state.dead.add(offset)
            return
        if index in known[1]:
            return
        known[1].add(index)
    flow = parse(entry)
    if flow is None:
        state.dead.add(offset)
        return
    field_, hour, tx, rx = flow
    if hour < state.floor:
        state.dead.add(offset)
        return
    old = state.totals.get((hour, field_), (0, 0))
    state.totals[hour, field_] = (old[0] + tx, old[1] + rx)
    state.hours[hour] = [offset + 1] if rules.keep is None else [offset + 1, state.tick]


def parse(entry: Entry) -> tuple[bytes, int, int, int] | None:
    """A record as (field, hour, bytes_tx, bytes_rx); None where it is no flow."""
    key, value = parse_key(entry.key), parse_value(entry.value)
    return None if key is None or value is None else (*key, value["bytes_tx"], value["bytes_rx"])


def parse_value(raw: bytes | None) -> dict[str, Any] | None:
    """A record's value; None where it is none."""
    try:
        value: dict[str, Any] = json.loads(raw or b"")
        numbers = [value["bytes_tx"], value["bytes_rx"]]
        index = 0 if value.get("mark") is None else value["mark"][2]
    except (ValueError, TypeError, KeyError, IndexError):
        return None
    return value if all(_natural(number) for number in [*numbers, index]) else None


def _is_mark(mark: list[Any]) -> bool:
    key, digest = mark[:2]
    return key.isascii() and key.isprintable() and 1 <= len(key) <= 128 and len(digest) == 32


def parse_key(raw: bytes | None) -> tuple[bytes, int] | None:
    """A record's key as (field, hour); None where it is no flow key."""
    try:
        src, dest, vpc, hour = json.loads(raw or b"")
    except (ValueError, TypeError):
        return None
    if not all(isinstance(name, str) and 0 < len(name) <= 256 for name in (src, dest, vpc)) or not _natural(hour):
        return None
    return json.dumps([src, dest, vpc], ensure_ascii=False, separators=(",", ":")).encode(), hour


def _natural(number: object) -> bool:
    return type(number) is int and 0 <= number <= MAX


def stored(data: Data, view: str, number: int, meta: Meta) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """The totals and hours of a partition in Redis."""
    hours = {
        int(hour): [int(part) for part in mark.split()]
        for hour, mark in data.get(hours_key(view, number, meta.incarnation), {}).items()
    }
    prefix = totals_key(view, number, meta.incarnation, 0).removesuffix("0")
    totals = {}
    for name, fields in data.items():
        if name.startswith(prefix):
            for field_, value in fields.items():
                tx, rx = value.split()
                totals[int(name.removeprefix(prefix)), field_] = (int(tx), int(rx))
    return totals, hours


def stored_marks(data: Data, view: str, number: int, meta: Meta) -> dict[str, tuple[str, set[int], int]]:
    """The idempotency marks of a partition in Redis: key -> digest, counted indexes, bucket."""
    prefix = marks_key(view, number, meta.incarnation, 0).removesuffix("0")
    found = {}
    for name, marks in data.items():
        if name.startswith(prefix):
            for key, value in marks.items():
                digest, ranges = value.decode().split()
                indexes = {i for part in ranges.split(",") for i in range(*map(int, part.split("-")))}
                found[key.decode()] = (digest, indexes, int(name.removeprefix(prefix)))
    return found


def differences(
    data: Data, view: str, number: int, meta: Meta, topics: Mapping[str, Topic], rules: Rules
) -> str | None:
    """Why what is stored of a partition is not the fold of its log; None where it is.

    A log that was truncated has several histories; what is stored may be of an older one (its
    consumer stops then), but never of a mixture. Only where retention has passed the position since can
    nobody tell any more: Kafka answers as if the log had been read up to its start. Then the range in
    between is recorded as lost, and what is before and behind it may be of different histories.
    """
    log = topics[meta.topic_id].logs[number]
    lost = [tuple(map(int, part.split("-"))) for part in meta.lost.split(",")] if meta.lost else []
    found = stored(data, view, number, meta)
    first = None
    histories = [log.entries, *reversed(log.versions)]
    mixed = [old[:low] + new[low:] for low, _ in lost for new in histories for old in histories if len(old) >= low]
    for entries in (*histories, *mixed):
        if meta.position > len(entries):
            continue
        state = fold(entries, meta.start, meta.position, lost, rules)  # type: ignore[arg-type] # pairs
        moved = (meta.floor, meta.tick) == (state.floor, state.tick)
        if moved and found == (state.totals, state.hours) and stored_marks(data, view, number, meta) == state.marks:
            return None
        first = first or state
    if first is None:
        return f"partition {number}: position {meta.position} is past the log's end {log.end}"
    return (
        f"partition {number} at position {meta.position} ({meta_key(view, number)}):\n"
        f"  stored {sorted(found[0].items())} {found[1]} {stored_marks(data, view, number, meta)} "
        f"floor {meta.floor} tick {meta.tick}\n"
        f"  true   {sorted(first.totals.items())} {first.hours} {first.marks} "
        f"floor {first.floor} tick {first.tick}"
    )
