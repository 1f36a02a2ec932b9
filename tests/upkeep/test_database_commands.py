"""The commands upgrade, release and status."""

import json
import sqlite3
from contextlib import closing

from outfeed.store.event_log import log_event


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
        assert f"epoch     {facts['epoch']}" in lines
        assert lines[-1] == "The feed is at seq 3."
