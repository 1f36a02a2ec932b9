"""The documentation at /docs."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from outfeed import manual
from outfeed.http import docs_pages


@pytest.fixture
def visitor(flask_app) -> FlaskClient:
    """Return the client of an anonymous visitor."""
    return flask_app.test_client()


@pytest.mark.parametrize("topic", manual.topics())
def test_a_page_is_public_and_contains_its_text(visitor, topic):
    answer = visitor.get(f"/docs/{topic}")
    assert answer.status_code == 200
    assert (
        f"<title>{re.sub('[<>]', lambda found: {'<': '&lt;', '>': '&gt;'}[found[0]], manual.title(topic))}"
        in answer.text
    )
    assert "style=" not in answer.text  # the Content Security Policy forbids it


def test_the_first_page_is_the_index(visitor):
    index = visitor.get("/docs/index").text
    assert visitor.get("/docs").text == index.replace('value="/docs/index"', 'value="/docs"').replace(
        "=/docs/index", "=/docs"
    )


def test_a_link_to_a_file_points_to_its_page(visitor):
    text = visitor.get("/docs/tutorial").text
    assert '<a href="/docs/delivery">' in text
    assert ".md" not in text


def test_markup_in_a_page_is_shown_as_text(monkeypatch):
    monkeypatch.setattr(manual, "read", lambda topic: "# T\n\n<script>alert(1)</script> `<b>`\n\n```sh\n<i>\n```\n")
    html = docs_pages.rendered.__wrapped__("any", "")
    assert "&lt;script&gt;" in html
    assert not re.search("<(script|b|i)>", html)


def test_the_search_marks_the_words_also_of_a_hostile_query(visitor):
    assert "<mark>Epoch</mark>" in visitor.get("/docs/search?q=ePOCH+histor").text.replace("<mark>epoch", "<mark>Epoch")
    assert "<mark>histor</mark>y" in visitor.get("/docs/search?q=epoch+histor").text
    assert visitor.get("/docs/search", query_string={"q": "(a|b"}).status_code == 200


def test_the_search_shows_sections_with_links_to_them(visitor):
    text = visitor.get("/docs/search?q=include_name").text
    assert '<a href="/docs/adopt#alembic">' in text
    assert "1 section contains" in text


def test_a_query_with_markup_is_shown_as_text(visitor):
    text = visitor.get("/docs/search", query_string={"q": '"><script>'}).text
    assert "No section contains" in text
    assert "<script>" not in text


def test_an_unknown_page_returns_404_with_a_link_to_the_menu(visitor):
    answer = visitor.get("/docs/nope")
    assert answer.status_code == 404
    assert "/docs" in answer.text


def test_the_pages_need_no_database(flask_app, database):
    database.path.unlink()
    assert flask_app.test_client().get("/docs/troubleshooting").status_code == 200
