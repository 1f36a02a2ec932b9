"""Events of all writers arrive, and no writer can rewrite history."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from outfeed.store.database import Database
from tests.server import Server

ROW = "INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES "


def test_an_event_written_by_the_sqlite3_shell_arrives(server: Server) -> None:
    with server.connect() as client:
        client.subscribe()
        statement = ROW + "('from-shell', 'shell.said', 'shell', '{\"a\": 1}', '2026-01-01T00:00:00Z');"
        # By default the shell waits for no other writer, and the server writes as well.
        subprocess.run(["sqlite3", "-cmd", ".timeout 10000", str(server.database), statement], check=True)
        assert client.next_event()["payload"]["id"] == "from-shell"


def test_an_event_written_by_another_program_arrives(server: Server) -> None:
    with server.connect() as client:
        client.subscribe()
        script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()"
        statement = ROW + "('raw', 'raw.said', 'raw', NULL, '2026-01-01T00:00:00Z')"
        subprocess.run(["python3", "-c", script, str(server.database), statement], check=True)
        assert client.next_event()["payload"]["event_type"] == "raw.said"


def test_an_event_logged_by_the_command_line_arrives(server: Server) -> None:
    with server.connect() as client:
        client.subscribe()
        server.log_event("task.created", "cli", {"description": "hello"})
        assert client.next_event()["payload"]["data"] == {"description": "hello"}


def test_an_event_posted_over_http_arrives_with_the_returned_seq(server: Server) -> None:
    with server.connect() as client, server.http() as http:
        client.subscribe()
        answer = http.post("/api/events", json={"event_type": "task.created", "source": "http", "data": {"n": 1}})
        assert answer.status_code == 201
        frame = client.next_event()
        assert (frame["seq"], frame["payload"]["id"]) == (answer.json()["seq"], answer.json()["id"])
        assert client.epoch == answer.json()["epoch"]


# --- attempts of raw writers, on the database alone -------------------------------------------------------------------


@pytest.fixture
def raw(database: Database) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        connection.execute(ROW + "('known', 'a.b', 's', '1', 't')")
        yield connection


def outbox_ids(raw: sqlite3.Connection) -> list[str]:
    return [row[0] for row in raw.execute("SELECT event_id FROM outbox ORDER BY seq")]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT OR REPLACE INTO event_log (id, event_type, source, data, timestamp) VALUES {row}",
        "INSERT OR IGNORE INTO event_log (id, event_type, source, data, timestamp) VALUES {row}",
        ROW + "{row} ON CONFLICT (id) DO NOTHING",
        ROW + "{row} ON CONFLICT (id) DO UPDATE SET data = '2'",
        ROW + "{row}",
    ],
)
def test_a_repeated_event_is_ignored_with_every_statement(raw: sqlite3.Connection, statement: str) -> None:
    raw.execute(statement.format(row="('known', 'a.b', 's', '1', 'later')"))
    assert outbox_ids(raw) == ["known"]
    assert raw.execute("SELECT data, timestamp FROM event_log").fetchall() == [("1", "t")]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT OR REPLACE INTO event_log (id, event_type, source, data, timestamp) VALUES ('known','a.b','s','2','t')",
        "INSERT OR IGNORE INTO event_log (id, event_type, source, data, timestamp) VALUES ('known','x.y','s','1','t')",
        ROW + "('known', 'a.b', 'other', '1', 't') ON CONFLICT (id) DO UPDATE SET source = 'other'",
        "INSERT OR REPLACE INTO event_log (rowid, id, event_type, source, timestamp) VALUES (1, 'new', 'a.b', 's','t')",
        "UPDATE event_log SET data = '2'",
        "UPDATE OR REPLACE event_log SET id = 'other'",
        ROW + "(NULL, 'a.b', 's', '1', 't')",
    ],
)
def test_rewriting_history_is_rejected_with_the_reason(raw: sqlite3.Connection, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match=r"^event_log: "):
        raw.execute(statement)
    assert outbox_ids(raw) == ["known"]
    assert raw.execute("SELECT id, event_type, source, data FROM event_log").fetchall() == [("known", "a.b", "s", "1")]


def test_a_statement_with_new_and_known_rows_writes_the_new_ones(raw: sqlite3.Connection) -> None:
    raw.execute(ROW + "('new-1','a.b','s','1','t'), ('known','a.b','s','1','t'), ('new-2','a.b','s','1','t')")
    assert outbox_ids(raw) == ["known", "new-1", "new-2"]


def test_a_rolled_back_transaction_leaves_no_row_and_no_gap(raw: sqlite3.Connection) -> None:
    raw.execute("BEGIN")
    raw.execute(ROW + "('gone', 'a.b', 's', '1', 't')")
    raw.execute("ROLLBACK")
    raw.execute(ROW + "('kept', 'a.b', 's', '1', 't')")
    assert raw.execute("SELECT seq, event_id FROM outbox ORDER BY seq").fetchall() == [(1, "known"), (2, "kept")]


def test_a_nested_transaction_keeps_what_its_savepoints_keep(raw: sqlite3.Connection) -> None:
    raw.execute("BEGIN")
    raw.execute(ROW + "('outer', 'a.b', 's', '1', 't')")
    raw.execute("SAVEPOINT inner")
    raw.execute(ROW + "('inner', 'a.b', 's', '1', 't')")
    raw.execute("ROLLBACK TO inner")
    raw.execute(ROW + "('second', 'a.b', 's', '1', 't')")
    raw.execute("COMMIT")
    assert outbox_ids(raw) == ["known", "outer", "second"]


def test_seqs_continue_after_everything_was_pruned(raw: sqlite3.Connection, database: Database) -> None:
    raw.execute("DELETE FROM outbox")
    raw.execute(ROW + "('next', 'a.b', 's', '1', 't')")
    assert raw.execute("SELECT seq FROM outbox").fetchall() == [(2,)]


def test_an_event_commits_or_rolls_back_with_the_callers_transaction(database: Database, tmp_path: Path) -> None:
    from outfeed import get_event, log_event

    with contextlib.closing(sqlite3.connect(database.path)) as own:
        own.execute("CREATE TABLE job (name TEXT)")
        own.execute("INSERT INTO job VALUES ('a')")
        kept = log_event("job.done", "me", connection=own)
        own.commit()
        own.execute("INSERT INTO job VALUES ('b')")
        gone = log_event("job.done", "me", connection=own)
        own.rollback()
    assert get_event(kept.id) == kept
    assert get_event(gone.id) is None
