"""How a view's values are written, one by one and many at a time."""

import pytest
from flowagg.view import decode_totals, encode_totals, encode_totals_column
from hypothesis import given
from hypothesis import strategies as st

naturals = st.integers(min_value=0, max_value=2**80)


@given(st.lists(st.tuples(naturals, naturals)))
def test_a_column_of_totals_is_written_as_each_of_them_is(totals: list[tuple[int, int]]) -> None:
    assert encode_totals_column(totals) == [encode_totals(*one) for one in totals]


@pytest.mark.parametrize("largest", [2**53 - 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**40])
def test_totals_of_any_size_are_read_as_they_were_written(largest: int) -> None:
    column = encode_totals_column([(0, largest), (largest, 1)])
    assert [decode_totals(raw) for raw in column] == [(0, largest), (largest, 1)]
