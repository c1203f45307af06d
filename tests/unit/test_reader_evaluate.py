"""Queries by columns, beside the same query row by row."""

import csv
import gzip
import io
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest
from flowagg.problem import Problem
from flowagg_reader.cursor import InvalidCursor, decode_cursor, encode_cursor
from flowagg_reader.evaluate import Result, evaluate, expression
from flowagg_reader.formats import accepted, compressed, takes_gzip, written
from flowagg_reader.query import ALL_HOURS, KEY, NAMES, Format, Hours, Selection, parse_hours, parse_query
from flowagg_reader.table import Table, tabulate

Flow = tuple[str, str, str, int, int, int]
ALPHABET = ["a", "b", "ab", "aab", "a*b", "a?", "\\", "é", "\U0001f600", 'q"', "x" * 256, "Ab"]
PATTERNS = ["a", "*", "a*", "*b", "?", "a?b", "\\*", "a\\*b", "*a*b*", "\\\\", "é*", "*\U0001f600", "", "x*x", "zz"]


def table(flows: Iterable[Flow], visible: Any = None) -> Table:
    """The table of flows of one hour, whose keys are in two partitions now and then."""
    partitions: list[list[bytes]] = [[], []]
    sums: dict[tuple[int, bytes], list[int]] = defaultdict(lambda: [0, 0])
    for number, (src, dest, vpc, _, tx, rx) in enumerate(flows):
        entry = sums[number % 2, msgspec.json.encode([src, dest, vpc])]
        entry[0] += tx
        entry[1] += rx
    for (partition, name), (tx, rx) in sums.items():
        partitions[partition] += [name, b"%d %d" % (tx, rx)]
    steps = tabulate(0, partitions, visible)
    reply = None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration as end:
            found: Table = end.value
            return found
        reply = None if step is None else step()


def tables(flows: Sequence[Flow]) -> list[tuple[int, Table]]:
    return [(hour, table([flow for flow in flows if flow[3] == hour])) for hour in sorted({flow[3] for flow in flows})]


def matches(pattern: str, name: str) -> bool:
    """Of a pattern, by trying everything."""
    if not pattern:
        return not name
    first, rest = pattern[0], pattern[1:]
    if first == "*":
        return any(matches(rest, name[start:]) for start in range(len(name) + 1))
    if not name:
        return False
    if first == "\\" and rest:
        return rest[0] == name[0] and matches(rest[1:], name[1:])
    return first in ("?", name[0]) and matches(rest, name[1:])


def expected(flows: Sequence[Flow], selection: Selection) -> list[tuple[Any, ...]]:
    """The answer, row by row, without pages."""
    sums: dict[tuple[str | int, ...], list[int]] = defaultdict(lambda: [0, 0])
    for flow in flows:
        values: dict[str, str | int] = dict(zip(KEY, flow[:4], strict=True))
        if flow[3] in selection.hours and all(
            any(matches(pattern, str(values[name])) for pattern in patterns) for name, patterns in selection.filters
        ):
            entry = sums[tuple(values[name] for name in selection.group_by)]
            entry[0] += flow[4]
            entry[1] += flow[5]
    rows: list[tuple[Any, ...]] = sorted((*key, tx, rx) for key, (tx, rx) in sums.items())
    if selection.order is not None:
        by = selection.order.by
        places = {name: at for at, name in enumerate((*selection.group_by, "bytes_tx", "bytes_rx"))}
        rows.sort(  # reverse or not, equal rows stay in their order
            key=lambda row: row[-1] + row[-2] if by == "bytes" else row[places[by]], reverse=selection.order.descending
        )
    if selection.top is not None and len(rows) > selection.top:
        others = rows[selection.top :]
        nothing = [None] * len(selection.group_by)
        rows = rows[: selection.top]
        rows.append((*nothing, sum(row[-2] for row in others), sum(row[-1] for row in others)))
    return rows


def rows_of(result: Result) -> list[tuple[Any, ...]]:
    return [row for part in result.slices() for row in part]


def drawn(rng: random.Random, count: int, largest: int) -> list[Flow]:
    return [
        (
            rng.choice(ALPHABET), rng.choice(ALPHABET), rng.choice(ALPHABET[:4]), rng.randrange(4),
            rng.randrange(largest), rng.randrange(largest),
        )
        for _ in range(count)
    ]  # fmt: skip


