"""Tables: which can be watched, and how an event names its row."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing, suppress

import pytest

from outfeed.errors import InvalidWatch
from outfeed.watch.store import schema, watches
from outfeed.watch.table import is_secret
from tests.watch.watched import events, new_database, run, types, watch


@pytest.mark.parametrize(
    ("columns", "key"),
    [
        ("id INTEGER PRIMARY KEY, a", {"id": 1}),
        ("id INT PRIMARY KEY, a", {"id": 1}),
        ("id TEXT PRIMARY KEY, a", {"id": "1"}),
        ("id, a", {"rowid": 1}),
        ("id, a, rowid", {"rowid": 1}),
        ("id, a, rowid, _rowid_, oid", None),
        ("id INTEGER PRIMARY KEY, a, rowid, _rowid_, oid", {"id": 1}),
        ("id TEXT PRIMARY KEY, a, rowid, _rowid_, oid", {"id": "1"}),
        ("id, a, b, c, d, PRIMARY KEY (id, a, b, c, d)", {"id": 1, "a": 2, "b": None, "c": None, "d": None}),
        ("id INTEGER PRIMARY KEY DESC, a", {"id": 1}),
        ("id INTEGER, a, PRIMARY KEY (id)", {"id": 1}),
    ],
)
def test_the_key_of_an_event_names_the_row(columns, key):
    with closing(new_database(f"CREATE TABLE t ({columns})")) as program:
        watch(program, "t")
        (found,) = run(program, "INSERT INTO t (id, a) VALUES (1, 2)")
        assert found.data["key"] == key
        (found,) = run(program, "UPDATE t SET a = 3")
        assert found.data["op"] == "update"
        (found,) = run(program, "REPLACE INTO t (id, a) VALUES (8, 4)")
        assert found.data["op"] == "insert"
        assert types(run(program, "DELETE FROM t")) == ["t.deleted", "t.deleted"]


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE t (id TEXT PRIMARY KEY, a) WITHOUT ROWID",
        "CREATE TABLE t (a, id INTEGER PRIMARY KEY) WITHOUT ROWID",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a ANY) STRICT",
    ],
)
def test_tables_without_rowid_and_strict_ones_are_watched(table):
    with closing(new_database(table)) as program:
        watch(program, "t")
        assert types(run(program, "INSERT INTO t (id, a) VALUES (1, 2)")) == ["t.created"]
        (found,) = run(program, "REPLACE INTO t (id, a) VALUES (1, 3)")
        assert (found.type, found.data["was"]) == ("t.updated", {"a": 2})


def test_a_changed_rowid_is_a_changed_key():
    with closing(new_database("CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")) as program:
        watch(program, "t")
        (found,) = run(program, "UPDATE t SET rowid = 9")
        assert (found.data["key"], found.data["was"]) == ({"rowid": 9}, {"rowid": 1})


def test_rows_with_null_in_the_key_may_share_it():
    with closing(new_database("CREATE TABLE t (id TEXT PRIMARY KEY, a)")) as program:
        watch(program, "t")
        found = run(program, "REPLACE INTO t VALUES (NULL, 1), (NULL, 2)")
        assert [(event.type, event.data["key"]) for event in found] == [("t.created", {"id": None})] * 2


@pytest.mark.parametrize(
    ("statement", "table", "reason"),
    [
        ("CREATE VIEW v AS SELECT 1 AS a", "v", "is a view"),
        ("CREATE VIRTUAL TABLE f USING fts5(a)", "f", "is a virtual table"),
        ("CREATE VIRTUAL TABLE f USING fts5(a)", "f_content", "belongs to the virtual table f"),
        ("CREATE TEMP TABLE s (a)", "s", "is a TEMP table"),
        ("ATTACH ':memory:' AS other; CREATE TABLE other.o (a)", "o", "is in the attached database other"),
        ("SELECT 1", "sqlite_sequence", "SQLite's own"),
        ("SELECT 1", "outfeed_watch", "Outfeed's own"),
        ("SELECT 1", "event_log", "Outfeed's own"),
        ("SELECT 1", "OUTBOX", "Outfeed's own"),
        ("SELECT 1", "nothing", "no such table"),
    ],
)
def test_a_table_that_cannot_be_watched_is_refused_with_the_reason(statement, table, reason):
    with closing(new_database()) as program:
        program.executescript(statement)
        with pytest.raises(InvalidWatch, match=reason):
            schema.required(program, table)


def test_a_plain_table_with_a_name_like_a_shadow_is_watched():
    with closing(new_database("CREATE TABLE f (a)", "CREATE TABLE f_content (a)")) as program:
        assert schema.required(program, "F_Content").name == "f_content"


def test_events_go_to_the_log_of_the_watched_file():
    with closing(new_database("CREATE TABLE t (a)")) as program:
        watch(program, "t")
        program.execute("CREATE TEMP TABLE event_log (id)")
        program.execute("CREATE TEMP TABLE outfeed_replaced (a)")
        program.execute("INSERT INTO t VALUES (1)")
        assert program.execute("SELECT count(*) FROM main.event_log").fetchone() == (1,)
        assert program.execute("SELECT count(*) FROM temp.event_log").fetchone() == (0,)


def test_a_watched_file_may_be_attached_to_another(tmp_path):
    with closing(new_database("CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE)")) as made:
        watch(made, "t")
        with closing(sqlite3.connect(tmp_path / "watched.db")) as file:
            made.backup(file)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as program:
        program.execute("CREATE TABLE event_log (id)")
        program.execute("CREATE TABLE outbox (id)")
        program.execute("ATTACH ? AS other", (str(tmp_path / "watched.db"),))
        program.execute("INSERT INTO other.t VALUES (1, 'a')")
        program.execute("REPLACE INTO other.t VALUES (2, 'a')")
        found = program.execute("SELECT event_type FROM other.event_log ORDER BY rowid").fetchall()
        assert found == [("t.created",), ("t.deleted",), ("t.created",)]
        assert program.execute("SELECT count(*) FROM main.event_log").fetchone() == (0,)


def test_collations_and_functions_of_the_program_are_no_obstacle():
    def prepared(connection: sqlite3.Connection) -> sqlite3.Connection:
        connection.create_collation("backwards", lambda a, b: (a < b) - (a > b))
        connection.create_function("twice", 1, lambda value: value * 2, deterministic=True)
        return connection

    with closing(prepared(new_database())) as program:
        program.execute(
            "CREATE TABLE t (id TEXT COLLATE backwards PRIMARY KEY, a COLLATE backwards UNIQUE,"
            " b, d AS (twice(b)) STORED)"
        )
        program.execute("CREATE UNIQUE INDEX i ON t (twice(b))")
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as outfeed:
            outfeed.deserialize(program.serialize())
            watch(outfeed, "t")
            assert schema.required(outfeed, "t").uncovered == ("i",)
            program.deserialize(outfeed.serialize())
        (found,) = run(program, "INSERT INTO t (id, a, b) VALUES ('x', 'a', 2)")
        assert found.data["row"] == {"id": "x", "a": "a", "b": 2, "d": 4}
        assert types(run(program, "REPLACE INTO t (id, a, b) VALUES ('y', 'a', 3)")) == ["t.deleted", "t.created"]


@pytest.mark.parametrize("where", ["b > 1 -- big ones", "b > 1 /* WHERE */", "c = 'WHERE -- x' OR b > 1"])
def test_a_partial_unique_index_is_covered(where):
    with closing(
        new_database(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, c)", f"CREATE UNIQUE INDEX i ON t (a) WHERE {where}\n"
        )
    ) as program:
        watch(program, "t")
        run(program, "INSERT INTO t VALUES (1, 'a', 1, ''), (2, 'a', 2, '')")
        assert types(run(program, "REPLACE INTO t VALUES (3, 'a', 1, '')")) == ["t.created"]
        assert types(run(program, "REPLACE INTO t VALUES (4, 'a', 2, '')")) == ["t.deleted", "t.created"]
        assert types(run(program, "UPDATE OR REPLACE t SET b = 2 WHERE id = 1")) == ["t.deleted", "t.updated"]


def test_a_writer_that_distrusts_the_schema_needs_sqlite_3_42():
    with closing(new_database("CREATE TABLE t (a)")) as program:
        watch(program, "t")
        program.execute("PRAGMA trusted_schema = OFF")
        if sqlite3.sqlite_version_info >= (3, 42):
            assert types(run(program, "INSERT INTO t VALUES (1)")) == ["t.created"]
        else:
            with pytest.raises(sqlite3.OperationalError, match="unsafe use of json_quote"):
                program.execute("INSERT INTO t VALUES (1)")


# --- columns that go ---


@pytest.mark.parametrize("legacy", ["OFF", "ON"])
def test_dropping_a_column_breaks_no_write(legacy):
    with closing(
        new_database(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, c)", "CREATE UNIQUE INDEX i ON t (c) WHERE b IS NOT NULL",
            "INSERT INTO t VALUES (1, 'a', 'b', 'c')", f"PRAGMA legacy_alter_table = {legacy}",
        )
    ) as program:  # fmt: skip
        watch(program, "t", where={"a": ["a"]}, source={"column": "b"}, task_id="c")
        program.execute("ALTER TABLE t DROP COLUMN a")
        program.execute("DROP INDEX i")
        program.execute("ALTER TABLE t DROP COLUMN c")
        program.execute("ALTER TABLE t RENAME COLUMN b TO d")
        program.execute("ALTER TABLE t ADD COLUMN e")
        for statement in (
            "INSERT INTO t (d) VALUES (1)", "UPDATE t SET d = 2", "REPLACE INTO t (id, d) VALUES (1, 3)",
            "DELETE FROM t",
        ):  # fmt: skip
            program.execute(statement)


def test_a_dropped_column_is_null_until_the_triggers_are_made_again():
    with closing(new_database("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)")) as program:
        watch(program, "t")
        program.execute("ALTER TABLE t DROP COLUMN b")
        (found,) = run(program, "INSERT INTO t (a) VALUES (1)")
        assert found.data["row"] == {"id": 1, "a": 1, "b": None}


@pytest.mark.parametrize("columns", ["(id INTEGER PRIMARY KEY, a UNIQUE)", "(id TEXT PRIMARY KEY, a UNIQUE)"])
def test_a_reference_to_the_new_row_stands_in_a_select_of_its_own(columns):
    # Beside a source named NEW, SQLite 3.24 to 3.34 does not find the columns of the row.
    with closing(new_database(f"CREATE TABLE t {columns}")) as program:
        watch(program, "t")
        texts = " ".join(watches.present_triggers(program).values())
    notes = re.findall(r"INSERT INTO outfeed_replaced.*?; END", texts)
    assert len(notes) == 2
    for note in notes:
        outer, inner = note, ""
        while outer != inner:
            outer, inner = re.sub(r"\([^()]*\)", "", outer), outer
        assert " FROM NEW," in outer
        assert "NEW." not in outer


@pytest.mark.parametrize("trigger", ["", "CREATE TRIGGER own AFTER UPDATE ON t WHEN 0 BEGIN SELECT 1; END", "a watch"])
def test_any_trigger_can_change_the_order_in_which_sqlite_visits_rows(trigger):
    table = "CREATE TABLE t (a, place UNIQUE, c)"
    rows = "INSERT INTO t VALUES (2, 5, 3), (2, 3, 1), (2, 6, 2), (3, 8, 2)"
    with closing(new_database(table, "CREATE INDEX i ON t (a, c)", rows)) as program:
        if trigger == "a watch":
            watch(program, "t")
        elif trigger:
            program.execute(trigger)
        with suppress(sqlite3.IntegrityError):
            program.execute("UPDATE t SET place = place + 1 WHERE a < 3")
        places = [place for (place,) in program.execute("SELECT place FROM t ORDER BY rowid")]
    assert places == ([5, 3, 6, 8] if trigger else [6, 4, 7, 8])


# --- many rows ---


def watched_rows(count: int) -> sqlite3.Connection:
    program = new_database("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
    program.execute(
        "INSERT INTO t (a) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) SELECT i FROM n",
        (count,),
    )
    watch(program, "t")
    return program


def update_us(program: sqlite3.Connection, count: int) -> float:
    """Return the CPU time of an update of all rows, in microseconds for each."""
    began = time.process_time()
    program.execute("UPDATE t SET a = a + 1")
    return (time.process_time() - began) / count * 1e6


def test_100000_rows_of_one_statement_have_rising_ids_in_bounded_time():
    with closing(watched_rows(5_000)) as program:
        few = min(update_us(program, 5_000) for _ in range(3))
    with closing(watched_rows(100_000)) as program:
        many = update_us(program, 100_000)
        ids = [row[0] for row in program.execute("SELECT id FROM event_log ORDER BY rowid")]
        seqs = program.execute("SELECT max(seq) - min(seq) + 1 FROM outbox").fetchone()
    assert len(set(ids)) == 100_000
    assert ids == sorted(ids)
    assert all(id_[14] == "7" and id_[19] == "8" and len(id_) == 36 for id_ in ids)
    assert seqs == (100_000,)
    assert many < 4 * few  # with random ids a row takes nine times as long


# --- secrets ---


@pytest.mark.parametrize(
    ("column", "is_hidden"),
    [
        ("password", True), ("password_hash", True), ("user-password", True), ("userPassword", True),
        ("apiToken", True), ("APIToken", True), ("API_KEY", True), ("my api key", True), ("session_key", True),
        ("tokens", False), ("secretary", False), ("keyring", False), ("api_keys", False), ("key", False),
    ],
)  # fmt: skip
def test_a_column_is_hidden_by_whole_words(column, is_hidden):
    assert is_secret(column, ("password", "token", "api_key", "secret", "session_key")) is is_hidden


def test_a_hidden_value_is_nowhere_in_the_file(tmp_path):
    with closing(new_database("CREATE TABLE t (id INTEGER PRIMARY KEY, name, password UNIQUE, note)")) as program:
        watch(program, "t", except_=["note"])
        for statement in (
            "INSERT INTO t VALUES (1, 'a', 'hunter-1', 'hunter-2')",
            "UPDATE t SET password = 'hunter-3'",
            "REPLACE INTO t VALUES (2, 'b', 'hunter-3', 'hunter-4')",
            "INSERT OR IGNORE INTO t VALUES (2, 'b', 'hunter-5', 'hunter-6')",
            "DELETE FROM t",
        ):
            program.execute(statement)
        found = events(program)
        assert types(found) == ["t.created", "t.updated", "t.deleted", "t.created", "t.deleted"]
        assert found[1].data["was"] == {"password": "[redacted]"}
        for table in ("event_log", "outbox", "outfeed_replaced"):
            assert "hunter" not in str(program.execute(f"SELECT * FROM {table}").fetchall())


def test_show_shows_a_column_that_would_be_hidden():
    with closing(new_database("CREATE TABLE t (id INTEGER PRIMARY KEY, token)")) as program:
        watch(program, "t", show=["token"])
        (found,) = run(program, "INSERT INTO t VALUES (1, 'shown')")
        assert found.data["row"]["token"] == "shown"


def test_a_hidden_key_is_refused_and_null_with_no_key():
    with closing(new_database("CREATE TABLE t (session_key TEXT PRIMARY KEY, a UNIQUE)")) as program:
        with pytest.raises(InvalidWatch, match="--no-key"):
            watch(program, "t")
        watch(program, "t", no_key=True)
        found = run(program, "INSERT INTO t VALUES ('hunter', 1)")
        found += run(program, "REPLACE INTO t VALUES ('hunter', 2)")
        found += run(program, "REPLACE INTO t VALUES ('fox', 2)")
        assert types(found) == ["t.created", "t.updated", "t.deleted", "t.created"]
        assert all(event.data["key"] is None for event in found)
        assert "hunter" not in str(found)


@pytest.mark.parametrize("option", ["source", "task_id", "agent_id"])
def test_a_hidden_column_gives_no_source_task_or_agent(option):
    with closing(new_database("CREATE TABLE t (id INTEGER PRIMARY KEY, token)")) as program:
        value = {"column": "token"} if option == "source" else "token"
        with pytest.raises(InvalidWatch, match="is hidden"):
            watch(program, "t", **{option: value})
