"""Backup and restore: one checked and private state, restored under load."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from outfeed import list_events
from outfeed.access.store import account, user
from outfeed.display import Display
from outfeed.errors import BadBackup, DatabaseBusy, DatabaseUnreadable, OutfeedError, SchemaMismatch
from outfeed.store import checkpoint, database_file, displays, foreign_schema, migrate
from outfeed.store import database as db
from outfeed.store.database import Database
from outfeed.store.displays import DisplayCache, MadeBy
from outfeed.upkeep import backup
from tests.database_file import epoch_of
from tests.server import writer
from tests.waits import wait_until


@pytest.fixture
def raw(database):
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection


def write(raw, *ids):
    statement = "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.b', 's', 't')"
    for event_id in ids:
        raw.execute(statement, (event_id,))


def ids(path):
    query = "SELECT id FROM event_log WHERE source <> 'outfeed' ORDER BY rowid"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute(query)]


STEAL = "INSERT INTO event_log (id, event_type, source, data, timestamp) SELECT hex(randomblob(8)), 'a.b', 's', "
HOSTILE = {
    "a trigger on a table that is carried over": "CREATE TRIGGER evil AFTER INSERT ON outfeed_webhook BEGIN"
    f" {STEAL} NEW.secret, 't'; END",
    "a trigger on the log": "CREATE TRIGGER evil AFTER INSERT ON event_log BEGIN DELETE FROM outfeed_token; END",
    "a trigger on the outbox": "CREATE TRIGGER evil BEFORE INSERT ON outbox BEGIN DELETE FROM outfeed_user; END",
    "a trigger of ours that says something else": "DROP TRIGGER outfeed_token_removed; CREATE TRIGGER"
    " outfeed_token_removed AFTER DELETE ON outfeed_token BEGIN DELETE FROM outfeed_user; END",
    "a view in the place of a table": "DROP TABLE outfeed_ticket; CREATE VIEW outfeed_ticket AS SELECT 1;"
    " CREATE TRIGGER evil INSTEAD OF INSERT ON outfeed_ticket BEGIN DELETE FROM outfeed_user; END",
    "a trigger that calls itself another kind": "CREATE TRIGGER evil AFTER INSERT ON event_log BEGIN DELETE FROM"
    " outfeed_user; END; PRAGMA writable_schema = ON; UPDATE sqlite_master SET type = 'Trigger' WHERE name = 'evil'",
    "a trigger that a foreign key runs": "CREATE TABLE mine (name TEXT REFERENCES outfeed_token (name) ON DELETE"
    " CASCADE); CREATE TABLE its (id REFERENCES mine (name) ON DELETE CASCADE);"
    " CREATE TRIGGER evil AFTER DELETE ON its BEGIN DELETE FROM outfeed_user; END",
    "a table of ours with a condition": "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql ="
    " replace(sql, 'payload', 'payload CHECK (length(payload) < 3)') WHERE name = 'outbox'",
    "a table of ours with a condition behind a text like a comment": "PRAGMA writable_schema = ON; UPDATE sqlite_master"
    " SET sql = replace(sql, 'payload', 'payload DEFAULT ''--'' CHECK (length(payload) < 3)') WHERE name = 'outbox'",
    "a text that mending would run": "INSERT INTO outfeed_meta VALUES ('trigger:evil', 'CREATE TRIGGER evil AFTER"
    " INSERT ON outbox BEGIN DELETE FROM outfeed_user; END')",
    "a text that doctor would run": "UPDATE outfeed_meta SET value = 'DROP TABLE outfeed_user'"
    " WHERE key = 'index:outbox_event_id'",
}


# For each table of the schema.
ON_EACH_TABLE = {
    "a trigger before": "CREATE TRIGGER evil BEFORE UPDATE ON {table} BEGIN SELECT 1; END",
    "a trigger after": "CREATE TRIGGER evil AFTER DELETE ON {table} BEGIN SELECT 1; END",
    "an index": "CREATE INDEX evil ON {table} (abs(1))",
}


class TestBackup:
    def test_a_backup_contains_the_database(self, database, raw, tmp_path):
        write(raw, "a", "b")
        (tmp_path / "new folder").mkdir()
        content = backup.backup(database, tmp_path / "new folder" / "copy.db")
        copy = tmp_path / "new folder" / "copy.db"
        assert ids(copy) == ["a", "b"]
        assert content == (epoch_of(database.path), 2, 2, 2)
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert [path.name for path in copy.parent.iterdir()] == ["copy.db"]

    def test_a_backup_under_load_is_one_state_and_ends(self, database, tmp_path):
        with contextlib.closing(sqlite3.connect(database.path)) as raw, raw:
            raw.executemany(
                "INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES (?, 'a.b', 's', ?, 't')",
                [(f"old-{n}", '"' + "x" * 3000 + '"') for n in range(5000)],
            )
        with writer(database.path, rate=300) as written:
            wait_until(lambda: len(ids(database.path)) > 5000, "the writer runs")
            content = backup.backup(database, tmp_path / "copy.db")
            wait_until(lambda: len(ids(database.path)) > content.events, "the writer continues")
        found = ids(tmp_path / "copy.db")
        assert found == ids(database.path)[: len(found)]
        assert content.events == content.outbox_rows == content.head == len(found)
        assert len(found) < 5000 + len(written)

    def test_an_incomplete_copy_gets_no_final_name(self, database, raw, tmp_path, monkeypatch):
        write(raw, "a")
        monkeypatch.setattr(backup, "_check_whole", lambda *_: (_ for _ in ()).throw(BadBackup("damaged")))
        (tmp_path / "copy.db").write_bytes(b"")
        with pytest.raises(BadBackup, match="damaged"):
            backup.backup(database, tmp_path / "copy.db")
        assert (tmp_path / "copy.db").read_bytes() == b""
        assert not list(tmp_path.glob(".copy*"))

    def test_a_damaged_database_is_not_backed_up(self, database, raw, tmp_path):
        write(raw, *(f"event-{n}" for n in range(500)))
        raw.execute("PRAGMA writable_schema = ON")
        raw.execute("UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'outbox')"
                    " WHERE name = 'event_log_source'")  # fmt: skip
        database.close()
        with pytest.raises((BadBackup, DatabaseUnreadable)):
            backup.backup(database, tmp_path / "copy.db")
        assert not (tmp_path / "copy.db").exists()

    @pytest.mark.parametrize("suffix", ["", "-wal", ".lock"])
    def test_a_backup_never_replaces_the_live_database_or_its_files(self, database, raw, suffix, tmp_path):
        write(raw, "a")
        Path(f"{database.path}{suffix}").touch()
        link = tmp_path / "link"
        link.symlink_to(Path(f"{database.path}{suffix}"))
        for target in (Path(f"{database.path}{suffix}"), link):
            with pytest.raises(BadBackup, match="live database"):
                backup.backup(database, target)
        assert ids(database.path) == ["a"]

    def test_a_file_that_is_not_a_database_is_not_replaced(self, database, tmp_path):
        (tmp_path / "notes.txt").write_text("dear diary")
        with pytest.raises(BadBackup, match="not a database"):
            backup.backup(database, tmp_path / "notes.txt")
        assert (tmp_path / "notes.txt").read_text() == "dear diary"

    def test_a_link_stays_a_link_and_its_target_is_replaced(self, database, raw, tmp_path):
        write(raw, "a")
        (tmp_path / "disk").mkdir()
        for name in ("there.db", "not-there-yet.db"):
            target, link = tmp_path / "disk" / name, tmp_path / f"latest-{name}"
            link.symlink_to(target)
            if name == "there.db":
                backup.backup(database, target)
                write(raw, "b")
            backup.backup(database, link)
            assert link.is_symlink()
            assert ids(target) == ["a", "b"]

    def test_a_file_that_is_not_regular_is_not_replaced(self, database, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to(tmp_path / "pipe")
        (tmp_path / "round").symlink_to(tmp_path / "round")
        for name, reason in (("pipe", "not a regular file"), ("link", "not a regular file"), ("round", "can't write")):
            with pytest.raises(OutfeedError, match=reason):
                backup.backup(database, tmp_path / name)
        assert (tmp_path / "pipe").is_fifo()
        assert (tmp_path / "link").is_symlink()

    def test_a_missing_folder_is_named_and_not_created(self, database, tmp_path):
        with pytest.raises(OutfeedError, match=f"there is no folder {tmp_path}/typo; create it first"):
            backup.backup(database, tmp_path / "typo" / "copy.db")
        assert not (tmp_path / "typo").exists()


class TestRestore:
    @pytest.fixture
    def saved(self, database, raw, tmp_path):
        write(raw, "a", "b")
        backup.backup(database, tmp_path / "saved.db")
        write(raw, "c", "d")
        return tmp_path / "saved.db"

    @pytest.fixture
    def hold_up(self, raw, monkeypatch):
        """Return a function that makes a progress callback.

        The callback runs a function when the restore waits for *raw*'s write lock. The previous database is already
        saved by then. The function ends the transaction.
        """
        monkeypatch.setattr(database_file, "BUSY_TIMEOUT_SECS", 0.05)

        def hold_up(run):
            raw.execute("BEGIN IMMEDIATE")
            return lambda *_: run() if raw.in_transaction else None

        return hold_up

    def test_a_restore_makes_the_backup_live_and_keeps_the_previous_database(self, database, saved):
        before = epoch_of(database.path)
        restored = backup.restore(database, saved, by="tests")
        assert ids(database.path) == ["a", "b"]
        assert epoch_of(database.path) == restored.content.epoch != before
        assert ids(restored.kept) == ["a", "b", "c", "d"]
        assert epoch_of(restored.kept) == before
        assert stat.S_IMODE(restored.kept.stat().st_mode) == 0o600
        assert restored.kept.parent == database.path.parent
        assert not list(database.path.parent.glob("*restoring*"))
        (event,) = list_events(source="outfeed")
        assert event.event_type == "system.restored"
        assert (event.data["kept"], event.data["by"]) == (restored.kept.name, "tests")

    def test_open_connections_continue_on_the_same_file(self, database, raw, saved):
        inode = database.path.stat().st_ino
        with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM event_log").fetchone() == (4,)
            backup.restore(database, saved, by="tests")
            assert reader.execute("SELECT count(*) FROM event_log").fetchone() == (4,)
            reader.execute("COMMIT")
            assert reader.execute("SELECT count(*) FROM event_log").fetchone() == (3,)
        write(raw, "e")
        assert ids(database.path) == ["a", "b", "e"]
        assert database.path.stat().st_ino == inode
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def test_rows_written_before_the_restore_are_in_the_kept_file(self, database, raw, saved, hold_up):
        def write_late():
            write(raw, "late", "later")
            raw.execute("COMMIT")

        restored = backup.restore(database, saved, hold_up(write_late), by="tests")
        assert ids(restored.kept) == ["a", "b", "c", "d", "late", "later"]
        with contextlib.closing(sqlite3.connect(restored.kept)) as kept:
            assert kept.execute("SELECT event_id FROM outbox ORDER BY seq").fetchall()[-1] == ("later",)
        assert ids(database.path) == ["a", "b"]

    def test_every_event_of_a_raw_writer_is_in_the_database_or_the_kept_file(self, database, saved):
        with writer(database.path, rate=300) as written:
            kept = [backup.restore(database, saved, by="tests").kept for _ in range(3)]
            wait_until(lambda: len(ids(database.path)) > 2, "the writer continues")
        after = {each for path in [database.path, *kept] for each in ids(path)}
        assert set(written) <= after
        assert set(written) & set(ids(database.path))

    def test_users_and_permissions_stay_as_they_are(self, database, tmp_path):
        account.create_token(database, "kept", ["read"])
        old = account.create_token(database, "revoked since", ["admin"])
        user.add(database, "ann", "viewer")
        session = account.create_session(database, "ann", timedelta(days=1))
        backup.backup(database, tmp_path / "saved.db")
        account.revoke_token(database, "revoked since")
        account.end_session(database, session)
        user.set_disabled(database, "ann", True)
        user.add(database, "bob", "operator")
        new = account.create_token(database, "made since", ["read"])
        ticket = account.create_ticket(database, account.find_token(database, new))
        backup.restore(database, tmp_path / "saved.db", by="tests")
        assert [token.name for token in account.list_tokens(database)] == ["kept", "made since"]
        assert account.find_token(database, old) is None
        assert account.find_token(database, new) is not None
        assert account.find_session(database, session) is None
        assert account.redeem_ticket(database, ticket) is not None
        assert [(each.name, each.is_disabled) for each in user.list_all(database)] == [("ann", True), ("bob", False)]

    def test_servers_notice_revoked_permissions_across_a_restore(self, database, saved):
        """Servers compare counters: a backup's could equal those they saw last."""
        before = account.change_counters(database)
        account.create_token(database, "tests", ["read"])
        account.revoke_token(database, "tests")
        after = account.change_counters(database)
        backup.restore(database, saved, by="tests")
        assert all(now > seen for now, seen in zip(account.change_counters(database), max(before, after), strict=True))

    def test_consumers_stay_and_learn_of_the_new_history(self, database, raw, saved):
        old = epoch_of(database.path)
        checkpoint.add(database, "bot", is_protected=True)
        backup.restore(database, saved, by="tests")
        (bot,) = checkpoint.list_checkpoints(database)
        assert (bot.name, bot.epoch, bot.seq, bot.is_protected) == ("bot", old, 4, True)
        assert checkpoint.floor(raw) is None

    def test_displays_stay_and_open_pages_learn_of_the_restore(self, database, saved):
        def put(name):
            with database.transaction() as connection:
                displays.put(connection, {name: Display("⚡")}, MadeBy.COMMAND)

        put("a.b")
        put("a.c")
        before = DisplayCache(database).current()
        backup.restore(database, saved, by="tests")
        after = DisplayCache(database).current()
        assert after.by_type == before.by_type == {"a.b": Display("⚡"), "a.c": Display("⚡")}
        assert after.version > before.version

    def test_every_table_beside_the_events_is_kept(self, raw):
        known = {row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        accounted = {"meta", "migration", "arrival", "agent", "bid", "task", "search_stale", "watch", "replaced"}
        ours = {"event_log", "outbox", "sqlite_sequence", *(f"outfeed_{name}" for name in accounted)}
        assert known - ours == set(backup.kept_tables())

    def test_a_token_revoked_at_the_last_moment_stays_revoked(self, database, raw, tmp_path, hold_up):
        def revoke():
            raw.execute("COMMIT")
            account.revoke_token(database, "tests")

        secret = account.create_token(database, "tests", ["read"])
        backup.backup(database, tmp_path / "saved.db")
        backup.restore(database, tmp_path / "saved.db", hold_up(revoke), by="tests")
        assert account.find_token(database, secret) is None

    def test_another_page_size_and_a_copy_by_cp_are_accepted(self, database, raw, tmp_path):
        write(raw, "a")
        for page_size in (1024, 4096, 16384):
            saved = tmp_path / f"{page_size}.db"
            backup.backup(database, saved)
            with contextlib.closing(sqlite3.connect(saved)) as copy:
                copy.execute(f"PRAGMA page_size = {page_size}")
                copy.execute("VACUUM")
                copy.execute("PRAGMA journal_mode = WAL")
            shutil.copy(saved, tmp_path / "by cp.db")
            backup.restore(database, tmp_path / "by cp.db", by="tests")
            assert ids(database.path) == ["a"]

    def test_a_missing_database_is_created(self, database, saved):
        database.close()
        database.path.unlink()
        assert backup.restore(database, saved, by="tests").kept is None
        assert ids(database.path) == ["a", "b"]
        assert stat.S_IMODE(database.path.stat().st_mode) == 0o600

    def test_the_folder_is_created_on_a_new_machine(self, database, saved, tmp_path):
        fresh = Database(tmp_path / "new" / "folder" / "outfeed.db")
        assert backup.restore(fresh, saved, by="tests").kept is None
        assert ids(fresh.path) == ["a", "b"]
        fresh.close()

    def test_an_inspection_changes_nothing(self, database, saved):
        before = sorted(path.name for path in database.path.parent.iterdir())
        assert backup.inspect(database, saved).events == 2
        assert ids(database.path) == ["a", "b", "c", "d"]
        assert sorted(path.name for path in database.path.parent.iterdir()) == before

    def cut(self, saved):
        saved.write_bytes(saved.read_bytes()[:-5000])

    def falsify(self, saved):
        """Leave a readable but wrong file: an index that differs from its table."""
        with contextlib.closing(sqlite3.connect(saved, isolation_level=None)) as copy:
            copy.execute("PRAGMA writable_schema = ON")
            copy.execute("UPDATE sqlite_master SET sql = replace(sql, '(source)', '(event_type)')")

    def scribble(self, saved):
        saved.write_text("no database at all" * 1000)

    def empty(self, saved):
        saved.write_bytes(b"")

    def foreign(self, saved):
        saved.unlink()
        with contextlib.closing(sqlite3.connect(saved)) as other:
            other.execute("CREATE TABLE pictures (a)")

    def remove(self, saved):
        saved.unlink()

    @pytest.mark.parametrize("harm", ["cut", "falsify", "scribble", "empty", "foreign", "remove"])
    def test_a_file_that_is_not_a_backup_changes_nothing(self, database, saved, harm):
        getattr(self, harm)(saved)
        before = epoch_of(database.path)
        with pytest.raises(BadBackup):
            backup.restore(database, saved, by="tests")
        assert ids(database.path) == ["a", "b", "c", "d"]
        assert epoch_of(database.path) == before
        assert not list(database.path.parent.glob("*before-restore*"))

    def test_the_live_database_is_not_accepted_as_a_backup(self, database, saved):
        with pytest.raises(BadBackup, match="is the live database"):
            backup.restore(database, database.path, by="tests")

    def test_a_backup_of_a_newer_version_changes_nothing(self, database, saved):
        with contextlib.closing(sqlite3.connect(saved)) as copy, copy:
            copy.execute("INSERT INTO outfeed_migration (applied_at, name) VALUES ('x', '9999.later')")
        with pytest.raises(SchemaMismatch, match=r"9999\.later"):
            backup.restore(database, saved, by="tests")
        assert ids(database.path) == ["a", "b", "c", "d"]

    def test_a_backup_of_an_older_version_is_upgraded(self, database, saved):
        with contextlib.closing(sqlite3.connect(saved)) as copy, copy:
            copy.execute("DELETE FROM outfeed_migration WHERE name = '0010.keeping'")
            copy.execute("DROP TABLE outfeed_arrival")
            copy.execute("DELETE FROM outfeed_meta WHERE key = 'adopted' OR key LIKE 'index:%'")
        backup.restore(database, saved, by="tests")
        assert migrate.pending(database.path) == []

    @pytest.mark.parametrize("harm", HOSTILE.values(), ids=HOSTILE)
    def test_foreign_sql_on_outfeeds_tables_is_rejected_and_does_not_run(self, database, raw, saved, harm):
        account.create_token(database, "cron", ["read"])
        with contextlib.closing(sqlite3.connect(saved)) as copy:
            copy.executescript(harm)
        before = raw.execute("SELECT * FROM outfeed_token, event_log").fetchall()

        for call in (backup.inspect, lambda *arguments: backup.restore(*arguments, by="tests")):
            with pytest.raises(BadBackup, match="holds SQL that Outfeed did not make"):
                call(database, saved)

        assert raw.execute("SELECT * FROM outfeed_token, event_log").fetchall() == before

    @pytest.mark.parametrize("harm", ON_EACH_TABLE.values(), ids=ON_EACH_TABLE)
    def test_foreign_sql_is_rejected_on_each_table_of_outfeed(self, database, raw, saved, tmp_path, harm):
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND (name LIKE 'outfeed!_%' ESCAPE '!' OR name IN"
        tables = [name for (name,) in raw.execute(f"{query} ('event_log', 'outbox'))")]
        assert len(tables) > 15
        for table in tables:
            shutil.copy(saved, tmp_path / "hostile.db")
            with contextlib.closing(sqlite3.connect(tmp_path / "hostile.db")) as copy:
                copy.executescript(harm.format(table=table))
            allowed = table == "event_log" and "INDEX" in harm  # a program that had its log before may have its own
            with contextlib.nullcontext() if allowed else pytest.raises(BadBackup, match="Outfeed did not make"):
                backup.inspect(database, tmp_path / "hostile.db")

    def test_other_comments_in_a_table_of_outfeed_are_no_foreign_sql(self, database, saved):
        with contextlib.closing(sqlite3.connect(saved)) as copy:
            copy.executescript(
                "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql ="
                " replace(replace(sql, '-- ', '/* an older text */ -- once '), ') STRICT', ' /* open */) STRICT')"
                " WHERE name = 'outfeed_checkpoint'"
            )
        assert backup.inspect(database, saved).events > 0

    def test_foreign_sql_is_rejected_on_a_new_machine(self, saved, tmp_path):
        with contextlib.closing(sqlite3.connect(saved)) as copy:
            copy.executescript(HOSTILE["a trigger on the log"])

        with pytest.raises(BadBackup, match="the trigger evil on event_log"):
            backup.restore(Database(tmp_path / "new.db"), saved, by="tests")
        assert not (tmp_path / "new.db").exists()

    def test_a_trigger_of_the_live_database_is_restored(self, database, raw, tmp_path):
        raw.execute("CREATE TABLE copy (id)")
        raw.execute("CREATE TRIGGER mine AFTER INSERT ON event_log BEGIN INSERT INTO copy VALUES (NEW.id); END")
        backup.backup(database, tmp_path / "saved.db")

        backup.restore(database, tmp_path / "saved.db", by="tests", whole_database=True)

        assert raw.execute("SELECT count(*) FROM sqlite_master WHERE name = 'mine'").fetchone() == (1,)

    def test_sql_on_foreign_tables_is_restored_and_listed(self, database, raw, saved, tmp_path):
        with contextlib.closing(sqlite3.connect(saved)) as copy:
            copy.executescript(
                "CREATE TABLE orders (id); CREATE VIEW all_orders AS SELECT * FROM orders;"
                " CREATE TRIGGER noted AFTER INSERT ON orders BEGIN SELECT 1; END"
            )

        backup.restore(database, saved, by="tests")

        assert foreign_schema.in_file(saved) == ["the view all_orders", "the trigger noted on orders"]

    def test_tables_of_litestream_do_not_stop_a_restore(self, database, raw, saved):
        raw.executescript("CREATE TABLE _litestream_seq (id, seq); CREATE TABLE _litestream_lock (id)")
        backup.restore(database, saved, by="tests")
        assert ids(database.path) == ["a", "b"]

    def test_a_restore_gives_up_on_a_writer_that_never_ends(self, database, raw, saved, monkeypatch):
        monkeypatch.setattr(database_file, "BUSY_TIMEOUT_SECS", 0.05)
        raw.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy, match="nothing was restored"):
            backup.restore(database, saved, by="tests")
        raw.execute("ROLLBACK")
        assert ids(database.path) == ["a", "b", "c", "d"]

    def test_no_prune_runs_during_a_restore(self, database, saved):
        from outfeed.store import lease

        done = threading.Event()
        with lease.hold(lease.lock_file(database.path, "prune"), wait=True):
            restoring = threading.Thread(target=lambda: (backup.restore(database, saved, by="tests"), done.set()))
            restoring.start()
            assert not done.wait(0.3)
        restoring.join(20)
        assert done.is_set()


class TestTablesOfAnotherProgram:
    """A restore replaces the whole file: it must not surprise another program."""

    @pytest.fixture
    def saved(self, database):
        copy = database.path.with_name("without-orders.db")
        backup.backup(database, copy)
        return copy

    @pytest.fixture
    def adopted(self, database, raw, saved):
        raw.executescript("CREATE TABLE orders (n); CREATE TABLE stock (n); INSERT INTO orders VALUES (1)")
        copy = database.path.with_name("with-orders.db")
        backup.backup(database, copy)
        raw.execute("INSERT INTO orders VALUES (2)")
        return copy

    @pytest.mark.parametrize("do", [backup.restore, backup.inspect])
    def test_foreign_tables_are_listed_and_need_whole_database(self, database, raw, adopted, do):
        by = {"by": "tests"} if do is backup.restore else {}
        with pytest.raises(BadBackup, match=r"orders, stock.*nothing was restored.*--whole-database"):
            do(database, adopted, **by)
        assert raw.execute("SELECT n FROM orders").fetchall() == [(1,), (2,)]
        assert [file.name for file in database.path.parent.glob("*restor*")] == []

    def test_whole_database_restores_the_foreign_tables(self, database, raw, adopted):
        backup.restore(database, adopted, by="tests", whole_database=True)
        assert raw.execute("SELECT n FROM orders").fetchall() == [(1,)]

    def test_a_backup_that_lacks_a_foreign_table_is_rejected(self, database, raw, adopted, saved):
        with pytest.raises(BadBackup, match=r"lacks tables that .*: orders, stock"):
            backup.restore(database, saved, by="tests", whole_database=True)
        assert raw.execute("SELECT n FROM orders").fetchall() == [(1,), (2,)]

    def test_a_new_machine_needs_no_flag(self, tmp_path, adopted):
        restored = backup.restore(db.at(tmp_path / "new" / "outfeed.db"), adopted, by="tests")
        assert restored.kept is None
