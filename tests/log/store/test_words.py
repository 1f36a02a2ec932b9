"""The tokenizer of the search: where it cuts a word and where it does not."""

from __future__ import annotations

import itertools

import pytest

from outfeed.log.store import words


@pytest.mark.parametrize(
    ("word", "cut"),
    [
        ("ab12", ["ab", "12"]), ("12ab", ["12", "ab"]), ("deadbeef", ["deadbeef"]), ("1234", ["1234"]),
        ("a1b", ["a1b"]), ("1a2", ["1a2"]), ("A1B2", ["a1b2"]), ("a1B", ["a", "1", "b"]),
        ("x1y2", ["x", "1", "y", "2"]),
        ("0199a3f2", ["0199a3f2"]), ("sha256sum", ["sha", "256", "sum"]),
    ],
)  # fmt: skip
def test_a_hexadecimal_id_stays_whole_and_another_word_is_cut(word: str, cut: list[str]) -> None:
    assert words.tokens(word) == cut


def test_a_text_has_the_same_tokens_with_their_places_and_without() -> None:
    for letters in itertools.product("a1fzB", repeat=5):
        word = "".join(letters)
        assert words.tokens(word) == [token.text for token in words.locate_tokens(word)]
