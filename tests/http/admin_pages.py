"""Helpers of the administration's tests: an app, and its pages as text."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from outfeed.config import Settings
from outfeed.events import Event
from outfeed.http.app import create_app
from outfeed.log.store.reading import list_events
from outfeed.store.database import Database
from tests.http.visitors import Visit, show_tokens_and_names, signed_in


class Administration:
    """An app, and an operator who posts the forms of its pages."""

    def __init__(self, database: Database, **settings: Any) -> None:
        self.database = database
        self.app: Flask = create_app(Settings(database=database.path, **settings))
        show_tokens_and_names(self.app)
        self.visit: Visit = signed_in(self.app, database)
        self.name: str = self.visit.name  # type: ignore[attr-defined]

    def get(self, path: str) -> str:
        """Return the text of a page."""
        return text_of(self.visit("GET", path))

    def post(self, path: str, **fields: Any) -> TestResponse:
        """Post a form, as a browser does."""
        return self.visit("POST", path, {"Accept": "text/html"}, data=fields)

    def done(self, path: str, **fields: Any) -> str:
        """Post a confirmed form, and return the text of the page that it leads to."""
        answer = self.post(path, confirmed="yes", **fields)
        assert answer.status_code == 303, text_of(answer)
        return self.get(answer.headers["Location"])

    def asked(self, path: str, **fields: Any) -> str:
        """Post an unconfirmed form, and return the text of the page that asks."""
        answer = self.post(path, **fields)
        assert (answer.status_code, 'name="confirmed" value="yes"' in answer.text) == (200, True)
        return text_of(answer)

    def refused(self, path: str, **fields: Any) -> str:
        """Post a form that is not accepted, and return the text of its page."""
        answer = self.post(path, confirmed="yes", **fields)
        assert answer.status_code == 422
        return text_of(answer)

    def events(self, prefix: str = "access.") -> list[Event]:
        """Return the audit's events that name a principal of the page."""
        found = [event for event in list_events() if event.event_type.startswith(prefix)]
        return [event for event in reversed(found) if (event.data or {}).get("by") == f"user:{self.name}"]

    def types_and_data(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Return type and data of the events of the page, without `by`."""
        return [(each.event_type, {k: v for k, v in (each.data or {}).items() if k != "by"}) for each in self.events()]


def text_of(page: TestResponse) -> str:
    """Return the text of a page's main part, without its tags."""
    found = re.search(r"<main.*</main>", page.text, re.DOTALL)
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", found[0] if found else page.text).split()))


def secrets_of(page: TestResponse) -> list[str]:
    """Return the secrets that a page shows once."""
    assert page.status_code == 200
    return [html.unescape(found) for found in re.findall(r'<pre id="secret-\d+"[^>]*>([^<]*)</pre>', page.text)]
