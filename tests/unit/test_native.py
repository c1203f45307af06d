"""The compiled library does what Python does: the same totals, the same refusals, whatever the records hold."""

import gc
import json
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
from flowagg.flow import encode_key, encode_value
from flowagg.idempotency import Mark
from flowagg.view import DamagedView, Meta
from flowagg_consumer.marks import Window
from flowagg_consumer.native import NativeRecords, NativeTotals, native_totals
from flowagg_consumer.packed import Packed
from flowagg_consumer.partition import Partition
from flowagg_consumer.records import Records, decode_values
from flowagg_consumer.totals import Changed, NewTotals, PythonTotals, Totals
from flowagg_native.chunk import Chunk
from flowagg_native.client import ClientRefuses
from flowagg_native.intake import Intake
from flowagg_native.totals import Totals as LibraryTotals
from hypothesis import given
from hypothesis import strategies as st

ONE = encode_value(1, 2)
KEY = encode_key("a", "b", "c", 1)


def columns(first: int, rows: Sequence[tuple[bytes | None, bytes | None]]) -> Records:
    keys, values = [key for key, _ in rows], [value for _, value in rows]
    return Records(range(first, first + len(rows)), keys, values, 0, [1000 + n for n in range(len(rows))])


def plain(changed: Sequence[Changed]) -> list[tuple[int, int, list[bytes]]]:
    return [(hour.hour, hour.last_offset, list(hour.pairs)) for hour in changed]


def fold(totals: Totals, records: Records, counted: Sequence[bool] | None = None) -> list[tuple[int, str]]:
    given_records = NativeRecords.of(records) if isinstance(totals, NativeTotals) else records
    values = given_records.decode()
    if values.bad:
        counted = [
            place not in values.bad and (counted is None or counted[place]) for place in range(len(records.keys))
        ]
    return [(each.place, each.why) for each in totals.fold(given_records, values, counted)]


names = st.sampled_from(
    ["a", "b", "app-1", "caf\u00e9", 'quoted"', "back\\slash", "tab\t", "\x7f", "", "n" * 256, "n" * 257]
)
hours = st.one_of(st.integers(0, 3), st.sampled_from([2**53 - 1, 2**53, -1]))
spellings = st.sampled_from(
    [
        lambda key: json.dumps(key, separators=(",", ":"), ensure_ascii=False).encode(),
        lambda key: json.dumps(key, separators=(",", ":")).encode(),
        lambda key: json.dumps(key).encode(),
        lambda key: json.dumps([*key, 1]).encode(),
        lambda key: json.dumps(key, separators=(",", ":"), ensure_ascii=False).encode()[:-1],
        lambda key: json.dumps(key, separators=(",", ":"), ensure_ascii=False).encode() + b" ",
        lambda key: json.dumps([*key[:3], str(key[3])]).encode(),
        lambda key: json.dumps([*key[:3], float(key[3])]).encode(),
        lambda _: None,
        lambda _: b"",
        lambda _: b"\xff",
    ]
)
keys = st.builds(
    lambda spell, src, dest, vpc, hour: spell([src, dest, vpc, hour]), spellings, names, names, names, hours
)
counts = st.one_of(st.integers(0, 9), st.sampled_from([2**53 - 1, 2**53, -1, 10**17]))
values = st.one_of(
    st.builds(lambda tx, rx: b'{"bytes_tx":%d,"bytes_rx":%d}' % (tx, rx), counts, counts),
    st.builds(lambda tx, rx: json.dumps({"bytes_rx": rx, "more": "}\n{", "bytes_tx": tx}).encode(), counts, counts),
    st.builds(lambda n: encode_value(1, 2, Mark("k", "a" * 32, n)), st.integers(0, 3)),
    st.sampled_from(
        [
            None,
            b"",
            b"{}",
            b'{"bytes_tx":01,"bytes_rx":2}',
            b'{"bytes_tx":1,"bytes_rx":2}}',
            b'{"bytes_tx":1,"bytes_rx":}',
        ]
    ),
)
rows = st.lists(st.tuples(keys, values), max_size=40)


