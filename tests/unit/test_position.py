"""Position tokens."""

import pytest
from flowagg.position import InvalidToken, Position, decode_token, encode_token


@pytest.mark.parametrize("offsets", [{}, {0: 1}, {5: 2**62, 0: 0, 11: 7}, dict.fromkeys(range(500), 2**40)])
def test_a_token_comes_back_as_its_position(offsets: dict[int, int]) -> None:
    token = encode_token(Position("T8WXJIMkTsydN8yPMUDwbA", offsets))
    assert token.isascii()
    assert not set(token) & set("+/=&? ")
    assert decode_token(token) == Position("T8WXJIMkTsydN8yPMUDwbA", offsets)


@pytest.mark.parametrize(
    "token", ["", "x", "%%%", "bm90IGpzb24", "e30", "ß", "A" * 20_000, "eyJ0IjoiYSIsInAiOnsiMCI6LTF9fQ"]
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidToken):
        decode_token(token)
