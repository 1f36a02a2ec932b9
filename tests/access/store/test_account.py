"""Tokens, sign-in codes, sessions and tickets in a real database."""

import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
from freezegun import freeze_time

from outfeed.access.store import account, user
from outfeed.errors import NameTaken, UnknownName
from outfeed.log.store.reading import list_events
from outfeed.store.database import Database

HOUR = timedelta(hours=1)


def stored(database, table):
    connection = sqlite3.connect(database.path)
    rows = connection.execute(f"SELECT * FROM outfeed_{table}").fetchall()
    connection.close()
    return rows


class TestTokens:
    def test_a_secret_has_the_prefix_and_finds_its_token(self, database):
        secret = account.create_token(database, "ci", ["write", "read"])

        assert re.fullmatch(r"outfeed_[A-Za-z0-9_-]{43}", secret)
        token = account.find_token(database, secret)
        assert (token.name, token.scopes) == ("ci", ("read", "write"))

    def test_the_secret_itself_is_not_stored(self, database):
        secret = account.create_token(database, "ci", ["read"])

        assert secret.removeprefix("outfeed_") not in repr(stored(database, "token"))

    @pytest.mark.parametrize(
        "secret", ["", "outfeed_", "outfeed_" + "x" * 43, "'; DROP TABLE outfeed_token; --", "\udcff", "ci"]
    )
    def test_another_text_finds_no_token(self, database, secret):
        account.create_token(database, "ci", ["read"])

        assert account.find_token(database, secret) is None

    def test_a_name_can_be_used_once(self, database):
        secret = account.create_token(database, "ci", ["read"])

        with pytest.raises(NameTaken, match="'ci'"):
            account.create_token(database, "ci", ["admin"])

        assert account.find_token(database, secret).scopes == ("read",)
        assert len(account.list_tokens(database)) == 1

    def test_a_revoked_token_is_unknown_at_once_and_its_name_is_free(self, database):
        another_process = Database(database.path)
        secret = account.create_token(database, "ci", ["read"])
        assert account.find_token(another_process, secret)

        account.revoke_token(database, "ci")

        assert account.find_token(another_process, secret) is None
        assert account.create_token(database, "ci", ["read"]) != secret
        another_process.close()

    def test_revoking_an_unknown_name_fails(self, database):
        with pytest.raises(UnknownName, match="'nobody'"):
            account.revoke_token(database, "nobody")

    @pytest.mark.parametrize("name", ["", " ci", "a\nb", "x" * 101, "\x1b[2J", "\udcff"])
    def test_an_unprintable_name_is_rejected(self, database, name):
        with pytest.raises(ValueError, match="printable"):
            account.create_token(database, name, ["read"])

        assert account.list_tokens(database) == []

    @pytest.mark.parametrize("scopes", [[], ["root"], ["read", ""], ["READ"]])
    def test_an_unknown_scope_is_rejected(self, database, scopes):
        with pytest.raises(ValueError, match="read, write, admin"):
            account.create_token(database, "ci", scopes)

        assert account.list_tokens(database) == []

    def test_an_expired_token_is_unknown(self, database):
        with freeze_time("2024-01-15 10:00") as clock:
            secret = account.create_token(database, "ci", ["read"], expires_at=datetime(2024, 1, 16, tzinfo=UTC))
            assert account.find_token(database, secret)
            clock.tick(timedelta(days=1))
            assert account.find_token(database, secret) is None

    @pytest.mark.parametrize("pattern", ["", "*", "task*", "task.* ", "a,b"])
    def test_an_invalid_type_is_rejected(self, database, pattern):
        with pytest.raises(ValueError, match=r"task\.\*"):
            account.create_token(database, "ci", ["read"], types=[pattern])

    def test_tokens_are_listed_by_name(self, database):
        for name in ("web", "ci"):
            account.create_token(database, name, ["admin"])

        assert [token.name for token in account.list_tokens(database)] == ["ci", "web"]