@given(st.lists(st.tuples(rows, st.booleans(), st.data()), max_size=4), st.sampled_from([0, 0, 2]))
def test_compiled_totals_are_pythons(folds: list[tuple[list[Any], bool, st.DataObject]], floor: int) -> None:
    ours, theirs = native_totals(7)(floor), PythonTotals(floor)
    offset = 0
    for given_rows, read_back, data in folds:
        records = columns(offset, given_rows)
        offset += len(given_rows) + 3
        counted = data.draw(
            st.one_of(st.none(), st.lists(st.booleans(), min_size=len(given_rows), max_size=len(given_rows)))
        )
        for totals in (ours, theirs):
            totals.open(read_back=read_back)
        if given_rows:
            assert fold(ours, records, counted) == fold(theirs, records, counted)
        assert (ours.touched, ours.missing) == (theirs.touched, theirs.missing)
        fields = [(hour, list(some)) for hour, some in theirs.missing_fields()]
        assert sorted((hour, sorted(some)) for hour, some in ours.missing_fields()) == sorted(
            (hour, sorted(some)) for hour, some in fields
        )
        for totals in (ours, theirs):
            asked = [field for _, some in totals.missing_fields() for field in some]
            totals.fill([None if len(field) % 3 else b"%d %d" % (len(field), 10**30) for field in asked])
        assert _unordered(ours.changed()) == _unordered(theirs.changed())


def _unordered(changed: Sequence[Changed]) -> dict[int, tuple[int, dict[bytes, bytes]]]:
    return {
        hour.hour: (hour.last_offset, dict(zip(hour.pairs[::2], hour.pairs[1::2], strict=True))) for hour in changed
    }


@given(rows)
def test_compiled_values_are_read_as_python_reads_them(given_rows: list[tuple[bytes | None, bytes | None]]) -> None:
    ours, theirs = NativeRecords.of(columns(0, given_rows)).decode(), decode_values([value for _, value in given_rows])
    assert ours.bad == theirs.bad
    assert ours.marks == theirs.marks
    for place in range(len(given_rows)):
        if place not in theirs.bad:
            assert (ours.counts[place].bytes_tx, ours.counts[place].bytes_rx) == (
                theirs.counts[place].bytes_tx,
                theirs.counts[place].bytes_rx,
            )


def test_columns_of_a_chunk_are_those_that_it_was_made_of() -> None:
    rows_ = [(b"a", ONE), (None, b""), (b"", None), (b"d", b"x")]
    records = columns(5, rows_)
    made = NativeRecords.of(records)
    assert made.offsets == range(5, 9)
    for part, same in ((made, records), (made.between(1, 3), records.between(1, 3)), (made.after(6), records.after(6))):
        assert list(part.offsets) == list(same.offsets)
        assert list(part.keys) == list(same.keys)
        assert list(part.values) == list(same.values)
        assert list(part.timestamps) == list(same.timestamps)
        assert part.latest() == same.latest()
    gappy = NativeRecords.of(Records([1, 5], [b"a", b"b"], [ONE, ONE], 0, [0, 0]))
    assert list(gappy.offsets) == [1, 5]


