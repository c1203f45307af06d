"""The rendering of answers, beside the plainest code that does the same."""

import random
from collections.abc import Callable, Mapping, Sequence

import msgspec
import pytest
from flowagg.flow import encode_key
from flowagg.view import DamagedView, totals_field
from flowagg_reader import compiled, union
from flowagg_reader.compiled import render_compiled
from flowagg_reader.union import EMPTY, Body, render
from hypothesis import given, settings
from hypothesis import strategies as st

Totals = Mapping[bytes, bytes]

RENDER = render


@pytest.fixture(autouse=True, scope="module", params=[render, render_compiled])
def way(request: pytest.FixtureRequest) -> None:
    """In Python, and by the compiled library."""
    globals()["RENDER"] = request.param


def body_of(hour: int, partitions: Sequence[Totals], visible: Callable[[str], bool] | None = None) -> Body:
    steps = RENDER(hour, [[part for pair in totals.items() for part in pair] for totals in partitions], visible)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            body: Body = end.value
            return body


def rendered(hour: int, partitions: Sequence[Totals], visible: Callable[[str], bool] | None = None) -> bytes:
    body = body_of(hour, partitions, visible)
    joined = b"".join(body.chunks)
    assert body.size == len(joined)
    assert body.rows == len(msgspec.json.decode(joined))
    return joined


def plainly(hour: int, partitions: Sequence[Totals]) -> bytes:
    sums: dict[tuple[str, ...], tuple[int, int]] = {}
    for totals in partitions:
        for field, raw in totals.items():
            names = tuple(msgspec.json.decode(field))
            (tx, rx), (more_tx, more_rx) = map(int, raw.split()), sums.get(names, (0, 0))
            sums[names] = (tx + more_tx, rx + more_rx)
    names_of = ("src_app", "dest_app", "vpc_id")
    return msgspec.json.encode(
        [
            dict(zip(names_of, names, strict=True))
            | {"hour": hour, "bytes_tx": msgspec.Raw(b"%d" % tx), "bytes_rx": msgspec.Raw(b"%d" % rx)}
            for names, (tx, rx) in sorted(sums.items())
        ]
    )


# Characters around the separators of the JSON, and of each width in UTF-8 and in Python's strings.
NAME = st.text(
    st.sampled_from('ab !"#,\\/[]:{}\u00e9\u00ff\u0100\u2028\ud7ff\ue000\uffff\U00010000\U0010ffff'),
    min_size=1,
    max_size=4,
)
KEY = st.tuples(NAME, NAME, NAME)
COUNT = st.one_of(st.sampled_from([0, 1, 9, 10, 2**53, 2**63, 10**30]), st.integers(0, 10**20))
PARTITION = st.dictionaries(
    KEY.map(lambda names: totals_field(encode_key(*names, 1))),
    st.tuples(COUNT, COUNT).map(lambda pair: b"%d %d" % pair),
)


@settings(max_examples=600, deadline=None)
@given(partitions=st.lists(PARTITION, max_size=4), hour=st.sampled_from([0, 7, 2**53 - 1]))
def test_the_body_equals_what_the_plainest_code_makes(partitions: list[Totals], hour: int) -> None:
    assert rendered(hour, partitions) == plainly(hour, partitions)


@pytest.mark.parametrize("awkward", [False, True])
@pytest.mark.parametrize("grown", [False, True])
def test_thousands_of_rows_over_many_slices_and_chunks(awkward: bool, grown: bool) -> None:
    rng = random.Random(1)
    partitions: list[dict[bytes, bytes]] = [{} for _ in range(6)]
    for number in range(30_000):
        name = f"a \\{number}" if awkward and number % 3000 == 0 else f"app-{number % 777}"
        field = totals_field(encode_key(name, f"b{number}", "v", 1))
        for partition in rng.sample(partitions, 2 if grown and number % 500 == 0 else 1):
            partition[field] = b"%d %d" % (rng.randrange(10**6), rng.randrange(10**6))
    assert rendered(5, partitions) == plainly(5, partitions)
    assert len(body_of(5, partitions).chunks) == 15


def test_slices_and_chunks_of_any_size_make_the_same_body(monkeypatch: pytest.MonkeyPatch) -> None:
    totals = [{b'["a%d","b","c"]' % number: b"%d 0" % number for number in range(part, 23, 3)} for part in range(3)]
    for size in range(1, 9):
        monkeypatch.setattr(union, "_SLICE_ROWS", size)
        monkeypatch.setattr(compiled, "_RUN_ROWS", size)
        for module in (union, compiled):
            monkeypatch.setattr(module, "CHUNK_ROWS", 9 - size)
        assert rendered(1, totals) == plainly(1, totals)


