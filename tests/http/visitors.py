"""Visitors of the access tests: one for each kind of permission."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from flask_wtf.csrf import generate_csrf
from freezegun import freeze_time
from werkzeug.test import TestResponse

from outfeed.access.store import account, user
from outfeed.http import identity
from outfeed.http.permission import requires
from outfeed.principal import READ, WRITE
from outfeed.store.database import Database
from tests.server import hidden_fields

HOUR = timedelta(hours=1)
Visit = Callable[..., TestResponse]


def text_of(page: TestResponse) -> str:
    """Return the text of a page, without its tags."""
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", page.text).split()))


def show_tokens_and_names(app: Flask) -> None:
    """Add the test routes /csrf and /who.

    They return a CSRF token, and the name of the principal.
    """
    views = {
        ("GET", "/csrf"): requires(READ, is_page=True)(partial(generate_csrf)),
        ("GET", "/who"): requires(READ, is_page=True)(lambda: identity.principal().name),
        ("POST", "/who"): requires(WRITE, is_page=True)(lambda: identity.principal().name),
    }
    for (method, path), view in views.items():
        app.add_url_rule(path, view_func=view, methods=[method], endpoint=f"{method} {path}")


def bearer(app: Flask, secret: str | None) -> Visit:
    """Return a visitor with that token, or an anonymous one."""
    credentials = {"Authorization": f"Bearer {secret}"} if secret else {}

    def visit(method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> TestResponse:
        client = app.test_client(use_cookies=False)
        return client.open(path, method=method, headers={**credentials, **(headers or {})}, buffered=True, **more)

    return visit


def follow(client: FlaskClient, code: str, **more: Any) -> TestResponse:
    """Open the sign-in link with that code, and press its button.

    Returns the page itself if it has no button.
    """
    page = client.get("/login", query_string={"code": code, **more.pop("query", {})}, **more)
    fields = hidden_fields(page.text)
    return client.post("/login", data=fields, **more) if "code" in fields else page


def signed_in(app: Flask, database: Database, role: str = "operator", *, csrf: bool = True) -> Visit:
    """Return a new user's visitor, signed in by a link.

    Its client is `visit.client`.
    """
    name = f"{role}{len(user.list_all(database))}"
    user.add(database, name, role)
    client = app.test_client()
    assert follow(client, account.create_code(database, HOUR, name)).status_code == 303
    token = {"X-CSRFToken": client.get("/csrf").text} if csrf else {}

    def visit(method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> TestResponse:
        return client.open(path, method=method, headers={**token, **(headers or {})}, buffered=True, **more)

    visit.client = client  # type: ignore[attr-defined]
    visit.name = name  # type: ignore[attr-defined]
    return visit


def tokens(database: Database) -> dict[str, str | None]:
    """Return the secret of each kind of token, by name."""
    found: dict[str, str | None] = {"anonymous": None}
    for name, scopes, types in (
        ("reader", ["read"], []),
        ("writer", ["write"], []),
        ("both", ["read", "write"], []),
        ("admin", ["admin"], []),
        ("tasks", ["read", "write"], ["task.*"]),
        ("revoked", ["admin"], []),
    ):
        found[name] = account.create_token(database, name, scopes, types=types)
    account.revoke_token(database, "revoked")
    with freeze_time("2024-01-15"):
        expires_at = datetime(2024, 1, 16, tzinfo=UTC)
        found["expired"] = account.create_token(database, "expired", ["admin"], expires_at=expires_at)
    return found
