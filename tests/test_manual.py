"""The search over the documentation."""

from __future__ import annotations

from outfeed import manual


def test_a_section_with_every_word_is_found():
    hits = manual.search("alembic tables")
    assert [(hit.section.topic, hit.section.anchor) for hit in hits] == [("adopt", "alembic")]
    assert "drop tables" in hits[0].snippet


def test_a_section_with_the_word_in_its_heading_comes_first():
    assert manual.search("EPOCH")[0].section.anchor == "what-an-epoch-is"


def test_an_empty_or_unknown_query_finds_nothing():
    assert manual.search("  ") == []
    assert manual.search("xylophone") == []


def test_a_heading_in_code_begins_no_section():
    assert all(not section.title.startswith("METHOD") for section in manual.sections())


def test_markers_of_generated_parts_are_not_shown():
    assert all("<!--" not in manual.read(topic) for topic in manual.topics())


def test_a_snippet_is_plain_text_of_whole_words():
    snippets = {hit.section.anchor: hit.snippet for hit in manual.search("epoch")}
    assert snippets["restore"].startswith("A restore is one transaction,")
    assert "starts a new epoch, so every client" in snippets["restore"]  # there it is a link
    assert snippets["from-the-shell"].startswith('echo "$page" | jq')  # code is unchanged
    assert not [snippet for snippet in snippets.values() if "](" in snippet or "`" in snippet]
    page = manual.read("delivery")
    cut = snippets["what-an-epoch-is"].strip("…").split()
    assert {cut[0], cut[-1]} <= {*page.split()}
