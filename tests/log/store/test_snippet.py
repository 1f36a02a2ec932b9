"""Snippets: the matching line, cut around the first match, with marks."""

from __future__ import annotations

import pytest

from outfeed.log.store.query import Query
from outfeed.log.store.snippet import MAX_CHARS, Snippet, snippet
from outfeed.log.store.words import locate_tokens, tokens


def found(text: str, query: str) -> Snippet | None:
    parsed = Query.of(query)
    assert parsed is not None
    return snippet(parsed, text)


def marked(text: str, query: str) -> list[str]:
    shown = found(text, query)
    assert shown is not None
    return [shown.text[start:end] for start, end in shown.marks]


@pytest.mark.parametrize(
    ("text", "query", "marks"),
    [
        ("a Timeout of it", "timeout", ["Timeout"]),
        ("a NullPointerException", "exception", ["Exception"]),
        ("a NullPointerException", "nullpointerexception", ["NullPointerException"]),
        ("message: 数据库连接超时", "据库", ["据库"]),
        ("out of memory, memory out", '"out of memory"', ["out of memory"]),
        ("connect connection", "conn*", ["connect", "connection"]),
        ("one two three", "three OR one -four", ["one", "three"]),
        ("Naïve 👍🏽", "naive 👍", ["Naïve", "👍"]),
        ("Straße", "strasse", ["Straße"]),
        ("a.b\nworker-7\nran", '"7 ran"', ["7 ran"]),
    ],
)
def test_each_match_is_marked(text: str, query: str, marks: list[str]) -> None:
    assert marked(text, query) == marks


def test_the_line_with_most_terms_is_shown() -> None:
    assert found("a timeout\nmessage: timeout of the database\ndatabase", "database timeout") == Snippet(
        "message: timeout of the database", [(9, 16), (24, 32)]
    )


@pytest.mark.parametrize("place", [0, 300, 5000, 21_000])
def test_a_long_line_is_cut_around_the_first_match(place: int) -> None:
    shown = found("hay " * (place // 4) + "needle" + " hay" * 3000, "needle")
    assert shown is not None
    assert len(shown.text) <= MAX_CHARS + 2
    [(start, end)] = shown.marks
    assert shown.text[start:end] == "needle"
    assert shown.text.startswith("…") == (place > 0)
    assert "".join(text for text, _ in shown.parts) == shown.text
    assert [text for text, is_hit in shown.parts if is_hit] == ["needle"]


@pytest.mark.parametrize("query", ["other", "-other"])
def test_without_a_match_there_is_no_snippet(query: str) -> None:
    assert found("a text", query) is None


@pytest.mark.parametrize("text", ["İstanbul ﬁn ﷺ", "HTTPServer2Go x_y", "e\u0301Té 1️⃣", "ABCdeFG9 0190a2b4", ""])
def test_located_tokens_equal_the_tokens(text: str) -> None:
    assert [token.text for token in locate_tokens(text)] == tokens(text)
