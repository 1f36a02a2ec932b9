"""The doctor: each rule finds its problem and names or applies the fix."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from outfeed import log_event, manual
from outfeed.config import Settings, settings
from outfeed.feature import NOTE, PROBLEM
from outfeed.store import database_file, files
from outfeed.store.high_water_mark import HighWaterMark, Position
from outfeed.upkeep import doctor
from outfeed.upkeep.doctor import RULES, run_checks


@pytest.fixture
def raw(database):
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection


def findings(database, rule=None, **changed):
    found = run_checks(database, Settings(**changed) if changed else settings())
    return found[rule] if rule else [one for each in found.values() for one in each]


def test_a_fresh_database_has_no_problem(database):
    log_event("a.b", "tests")
    assert [one for one in findings(database) if one.level == PROBLEM] == []
    assert list(run_checks(database, settings()))[: len(RULES)] == list(RULES)  # the rules of features follow


HARMS = {
    "triggers": ("DROP TRIGGER event_log_outbox", "event_log_outbox is missing"),
    "missed events": (
        "DROP TRIGGER event_log_outbox; INSERT INTO event_log VALUES ('x', 'a.b', 's', NULL, NULL, NULL, 't');",
        "1 events of the log were never",
    ),
    "indexes": ("DROP INDEX event_log_timestamp", "event_log_timestamp is missing"),
    "journal": ("PRAGMA journal_mode = DELETE", "journal_mode is delete"),
}


@pytest.mark.parametrize("rule", HARMS)
def test_a_finding_is_fixed(database, raw, rule):
    log_event("a.b", "tests")
    database.close()
    sql, what = HARMS[rule]
    (trigger,) = raw.execute("SELECT sql FROM sqlite_master WHERE name = 'event_log_outbox'").fetchone()
    raw.executescript(sql)
    if rule == "missed events":
        raw.execute(trigger)
    found = findings(database, rule)
    assert found[0].level == PROBLEM
    assert what in found[0].what
    assert found[0].why
    assert found[0].fix_command == "outfeed doctor --fix"
    found[0].fix()
    assert findings(database, rule) == []


def test_a_trigger_that_runs_before_the_feeds_is_moved_behind_it(database, raw):
    raw.execute("CREATE TRIGGER theirs AFTER INSERT ON event_log BEGIN SELECT 1; END")
    [found] = findings(database, "triggers")
    assert found.what == "trigger event_log_outbox runs after the trigger theirs"
    assert "arrive out of order" in found.why
    found.fix()
    assert findings(database, "triggers") == []


OUTBOXES = {
    "seq INTEGER PRIMARY KEY, event_id, payload, created_at": "AUTOINCREMENT",
    "seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id UNIQUE, payload, created_at": "constraint",
    "seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id, payload NOT NULL, created_at": "constraint",
    "seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id, payload CHECK (payload <> ''), created_at": "constraint",
}


@pytest.mark.parametrize("columns", OUTBOXES)
def test_an_outbox_that_could_lose_rows_is_found(database, raw, columns):
    raw.executescript(f"DROP TABLE outbox; CREATE TABLE outbox ({columns})")
    assert any(OUTBOXES[columns] in one.what for one in findings(database, "outbox"))


def test_a_unique_index_on_the_outbox_is_found(database, raw):
    raw.execute("CREATE UNIQUE INDEX one ON outbox (event_id)")
    assert "constraint" in findings(database, "outbox")[0].what


@pytest.mark.parametrize("table", ["outbox", "event_log", "outfeed_meta"])
def test_the_doctor_reports_a_missing_table_and_runs_the_checks_that_need_none(database, raw, table):
    raw.execute(f"DROP TABLE {table}")
    found = run_checks(database, settings())
    assert [one.what for one in found["tables"]] == [f"the table {table} is missing"]
    assert "integrity" in found


def test_a_damaged_database_is_found(database, raw):
    for n in range(300):
        log_event("a.b", f"tests-{n}")
    raw.execute("DELETE FROM event_log WHERE rowid > 250")
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    raw.execute("PRAGMA writable_schema = ON")
    raw.execute(
        "UPDATE sqlite_master SET sql = replace(sql, '(source)', '(event_type)') WHERE name = 'event_log_source'"
    )
    found = findings(database, "integrity")
    assert found
    assert "restore" in found[0].fix_command


def test_pending_migrations_are_found_and_applied(database, raw):
    raw.execute("DELETE FROM outfeed_migration WHERE name LIKE '0010%'")
    raw.executescript("DROP TABLE outfeed_arrival; DELETE FROM outfeed_meta WHERE key LIKE 'index:%'")
    (found,) = findings(database, "tables")
    assert "0010.keeping" in found.what
    found.fix()
    assert findings(database, "tables") == []


def test_a_clock_that_was_ahead_is_found(database, raw):
    log_event("a.b", "tests")
    assert findings(database, "clock") == []
    raw.execute("UPDATE outbox SET created_at = '2099-01-01T00:00:00.000Z'")
    assert "hours from now" in findings(database, "clock")[0].what


def test_null_ids_are_a_note(database, raw):
    raw.execute("DROP TRIGGER event_log_guard_insert")
    raw.execute("INSERT INTO event_log VALUES (NULL, 'a.b', 's', NULL, NULL, NULL, 't')")
    (found,) = findings(database, "ids")
    assert (found.level, found.what) == (NOTE, "1 events have no id")


def test_a_file_that_never_shrinks_is_a_note(tmp_path, database, raw):
    raw.execute("PRAGMA journal_mode = DELETE")
    raw.executescript("PRAGMA auto_vacuum = NONE; VACUUM; PRAGMA journal_mode = WAL")
    database.close()
    assert findings(database, "auto_vacuum")[0].level == NOTE


def test_a_database_behind_its_mark_is_found_and_gets_a_new_epoch(database, raw):
    log_event("a.b", "tests")
    (epoch,) = raw.execute("SELECT value FROM outfeed_meta WHERE key = 'epoch'").fetchone()
    mark = HighWaterMark(database.path)
    mark.advance(epoch, Position(50, 1))
    mark.close()
    (found,) = findings(database, "mark")
    assert "up to seq 50, but the database ends at 1" in found.what
    found.fix()
    assert findings(database, "mark") == []


def test_a_nearly_full_disk_is_found(database, monkeypatch):
    usage = type("usage", (), {"free": 10 * 2**20})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    assert findings(database, "disk")[0].level == PROBLEM


MOUNTS = """\
22 1 0:20 / / rw - ext4 /dev/sda rw
30 22 0:31 / /srv/my\\040share rw,relatime shared:1 - nfs4 server:/x rw
31 22 0:32 / /srv rw - xfs /dev/sdb rw
"""


def test_the_nearest_mount_decides_the_filesystem(tmp_path, monkeypatch):
    (tmp_path / "mounts").write_text(MOUNTS)
    monkeypatch.setattr(files, "_MOUNTS", tmp_path / "mounts")
    kinds = {path: files.filesystem_of(Path(path)) for path in ("/srv/my share/a.db", "/srv/a.db", "/srvx/a.db")}
    assert kinds == {"/srv/my share/a.db": "nfs4", "/srv/a.db": "xfs", "/srvx/a.db": "ext4"}


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "virtiofs", "fuse.sshfs"])
def test_a_remote_filesystem_is_a_problem(database, monkeypatch, kind):
    monkeypatch.setattr(files, "filesystem_of", lambda _: kind)
    assert findings(database, "filesystem")[0].what == f"the database is on {kind}"


READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM event_log").fetchone()
print("reading", flush=True)
sys.stdin.read()
"""


