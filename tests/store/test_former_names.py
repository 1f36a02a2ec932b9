"""Former names: one upgrade renames the tables, and the database works.

`legacy.sql` is the dump of a database that the last release with those names made, with rows of every kind.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outfeed.errors import SchemaMismatch
from outfeed.store import adoption, former_names, migrate, schema
from outfeed.store import database as db
from outfeed.upkeep import backup, upgrade
from tests import forked
from tests.server import Server
from tests.store import killed_upgrade

LEGACY = Path(__file__).with_name("legacy.sql").read_text("utf-8")
OTHER_YOYO = """
    INSERT INTO _yoyo_migration (migration_hash, migration_id, applied_at_utc) VALUES ('h', '0001.shop', '2024-01-15');
    INSERT INTO _yoyo_log (id, migration_id, operation) VALUES ('l', '0001.shop', 'apply');
"""
MORE = {
    "nothing else": "",
    "a broken view": "CREATE VIEW broken AS SELECT * FROM nowhere",
    "a view over a former table": "CREATE VIEW working AS SELECT description FROM task",
    "tables of a program": "CREATE TABLE orders (id INTEGER PRIMARY KEY); INSERT INTO orders DEFAULT VALUES",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "feed.db"
    with contextlib.closing(sqlite3.connect(file)) as raw:
        raw.executescript(f"PRAGMA journal_mode = WAL; {LEGACY}")
    return file


def run(path: Path, script: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.executescript(script)


def query(path: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return raw.execute(sql, values).fetchall()


# Tables of migrations that came after the names.
LATER_COLUMNS = ("owner", "on_rejection", "skips", "old_secret", "old_secret_until")


def rows(path: Path, prefix: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each of Outfeed's tables.

    The keys are the names without *prefix*. Facts about triggers and indexes are left out.
    """
    with contextlib.closing(sqlite3.connect(path)) as raw:
        found = {}
        for table in former_names.TABLES:
            where = (
                " WHERE key NOT LIKE 'trigger:%' AND key NOT LIKE 'index:%' AND key <> 'types'"
                if table == "meta"
                else ""
            )
            columns = [name for (name,) in raw.execute("SELECT name FROM pragma_table_info(?)", (f"{prefix}{table}",))]
            names = ", ".join(name for name in columns if name not in LATER_COLUMNS)
            found[table] = raw.execute(f"SELECT {names} FROM {prefix}{table}{where} ORDER BY 1").fetchall()
        found |= {table: raw.execute(f"SELECT * FROM {table}").fetchall() for table in ("event_log", "outbox")}
        return found


def objects(path: Path) -> set[tuple[str, str, str | None]]:
    return {row for row in query(path, "SELECT type, name, sql FROM sqlite_master") if row[1] != "sqlite_sequence"}


def make_new(path: Path) -> set[tuple[str, str, str | None]]:
    migrate.upgrade(path)
    return objects(path)


def test_the_dump_has_rows_of_every_kind(path: Path) -> None:
    assert [table for table, found in rows(path, "").items() if not found] == []


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
def test_every_row_keeps_its_values_under_the_present_names(path: Path, tmp_path: Path, more: str) -> None:
    run(path, more)
    before, others = rows(path, ""), objects(path)
    assert migrate.upgrade(path) == [former_names.STEP, *migrate.schema.migrations()[9:]]
    assert rows(path, "outfeed_") == before
    new = make_new(tmp_path / "new.db")
    assert new <= objects(path)
    extra = {name for _, name, _ in objects(path) - new}
    assert extra == {name for _, name, _ in others if name in ("broken", "working", "orders")}
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, "PRAGMA foreign_key_check") == []


def test_the_stored_trigger_texts_are_those_of_the_triggers(path: Path) -> None:
    migrate.upgrade(path)
    stored = dict(query(path, "SELECT substr(key, 9), value FROM outfeed_meta WHERE key LIKE 'trigger:%'"))
    found = query(path, "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name <> 'outfeed_type'")
    assert stored == dict(found)


def test_the_feed_continues_after_the_last_seq(path: Path) -> None:
    (last,) = query(path, "SELECT max(seq) FROM outbox")[0]
    migrate.upgrade(path)
    run(path, "INSERT INTO event_log (id, event_type, source, timestamp) VALUES ('new', 'a.b', 's', '2024-01-15')")
    assert query(path, "SELECT seq, event_id FROM outbox ORDER BY seq DESC LIMIT 1") == [(last + 1, "new")]