def drawn_selection(rng: random.Random) -> Selection:
    parameters = [("hour", rng.choice(["0", "1-2", "0,3", "0-", "2"]))]
    for name in NAMES:
        if rng.random() < 0.4:
            parameters += [(name, rng.choice(PATTERNS) or "a") for _ in range(rng.randrange(1, 4))]
    fields = list(KEY)
    if rng.random() < 0.6:
        fields = rng.sample(KEY, rng.randrange(1, 5))
        parameters.append(("group_by", ",".join(fields)))
    if rng.random() < 0.5:
        parameters.append(("top", str(rng.randrange(1, 12))))
    if rng.random() < 0.7 or len(parameters) == 1:
        way = rng.choice(["", ":asc", ":desc"])
        parameters.append(("order_by", rng.choice([*fields, "bytes_tx", "bytes_rx", "bytes"]) + way))
    found = parse_query(parameters)
    assert isinstance(found, Selection)
    return found


@pytest.mark.parametrize("largest", [5, 2**53, 2**62, 2**70], ids=["ties", "usual", "past int64", "of any size"])
@pytest.mark.parametrize("seed", range(40))
def test_an_answer_is_that_of_a_reading_row_by_row(seed: int, largest: int) -> None:
    rng = random.Random(seed)
    flows = drawn(rng, rng.choice([0, 1, 30, 400]), largest)
    selection = drawn_selection(rng)
    kept = [flow for flow in flows if flow[3] in selection.hours]
    assert rows_of(evaluate(tables(kept), selection)) == expected(flows, selection)


@pytest.mark.parametrize("seed", range(20))
def test_pages_are_the_whole_one_after_the_other(seed: int) -> None:
    rng = random.Random(seed)
    flows = drawn(rng, 300, 1000)
    group_by = tuple(name for name in KEY if rng.random() < 0.6) or KEY
    found = tables(flows)
    rows: list[tuple[Any, ...]] = []
    cursor: tuple[str | int, ...] | None = None
    for _ in range(1000):
        page = evaluate(found, Selection(ALL_HOURS, group_by=group_by, limit=7, cursor=cursor))
        rows += rows_of(page)
        assert len(rows_of(page)) == 7 or page.next_cursor is None
        if page.next_cursor is None:
            break
        cursor = decode_cursor(page.next_cursor, group_by)
    assert rows == expected(flows, Selection(ALL_HOURS, group_by=group_by))


def test_a_page_begins_behind_its_cursor_though_that_row_has_gone() -> None:
    found = [(1, table([("a", "b", "c", 1, 1, 1), ("c", "b", "c", 1, 2, 2)]))]
    page = evaluate(found, Selection(ALL_HOURS, limit=1, cursor=("b", "b", "c", 1)))
    assert rows_of(page) == [("c", "b", "c", 1, 2, 2)]


def test_fields_of_many_values_are_sorted_without_a_product() -> None:
    flows: list[Flow] = [(f"{n % 50_021:x}", f"{n:x}", f"{n * 7 % 50_000:x}", 1, n, n) for n in range(50_000)]
    selection = Selection(Hours(((0, 9),)), group_by=("dest_app", "vpc_id", "hour"))
    lots = [(hour, table(flows[:40_000] if hour else flows)) for hour in range(2)]
    assert rows_of(evaluate(lots, selection)) == sorted(
        (*flow[1:3], hour, *flow[4:]) for hour in range(2) for flow in (flows[:40_000] if hour else flows)
    )


def test_a_table_shows_what_may_be_seen_alone() -> None:
    flows: list[Flow] = [("a", "b", "eu-1", 1, 1, 1), ("a", "b", "us-1", 1, 2, 2)]
    found = table(flows, lambda vpc_id: vpc_id.startswith("eu"))
    assert (found.rows, found.names[2]) == (1, ["eu-1"])


@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if pattern])
def test_a_pattern_matches_what_it_says(pattern: str) -> None:
    flows: list[Flow] = [(name, "d", "v", 1, 1, 1) for name in ALPHABET]
    found = evaluate([(1, table(flows))], Selection(ALL_HOURS, filters=(("src_app", (pattern,)),)))
    assert [row[0] for row in rows_of(found)] == sorted(name for name in ALPHABET if matches(pattern, name))


def test_no_pattern_takes_long() -> None:
    flows: list[Flow] = [(f"{'a' * 250}{n:04d}", "d", "v", 1, 1, 1) for n in range(1000)]
    pattern = "*a" * 100 + "*b"
    assert "(?>" in expression(pattern)
    found = evaluate([(1, table(flows))], Selection(ALL_HOURS, filters=(("src_app", (pattern,)),)))
    assert found.rows == 0