def test_totals_are_many_and_large() -> None:
    totals, largest = LibraryTotals(2**100 + 9), 2**53 - 1
    number_of_keys = 40_000
    rows_ = [(encode_key(f"app-{n}", "b", "c", n % 5), encode_value(largest, n)) for n in range(number_of_keys)]
    records = NativeRecords.of(columns(0, rows_))
    for turn in range(3):
        totals.open(read_back=turn == 0)
        assert records.chunk.read(0, number_of_keys) == []
        assert totals.fold(records.chunk, 0, number_of_keys, None) == []
        assert (len(totals), totals.touched) == (number_of_keys, number_of_keys)
        if turn == 0:
            assert totals.missing == number_of_keys
            assert totals.fill(b"\n".join([b"%d 5" % 10**37] * number_of_keys))
        assert totals.missing == 0
    found: dict[tuple[bytes, int], bytes] = {}
    for hour in totals.changed():
        parts = Packed(hour.count, hour.packed)
        assert hour.last_offset == number_of_keys - 5 + hour.hour
        found |= {(field, hour.hour): total for field, total in zip(parts[::2], parts[1::2], strict=True)}
    assert found == {
        (b'["app-%d","b","c"]' % n, n % 5): b"%d %d" % (10**37 + 3 * largest, 5 + 3 * n) for n in range(number_of_keys)
    }


def test_what_was_used_least_recently_is_forgotten_first() -> None:
    totals = LibraryTotals(1)
    chunks = [
        NativeRecords.of(columns(0, [(encode_key(f"{batch}-{n}", "b", "c", batch), ONE) for n in range(1000)]))
        for batch in range(10)
    ]
    for records in chunks:
        records.chunk.read(0, 1000)
        totals.open(read_back=False)
        totals.fold(records.chunk, 0, 1000, None)
    whole = totals.memory_bytes
    totals.forget(whole * 6 // 10)
    assert 0 < totals.memory_bytes <= whole * 6 // 10
    assert 2000 <= len(totals) < 6000
    totals.open(read_back=True)
    totals.fold(chunks[-1].chunk, 0, 1000, None)
    assert totals.missing == 0
    totals.fold(chunks[0].chunk, 0, 1000, None)
    assert totals.missing == 1000
    ((_, kept), (_, new)) = [(hour.hour, Packed(hour.count, hour.packed)[1]) for hour in totals.changed()]
    assert (kept, new) == (b"2 4", b"1 2")
    totals.forget(0)
    assert (len(totals), totals.memory_bytes) == (0, 0)


def test_hours_below_the_floor_leave_and_are_refused() -> None:
    totals = NativeTotals(1, 0)
    totals.open(read_back=False)
    fold(totals, columns(0, [(encode_key("a", "b", "c", hour), ONE) for hour in range(4)]))
    totals.open(read_back=False)
    totals.expire(2)
    assert totals.count == 2
    odd = b'[ "a","b","c",1]'
    refused = fold(
        totals, columns(4, [(encode_key("a", "b", "c", 1), ONE), (odd, ONE), (encode_key("a", "b", "c", 3), ONE)])
    )
    assert [place for place, why in refused if "hour 1 has expired" in why] == [0, 1]
    assert plain(totals.changed()) == [(3, 6, [b'["a","b","c"]', b"2 4"])]


def test_keys_of_any_length_have_totals() -> None:
    totals = NativeTotals(1, 0)
    long = json.dumps(["\U0001f4a9" * 256, "b" * 256, "c", 7]).encode() + b" " * 200_000
    rows_ = [(long, ONE), (encode_key("a", "b", "c", 7), ONE), (long, ONE)]
    totals.open(read_back=False)
    assert fold(totals, columns(0, rows_)) == []
    ((hour, last, pairs),) = plain(totals.changed())
    assert (hour, last, pairs[1::2]) == (7, 2, [b"1 2", b"2 4"]) or (hour, last, pairs[1::2]) == (
        7,
        2,
        [b"2 4", b"1 2"],
    )
    totals.forget(10**9)
    totals.open(read_back=True)
    assert fold(totals, columns(3, rows_)) == []
    assert totals.missing == 0


@pytest.mark.parametrize("new_totals", [native_totals(1), PythonTotals], ids=["native", "python"])
@pytest.mark.parametrize(
    "stored", [b"", b"1", b"1 2 3", b"x 1", b"-1 2", b"1\n2 3", b"1 " + b"9" * 39, b"1  2", b"\xff 1", b"1 2\n3 4"]
)
def test_stored_totals_that_are_none_are_damage_and_add_nothing(new_totals: NewTotals, stored: bytes) -> None:
    totals = two_missing(new_totals)
    with pytest.raises(DamagedView):
        totals.fill([b"1 1", stored])
    assert totals.missing == 2
    totals.fill([None, b"5 5"])
    assert sorted(plain(totals.changed())[0][2][1::2]) == [b"1 2", b"6 7"]


@pytest.mark.parametrize("new_totals", [native_totals(1), PythonTotals], ids=["native", "python"])
@pytest.mark.parametrize("stored", [b"5 5\n", b"+5 05", b"5 5"])
def test_stored_totals_are_read_in_any_spelling_of_a_number(new_totals: NewTotals, stored: bytes) -> None:
    totals = two_missing(new_totals)
    totals.fill([None, stored])
    assert sorted(plain(totals.changed())[0][2][1::2]) == [b"1 2", b"6 7"]


def two_missing(new_totals: NewTotals) -> Totals:
    """Totals of two flow keys in an open batch, each of them may be stored."""
    totals = new_totals(0)
    totals.open(read_back=True)
    fold(totals, columns(0, [(encode_key("a", "b", "c", 1), ONE), (encode_key("b", "b", "c", 1), ONE)]))
    assert totals.missing == 2
    return totals


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"no key", ONE),
        (encode_key("a", "b", "c", 0), ONE),
        (KEY, encode_value(1, 1, Mark("k", "short", 0))),
        (KEY, b"no value"),
        (KEY, ONE),
    ],
)
def test_records_are_let_go_as_soon_as_they_are_folded(key: bytes, value: bytes) -> None:
    """Not once Python looks for cycles: Kafka's client does not end before it has all of its messages."""
    partition = Partition(0, Meta(0, "t", 0, 0, False, "i", floor=1), Window(86_400_000), None, native_totals(1))
    records = NativeRecords.of(columns(0, [(KEY, ONE), (key, value)]))
    chunk = weakref.ref(records.chunk)
    gc.disable()
    try:
        examined = partition.examine(records)
        assert examined is not None
        batch = partition.fold(examined)
        assert len(batch.dead) == (0 if (key, value) == (KEY, ONE) else 1)
        del records, examined
        assert chunk() is None
    finally:
        gc.enable()


