"""The commands user add, list, set-password, set-role and disable."""

import json
import re

import pytest
from click.testing import CliRunner

from outfeed import config
from outfeed.access import passwords
from outfeed.access.store import account, user
from outfeed.cli import main
from outfeed.config.addresses import LOCAL_LINK
from outfeed.log.store.reading import list_events
from outfeed.store.serving import serving
from tests.server import Server, free_port
from tests.waits import wait_until


def with_stdin(text, *arguments):
    return CliRunner().invoke(main, list(arguments), input=text)


class TestAdd:
    def test_add_prints_a_link_that_signs_the_user_in_once(self, outfeed, database):
        result = outfeed("user", "add", "ann", "--role", "viewer")

        code = re.fullmatch(r"http://127\.0\.0\.1:8000/login\?code=(\S+)\n", result.stdout)[1]
        assert account.redeem_code(database, code) == "ann"
        assert user.find(database, "ann").role == "viewer"

    @pytest.mark.parametrize(
        ("settings", "address", "is_local"),
        [
            ({"BIND": "0.0.0.0:8123"}, "http://127.0.0.1:8123", True),
            ({"BIND": "[::]:8123"}, "http://[::1]:8123", True),
            ({"BIND": "192.0.2.7:8123"}, "http://192.0.2.7:8123", False),
            ({"URL": "http://localhost:9/"}, "http://localhost:9", True),
            (
                {"URL": "http://feed.internal", "PUBLIC_URL": "https://example.com/feed/"},
                "https://example.com/feed",
                False,
            ),
        ],
    )
    def test_the_link_points_to_the_public_address_or_warns(
        self, outfeed, database, monkeypatch, settings, address, is_local
    ):
        for name, value in settings.items():
            monkeypatch.setenv(f"OUTFEED_{name}", value)
        config.settings.cache_clear()
        result = outfeed("user", "add", "ann", "--role", "viewer")
        assert result.stdout.startswith(f"{address}/login?code=")
        assert (LOCAL_LINK in result.stderr) == is_local

    def test_the_link_points_to_the_running_server(self, tmp_path):
        with Server(tmp_path) as server:
            elsewhere = Server(tmp_path)
            elsewhere.port = free_port()
            done = elsewhere.run("user", "add", "ann", "--role", "viewer")
            assert done.stdout.startswith(f"{server.url}/login?code=")
            assert LOCAL_LINK in done.stderr
        wait_until(lambda: serving(server.database) is None, "the last process of the server has ended")
        done = elsewhere.run("user", "add", "bob", "--role", "viewer")
        assert done.stdout.startswith(f"http://127.0.0.1:{elsewhere.port}/login?code=")

    def test_a_password_may_be_given_instead_of_a_link(self, outfeed, database):
        result = with_stdin("correct horse\n", "user", "add", "ann", "--role", "operator", "--password-stdin")

        assert result.output == "Added ann as operator.\n"
        assert passwords.matches(user.password_hash(database, "ann"), "correct horse")

    @pytest.mark.parametrize("arguments", [("ann",), ("ann", "--role", "king"), ("", "--role", "viewer")])
    def test_a_missing_role_or_name_is_a_usage_error(self, outfeed, database, arguments):
        assert outfeed("user", "add", *arguments).exit_code == 2

    def test_a_name_can_be_used_once(self, outfeed, database):
        outfeed("user", "add", "ann", "--role", "viewer")

        assert outfeed("user", "add", "ann", "--role", "operator").exit_code == 1
        assert user.find(database, "ann").role == "viewer"


class TestList:
    def test_text_and_json_show_names_roles_and_states_but_no_password(self, outfeed, database):
        user.add(database, "ann", "viewer")
        user.add(database, "bob", "producer")
        user.set_password(database, "bob", "a hash")
        user.set_disabled(database, "bob", True)

        people, machines = outfeed("user", "list").output, outfeed("user", "list", "--json").output

        assert re.search(r"ann +viewer +no password yet +\d s ago\n *bob +producer +disabled", people)
        assert [(one["name"], one["is_disabled"]) for one in json.loads(machines)] == [("ann", False), ("bob", True)]
        assert "a hash" not in people + machines


class TestChanges:
    @pytest.fixture(autouse=True)
    def ann(self, database):
        user.add(database, "ann", "viewer")

    def test_without_a_terminal_the_password_comes_from_stdin(self, database):
        assert with_stdin("correct horse\n", "user", "set-password", "ann").exit_code == 0
        assert passwords.matches(user.password_hash(database, "ann"), "correct horse")

    @pytest.mark.parametrize("text", ["", "\n", "short\n"])
    def test_a_short_or_missing_password_is_a_usage_error(self, database, text):
        assert with_stdin(text, "user", "set-password", "ann").exit_code == 2
        assert user.password_hash(database, "ann") is None

    def test_changes_of_role_and_state_apply_at_once_and_are_in_the_audit(self, outfeed, database):
        assert outfeed("user", "set-role", "ann", "producer").output == "Made ann producer.\n"
        assert outfeed("user", "disable", "ann").output == "Disabled ann.\n"
        assert user.find(database, "ann").is_disabled
        assert outfeed("user", "disable", "ann", "--undo").output == "Enabled ann.\n"

        assert user.find(database, "ann").role == "producer"
        assert [(event.event_type, event.data["by"]) for event in reversed(list_events())] == [
            ("access.role_changed", "command line"),
            ("access.user_disabled", "command line"),
            ("access.user_enabled", "command line"),
        ]

    @pytest.mark.parametrize("arguments", [("set-role", "bob", "viewer"), ("disable", "bob")])
    def test_an_unknown_user_fails(self, outfeed, arguments):
        assert outfeed("user", *arguments).exit_code == 1