# The query ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("3", ((3, 3),)),
        ("3-9", ((3, 9),)),
        ("3,5", ((3, 3), (5, 5))),
        ("5,3,4", ((3, 5),)),
        ("7-,1", ((1, 1), (7, 2**53 - 1))),
        ("1-5,2-3,6", ((1, 6),)),
    ],
)
def test_hours_are_ranges_apart_from_each_other(text: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert parse_hours(text).ranges == ranges


@pytest.mark.parametrize(
    "parameters",
    [
        *(
            [("hour", text)]
            for text in ("3-1", "-", "1,,2", "1-2-3", ",1", "01-2", "1 - 2", f"1-{2**53}", ",".join("1" * 1001))
        ),
        *([("hour", "1"), ("group_by", text)] for text in ("", "src", "src_app,src_app", "bytes_tx", "src_app,")),
        *([("hour", "1"), ("order_by", text)] for text in ("", "x", "bytes:up", "-bytes", "bytes:")),
        [("hour", "1"), ("group_by", "src_app"), ("order_by", "hour")],
        *([("hour", "1"), ("top", text)] for text in ("0", "-1", "x", "10001", "1.0", "")),
        *([("hour", "1"), ("limit", text)] for text in ("0", "100001", "1e3")),
        [("hour", "1"), ("top", "1"), ("limit", "1")],
        [("hour", "1"), ("limit", "1"), ("order_by", "bytes")],
        [("hour", "1"), ("cursor", encode_cursor(("a", "b", "c", 1)))],
        [("hour", "1"), ("limit", "1"), ("cursor", "x")],
        [("hour", "1"), ("limit", "1"), ("cursor", encode_cursor(("a",)))],
        [("hour", "1"), ("format", "xml")],
        [("hour", "1"), ("format", "csv"), ("format", "csv")],
        [("hour", "1"), ("src_app", "")],
        [("hour", "1"), ("src_app", "x" * 513)],
        [("hour", "1"), ("src_app", "*\n*")],
        [("hour", "1"), *(("src_app", f"*{n}*") for n in range(11))],
        [("hour", "1"), *(("src_app", f"{n}") for n in range(101))],
        [("src_app", "a")],
    ],
)
def test_a_bad_selection_says_what_is_wrong(parameters: list[tuple[str, str]]) -> None:
    with pytest.raises(Problem) as caught:
        parse_query(parameters)
    assert caught.value.status == 400
    assert caught.value.detail


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "e30",
        "WzFd",
        "W251bGwsMSwyLDNd",
        "WyJhIiwiYiIsImMiLC0xXQ",
        "WyJhIiwiYiIsImMiLHRydWVd",
        "x" * 10_000,
        "é",
    ],
)
def test_what_is_no_cursor_is_none(text: str) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor(text, KEY)


# Formats -----------------------------------------------------------------------------------------

ROWS: list[tuple[Any, ...]] = [('a"b', "c,d\r", "é", 1, 2**70, 0), (None, None, None, None, 3, 4)]
FIELDS = (*KEY, "bytes_tx", "bytes_rx")


def text(format_: Format, rows: Sequence[tuple[Any, ...]] = ROWS) -> str:
    return b"".join(written(FIELDS, [rows[:1], rows[1:]], format_)).decode()


def test_rows_are_written_as_json_lines_and_csv() -> None:
    objects = [dict(zip(FIELDS, row, strict=True)) for row in ROWS]
    assert json.loads(text(Format.JSON)) == objects
    assert [json.loads(line) for line in text(Format.NDJSON).splitlines()] == objects
    found = list(csv.reader(io.StringIO(text(Format.CSV), newline="")))
    assert found == [list(FIELDS), *(["" if value is None else str(value) for value in row] for row in ROWS)]
    assert (text(Format.JSON, []), text(Format.NDJSON, [])) == ("[]", "")
    assert text(Format.CSV, []) == ",".join(FIELDS) + "\r\n"
    assert gzip.decompress(b"".join(compressed(written(FIELDS, [ROWS], Format.JSON)))).decode() == text(Format.JSON)


@pytest.mark.parametrize(
    ("headers", "format_"),
    [
        ([], Format.JSON),
        (["*/*"], Format.JSON),
        (["text/csv"], Format.CSV),
        (["text/html"], Format.JSON),
        (["application/x-ndjson;q=0.5, text/csv;q=0.9"], Format.CSV),
        (["text/csv;q=0"], Format.JSON),
        (["text/*"], Format.CSV),
        (["TEXT/CSV ; q=1.0"], Format.CSV),
        (["text/csv;q=0.1", "*/*;q=0.2"], Format.JSON),
        (["application/json, text/csv"], Format.JSON),
        (["application/x-ndjson"], Format.NDJSON),
    ],
)
def test_a_client_gets_what_it_likes_best(headers: list[str], format_: Format) -> None:
    assert accepted(headers) is format_


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ([], False),
        (["gzip"], True),
        (["gzip;q=0"], False),
        (["*"], True),
        (["*, gzip;q=0.0"], False),
        (["br, gzip"], True),
    ],
)
def test_gzip_is_used_where_it_is_taken(headers: list[str], taken: bool) -> None:
    assert takes_gzip(headers) is taken
