"""The commands token create, list and revoke."""

import json
import re

import pytest

from outfeed import clock
from outfeed.access.store import account
from outfeed.log.store.reading import list_events


class TestCreate:
    def test_stdout_is_only_the_token(self, outfeed, database):
        result = outfeed("token", "create", "ci", "--scopes", "write, read")

        assert re.fullmatch(r"outfeed_[\w-]{43}\n", result.stdout)
        assert result.stderr == "Created token ci with scopes read,write. It is not shown again.\n"
        assert account.find_token(database, result.stdout.strip()).scopes == ("read", "write")

    def test_a_taken_name_fails_and_the_first_token_stays(self, outfeed, database):
        first = outfeed("token", "create", "ci", "--scopes", "read").stdout.strip()

        second = outfeed("token", "create", "ci", "--scopes", "admin")

        assert (second.exit_code, second.stdout) == (1, "")
        assert second.stderr.startswith("Error: there is already a token named 'ci'")
        assert account.find_token(database, first)


class TestList:
    def test_the_list_shows_names_and_scopes_but_no_token(self, outfeed, database):
        secrets = [account.create_token(database, name, ["read", "admin"]) for name in ("web", "ci")]

        people, machines = outfeed("token", "list").output, outfeed("token", "list", "--json").output

        assert re.search(r"ci +read,admin +all +\d s ago +never +never *\n *web +read,admin", people)
        assert people.endswith("There are 2 tokens.\n")
        assert [(one["name"], one["scopes"]) for one in json.loads(machines)] == [
            ("ci", ["read", "admin"]),
            ("web", ["read", "admin"]),
        ]
        assert not any(secret in people + machines for secret in secrets)

    def test_a_long_name_is_complete_in_a_pipe(self, outfeed, database):
        account.create_token(database, "n" * 100, ["read"])

        assert "n" * 100 in outfeed("token", "list").output

    def test_an_empty_list_is_a_sentence_or_an_empty_array(self, outfeed, database):
        assert outfeed("token", "list").output == "There are 0 tokens.\n"
        assert json.loads(outfeed("token", "list", "--json").output) == []


class TestRevoke:
    def test_a_revoked_token_is_invalid_at_once(self, outfeed, database):
        secret = account.create_token(database, "ci", ["read"])

        assert outfeed("token", "revoke", "ci").output == "Revoked token ci.\n"

        assert account.find_token(database, secret) is None

    def test_an_unknown_name_fails(self, outfeed, database):
        result = outfeed("token", "revoke", "nobody")

        assert result.exit_code == 1
        assert result.stderr.startswith("Error: token 'nobody' not found")


class TestRotate:
    def test_the_new_secret_has_the_same_rights_and_the_old_one_is_invalid(self, outfeed, database):
        old = outfeed(
            "token", "create", "ci", "--scopes", "read", "--types", "task.*", "--expires", "9d"
        ).stdout.strip()
        before = account.find_token(database, old)

        result = outfeed("token", "rotate", "ci")

        assert re.fullmatch(r"outfeed_[\w-]{43}\n", result.stdout)
        assert "not shown again" in result.stderr
        found = account.find_token(database, result.stdout.strip())
        assert (found.owner, found.scopes, found.types, found.expires_at) == (
            before.owner, before.scopes, before.types, before.expires_at,
        )  # fmt: skip
        assert account.find_token(database, old) is None
        (event,) = list_events("access.token_rotated")
        assert event.data == {"name": "ci", "by": "command line"}

    def test_an_unknown_name_fails(self, outfeed, database):
        assert outfeed("token", "rotate", "unknown").stderr.startswith("Error: token 'unknown' not found")


class TestLimits:
    def test_a_token_may_be_limited_to_types_and_expire(self, outfeed, database):
        arguments = ("--scopes", "read", "--types", "task.*, bid.submitted", "--expires", "90d")
        secret = outfeed("token", "create", "ci", *arguments).stdout.strip()

        found = account.find_token(database, secret)
        assert found.types == ("task.*", "bid.submitted")
        assert 89 <= (found.expires_at - clock.now()).days <= 90
        listed = outfeed("token", "list").output
        assert re.search(r"ci +read +task\.\*,bid\.submitted +\d s ago +in 89 d +never", listed)

    @pytest.mark.parametrize("option", [
        ("--types", ""), ("--types", " , "), ("--types", "*"), ("--types", "task*"),
        ("--expires", "soon"), ("--expires", "2020-01-01T00:00Z"),
        ("--expires", "2099-01-01"), ("--expires", "0d"),
    ])  # fmt: skip
    def test_an_invalid_limit_is_a_usage_error(self, outfeed, database, option):
        assert outfeed("token", "create", "ci", "--scopes", "read", *option).exit_code == 2
        assert account.list_tokens(database) == []
