"""Adoption: only on request, and a refusal leaves no trace."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outfeed import log_event
from outfeed.errors import AdoptionNeeded, DatabaseBusy, SchemaMismatch
from outfeed.store import adoption, database_file, files, migrate, schema
from outfeed.store import database as db
from outfeed.upkeep import upgrade
from tests import forked
from tests.server import Server, free_port
from tests.store import killed_upgrade

ADR_017 = """
    CREATE TABLE event_log (id TEXT PRIMARY KEY, event_type TEXT NOT NULL, source TEXT NOT NULL, task_id TEXT,
        agent_id TEXT, data TEXT, timestamp TEXT NOT NULL);
"""
# Names of Outfeed's tables, or names that applications often use.
COMMON = (
    "user", "task", "session", "token", "ticket", "meta", "webhook", "checkpoint", "agent", "bid", "arrival",
    "sign_in_code",
)  # fmt: skip
UNFIT = {
    "no agent_id": (ADR_017.replace("agent_id TEXT,", ""), "no column agent_id"),
    "other columns": ("CREATE TABLE event_log (a)", "no column id, event_type, source, task_id"),
    "without rowid": (ADR_017.replace(");", ") WITHOUT ROWID;"), "WITHOUT ROWID"),
    "upper case": (ADR_017.replace("event_log", "EVENT_LOG").replace(");", ") WITHOUT ROWID;"), "WITHOUT ROWID"),
    "no key": (ADR_017.replace("id TEXT PRIMARY KEY", "id TEXT", 1), "primary key"),
    "a number as key": (ADR_017.replace("id TEXT PRIMARY", "id INTEGER PRIMARY", 1), "primary key, as text"),
    "a column that must be given": (ADR_017.replace("data TEXT", "data TEXT, tenant TEXT NOT NULL"), "column tenant"),
    "an INT key": (ADR_017.replace("id TEXT PRIMARY", "id INT PRIMARY", 1), "primary key, as text"),
    "a column rowid": (ADR_017.replace("data TEXT", "data TEXT, rowid TEXT"), "hides the rowid"),
    "a task for each": (ADR_017.replace("task_id TEXT", "task_id TEXT NOT NULL DEFAULT 'x'"), "task_id is NOT NULL"),
    "a view": ("CREATE VIEW event_log AS SELECT 1 AS id", "it is a view"),
    "a virtual table": ("CREATE VIRTUAL TABLE event_log USING fts5(id)", "it is a virtual table"),
    "an outbox": ("CREATE TABLE Outbox (a)", "outbox: Outfeed needs this name"),
    "the prefix": ("CREATE TABLE Outfeed_x (a); CREATE TABLE b (a)", "outfeed_x: Outfeed needs this name"),
    "an index": ("CREATE TABLE a (task_id); CREATE INDEX event_log_task_id ON a (task_id)", "event_log_task_id"),
    "an index on other columns": (f"{ADR_017} CREATE INDEX event_log_source ON event_log (data)", "event_log_source"),
    "a unique index": (f"{ADR_017} CREATE UNIQUE INDEX event_log_source ON event_log (source)", "event_log_source"),
    "a partial index": (
        f"{ADR_017} CREATE INDEX event_log_source ON event_log (source) WHERE data",
        "event_log_source",
    ),
    "a table named like an index": ("CREATE TABLE event_log_source (a)", "event_log_source: Outfeed needs"),
    "a list of migrations": ("CREATE TABLE outfeed_migration (version)", "outfeed_migration: Outfeed needs"),
    "a trigger": (
        "CREATE TABLE a (b); CREATE TRIGGER event_log_outbox AFTER INSERT ON a BEGIN SELECT 1; END",
        "event_log_outbox",
    ),
    "a broken view": (
        "CREATE TABLE a (b); CREATE VIEW old AS SELECT * FROM gone",
        r"view old is broken \(no such",
    ),
    "UTF-16": ("PRAGMA encoding = 'UTF-16'; CREATE TABLE a (b)", "UTF-16"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outfeed.db"


def make(path: Path, script: str = "CREATE TABLE orders (n); INSERT INTO orders VALUES (1)") -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.executescript(script)


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return raw.execute(sql).fetchall()


def trace(folder: Path) -> dict[str, tuple[int, str]]:
    """Return each file's modification time and content.

    Only `-shm` may change, since a reader of a `-wal` needs it.
    """
    return {
        file.name: (file.stat().st_mtime_ns, hashlib.sha256(file.read_bytes()).hexdigest())
        for file in folder.iterdir()
        if not file.name.endswith("-shm")
    }


ENTRANCES: dict[str, Callable[[Path], object]] = {
    "upgrade": upgrade.upgrade,
    "upgrade --adopt": lambda path: upgrade.upgrade(path, adopt=True),
    "migrations": migrate.upgrade,
}


@pytest.mark.parametrize(("script", "reason"), UNFIT.values(), ids=UNFIT)
def test_an_incompatible_file_is_refused_without_a_trace(path: Path, script: str, reason: str) -> None:
    make(path, script)
    before = trace(path.parent)
    for _ in range(3):
        for enter in ENTRANCES.values():
            with pytest.raises(SchemaMismatch, match=reason):
                enter(path)
    assert trace(path.parent) == before


@pytest.mark.parametrize("mode", ["delete", "persist", "truncate", "wal"])
@pytest.mark.parametrize("is_open", [False, True], ids=["alone", "beside a writer"])
def test_without_the_adopt_flag_nothing_is_touched(path: Path, mode: str, is_open: bool) -> None:
    make(path, f"PRAGMA journal_mode = {mode}; {ADR_017} CREATE TABLE orders (n);")
    with contextlib.ExitStack() as stack:
        if is_open:
            writer = stack.enter_context(contextlib.closing(sqlite3.connect(path, isolation_level=None)))
            writer.execute("INSERT INTO orders VALUES (1)")
        before = trace(path.parent)
        for _ in range(3):
            for enter in (upgrade.upgrade, migrate.upgrade):
                with pytest.raises(AdoptionNeeded, match=r"orders.*outfeed upgrade --adopt"):
                    enter(path)
            assert any("UPDATE of event_log" in line for line in adoption.plan(path))
        assert trace(path.parent) == before
        assert query(path, "PRAGMA journal_mode") == [("wal" if mode == "wal" else "delete",)]


def kill_a_writer(path: Path, code: str) -> None:
    """Run *code* in a process that SIGKILL ends with an open connection.

    *code* has the connection as `raw`.
    """
    code = f"""
