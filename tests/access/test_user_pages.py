"""/admin/users: each action does what its command does, and is an event."""

from __future__ import annotations

import pytest
from werkzeug.datastructures import Headers

from outfeed.access.store import account, user
from outfeed.access.store.user import User
from outfeed.store.database import Database
from tests.http.admin_pages import Administration, secrets_of, text_of
from tests.http.visitors import HOUR, bearer, signed_in


@pytest.fixture
def admin(database: Database) -> Administration:
    user.add(database, "ann", "viewer")
    return Administration(database)


def ann(admin: Administration) -> User:
    return user.require(admin.database, "ann")


def test_an_invitation_shows_a_link_once_that_signs_the_user_in(admin: Administration) -> None:
    page = admin.post("/admin/users", name="bob", role="producer")
    (link,) = secrets_of(page)
    assert link.startswith("http://localhost/login?code=")
    assert "not shown again" in text_of(page)
    assert account.redeem_code(admin.database, link.partition("=")[2]) == "bob"
    assert user.require(admin.database, "bob").role == "producer"
    assert admin.types_and_data() == [("access.user_added", {"name": "bob", "role": "producer"})]
    assert link.partition("=")[2] not in admin.visit("GET", "/admin/users").text


def test_the_link_has_the_public_address(database: Database) -> None:
    admin = Administration(database, public_url="http://feed.example.com")
    (link,) = secrets_of(admin.post("/admin/users", name="bob", role="viewer"))
    assert link.startswith("http://feed.example.com/login?code=")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": "", "role": "viewer"}, "A name must have 1 to 100 printable characters"),
        ({"name": "x" * 101, "role": "viewer"}, "A name must have 1 to 100 printable characters"),
        ({"name": "bob", "role": "king"}, "A role is one of viewer, producer, operator, got 'king'."),
        ({"name": "bob"}, "A role is one of"),
        ({"name": "ann", "role": "viewer"}, "There is already a user named 'ann'."),
    ],
)
def test_an_invalid_invitation_keeps_the_input_and_adds_nobody(
    admin: Administration, fields: dict[str, str], problem: str
) -> None:
    before = user.list_all(admin.database)
    assert problem in admin.refused("/admin/users", **fields)
    answer = admin.post("/admin/users", **fields)
    assert f'value="{fields["name"]}" id="field-name"' in answer.text
    assert 'aria-invalid="true"' in answer.text or "role" in problem
    assert user.list_all(admin.database) == before
    assert admin.events() == []


def test_a_role_is_changed(admin: Administration) -> None:
    assert "ann has the role operator." in admin.done("/admin/users/role", name="ann", role="operator")
    assert ann(admin).role == "operator"
    assert admin.types_and_data() == [("access.role_changed", {"name": "ann", "role": "operator"})]


def test_a_user_is_disabled_after_a_confirmation_and_enabled(admin: Administration) -> None:
    account.create_session(admin.database, "ann", HOUR)
    asked = admin.asked("/admin/users/disable", name="ann")
    assert "Disable ann?" in asked
    assert "One open session ends, and unused sign-in links end." in asked
    assert not ann(admin).is_disabled
    assert "ann is disabled and signed out." in admin.done("/admin/users/disable", name="ann")
    assert ann(admin).is_disabled
    assert account.count_sessions(admin.database).keys() == {admin.name}
    assert "ann is enabled." in admin.done("/admin/users/enable", name="ann")
    assert not ann(admin).is_disabled
    assert [event_type for event_type, _ in admin.types_and_data()] == ["access.user_disabled", "access.user_enabled"]


def test_a_user_is_signed_out_everywhere(admin: Administration) -> None:
    visit = signed_in(admin.app, admin.database, "viewer")
    name = visit.name  # type: ignore[attr-defined]
    link = user.create_link(admin.database, name)
    assert f"Sign {name} out everywhere?" in admin.asked("/admin/users/sign-out", name=name)
    assert visit("GET", "/swarm/live").status_code == 200
    assert f"{name} is signed out everywhere." in admin.done("/admin/users/sign-out", name=name)
    assert visit("GET", "/swarm/live").status_code == 302
    assert account.find_code(admin.database, link) is None
    assert admin.types_and_data() == [("access.sessions_ended", {"name": name, "sessions": 1})]


