"""/admin/displays: the list, the preview, and each change."""

from __future__ import annotations

import html
import re

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from outfeed import list_events, log_event
from outfeed.config import Settings
from outfeed.display import Display, Level
from outfeed.http.app import create_app
from outfeed.store import displays
from outfeed.store.database import Database
from outfeed.store.displays import MadeBy
from outfeed.types import operations, store
from tests.http.visitors import Visit, show_tokens_and_names, signed_in, text_of

EDIT = "/admin/displays/edit"


@pytest.fixture
def app(database: Database) -> Flask:
    app = create_app(Settings(database=database.path))
    show_tokens_and_names(app)
    return app


@pytest.fixture
def operator(app: Flask, database: Database) -> Visit:
    return signed_in(app, database)


def preview_of(page: TestResponse) -> str:
    """Return the level, the icon and the sentence of the preview."""
    (row,) = re.findall(r'<li class="event"[^>]*data-level="(\w+)".*?</li>', page.text, re.S)
    (inner,) = re.findall(r'<div class="preview-line">(.*?)</div>', page.text, re.S)
    return f"{row}: {html.unescape(re.sub(r'<[^>]+>', '', inner))}"


def displays_of(database: Database) -> dict[str, Display]:
    return dict(operations.read(database).by_type)


def test_the_list_has_displays_and_types_without_one(operator: Visit, database: Database) -> None:
    log_event("order.paid", "shop")
    log_event("order.sent", "shop")
    log_event("task.created", "shop")
    operations.set_display(database, "order.paid", Display("⚡", "Paid <b>{amount}"), "ann")
    with database.transaction() as connection:
        displays.put(connection, {"stock.gap": Display(level=Level.WARNING)}, MadeBy.WATCH)

    page = operator("GET", "/admin/displays")

    assert "⚡" in page.text
    assert "Paid &lt;b&gt;{amount}" in page.text
    assert re.search(r'stock\.gap.*?data-title="Set by">a watch<', page.text, re.S)
    assert re.findall(r'class="chips">(.*?)</p>', page.text, re.S)[0].count("<a ") == 1
    assert 'href="/admin/displays/edit?type=order.sent"' in page.text


class TestPreview:
    def test_it_shows_the_newest_event_with_the_given_display_and_saves_nothing(
        self, operator: Visit, database: Database
    ) -> None:
        log_event("order.paid", "shop", data={"amount": 4})
        log_event("order.paid", "shop", data={"amount": 5, "password": "hunter2"})
        form = {"type": "order.paid", "icon": "⚡", "label": "Paid {amount}", "level": "warning", "do": "preview"}
        page = operator("POST", EDIT, data=form)

        assert preview_of(page) == "warning: ⚡Paid 5"
        assert "hunter2" not in page.text
        assert displays_of(database) == {}
        assert 'value="Paid {amount}"' in page.text

    def test_without_an_event_it_shows_the_names_of_the_places(self, operator: Visit) -> None:
        form = {"type": "order.paid", "label": "Paid {amount:5} by {name|id}", "level": "error", "do": "preview"}
        assert preview_of(operator("POST", EDIT, data=form)) == "error: ❌Paid amou… by name"

    def test_the_page_of_a_type_begins_with_its_present_display(self, operator: Visit, database: Database) -> None:
        log_event("order.paid", "shop", data={"amount": 4})
        assert preview_of(operator("GET", f"{EDIT}?type=order.paid")) == "info: order.paid amount=4"
        assert preview_of(operator("GET", f"{EDIT}?type=order.failed")) == "error: ❌order.failed"
        assert preview_of(operator("GET", f"{EDIT}?type=claude_code.tool_result")).startswith("info: ")
        operations.set_display(database, "order.paid", Display(label="Got {amount}"), "ann")
        assert preview_of(operator("GET", f"{EDIT}?type=order.paid")) == "info: Got 4"


class TestChanges:
    def test_a_display_is_set_with_an_event(self, operator: Visit, database: Database) -> None:
        form = {"type": "order.paid", "icon": "⚡", "label": "Paid {amount}", "level": "info"}
        answer = operator("POST", EDIT, data=form)

        assert (answer.status_code, answer.location) == (303, "/admin/displays")
        assert displays_of(database) == {"order.paid": Display("⚡", "Paid {amount}")}
        (event,) = list_events("access.display_set")
        assert event.data["by"] == f"user:{operator.name}"  # type: ignore[attr-defined]

    def test_empty_fields_are_those_of_the_level(self, operator: Visit, database: Database) -> None:
        operator("POST", EDIT, data={"type": "order.paid", "icon": "", "label": "", "level": "error"})
        assert displays_of(database) == {"order.paid": Display(level=Level.ERROR)}

    def test_a_reset_asks_first_and_writes_an_event(self, operator: Visit, database: Database) -> None:
        operations.set_display(database, "order.paid", Display("⚡"), "ann")
        asked = operator("POST", "/admin/displays/reset", data={"type": "order.paid"})
        assert "Reset the display of order.paid?" in text_of(asked)
        assert displays_of(database) != {}
        operator("POST", "/admin/displays/reset", data={"type": "order.paid", "confirmed": "yes"})
        assert displays_of(database) == {}
        (event,) = list_events("access.display_removed")
        assert event.data == {"name": "order.paid", "by": f"user:{operator.name}"}  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"label": "{amount"}, "Has a brace without its partner"),
            ({"label": "x" * 201}, "Must have 1 to 200 characters"),
            ({"label": "a\nb"}, "Must be one line"),
            ({"icon": "x" * 17}, "Must have 1 to 16 characters"),
            ({"level": "loud"}, "Must be info, warning or error"),
            ({"level": ""}, "Must be info, warning or error"),
            ({"type": "task.created"}, "Outfeed defines this type"),
            ({"type": "access.signed_in"}, "Outfeed defines this type"),
            ({"type": "orders"}, "must be a type like order.paid"),
            ({"type": ""}, "must be a type like order.paid"),
        ],
    )
    def test_bad_input_is_named_and_changes_nothing(
        self, operator: Visit, database: Database, changes: dict[str, str], said: str
    ) -> None:
        form = {"type": "order.paid", "icon": "⚡", "label": "Paid", "level": "info", **changes}
        page = operator("POST", EDIT, data=form)

        assert (page.status_code, said in text_of(page)) == (422, True)
        assert displays_of(database) == {}

    def test_an_unknown_display_is_not_reset(self, operator: Visit) -> None:
        answer = operator("POST", "/admin/displays/reset", data={"type": "order.paid", "confirmed": "yes"})
        assert answer.status_code == 404


def test_the_types_of_the_log_are_found_by_one_look_for_each(database: Database) -> None:
    with database.transaction() as connection:
        connection.executemany(
            "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, ?, 's', 't')",
            [(f"{n}", f"type.of_{n % 5}") for n in range(1000)],
        )
    with database.connection() as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {store.TYPES}", (3,)).fetchall()
    found = store.types_in_log(database, 3)

    assert not [row for row in plan if str(row[3]).startswith("SCAN event_log")], "each look is a search in the index"
    assert found == ["type.of_0", "type.of_1", "type.of_2"]
    assert store.types_in_log(database, 100) == [f"type.of_{n}" for n in range(5)]


def test_an_empty_log_has_no_types(database: Database) -> None:
    assert store.types_in_log(database, 10) == []
    assert store.newest_of(database, "a.b") is None
