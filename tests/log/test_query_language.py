"""The query language: each text has terms, and each term has a text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outfeed.log import query_language
from outfeed.log.query_language import FIELDS, SINCE, TEXT, UNTIL, ParsedQuery, QueryTerm, data_field, parse, path_of

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=20)
PATHS = st.lists(VALUES, min_size=1, max_size=3)
NAMES = st.one_of(st.sampled_from([name for name in FIELDS if name not in (SINCE, UNTIL)]), PATHS.map(data_field))
TERMS = st.builds(QueryTerm, NAMES, VALUES, st.booleans())


def shown(text: str) -> list[str]:
    return [str(term) for term in parse(text).terms]


@given(st.lists(TERMS, max_size=6, unique=True))
@settings(max_examples=60, deadline=None)
def test_every_list_of_terms_is_read_from_its_own_text(terms: list[QueryTerm]) -> None:
    query = ParsedQuery(tuple(terms))
    assert parse(str(query)) == query
    assert parse(str(query)).problems == ()


@given(PATHS)
def test_a_field_of_the_data_leads_to_its_path(path: list[str]) -> None:
    assert path_of(QueryTerm(data_field(path), "1")) == path


@given(st.one_of(st.text(max_size=60), st.text('ab -"*\\:. \nORtype:', max_size=60)))
@settings(max_examples=120, deadline=None)
def test_any_text_is_a_query_whose_text_has_the_same_terms(text: str) -> None:
    query = parse(text)
    assert parse(str(query)) == query
    assert parse(str(query)).problems == ()


def test_a_query_has_fields_exclusions_phrases_words_and_values_of_the_data() -> None:
    query = parse('type:task.* source:ci agent:Forge -task:"a b" data.user.name:ann "out of memory" -done since:15m')
    assert [(term.field, term.value, term.is_excluded) for term in query.terms] == [
        ("type", "task.*", False), ("source", "ci", False), ("agent", "Forge", False), ("task", "a b", True),
        ("data.user.name", "ann", False), (TEXT, '"out of memory"', False), (TEXT, "-done", False),
        ("since", "15m", False),
    ]  # fmt: skip
    assert query.text == '"out of memory" -done'
    assert path_of(query.data[0]) == ["user", "name"]
    assert query.moment(SINCE, NOW) == NOW - timedelta(minutes=15)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("event_type:a.b task_id:t agent_id:x", ["type:a.b", "task:t", "agent:x"]),
        ("from:1h to:2026-01-01", ["since:1h", "until:2026-01-01"]),
        ("a OR b c", ["a OR b", "c"]),
        ("NOT a", ["NOT a"]),
        ("http://host:80/x 12:30 std::vector", ["http://host:80/x", "12:30", "std::vector"]),
        ("message: lost", ["message:", "lost"]),
        ('"type:a"', ['"type:a"']),
        ("text:type:a", ['"type:a"']),
        (r'source:"say \"hi\" \\ done"', [r'source:"say \"hi\" \\ done"']),
        ("type:a type:a type:b", ["type:a", "type:b"]),
        (r"data.a\.b.c:1", [r"data.a\.b.c:1"]),
        ("data.empty:\"\"", ['data.empty:""']),
    ],
)  # fmt: skip
def test_a_text_has_these_terms(text: str, terms: list[str]) -> None:
    assert shown(text) == terms
    assert parse(text).problems == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tpye:a", "Unknown filter tpye. Did you mean type? To search for it as text, write \"tpye:a\" in quotes."),
        ("error:timeout", "Unknown filter error. To search for it as text"),
        ("type:", "type: has no value."),
        ("since:yesterday", '"yesterday" isn\'t a date; that filter was ignored. Use 2026-01-31T12:00'),
        ("-since:1h", "since can't be excluded."),
        ("since:1h since:2h", "since is given twice; the second one was ignored."),
        ('source:"open', 'The quote after source: has no end. Write source:"a value".'),
        ("data.:1", "data: needs a name, like data.status:500."),
        ("x" * 5000, "A query has at most 4,000 characters."),
        (" ".join(f"source:{n}" for n in range(60)), "A query has at most 50 terms; the others were ignored."),
    ],
)  # fmt: skip
def test_a_problem_is_named_and_the_rest_is_kept(text: str, problem: str) -> None:
    found = parse(f"{text} kept") if len(text) < 100 and '"' not in text else parse(text)
    assert len(found.problems) == 1
    assert found.problems[0].startswith(problem)
    if text == "tpye:a":
        assert [str(term) for term in found.terms] == ["kept"]


def test_a_term_replaces_its_opposite_and_another_time() -> None:
    query = parse("type:a -source:b since:1h")
    changed = query.with_terms(QueryTerm("source", "b"), QueryTerm("since", "2h"))
    assert str(changed) == "type:a source:b since:2h"
    assert str(changed.without(QueryTerm("type", "a")).without_times()) == "source:b"


@pytest.mark.parametrize("value", ["90s", "15m", "15min", "6h", "7d", "2w", "99999w"])
def test_a_relative_time_is_before_now(value: str) -> None:
    moment = query_language.moment_of(value, NOW)
    assert moment is not None
    assert moment < NOW
