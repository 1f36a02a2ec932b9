"""Release: removes Outfeed from a program's database and keeps its data."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from outfeed import log_event
from outfeed.errors import DatabaseBusy, SchemaMismatch
from outfeed.store import database as db
from outfeed.store import lease, migrate, serving
from outfeed.upkeep import release

PROGRAM = """
    CREATE TABLE user (id INTEGER PRIMARY KEY, name TEXT);
    CREATE INDEX user_name ON user (name);
    INSERT INTO user (name) VALUES ('ann');
"""
LOG = """
    CREATE TABLE event_log (id TEXT PRIMARY KEY, event_type TEXT NOT NULL, source TEXT NOT NULL, task_id TEXT,
        agent_id TEXT, data TEXT, timestamp TEXT NOT NULL);
    CREATE INDEX event_log_task_id ON event_log (task_id);
    INSERT INTO event_log VALUES ('old', 'a.b', 's', NULL, NULL, NULL, '2024-01-15');
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outfeed.db"


def make(path: Path, script: str) -> set[tuple[str, str, str]]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.executescript(script)
    return objects(path)


def objects(path: Path) -> set[tuple[str, str, str]]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return set(raw.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return raw.execute(sql).fetchall()


@pytest.mark.parametrize("mode", ["delete", "truncate", "wal"])
@pytest.mark.parametrize("has_log", [False, True], ids=["without a log", "with a log"])
def test_a_release_leaves_only_the_programs_objects(path: Path, mode: str, has_log: bool) -> None:
    before = make(path, f"PRAGMA journal_mode = {mode}; {PROGRAM} {LOG if has_log else ''}")
    migrate.upgrade(path, adopt=True)
    log_event("job.done", "tests", id="new")
    db.at(path).close()
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    done = release.release(path)
    # SQLite keeps the table that it made for AUTOINCREMENT.
    assert objects(path) - before <= {("table", "sqlite_sequence", "CREATE TABLE sqlite_sequence(name,seq)")}
    assert before <= objects(path)
    assert query(path, "SELECT name FROM user") == [("ann",)]
    if has_log:
        assert query(path, "SELECT id FROM event_log ORDER BY rowid") == [("old",), ("new",)]
    # The file stores only whether it is in WAL mode; TRUNCATE is a setting of a connection.
    assert query(path, "PRAGMA journal_mode") == [("wal" if mode == "wal" else "delete",)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert {file.name for file in path.parent.glob("outfeed.db*")} == {path.name, done.kept.name}
    assert ("new",) in query(done.kept, "SELECT event_id FROM outbox")


def test_a_released_database_can_be_adopted_again(path: Path) -> None:
    make(path, PROGRAM + LOG)
    for _ in range(2):
        migrate.upgrade(path, adopt=True)
        release.release(path)
    assert migrate.upgrade(path, adopt=True) == migrate.schema.migrations()


def test_a_database_that_outfeed_made_is_not_released(database: db.Database) -> None:
    before = objects(database.path)
    with pytest.raises(SchemaMismatch, match="contains only Outfeed's tables"):
        release.release(database.path)
    assert objects(database.path) == before


def test_a_database_without_a_feed_has_nothing_to_release(path: Path) -> None:
    make(path, PROGRAM)
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match="no feed to release"):
        release.plan(path)
    assert path.read_bytes() == before
    assert list(path.parent.glob("outfeed.db?*")) == []


def test_a_served_database_is_not_released(path: Path) -> None:
    make(path, PROGRAM)
    migrate.upgrade(path, adopt=True)
    lease.hold_shared(lease.lock_file(path, "serve"), serving.version())
    with pytest.raises(SchemaMismatch, match="is being served"):
        release.release(path)


def test_a_release_changes_nothing_while_a_program_has_the_file_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path, PROGRAM)
    migrate.upgrade(path, adopt=True)
    monkeypatch.setattr(release, "MAX_WAIT_SECS", 0.1)
    before = objects(path)
    with contextlib.closing(sqlite3.connect(path)) as program:
        program.execute("SELECT * FROM user").fetchall()
        with pytest.raises(DatabaseBusy, match="open in another program"):
            release.release(path)
    assert objects(path) == before
    assert list(path.parent.glob("*before-release*")) == []
    release.release(path)