import os, signal, sqlite3, sys
raw = sqlite3.connect(sys.argv[1], isolation_level=None)
{code}
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL


# The cache is spilled, so that pages of an open transaction are in the file and its journal is hot.
CUT_OFF = """
raw.execute("PRAGMA cache_size = 1")
raw.execute("BEGIN")
for n in range(2000):
    raw.execute("INSERT INTO orders VALUES (?)", ("x" * 500,))
"""
LEFT_WAL = """
raw.execute("PRAGMA journal_mode = WAL")
raw.execute("INSERT INTO orders VALUES (2)")
"""
WRITERS: dict[str, tuple[str, str]] = {
    "in rollback mode": ("", ""),
    "in WAL mode": ("PRAGMA journal_mode = WAL;", ""),
    "with a -wal that a killed writer left": ("", LEFT_WAL),
    "with a transaction that was interrupted": ("", CUT_OFF),
    "with a table outfeed_meta of its own": ("CREATE TABLE outfeed_meta (key, value);", ""),
}


@pytest.mark.parametrize(("script", "code"), WRITERS.values(), ids=WRITERS)
def test_log_event_refuses_a_log_that_was_not_adopted(path: Path, script: str, code: str) -> None:
    make(path, f"{script} {ADR_017} CREATE TABLE orders (n)")
    if code:
        kill_a_writer(path, code)
    before = trace(path.parent)
    for _ in range(3):
        with pytest.raises(SchemaMismatch, match=r"outfeed upgrade --adopt|was interrupted"):
            log_event("a.b", "s")
        assert trace(path.parent) == before
    db.at(path).close()
    assert trace(path.parent) == before


def test_log_event_on_a_connection_of_the_program_is_refused(path: Path) -> None:
    make(path, f"{ADR_017} CREATE TABLE outfeed_meta (n)")
    before = trace(path.parent)
    for _ in range(3):
        with contextlib.closing(sqlite3.connect(path)) as own, pytest.raises(SchemaMismatch, match="upgrade --adopt"):
            log_event("a.b", "s", connection=own)
    assert trace(path.parent) == before