class TestCodes:
    def test_a_code_is_valid_once(self, database):
        code = account.create_code(database, HOUR)

        assert [account.redeem_code(database, code) for _ in range(3)] == ["operator", None, None]

    def test_of_many_concurrent_redemptions_one_succeeds(self, database):
        code = account.create_code(database, HOUR)

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: account.redeem_code(database, code), range(8)))

        assert sorted(answers, key=str) == [None] * 7 + ["operator"]

    def test_a_guess_fails_without_using_the_code_or_waiting_for_a_writer(self, database):
        code = account.create_code(database, HOUR)

        with database.transaction():
            assert not account.redeem_code(database, code[:-1])

        assert account.redeem_code(database, code)

    def test_an_expired_code_is_rejected_and_deleted_with_the_next(self, database):
        with freeze_time("2024-01-15 10:00") as clock:
            code = account.create_code(database, HOUR)
            clock.tick(HOUR)
            assert not account.redeem_code(database, code)

            account.create_code(database, HOUR)

        assert len(stored(database, "sign_in_code")) == 1

    def test_the_code_itself_is_not_stored(self, database):
        code = account.create_code(database, HOUR)

        assert code not in repr(stored(database, "sign_in_code"))

    def test_a_code_signs_in_its_user(self, database):
        user.add(database, "ann", "viewer")

        assert account.redeem_code(database, account.create_code(database, HOUR, "ann")) == "ann"
        assert [one.name for one in user.list_all(database)] == ["ann"]

    def test_a_code_without_a_name_makes_the_first_operator_and_finds_it_again(self, database):
        user.add(database, "operator", "viewer")

        names = [account.redeem_code(database, account.create_code(database, HOUR)) for _ in range(2)]

        assert names == ["operator-2", "operator-2"]
        assert user.find(database, "operator-2").role == "operator"

    def test_a_code_without_a_name_is_invalid_once_an_operator_has_a_password(self, database):
        code = account.create_code(database, HOUR)
        user.add(database, "ann", "operator")
        user.set_password(database, "ann", "a hash")

        assert account.redeem_code(database, code) is None

    @pytest.mark.parametrize("way", ["sets a password", "becomes operator", "is enabled"])
    def test_an_operators_password_ends_the_first_operators_codes_permanently(self, database, way):
        user.add(database, "zoe", "operator")  # an operator is left when ann is disabled
        user.add(database, "ann", "viewer" if way == "becomes operator" else "operator")
        if way != "sets a password":
            user.set_password(database, "ann", "a hash")
        if way == "is enabled":
            user.set_disabled(database, "ann", True)
        user.add(database, "bob", "viewer")
        code, invitation = account.create_code(database, HOUR), account.create_code(database, HOUR, "bob")
        assert account.find_code(database, code) in ("ann", "zoe")

        if way == "sets a password":
            user.set_password(database, "ann", "a hash")
        elif way == "becomes operator":
            user.set_role(database, "ann", "operator")
        else:
            user.set_disabled(database, "ann", False)
        user.set_disabled(database, "ann", True)

        assert account.find_code(database, code) is None
        assert account.redeem_code(database, code) is None
        assert account.redeem_code(database, invitation) == "bob"

    def test_finding_the_user_of_a_code_changes_nothing(self, database):
        user.add(database, "ann", "viewer")
        codes = [account.create_code(database, HOUR, name) for name in ("ann", None)]

        found = [account.find_code(database, code) for code in (*codes, *codes, "x")]

        assert found == ["ann", "operator", "ann", "operator", None]
        assert [one.name for one in user.list_all(database)] == ["ann"]
        assert [account.redeem_code(database, code) for code in codes] == ["ann", "operator"]

    def test_a_code_for_a_disabled_user_is_invalid(self, database):
        user.add(database, "ann", "viewer")
        code = account.create_code(database, HOUR, "ann")
        user.set_disabled(database, "ann", True)

        assert account.redeem_code(database, code) is None


@pytest.fixture
def ann(database):
    user.add(database, "ann", "producer")
    return "ann"


class TestSessions:
    def test_a_session_lasts_until_it_is_ended(self, database, ann):
        key, other = (account.create_session(database, ann, HOUR) for _ in range(2))
        found = account.find_session(database, key)
        assert (found.name, found.scopes, found.is_session) == ("ann", ("read", "write"), True)

        account.end_session(database, key)

        assert not account.find_session(database, key)
        assert account.find_session(database, other)

    def test_a_session_expires_and_is_deleted_with_the_next(self, database, ann):
        with freeze_time("2024-01-15 10:00") as clock:
            key = account.create_session(database, ann, HOUR)
            clock.tick(HOUR)
            assert not account.find_session(database, key)

            account.create_session(database, ann, HOUR)

        assert len(stored(database, "session")) == 1

    @pytest.mark.parametrize("key", ["", "guess", "\udcff"])
    def test_a_guess_finds_no_session(self, database, ann, key):
        account.create_session(database, ann, HOUR)

        assert not account.find_session(database, key)

    @pytest.mark.parametrize(
        "end",
        [
            lambda database: user.set_password(database, "ann", "a hash"),
            lambda database: user.set_disabled(database, "ann", True),
        ],
        ids=["password", "disabled"],
    )
    def test_a_new_password_and_a_disabled_user_end_all_sessions(self, database, ann, end):
        keys = [account.create_session(database, ann, HOUR) for _ in range(2)]

        end(database)
        user.set_disabled(database, "ann", False)

        assert [account.find_session(database, key) for key in keys] == [None, None]

    def test_a_new_role_applies_at_once(self, database, ann):
        key = account.create_session(database, ann, HOUR)

        user.set_role(database, "ann", "operator")

        assert account.find_session(database, key).visible.has_audit