def test_a_flow_key_in_two_partitions_is_added_up_exactly_at_any_size() -> None:
    totals = [{b'["a","b","c"]': b"18446744073709551615 1"}, {b'["a","b","c"]': b"1 2"}, {b'["a","b","d"]': b"0 0"}]
    assert rendered(7, totals) == (
        b'[{"src_app":"a","dest_app":"b","vpc_id":"c","hour":7,"bytes_tx":18446744073709551616,"bytes_rx":3},'
        b'{"src_app":"a","dest_app":"b","vpc_id":"d","hour":7,"bytes_tx":0,"bytes_rx":0}]'
    )


def test_no_rows_are_an_empty_array() -> None:
    assert body_of(1, []) is EMPTY
    assert body_of(1, [{}, {}]) is EMPTY


def test_only_the_rows_that_may_be_seen_are_shown_and_each_vpc_is_asked_for_once() -> None:
    asked = []

    def visible(vpc_id: str) -> bool:
        asked.append(vpc_id)
        return vpc_id in ("mine", 'my "own"')

    totals = [
        {totals_field(encode_key(f"a{n}", "b", vpc, 1)): b"1 2"}
        for vpc in ("mine", "not mine", 'my "own"')
        for n in range(3)
    ]
    shown = [row for part in totals for row in part.items() if b"not mine" not in row[0]]
    assert rendered(1, totals, visible) == plainly(1, [dict(shown)])
    assert body_of(1, totals, lambda _: False) is EMPTY
    assert rendered(1, [{field: raw for part in totals for field, raw in part.items()}], visible) == plainly(
        1, [dict(shown)]
    )
    assert sorted(asked[-3:]) == ["mine", 'my "own"', "not mine"]


GOOD = {b'["a","b","c"]': b"1 2", b'["d","e","f"]': b"3 4", b'["g","h","i"]': b"0 0"}


@pytest.mark.parametrize(
    "field",
    [
        b"x",
        b"",
        b"[]",
        b'["a","b"]',
        b'["a","b","c","d"]',
        b'["a","b",3]',
        b'["a","b","c"',
        b'"a","b","c"]',
        b'["a","b","c"]\n["a","b","z"]',
        b'["a" ,"b","c"]',
        b'["\\u0061","b","x"]',
        b'["a\\u0001","b","c"]',
        b'["a\x01","b","c"]',
        b'["a\n","b","c"]',
        b'["\xff","b","c"]',
        b'["\xed\xa0\x80","b","c"]',
        b'["a"b","c","d"]',
        b'["a",b","c"]',
        b'["a","b","c\\"]',
        b'["a","b","c"]]',
    ],
)
def test_a_damaged_field_is_an_error_never_a_row(field: bytes) -> None:
    for totals in ({field: b"1 2"}, {**GOOD, field: b"1 2"}, {field: b"1 2", **GOOD}):
        with pytest.raises(DamagedView):
            body_of(1, [totals])


def test_fields_that_are_damaged_in_opposite_ways_do_not_make_up_for_each_other() -> None:
    for pair in (
        ('["a","b"]', '["c","d","e","f"]'),
        ('["a"]', '["b","c","d","e","f"]'),
        ('["a,b","c"]', '["d","e",""f"]'),
    ):
        with pytest.raises(DamagedView):
            body_of(1, [{field.encode(): b"1 2" for field in pair}])


@pytest.mark.parametrize(
    "raw",
    [
        b"1",
        b"1 x",
        b"",
        b" ",
        b"1 ",
        b" 1",
        b"1  2",
        b"1 2 3",
        b"-1 2",
        b"+1 2",
        b"1_0 2",
        b"01 2",
        b"1 02",
        b"1.0 2",
        b"1\n2",
        b"1 2\n",
        b"\n1 2",
        b"1 2\n3 4",
        "١ 2".encode(),
    ],
)
def test_damaged_totals_are_an_error_never_a_row(raw: bytes) -> None:
    for totals in ({b'["a","b","x"]': raw}, {**GOOD, b'["a","b","x"]': raw}, {b'["a","b","x"]': raw, **GOOD}):
        with pytest.raises(DamagedView):
            body_of(1, [totals])