@pytest.mark.parametrize(
    "code", [LEFT_WAL + 'raw.execute("CREATE TABLE outbox (n)")', CUT_OFF], ids=["-wal", "journal"]
)
def test_journals_of_a_linked_database_are_found(path: Path, code: str) -> None:
    folder = path.parent / "elsewhere"
    folder.mkdir()
    make(folder / "shop.db", "CREATE TABLE orders (n)")
    kill_a_writer(folder / "shop.db", code)
    path.symlink_to(folder / "shop.db")
    before = trace(folder)
    for _ in range(3):
        with pytest.raises(SchemaMismatch, match=r"outbox|was interrupted"):
            upgrade.upgrade(path, adopt=True)
    assert trace(folder) == before
    assert list(path.parent.glob("outfeed.db*")) == [path]


@pytest.mark.parametrize("name", [b"a b?.db", b"100%41#.db", b"latin-\xe9.db", "ü&mode=rw.db".encode(), b"'\";.db"])
def test_a_path_may_have_any_bytes(path: Path, name: bytes) -> None:
    file = path.parent / os.fsdecode(name)
    make(file)
    before = trace(path.parent)
    with pytest.raises(AdoptionNeeded):
        upgrade.upgrade(Path(f"/{file}"))
    assert trace(path.parent) == before
    upgrade.upgrade(file, adopt=True)
    assert query(file, "SELECT n FROM orders") == [(1,)]
    assert migrate.pending(file) == []


@pytest.mark.parametrize(("script", "code"), WRITERS.values(), ids=WRITERS)
def test_serve_refuses_the_file_and_names_the_command(path: Path, script: str, code: str) -> None:
    make(path, f"{script} CREATE TABLE orders (n)")
    if code:
        kill_a_writer(path, code)
    before = trace(path.parent)
    environment = {"OUTFEED_DATABASE": str(path), "OUTFEED_BIND": f"127.0.0.1:{free_port()}"}
    for _ in range(3):
        done = forked.run(["serve"], environment, timeout=60)
        assert done.returncode == 1
        assert re.search("outfeed upgrade --adopt|its own program|Outfeed needs this name", done.stderr)
        assert trace(path.parent) == before


def test_an_interrupted_transaction_is_left_to_its_program(path: Path, tmp_path: Path) -> None:
    make(path)
    kill_a_writer(path, CUT_OFF)
    assert path.with_name("outfeed.db-journal").stat().st_size > 0
    before = trace(path.parent)
    for _ in range(3):
        for enter in ENTRANCES.values():
            with pytest.raises(SchemaMismatch, match="a transaction that was interrupted"):
                enter(path)
    assert trace(path.parent) == before
    assert query(path, "SELECT count(*) FROM orders") == [(1,)]
    upgrade.upgrade(path, adopt=True)


def test_a_network_filesystem_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path)
    before = trace(path.parent)
    monkeypatch.setattr(files, "filesystem_of", lambda _: "nfs4")
    with pytest.raises(SchemaMismatch, match="is on nfs4"):
        upgrade.upgrade(path, adopt=True)
    assert trace(path.parent) == before


