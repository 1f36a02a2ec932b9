"""Upgrades: from nothing, from older tables, by many, killed anywhere.

The results are read with plain sqlite3.
"""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from outfeed.errors import DatabaseBusy, DatabaseError, DatabaseUnreadable, OutfeedError, SchemaMismatch
from outfeed.store import database_file, migrate, schema
from tests import forked
from tests.store import killed_upgrade

ROOT = Path(__file__).parents[2]
ALL = [file.stem for file in sorted((ROOT / "migrations").glob("*.sql"))]

ADR_017 = """
CREATE TABLE event_log (
    id TEXT PRIMARY KEY,
    event_type TEXT NOT NULL,
    source TEXT NOT NULL,
    task_id TEXT,
    agent_id TEXT,
    data TEXT,
    timestamp TEXT NOT NULL
)
"""

UPGRADE = """
import sys
from pathlib import Path
from outfeed.store import migrate
print("ready", flush=True)
sys.stdin.readline()
print(migrate.upgrade(Path(sys.argv[1])))
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "feed.db"


def query(path, sql, *values):
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def insert(path, id):
    query(path, "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.b', 'raw', '2024-01-15')", id)


def objects(path):
    return query(path, "SELECT type, name, sql FROM sqlite_master ORDER BY name")


def assert_works(path):
    """Fail unless the database works.

    The triggers fill and guard the outbox, nothing is pending, and the file is sound.
    """
    insert(path, "works")
    assert query(path, "SELECT event_id, json_extract(payload, '$.source') FROM outbox ORDER BY seq DESC LIMIT 1") == [
        ("works", "raw")
    ]
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        query(path, "UPDATE event_log SET source = 'other'")
    assert migrate.pending(path) == []
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]


class TestUpgrade:
    def test_an_upgrade_creates_a_database_and_the_folders_above(self, tmp_path):
        path = tmp_path / "a" / "b" / "feed.db"
        assert migrate.upgrade(path) == ALL
        assert_works(path)
        assert query(path, "PRAGMA auto_vacuum") == [(2,)]

    def test_a_second_upgrade_does_nothing(self, path):
        migrate.upgrade(path)
        before = path.read_bytes()
        assert migrate.upgrade(path) == []
        assert path.read_bytes() == before

    @pytest.mark.parametrize(
        "name", ["with space.db", "100%.db", "what?.db", "a#b.db", "%41.db", "ü[a].db", "a&mode=ro.db"]
    )
    def test_a_path_may_have_any_characters(self, tmp_path, name):
        folder = tmp_path / f"folder {name}"
        assert migrate.upgrade(folder / name) == ALL
        assert_works(folder / name)
        assert [file.name for file in tmp_path.iterdir()] == [folder.name]

    def test_the_sql_is_applied_unchanged(self, path):
        migrate.upgrade(path)
        text = "".join(file.read_text("utf-8") for file in sorted((ROOT / "migrations").glob("*.sql")))
        text = text.replace(" IF NOT EXISTS", "")
        made = [sql for _, name, sql in objects(path) if sql and name not in ("sqlite_sequence", "outfeed_migration")]
        assert len(made) >= 10
        for column in reversed(re.findall(r"ALTER TABLE \w+ ADD COLUMN ([^;]+);", text)):
            made = [sql.replace(f", {column})", ")") for sql in made]
        assert [sql for sql in made if sql not in text] == []

    def test_an_empty_file_is_a_new_database(self, path):
        path.touch()
        assert migrate.upgrade(path) == ALL
        assert query(path, "PRAGMA auto_vacuum") == [(2,)]

    def test_an_older_schema_is_upgraded(self, path, tmp_path, monkeypatch):
        older = tmp_path / "older"
        older.mkdir()
        first = ROOT / "migrations" / f"{ALL[0]}.sql"
        (older / first.name).write_text(first.read_text("utf-8"), "utf-8")
        with monkeypatch.context() as patch:
            patch.setattr(schema, "migrations_dir", lambda: older)
            assert migrate.upgrade(path) == ALL[:1]
        insert(path, "old")
        assert migrate.pending(path) == ALL[1:]
        assert migrate.upgrade(path) == ALL[1:]
        assert_works(path)

    def test_a_copy_without_wal_mode_gets_it(self, path):
        migrate.upgrade(path)
        query(path, "PRAGMA journal_mode = DELETE")
        assert migrate.upgrade(path) == []
        assert_works(path)

    def test_a_failing_migration_leaves_nothing_behind(self, path, tmp_path, monkeypatch):
        migrate.upgrade(path)
        before = objects(path)
        newer = tmp_path / "newer"
        newer.mkdir()
        for file in (ROOT / "migrations").glob("*.sql"):
            (newer / file.name).write_text(file.read_text("utf-8"), "utf-8")
        (newer / "9000.good.sql").write_text("CREATE TABLE good (a);", "utf-8")
        (newer / "9001.bad.sql").write_text(
            "-- depends: 9000.good\nCREATE TABLE fine (a);\nCREATE TABLE outbox (a);", "utf-8"
        )
        monkeypatch.setattr(schema, "migrations_dir", lambda: newer)
        with pytest.raises(SchemaMismatch, match="outbox already exists"):
            migrate.upgrade(path)
        assert objects(path) == before
        assert migrate.pending(path) == ["9000.good", "9001.bad"]


class TestRefusals:
    def test_a_database_of_newer_code_is_refused_and_nothing_is_changed(self, path):
        migrate.upgrade(path)
        query(path, "INSERT INTO outfeed_migration VALUES ('9999.future', '2030-01-01')")
        before = path.read_bytes()
        for refused in (migrate.upgrade, migrate.pending):
            with pytest.raises(SchemaMismatch, match=r"newer code.*9999\.future"):
                refused(path)
        assert path.read_bytes() == before

    def test_a_writer_that_keeps_the_lock_makes_the_upgrade_fail_as_busy(self, path, monkeypatch):
        query(path, ADR_017)
        query(path, "PRAGMA journal_mode = WAL")
        monkeypatch.setattr(database_file, "BUSY_TIMEOUT_SECS", 0.05)
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseBusy):
                migrate.upgrade(path, adopt=True)
            writer.execute("COMMIT")
        assert migrate.upgrade(path, adopt=True) == ALL

    def test_a_file_that_is_not_a_database_is_left_unchanged(self, path):
        path.write_text("a text\n" * 500)
        with pytest.raises(DatabaseUnreadable, match="not a database"):
            migrate.upgrade(path)
        assert path.read_text() == "a text\n" * 500

    def test_a_file_in_place_of_the_folder_is_named(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(DatabaseError, match="file"):
            migrate.upgrade(tmp_path / "file" / "feed.db")


class TestManyAtOnce:
    def test_eight_processes_create_one_database(self, path):
        command = [sys.executable, "-c", UPGRADE, str(path)]
        processes = [
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(8)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate()[0].strip() for process in processes]
        assert [process.returncode for process in processes] == [0] * 8
        assert sorted(said) == sorted([str(ALL), *["[]"] * 7])
        assert_works(path)


class TestKilled:
    def run(self, path, last, told):
        process = forked.context.Process(target=killed_upgrade.upgrade, args=(path, last, told))
        process.start()
        process.join()
        return process.exitcode

    @pytest.mark.parametrize("is_adopted", [False, True], ids=["new", "adopted"])
    def test_the_next_upgrade_succeeds_after_a_kill_at_any_statement(self, tmp_path, is_adopted):
        told = tmp_path / "told"
        assert self.run(tmp_path / "whole.db", 10_000, told) == 0
        statements = int(told.read_text())
        assert statements > 30

        # A dozen from the first to the last statement, which is the COMMIT or a later one.
        for number in [*range(1, statements, statements // 10), statements]:
            path = tmp_path / f"{number}.db"
            if is_adopted:
                query(path, ADR_017)
                insert(path, "old")
            assert self.run(path, number, told) == -signal.SIGKILL
            applied = migrate.upgrade(path, adopt=is_adopted)
            assert applied in (ALL, []), f"half an upgrade after statement {number}"
            assert_works(path)
            if not is_adopted:
                assert query(path, "PRAGMA auto_vacuum") == [(2,)], number


class TestPending:
    def test_a_missing_or_foreign_database_lacks_all_migrations(self, path):
        assert migrate.pending(path) == ALL
        assert not path.exists()
        query(path, ADR_017)
        assert migrate.pending(path) == ALL


class TestMigrationsDir:
    def test_the_package_holds_the_migrations_of_the_checkout(self):
        assert schema.migrations_dir().resolve() == ROOT / "migrations"

    def test_each_file_names_what_it_depends_on(self):
        texts = [(ROOT / "migrations" / f"{name}.sql").read_text("utf-8") for name in ALL]
        assert [re.findall(r"^-- depends: (.*)$", text, re.M) for text in texts] == [[], *([name] for name in ALL[:-1])]

    def test_an_installation_without_migrations_reports_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(schema, "__file__", str(tmp_path / "outfeed" / "store" / "migrate.py"))
        with pytest.raises(OutfeedError, match="install outfeed again"):
            schema.migrations_dir()


def test_events_without_task_and_agent_are_in_no_index_of_those_columns(tmp_path: Path) -> None:
    path = tmp_path / "outfeed.db"
    migrate.upgrade(path)
    with closing(sqlite3.connect(path)) as raw:
        recorded = dict(
            raw.execute("SELECT substr(key, 7), value FROM outfeed_meta WHERE key LIKE 'index:event_log_%_id'")
        )
        found = dict(
            raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND name LIKE 'event_log_%_id'")
        )
        plan = raw.execute("EXPLAIN QUERY PLAN SELECT 1 FROM event_log WHERE task_id = ?", ("t",)).fetchone()[3]
    assert recorded == found
    assert all("IS NOT NULL" in sql for sql in found.values())
    assert "event_log_task_id" in plan