def test_the_yoyo_tables_are_removed_unless_another_program_uses_them(path: Path, tmp_path: Path) -> None:
    run(path, OTHER_YOYO)
    migrate.upgrade(path)
    assert query(path, "SELECT migration_id FROM _yoyo_migration") == [("0001.shop",)]
    assert query(path, "SELECT migration_id FROM _yoyo_log") == [("0001.shop",)]
    assert query(path, "SELECT count(*) FROM _yoyo_version") == [(1,)]
    assert migrate.pending(path) == []
    with contextlib.closing(sqlite3.connect(path)) as raw:
        assert adoption.foreign_tables(raw) == ["_yoyo_log", "_yoyo_migration", "_yoyo_version"]


def test_a_connected_raw_writer_can_still_write(path: Path) -> None:
    insert = "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.b', 's', '2024-01-15')"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute(insert, ("before",))
        migrate.upgrade(path)
        writer.execute(insert, ("after",))
    assert query(path, "SELECT event_id FROM outbox ORDER BY seq DESC LIMIT 2") == [("after",), ("before",)]


def test_a_name_conflict_refuses_the_step_and_changes_nothing(path: Path) -> None:
    run(path, "CREATE TABLE outfeed_task (mine)")
    before = path.read_bytes()
    for _ in range(3):
        with pytest.raises(SchemaMismatch, match="outfeed_task already exist"):
            upgrade.upgrade(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.glob("feed.db*")] == ["feed.db"]


def test_a_database_of_an_earlier_migration_is_upgraded_from_there(path: Path) -> None:
    run(
        path,
        """
        DELETE FROM _yoyo_migration WHERE migration_id > '0010'; DROP TRIGGER event_log_stale; DROP TABLE search_stale;
        DELETE FROM meta WHERE key IN ('renumberings', 'trigger:event_log_stale') OR key LIKE 'trigger:%_removed';
        DELETE FROM meta WHERE key LIKE 'trigger:%_changed' OR key LIKE 'index:%'; DROP TABLE arrival;
        """,
    )
    assert migrate.upgrade(path) == [former_names.STEP, *(n for n in migrate.schema.migrations() if n > "0010")]
    assert migrate.pending(path) == []


def test_a_kill_at_any_statement_leaves_the_former_names_or_the_present_ones(path: Path, tmp_path: Path) -> None:
    def upgraded_until(file: Path, last: int) -> int | None:
        process = forked.context.Process(target=killed_upgrade.upgrade, args=(file, last, tmp_path / "told"))
        process.start()
        process.join()
        return process.exitcode

    def copies() -> Iterator[Path]:
        for number in range(1_000):
            copy = tmp_path / f"{number}.db"
            with contextlib.closing(sqlite3.connect(copy)) as raw:
                raw.executescript(f"PRAGMA journal_mode = WAL; {LEGACY}")
            yield copy

    before, fresh = rows(path, ""), copies()
    assert upgraded_until(next(fresh), 10_000) == 0
    statements = int((tmp_path / "told").read_text())
    for last in [*range(1, statements, statements // 10), statements]:
        file = next(fresh)
        assert upgraded_until(file, last) == -signal.SIGKILL
        migrate.upgrade(file)
        assert rows(file, "outfeed_") == before, f"after statement {last}"


def test_a_restore_waits_for_the_upgrade(path: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.db"
    migrate.upgrade(saved)
    before = rows(path, "")
    with pytest.raises(SchemaMismatch, match="run `outfeed upgrade` first"):
        backup.restore(db.at(path), saved, by="tests")
    assert rows(path, "") == before


def test_a_backup_with_the_former_names_is_restored_under_the_present_ones(path: Path, tmp_path: Path) -> None:
    backup.restore(db.at(tmp_path / "live.db"), path, by="tests")
    assert rows(tmp_path / "live.db", "outfeed_")["task"] == rows(path, "")["task"]
    db.at(tmp_path / "live.db").close()


def test_a_server_serves_a_renamed_database(path: Path, tmp_path: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(path)) as raw,
        contextlib.closing(sqlite3.connect(tmp_path / "outfeed.db")) as copy,
    ):
        raw.backup(copy)
    with Server(tmp_path) as server:
        assert query(server.database, "SELECT count(*) FROM outfeed_migration") == [(len(schema.migrations()),)]
        assert len(list(tmp_path.glob("outfeed.db.before-upgrade-*"))) == 1