def test_a_read_only_filesystem_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path)
    before = trace(path.parent)
    # Root may write regardless of the mode, so the test changes the mount.
    monkeypatch.setattr(adoption.os, "access", lambda *_: False)
    with pytest.raises(SchemaMismatch, match="read-only"):
        upgrade.upgrade(path, adopt=True)
    assert trace(path.parent) == before


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_busy_writer_leads_to_a_refusal_without_a_trace(
    path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, begin: str
) -> None:
    make(path, f"PRAGMA journal_mode = {mode}; CREATE TABLE orders (n)")
    monkeypatch.setattr(database_file, "BUSY_TIMEOUT_SECS", 0.05)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute(begin)
        before = trace(path.parent)
        for _ in range(3):
            with pytest.raises(DatabaseBusy):
                upgrade.upgrade(path, adopt=True)
            with pytest.raises(AdoptionNeeded):
                upgrade.upgrade(path)
        assert trace(path.parent) == before
        writer.execute("ROLLBACK")
    assert query(path, "PRAGMA journal_mode") == [(mode,)]
    assert upgrade.upgrade(path, adopt=True).migrations == schema.migrations()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_program_that_keeps_its_locks_leads_to_a_refusal_without_a_trace(
    path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    make(path, f"PRAGMA journal_mode = {mode}; CREATE TABLE orders (n)")
    monkeypatch.setattr(database_file, "BUSY_TIMEOUT_SECS", 0.05)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as program:
        program.execute("PRAGMA locking_mode = EXCLUSIVE")
        program.execute("INSERT INTO orders VALUES (1)")
        before = trace(path.parent)
        with pytest.raises(DatabaseBusy):
            upgrade.upgrade(path, adopt=True)
        assert trace(path.parent) == before
        program.execute("INSERT INTO orders VALUES (2)")
    assert upgrade.upgrade(path, adopt=True).migrations == schema.migrations()


def test_a_reading_program_leads_to_a_refusal_without_a_trace(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path, "CREATE TABLE orders (n); INSERT INTO orders VALUES (1), (2)")
    monkeypatch.setattr(database_file, "BUSY_TIMEOUT_SECS", 0.05)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT n FROM orders").fetchall()
        before = trace(path.parent)
        for _ in range(3):
            with pytest.raises(DatabaseBusy):
                upgrade.upgrade(path, adopt=True)
        assert trace(path.parent) == before


def test_a_reading_program_after_the_commit_does_not_undo_the_adoption(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path, "CREATE TABLE orders (n); INSERT INTO orders VALUES (1), (2)")
    monkeypatch.setattr(database_file, "BUSY_TIMEOUT_SECS", 0.05)
    use_wal = database_file.use_wal
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:

        def beside_a_reader(file: Path) -> None:
            reader.execute("BEGIN")
            reader.execute("SELECT n FROM orders").fetchall()
            use_wal(file)

        with monkeypatch.context() as patched:
            patched.setattr(database_file, "use_wal", beside_a_reader)
            done = upgrade.upgrade(path, adopt=True)
    assert done.migrations == schema.migrations()
    assert done.kept is not None
    assert query(done.kept, "SELECT name FROM sqlite_master") == [("orders",)]
    assert query(path, "PRAGMA journal_mode") == [("delete",)]
    assert upgrade.upgrade(path).migrations == []
    assert query(path, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_table_that_appears_after_the_check_is_refused_under_the_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    make(path, f"PRAGMA journal_mode = {mode}; CREATE TABLE orders (n)")
    keep = upgrade.save_copy
    before: list[dict[str, tuple[int, str]]] = []

    def add_table_then_keep(file: Path, why: str) -> Path:
        make(path, "CREATE TABLE outbox (mine)")
        before.append(trace(path.parent))
        return keep(file, why)

    with monkeypatch.context() as patched:
        patched.setattr(upgrade, "save_copy", add_table_then_keep)
        with pytest.raises(SchemaMismatch, match="outbox"):
            upgrade.upgrade(path, adopt=True)
    assert [trace(path.parent)] == before
    assert query(path, "PRAGMA journal_mode") == [(mode,)]
    make(path, "DROP TABLE outbox")
    upgrade.upgrade(path, adopt=True)


def test_a_migration_that_fails_leaves_no_trace(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path)
    before = trace(path.parent)
    statements = schema.statements
    for bad, reason in {
        "CREATE TABLE orders (n)": "already exists",
        "INSERT INTO orders VALUES (1/0, 2)": "columns",
    }.items():

        def with_bad_statement(name: str, bad: str = bad) -> Iterator[str]:
            yield from statements(name)
            yield bad

        with monkeypatch.context() as patched:
            patched.setattr(schema, "statements", with_bad_statement)
            with pytest.raises(SchemaMismatch, match=reason):
                upgrade.upgrade(path, adopt=True)
    assert trace(path.parent) == before


def test_one_of_two_starting_servers_adopts_and_keeps_one_copy(path: Path) -> None:
    for attempt in range(3):
        file = path.with_name(f"{attempt}.db")
        make(file)
        code = """
import sys
from pathlib import Path
from outfeed.upkeep import upgrade
print("ready", flush=True)
sys.stdin.readline()
print(len(upgrade.upgrade(Path(sys.argv[1]), adopt=True).migrations))
"""
        starters = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        for starter in starters:
            assert starter.stdout is not None
            assert starter.stdout.readline() == "ready\n"
        for starter in starters:
            assert starter.stdin is not None
            starter.stdin.write("go\n")
            starter.stdin.flush()
        said = sorted(int(starter.communicate()[0]) for starter in starters)
        assert said == [0, len(schema.migrations())]
        (kept,) = path.parent.glob(f"{file.name}.before-upgrade-*")
        assert query(kept, "SELECT name FROM sqlite_master") == [("orders",)]
        assert query(file, "SELECT n FROM orders") == [(1,)]


def test_a_database_with_common_names_is_adopted_and_served(path: Path, tmp_path: Path) -> None:
    tables = " ".join(f"CREATE TABLE {name} (n); INSERT INTO {name} VALUES ('{name}');" for name in COMMON)
    yoyo = "CREATE TABLE _yoyo_migration (migration_id); INSERT INTO _yoyo_migration VALUES ('1.a');"
    make(path, f"{tables} CREATE INDEX agent_state ON agent (n); {yoyo}")
    assert upgrade.upgrade(path, adopt=True).migrations == schema.migrations()
    assert migrate.upgrade(path) == []
    with Server(tmp_path) as server:
        make(path, "INSERT INTO event_log (id, event_type, source, timestamp) VALUES ('e', 'a.b', 's', '2024-01-15')")
        with server.http() as http:
            answer = http.get("/api/feed?after=0").json()
        assert [event["id"] for event in answer["events"]][-1] == "e"
    assert [query(path, f"SELECT n FROM {name}") for name in COMMON] == [[(name,)] for name in COMMON]
    assert query(path, "SELECT migration_id FROM _yoyo_migration") == [("1.a",)]
    with contextlib.closing(sqlite3.connect(path)) as raw:
        assert adoption.foreign_tables(raw) == sorted([*COMMON, "_yoyo_migration"])


class TestAnEventLogOfTheProgram:
    def test_events_of_the_programs_log_are_listed_and_not_replayed(self, path: Path) -> None:
        make(path, f"{ADR_017} INSERT INTO event_log VALUES ('old', 'a.b', 's', NULL, NULL, NULL, '2024-01-15')")
        migrate.upgrade(path, adopt=True)
        log_event("a.b", "s", id="new")
        db.at(path).close()
        assert query(path, "SELECT id FROM event_log ORDER BY rowid") == [("old",), ("new",)]
        assert query(path, "SELECT event_id FROM outbox") == [("new",)]

    def test_the_programs_log_may_have_more_columns_that_need_no_value(self, path: Path) -> None:
        make(path, ADR_017.replace("timestamp TEXT", "severity INT NOT NULL DEFAULT 0, note TEXT, timestamp TEXT"))
        migrate.upgrade(path, adopt=True)
        log_event("a.b", "s", id="new")
        db.at(path).close()
        assert query(path, "SELECT event_id FROM outbox") == [("new",)]

    def test_the_programs_own_index_of_the_same_column_is_used(self, path: Path) -> None:
        make(path, f"{ADR_017} CREATE INDEX event_log_source ON event_log (source)")
        assert migrate.upgrade(path, adopt=True) == schema.migrations()


def copies(folder: Path) -> Iterator[Path]:
    for number in range(1_000):
        file = folder / f"{number}.db"
        make(file, f"{ADR_017} CREATE TABLE orders (n); INSERT INTO orders VALUES (1);")
        yield file


def test_a_kill_at_any_statement_leaves_the_program_its_tables(tmp_path: Path) -> None:
    def adopted_until(file: Path, last: int) -> int | None:
        process = forked.context.Process(target=killed_upgrade.upgrade, args=(file, last, tmp_path / "told"))
        process.start()
        process.join()
        return process.exitcode

    fresh = copies(tmp_path)
    assert adopted_until(next(fresh), 10_000) == 0
    statements = int((tmp_path / "told").read_text())
    for last in [*range(1, statements, statements // 8), statements]:
        file = next(fresh)
        assert adopted_until(file, last) == -signal.SIGKILL
        migrate.upgrade(file, adopt=True)
        assert migrate.pending(file) == []
        assert query(file, "SELECT n FROM orders") == [(1,)]