def test_a_long_wal_is_a_problem_with_a_reader_and_a_note_without(database, raw, monkeypatch):
    monkeypatch.setattr(database_file, "JOURNAL_SIZE_LIMIT_BYTES", 1000)
    log_event("a.b", "tests")
    raw.execute("SELECT count(*) FROM event_log").fetchone()  # the last connection that closes removes the log
    command = [sys.executable, "-c", READER, str(database.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "reading\n"
        for n in range(50):
            log_event("a.b", f"tests-{n}")
        (found,) = findings(database, "write-ahead log")
        assert (found.level, found.fix_command.split(",")[0]) == (PROBLEM, f"lsof {database.path}-wal")
        process.stdin.close()
    (found,) = findings(database, "write-ahead log")
    assert found.level == NOTE


def test_a_secret_readable_by_others_is_found_and_fixed(database):
    key = database.path.with_name(database.path.name + ".secret")
    key.write_text("x")
    os.chmod(key, 0o640)
    (found,) = findings(database, "permissions")
    found.fix()
    assert key.stat().st_mode & 0o777 == 0o600
    assert findings(database, "permissions") == []


def test_a_database_writable_by_others_is_found_and_fixed(database):
    os.chmod(database.path, 0o666)
    (found,) = findings(database, "permissions")
    found.fix()
    assert findings(database, "permissions") == []


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_writer_can_check_for_refusals_without_writing(raw, database, is_trusted):
    (note,) = findings(database, "writers")
    assert note.level == NOTE
    assert doctor.WRITER_CHECK in note.fix_command
    raw.execute(f"PRAGMA trusted_schema = {'ON' if is_trusted else 'OFF'}")
    refuses = not is_trusted and sqlite3.sqlite_version_info < (3, 42)
    with pytest.raises(sqlite3.OperationalError, match="unsafe use") if refuses else contextlib.nullcontext():
        raw.execute(doctor.WRITER_CHECK)
    row = ("x", "a.b", "s", "t")
    with pytest.raises(sqlite3.OperationalError, match="unsafe use") if refuses else contextlib.nullcontext():
        raw.execute("INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, ?, ?, ?)", row)
    assert raw.execute("SELECT count(*) FROM event_log").fetchone() == (0 if refuses else 1,)


def test_the_documentation_has_the_writers_check_and_its_exceptions():
    text_of_pages = " ".join(manual.read("events").split() + manual.read("delivery").split())
    for text in (doctor.WRITER_CHECK, "`trusted_schema=OFF`", "before 3.42", "SELECT json_quote(1)", "busy timeout"):
        assert text in text_of_pages


def test_a_file_readable_by_others_is_reported(database):
    assert findings(database, "privacy") == []
    os.chmod(database.path, 0o644)
    found, *_ = findings(database, "privacy")  # SQLite gives -wal and -shm the same mode
    assert found.level == NOTE
    assert "has the mode 0644" in found.what
    assert "chmod go-rw" in found.fix_command


@pytest.mark.parametrize(
    ("sql", "level"),
    [
        ("CREATE TRIGGER evil AFTER INSERT ON outfeed_token BEGIN SELECT 1; END", PROBLEM),
        ("CREATE TRIGGER evil AFTER INSERT ON outbox BEGIN SELECT 1; END", PROBLEM),
        ("CREATE TRIGGER evil AFTER INSERT ON event_log BEGIN SELECT 1; END", NOTE),
    ],
)
def test_a_foreign_trigger_on_outfeeds_tables_is_reported(database, raw, sql, level):
    assert findings(database, "foreign triggers") == []
    raw.execute(sql)
    (found,) = findings(database, "foreign triggers")
    assert found.level == level
    assert "the trigger evil" in found.what


def test_a_trigger_on_a_foreign_table_is_not_reported(database, raw):
    raw.execute("CREATE TABLE orders (id)")
    raw.execute("CREATE TRIGGER noted AFTER INSERT ON orders BEGIN SELECT 1; END")
    assert findings(database, "foreign triggers") == []