class TestTickets:
    def token(self, database, **more):
        secret = account.create_token(database, "site", ["read", "admin"], types=["task.*"], **more)
        return account.find_token(database, secret)

    def test_a_ticket_has_its_owners_read_permission_once_and_never_the_audit(self, database):
        ticket = account.create_ticket(database, self.token(database))

        found, again = account.redeem_ticket(database, ticket), account.redeem_ticket(database, ticket)

        assert (found.name, found.scopes, found.types, found.is_browser) == ("site", ("read",), ("task.*",), True)
        assert not found.visible.has_audit
        assert again is None

    def test_of_many_concurrent_redemptions_one_succeeds(self, database):
        ticket = account.create_ticket(database, self.token(database))

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: account.redeem_ticket(database, ticket), range(8)))

        assert answers.count(None) == 7

    def test_a_ticket_expires_and_ends_with_its_owners_grant(self, database):
        with freeze_time("2024-01-15 10:00") as clock:
            owner = self.token(database, expires_at=datetime(2024, 2, 1, tzinfo=UTC))
            late, good = (account.create_ticket(database, owner) for _ in range(2))
            found = account.redeem_ticket(database, good)
            clock.tick(account.TICKET_LIFETIME)
            assert account.redeem_ticket(database, late) is None

            assert account.principal_of(database, found.grant) == found
            account.revoke_token(database, "site")
            assert account.principal_of(database, found.grant) is None

    def test_the_ticket_itself_is_not_stored(self, database):
        assert account.create_ticket(database, self.token(database)) not in repr(stored(database, "ticket"))


class TestRights:
    CHANGES: ClassVar = {
        "revoke": lambda database: account.revoke_token(database, "ci"),
        "sign out": lambda database: account.end_session(database, "key"),
        "role": lambda database: user.set_role(database, "ann", "viewer"),
        "disable": lambda database: user.set_disabled(database, "ann", True),
        "password": lambda database: user.set_password(database, "ann", "a hash"),
    }

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_the_counter_changes_when_a_permission_may_have_been_revoked(self, database, ann, change, monkeypatch):
        account.create_token(database, "ci", ["read"])
        monkeypatch.setattr(account.secrets, "token_urlsafe", lambda _: "key")
        account.create_session(database, ann, HOUR)
        before = account.change_counters(database)

        change(database)

        assert account.change_counters(database)[0] > before[0]

    def test_the_counter_is_unchanged_while_tokens_are_used_and_made(self, database, ann):
        secret = account.create_token(database, "ci", ["read"])
        before = account.change_counters(database)

        account.note_uses(database, {account.find_token(database, secret).grant: "2024-01-15T10:00:00.000Z"})
        account.create_token(database, "other", ["read"])
        account.create_session(database, ann, HOUR)

        assert account.change_counters(database) == before
        assert [token.last_used_at for token in account.list_tokens(database)] == ["2024-01-15T10:00:00.000Z", None]


class TestAudit:
    def test_each_change_writes_an_audit_event_in_its_transaction(self, database):
        user.add(database, "zoe", "operator")
        account.create_token(database, "ci", ["read"], by="ann")
        with pytest.raises(NameTaken):
            account.create_token(database, "ci", ["read"], by="ann")
        account.revoke_token(database, "ci", by="ann")
        user.add(database, "bob", "viewer", by="ann")
        user.set_role(database, "bob", "operator", by="ann")
        user.set_password(database, "bob", "a hash", by="bob")
        user.end_sessions(database, "bob", by="ann")
        user.create_link(database, "bob", by="ann")
        user.set_disabled(database, "bob", True, by="ann")
        account.note_refusal(database, None, how="password", address="192.0.2.1")

        assert [(event.event_type, event.data["by"]) for event in reversed(list_events())] == [
            ("access.token_created", "ann"),
            ("access.token_revoked", "ann"),
            ("access.user_added", "ann"),
            ("access.role_changed", "ann"),
            ("access.password_changed", "bob"),
            ("access.sessions_ended", "ann"),
            ("access.link_created", "ann"),
            ("access.user_disabled", "ann"),
            ("access.sign_in_refused", "anonymous"),
        ]
        assert "a hash" not in repr(list_events())
