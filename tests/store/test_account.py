"""Tokens, one-time codes and sessions in a real database."""

import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from freezegun import freeze_time

from app.errors import NameTaken, UnknownName
from app.store import account
from app.store.database import Database

HOUR = timedelta(hours=1)


def stored(database, table):
    connection = sqlite3.connect(database.path)
    rows = connection.execute(f"SELECT * FROM {table}").fetchall()
    connection.close()
    return rows


class TestTokens:
    def test_a_secret_looks_like_one_and_finds_its_token(self, database):
        secret = account.create_token(database, "ci", ["write", "read"])

        assert re.fullmatch(r"outfeed_[A-Za-z0-9_-]{43}", secret)
        token = account.find_token(database, secret)
        assert (token.name, token.scopes) == ("ci", ("read", "write"))

    def test_the_secret_itself_is_not_stored(self, database):
        secret = account.create_token(database, "ci", ["read"])

        assert secret.removeprefix("outfeed_") not in repr(stored(database, "token"))

    @pytest.mark.parametrize(
        "secret", ["", "outfeed_", "outfeed_" + "x" * 43, "'; DROP TABLE token; --", "\udcff", "ci"]
    )
    def test_no_other_text_finds_a_token(self, database, secret):
        account.create_token(database, "ci", ["read"])

        assert account.find_token(database, secret) is None

    def test_a_name_is_given_once(self, database):
        secret = account.create_token(database, "ci", ["read"])

        with pytest.raises(NameTaken, match="'ci'"):
            account.create_token(database, "ci", ["admin"])

        assert account.find_token(database, secret).scopes == ("read",)
        assert len(account.list_tokens(database)) == 1

    def test_a_revoked_token_is_unknown_to_every_process_at_once_and_its_name_is_free(self, database):
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
    def test_a_name_that_would_not_print_is_refused(self, database, name):
        with pytest.raises(ValueError, match="printable"):
            account.create_token(database, name, ["read"])

        assert account.list_tokens(database) == []

    @pytest.mark.parametrize("scopes", [[], ["root"], ["read", ""], ["READ"]])
    def test_an_unknown_scope_is_refused(self, database, scopes):
        with pytest.raises(ValueError, match="read, write, admin"):
            account.create_token(database, "ci", scopes)

        assert account.list_tokens(database) == []

    def test_tokens_are_listed_by_name(self, database):
        for name in ("web", "ci"):
            account.create_token(database, name, ["admin"])

        assert [token.name for token in account.list_tokens(database)] == ["ci", "web"]


class TestCodes:
    def test_a_code_is_good_once(self, database):
        code = account.create_code(database, HOUR)

        assert [account.redeem_code(database, code) for _ in range(3)] == [True, False, False]

    def test_of_many_who_redeem_it_at_once_one_succeeds(self, database):
        code = account.create_code(database, HOUR)

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: account.redeem_code(database, code), range(8)))

        assert sorted(answers) == [False] * 7 + [True]

    def test_a_guess_neither_succeeds_nor_uses_the_code_up_nor_waits_for_a_writer(self, database):
        code = account.create_code(database, HOUR)

        with database.transaction():
            assert not account.redeem_code(database, code[:-1])

        assert account.redeem_code(database, code)

    def test_an_expired_code_is_refused_and_purged_by_the_next(self, database):
        with freeze_time("2024-01-15 10:00") as clock:
            code = account.create_code(database, HOUR)
            clock.tick(HOUR)
            assert not account.redeem_code(database, code)

            account.create_code(database, HOUR)

        assert len(stored(database, "sign_in_code")) == 1

    def test_the_code_itself_is_not_stored(self, database):
        code = account.create_code(database, HOUR)

        assert code not in repr(stored(database, "sign_in_code"))


class TestSessions:
    def test_a_session_lasts_until_it_is_ended(self, database):
        key, other = account.create_session(database), account.create_session(database)
        assert account.has_session(database, key)

        account.end_session(database, key)

        assert not account.has_session(database, key)
        assert account.has_session(database, other)

    def test_a_session_expires_and_is_purged_by_the_next(self, database):
        with freeze_time("2024-01-15 10:00") as clock:
            key = account.create_session(database)
            clock.tick(account.SESSION_LIFETIME)
            assert not account.has_session(database, key)

            account.create_session(database)

        assert len(stored(database, "session")) == 1

    @pytest.mark.parametrize("key", ["", "guess", "\udcff"])
    def test_a_guess_opens_none(self, database, key):
        account.create_session(database)

        assert not account.has_session(database, key)
