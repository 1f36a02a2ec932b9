"""/admin/tokens: each action does what its command does, and is an event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time

from outfeed import clock
from outfeed.access.store import account
from outfeed.store.database import Database
from tests.http.admin_pages import Administration, secrets_of, text_of
from tests.http.visitors import bearer, signed_in


@pytest.fixture
def admin(database: Database) -> Administration:
    return Administration(database)


def test_a_new_token_is_shown_once_and_works(admin: Administration) -> None:
    fields = {"name": "ci", "scopes": ["write", "read"], "types": "task.*, bid.submitted", "expires": "90d"}
    page = admin.post("/admin/tokens", **fields)
    (secret,) = secrets_of(page)
    assert "Authorization: Bearer" in text_of(page)
    found = account.find_token(admin.database, secret)
    assert found is not None
    assert (found.name, found.scopes, found.types) == ("ci", ("read", "write"), ("task.*", "bid.submitted"))
    assert found.expires_at is not None
    assert timedelta(days=89) < found.expires_at - clock.now() <= timedelta(days=90)
    listed = admin.get("/admin/tokens")
    assert "read, write task.*, bid.submitted" in listed
    assert "in 89 d never" in listed
    assert secret not in admin.visit("GET", "/admin/tokens").text
    ((event_type, data),) = admin.types_and_data()
    assert (event_type, data["name"], data["scopes"]) == ("access.token_created", "ci", ["read", "write"])
    assert secret not in repr(data)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": ""}, "A name must have 1 to 100 printable characters"),
        ({"name": "taken"}, "There is already a token named 'taken'"),
        ({"scopes": []}, "Scopes are any of read, write, admin, got none."),
        ({"scopes": ["read", "all"]}, "Scopes are any of read, write, admin, got all, read."),
        ({"types": "task*"}, "A type is like task.created or task.*, got 'task*'."),
        ({"expires": "soon"}, "Must be like 90d, 12h, 30m or 2030-01-31T00:00Z (got 'soon')."),
        ({"expires": "2020-01-31T00:00Z"}, "2020-01-31T00:00Z is in the past."),
        ({"expires": "9999-12-31T23:59:59-23:00"}, "Must be like 90d"),
        ({"expires": "0001-01-01T00:00:00+23:00"}, "Must be like 90d"),
    ],
)
def test_an_invalid_field_keeps_the_input_and_creates_no_token(
    admin: Administration, fields: dict[str, object], problem: str
) -> None:
    account.create_token(admin.database, "taken", ["read"])
    given = {"name": "ci", "scopes": ["read", "write"], "types": "a.b", "expires": "1d", **fields}
    assert problem in admin.refused("/admin/tokens", **given)
    page = admin.post("/admin/tokens", **given).text
    assert f'value="{given["types"]}" id="field-types"' in page
    assert f'value="{given["expires"]}" id="field-expires"' in page
    assert ('value="write" checked' in page) == ("write" in given["scopes"])  # type: ignore[operator]
    assert [token.name for token in account.list_tokens(admin.database)] == ["taken"]
    assert admin.events() == []


def test_a_rotated_token_has_a_new_secret_and_the_old_one_is_invalid(admin: Administration) -> None:
    old = account.create_token(admin.database, "ci", ["read"], types=["task.*"])
    assert "Rotate the token ci? The present secret is invalid at once" in admin.asked(
        "/admin/tokens/rotate", name="ci"
    )
    assert bearer(admin.app, old)("GET", "/who").text == "ci"
    (new,) = secrets_of(admin.post("/admin/tokens/rotate", name="ci", confirmed="yes"))
    assert bearer(admin.app, old)("GET", "/who").status_code == 401
    assert bearer(admin.app, new)("GET", "/who").text == "ci"
    assert admin.types_and_data() == [("access.token_rotated", {"name": "ci"})]


def test_a_token_is_revoked_after_a_confirmation(admin: Administration) -> None:
    secret = account.create_token(admin.database, "ci", ["read"])
    assert "This can't be undone. It was never used." in admin.asked("/admin/tokens/revoke", name="ci")
    assert account.find_token(admin.database, secret) is not None
    assert "The token ci is revoked." in admin.done("/admin/tokens/revoke", name="ci")
    assert account.list_tokens(admin.database) == []
    assert admin.types_and_data() == [("access.token_revoked", {"name": "ci"})]


def test_the_page_shows_the_last_use_and_what_has_expired(admin: Administration) -> None:
    with freeze_time("2024-01-15"):
        account.create_token(admin.database, "old", ["admin"], expires_at=datetime(2024, 1, 16, tzinfo=UTC))
    secret = account.create_token(admin.database, "ci", ["read"])
    principal = account.find_token(admin.database, secret)
    assert principal is not None
    account.note_uses(admin.database, {principal.grant: clock.isoformat(clock.now() - timedelta(minutes=3, seconds=5))})
    page = admin.get("/admin/tokens")
    assert "never 3 min ago" in page
    assert "expired" in page
    assert "last used 3 min ago" in admin.asked("/admin/tokens/revoke", name="ci")


@pytest.mark.parametrize("action", ["rotate", "revoke"])
def test_an_unknown_token_is_not_found(admin: Administration, action: str) -> None:
    assert admin.post(f"/admin/tokens/{action}", name="none", confirmed="yes").status_code == 404


def test_a_form_without_a_csrf_token_changes_nothing(admin: Administration, database: Database) -> None:
    secret = account.create_token(database, "ci", ["read"])
    forged = signed_in(admin.app, database, csrf=False)
    for path in ("", "/rotate", "/revoke"):
        fields = {"name": "ci" if path else "new", "scopes": "admin", "confirmed": "yes"}
        assert forged("POST", f"/admin/tokens{path}", data=fields).status_code == 403
    assert [token.name for token in account.list_tokens(database)] == ["ci"]
    assert account.find_token(database, secret) is not None