def test_a_new_link_signs_in_and_a_disabled_user_gets_none(admin: Administration) -> None:
    (link,) = secrets_of(admin.post("/admin/users/link", name="ann"))
    assert account.redeem_code(admin.database, link.partition("=")[2]) == "ann"
    assert admin.types_and_data() == [("access.link_created", {"name": "ann"})]
    user.set_disabled(admin.database, "ann", True)
    assert "The user ann is disabled; enable the user first." in admin.refused("/admin/users/link", name="ann")
    refused = admin.post("/admin/users/link", name="ann").text
    assert 'value="" id="field-name"' in refused  # the form of an invitation is another one


@pytest.mark.parametrize(("action", "fields"), [("role", {"role": "viewer"}), ("disable", {})])
def test_operators_keep_their_own_permission_and_the_last_one_stays(
    admin: Administration, action: str, fields: dict[str, str]
) -> None:
    path = f"/admin/users/{action}"
    assert "You can't do this to your own account" in admin.refused(path, name=admin.name, **fields)
    secret = account.create_token(admin.database, "ci", ["admin"])
    program = bearer(admin.app, secret)
    answer = program("POST", path, {"Accept": "text/html"}, data={"name": admin.name, "confirmed": "yes", **fields})
    assert answer.status_code == 422
    assert f"The user {admin.name} is the last operator; make another user an operator first." in text_of(answer)
    assert user.require(admin.database, admin.name).role == "operator"
    user.set_role(admin.database, "ann", "operator")
    answer = program("POST", path, data={"name": admin.name, "confirmed": "yes", **fields})
    assert answer.status_code == 303


def test_the_page_offers_no_action_on_the_own_permission(admin: Administration) -> None:
    rows = admin.visit("GET", "/admin/users").text.split("<tr ")
    (own,) = (row for row in rows if ">you<" in row)
    assert "Sign out everywhere" in own
    assert "Change role" not in own
    assert "Disable" not in own


@pytest.mark.parametrize("action", ["role", "disable", "enable", "sign-out", "link"])
def test_an_unknown_user_is_not_found(admin: Administration, action: str) -> None:
    answer = admin.post(f"/admin/users/{action}", name="unknown", role="viewer", confirmed="yes")
    assert answer.status_code == 404
    assert "user 'unknown' not found" in text_of(answer)


def test_an_invalid_role_changes_nothing(admin: Administration) -> None:
    assert admin.post("/admin/users/role", name="ann", role="king").status_code == 422
    assert ann(admin).role == "viewer"


def test_a_form_without_a_csrf_token_changes_nothing(admin: Administration, database: Database) -> None:
    forged = signed_in(admin.app, database, csrf=False)
    for path in ("", "/role", "/disable", "/enable", "/sign-out", "/link"):
        fields = {"name": "ann" if path else "bob", "role": "operator", "confirmed": "yes"}
        assert forged("POST", f"/admin/users{path}", Headers(), data=fields).status_code == 403
    assert (ann(admin).role, ann(admin).is_disabled, user.find(database, "bob")) == ("viewer", False, None)
    assert admin.events() == []


class TestCommands:
    def test_link_prints_a_link_that_signs_the_user_in(self, outfeed, admin):  # type: ignore[no-untyped-def]
        done = outfeed("user", "link", "ann")
        assert account.redeem_code(admin.database, done.stdout.strip().partition("=")[2]) == "ann"

    def test_sign_out_ends_the_sessions_and_links(self, outfeed, admin):  # type: ignore[no-untyped-def]
        account.create_session(admin.database, "ann", HOUR)
        assert outfeed("user", "sign-out", "ann").output == "Ended 1 session of ann.\n"
        assert "ann" not in account.count_sessions(admin.database)

    def test_the_last_operator_is_neither_disabled_nor_demoted(self, outfeed, admin):  # type: ignore[no-untyped-def]
        for arguments in (("disable", admin.name), ("set-role", admin.name, "viewer")):
            done = outfeed("user", *arguments)
            assert (done.exit_code, "is the last operator" in done.output) == (1, True)