def test_the_library_refuses_what_it_was_not_given() -> None:
    chunk = Chunk.of([0, 1], [b"a", b"b"], [ONE, b"odd"], [0, 0])
    totals = LibraryTotals(1)
    with pytest.raises(ValueError, match="was not read"):
        totals.fold(chunk, 0, 2, None)
    assert chunk.read(0, 2) == [1]
    with pytest.raises(ValueError, match="was not read"):
        totals.fold(chunk, 0, 2, None)
    with pytest.raises(ValueError, match="not as many"):
        totals.fold(chunk, 0, 2, b"\1")
    totals.open(read_back=False)
    assert totals.fold(chunk, 0, 2, b"\0\0") == []
    for wrong in (
        lambda: chunk.key(2),
        lambda: chunk.read(1, 3),
        lambda: chunk.timestamps(2, 1),
        lambda: chunk.join([2]),
    ):
        with pytest.raises(IndexError):
            wrong()
    with pytest.raises(ValueError, match="out of bounds"):
        chunk.set_counts([1], [2**53], [0])
    with pytest.raises(ValueError, match="different lengths"):
        Chunk.of([0], [b"a", b"b"], [ONE, ONE], [0, 0])
    with pytest.raises(ValueError, match="place"):
        totals.fold(chunk, 0, 3, None)
    with pytest.raises(ValueError, match="place"):
        totals.fold_as(chunk, 5, b"x", 0)
    with pytest.raises(ClientRefuses):
        Intake()
