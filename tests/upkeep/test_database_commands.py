"""The commands upgrade, release and status."""

import json
import re
import sqlite3
from contextlib import closing

import pytest

from outfeed import config
from outfeed.store import database as db
from outfeed.store import serving
from outfeed.store.event_log import log_event
from outfeed.store.own_errors import OwnErrors
from outfeed.upkeep import database_commands
from tests.waits import wait_until


class TestUpgrade:
    def test_upgrade_creates_the_database_and_names_the_migrations(self, outfeed, tmp_path):
        lines = outfeed("upgrade").output.splitlines()

        path = tmp_path / "outfeed.db"
        assert lines[0] == "0001.event-log"
        assert lines[-1] == f"Applied {len(lines) - 1} migrations to {path}."
        assert path.exists()

    def test_a_second_upgrade_does_nothing(self, outfeed, database):
        assert outfeed("upgrade").output == f"{database.path} is up to date.\n"

    def test_a_database_of_a_newer_version_is_rejected(self, outfeed, database):
        with database.transaction() as connection:
            connection.execute("INSERT INTO outfeed_migration (applied_at, name) VALUES ('x', '9999.future')")

        result = outfeed("upgrade")

        assert result.exit_code == 1
        assert "9999.future" in result.stderr


class TestAdoption:
    def test_upgrade_without_the_flag_prints_the_plan_and_changes_nothing(self, outfeed, tmp_path):
        path = tmp_path / "outfeed.db"
        with closing(sqlite3.connect(path)) as raw:
            raw.executescript("CREATE TABLE orders (n); CREATE TABLE user (name)")
        before = path.read_bytes()

        result = outfeed("upgrade")

        assert result.exit_code == 1
        assert result.output.splitlines()[0] == f"{path} holds orders, user. An adoption would"
        assert "refuses UPDATE of event_log, and INSERT or REPLACE of a known id" in result.output
        assert result.output.splitlines()[-1].endswith("outfeed upgrade --adopt")
        assert path.read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == [path.name]

    @pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--fix"]], ids=" ".join)
    def test_the_doctor_refuses_the_database_of_another_program(self, outfeed, tmp_path, arguments):
        path = tmp_path / "outfeed.db"
        with closing(sqlite3.connect(path)) as raw:
            raw.execute("CREATE TABLE orders (n)")
        before = path.read_bytes()
        result = outfeed(*arguments)
        assert (result.exit_code, "which Outfeed did not make" in result.output) == (1, True)
        assert (path.read_bytes(), [each.name for each in tmp_path.iterdir()]) == (before, [path.name])

    def test_upgrade_with_the_flag_adopts_and_release_reverts(self, outfeed, tmp_path):
        path = tmp_path / "outfeed.db"
        with closing(sqlite3.connect(path)) as raw:
            raw.execute("CREATE TABLE orders (n)")
        assert "Applied" in outfeed("upgrade", "--adopt").output
        plan = outfeed("release")
        assert plan.exit_code == 1
        assert "Tables to remove" in plan.output

        result = outfeed("release", "--yes")

        assert "its journal mode is delete" in result.output.splitlines()[-1]
        with closing(sqlite3.connect(path)) as raw:
            names = raw.execute("SELECT name FROM sqlite_master WHERE name <> 'sqlite_sequence'").fetchall()
        assert names == [("orders",)]


class TestStatus:
    def test_status_shows_the_position_of_the_feed(self, outfeed, database):
        for _ in range(3):
            log_event("task.created", "tests")

        facts = json.loads(outfeed("status", "--json").output)
        assert (facts["head"], facts["events"], facts["outbox"]) == (3, 3, 3)
        assert facts["database"] == str(database.path)

        lines = outfeed("status").output.splitlines()
        assert f"epoch       {facts['epoch']}" in lines
        assert "server      not running; start it with `outfeed serve`" in lines
        assert "last error  none" in lines
        assert lines[-1] == "The feed is at seq 3."
        assert (facts["server"], facts["last_error"]) == (None, None)

    def test_status_shows_the_running_server_its_clients_and_the_last_error(self, outfeed, server, monkeypatch):
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        config.settings.cache_clear()
        errors = OwnErrors(db.at(server.database))
        errors.note("poll", RuntimeError("planted"))
        errors.write()
        db.at(server.database).close()

        def status():
            return json.loads(outfeed("status", "--json").output)

        with server.connect() as client:
            client.subscribe()
            wait_until(lambda: status()["server"]["clients"] == 1, "the client is counted")
            facts = status()
        assert facts["server"] == {"version": serving.version(), "url": server.url, "clients": 1, "problems": []}
        assert facts["last_error"]["message"] == "poll: RuntimeError: planted"
        text = outfeed("status").output
        assert re.search(rf"^server      outfeed \S+ at {server.url}, \d clients?, ready$", text, re.MULTILINE)
        assert re.search(r"^last error  \d+ s ago: poll: RuntimeError: planted$", text, re.MULTILINE)
        with server.halted(), monkeypatch.context() as patched:
            patched.setattr(database_commands, "READY_SECS", 0.1)
            assert "not ready: no answer from /readyz" in outfeed("status").output
        wait_until(lambda: status()["server"]["clients"] == 0, "the client has left")
