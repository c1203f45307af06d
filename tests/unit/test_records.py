"""Decoding many values in one call never misaligns values and results."""

import json

import pytest
from flowagg.flow import ByteCounts, encode_value
from flowagg_consumer.records import Records, decode_values
from hypothesis import given
from hypothesis import strategies as st

ONE, TWO = encode_value(1, 2), encode_value(3, 4)


def test_values_are_decoded_in_order() -> None:
    decoded = decode_values([ONE, TWO, ONE])
    assert list(decoded.counts) == [ByteCounts(1, 2), ByteCounts(3, 4), ByteCounts(1, 2)]
    assert not decoded.bad


@pytest.mark.parametrize(
    ("values", "bad"),
    [
        pytest.param([ONE, b"", TWO], [1], id="an empty value"),
        pytest.param([ONE, None, TWO], [1], id="a null value"),
        pytest.param([ONE + ONE, b""], [0, 1], id="two documents and an empty value"),
        pytest.param([ONE + b" " + ONE, b" "], [0, 1], id="two documents and a blank value"),
        pytest.param([ONE + b"\n" + ONE, b""], [0, 1], id="two documents with a line end and an empty value"),
        pytest.param(
            [b'{"bytes_tx":1,', b'"bytes_rx":2}', ONE + ONE], [0, 1, 2], id="a document split over two values"
        ),
        pytest.param([ONE + b"\n" + ONE, ONE], [0], id="two documents in a value"),
        pytest.param([ONE, b"null"], [1], id="JSON null"),
        pytest.param([ONE, b'{"bytes_tx":1}'], [1], id="a missing field"),
        pytest.param([ONE, b'{"bytes_tx":-1,"bytes_rx":1}'], [1], id="a negative number"),
        pytest.param([ONE, b'{"bytes_tx":1.0,"bytes_rx":1}'], [1], id="a float"),
        pytest.param([b"\xff", ONE], [0], id="no UTF-8"),
        pytest.param([ONE, b'{"x":' + b"[" * 100_000], [1], id="nested too deeply"),
    ],
)
def test_a_bad_value_is_named_and_nothing_is_misaligned(values: list[bytes | None], bad: list[int]) -> None:
    decoded = decode_values(values)
    assert list(decoded.bad) == bad
    assert all(decoded.bad.values())
    for place, value in enumerate(values):
        if place not in bad:
            assert decoded.counts[place] == {ONE: ByteCounts(1, 2), TWO: ByteCounts(3, 4)}[value or b""]


@pytest.mark.parametrize(
    "value",
    [
        b'{"bytes_tx":1,\n"bytes_rx":2}',
        b' {"bytes_tx":1,"bytes_rx":2}\r\n',
        b'{"bytes_rx":2,"more":{"a":"}\\n{"},"bytes_tx":1}',
        b'{"bytes_tx":1,"bytes_rx":2,"s":"} {"}',
    ],
)
def test_foreign_spellings_of_a_value_are_read(value: bytes) -> None:
    decoded = decode_values([TWO, value, TWO])
    assert list(decoded.counts) == [ByteCounts(3, 4), ByteCounts(1, 2), ByteCounts(3, 4)]
    assert not decoded.bad


counts = st.integers(0, 2**53 - 1)
fragments = st.sampled_from(
    [
        b"{",
        b"}",
        b"\n",
        b",",
        b'"',
        b'"bytes_tx":1',
        b'"bytes_rx":2',
        b"[",
        b"]",
        b" ",
        b'"x":',
        b'"mark":',
        b'["k","d",0]',
    ]
)
documents = st.builds(lambda tx, rx: json.dumps({"bytes_tx": tx, "bytes_rx": rx}).encode(), counts, counts)
values_ = st.lists(
    st.one_of(documents, st.lists(st.one_of(fragments, documents), max_size=6).map(b"".join)), min_size=1
)


@given(values_)
def test_the_one_call_agrees_with_value_by_value(values: list[bytes]) -> None:
    together = decode_values(values)
    for place, value in enumerate(values):
        alone = decode_values([value])
        assert (place in together.bad) == bool(alone.bad)
        assert together.counts[place] == alone.counts[0]


def test_records_after_an_offset() -> None:
    records = Records(range(5, 9), [b"a", b"b", b"c", b"d"], [ONE] * 4, 0, [1, 2, 3, 4])
    assert records.after(6) == Records(range(7, 9), [b"c", b"d"], [ONE] * 2, 0, [3, 4])
