"""Two databases with one program: one of them is watched.

`Twins.run` runs a statement in both and compares all that the program can see. `Twins.check_replay` compares the
watched table with what its events say.
"""

from __future__ import annotations

import functools
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.watch.watched import Logged, events, new_database, watch

Row = tuple[tuple[str, Any], ...]


class Kind(NamedTuple):
    """A kind of table.

    Its statements, the columns that can be written, and the targets of an UPSERT.
    """

    statements: tuple[str, ...]
    columns: tuple[str, ...]
    targets: tuple[str, ...]
    rowid: str | None = "rowid"


KINDS = {
    "integer key": Kind(("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b UNIQUE)",), ("id", "a", "b"), ("id", "b"), "id"),
    "text key": Kind(("CREATE TABLE t (id TEXT PRIMARY KEY, a INT, b)",), ("id", "a", "b"), ("id",)),
    "no key": Kind(("CREATE TABLE t (a, b)",), ("a", "b"), ()),
    "no key, two unique indexes": Kind(
        ("CREATE TABLE t (a, b TEXT UNIQUE, c)", "CREATE UNIQUE INDEX i ON t (a, c)"), ("a", "b", "c"), ("b", "a, c")
    ),
    "without rowid": Kind(
        ("CREATE TABLE t (id TEXT PRIMARY KEY, a UNIQUE, b) WITHOUT ROWID",), ("id", "a", "b"), ("id", "a"), None
    ),
    "key of two columns": Kind(
        ("CREATE TABLE t (a, b, c, d UNIQUE, PRIMARY KEY (b, a)) WITHOUT ROWID",),
        ("a", "b", "c", "d"),
        ("b, a", "d"),
        None,
    ),
    "partial index and default": Kind(
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a NOT NULL DEFAULT 2, b NUMERIC)",
            "CREATE UNIQUE INDEX i ON t (a) WHERE b > 1",
        ),
        ("id", "a", "b"),
        ("id",),
        "id",
    ),
    "collations": Kind(
        (
            "CREATE TABLE t (id TEXT COLLATE NOCASE PRIMARY KEY, a TEXT, b TEXT COLLATE RTRIM)",
            "CREATE UNIQUE INDEX i ON t (a COLLATE NOCASE, b)",
        ),
        ("id", "a", "b"),
        ("id",),
    ),
    "conflict clauses and a generated column": Kind(
        (
            """CREATE TABLE t (
                id INT PRIMARY KEY ON CONFLICT IGNORE, a REAL UNIQUE ON CONFLICT REPLACE,
                b NOT NULL ON CONFLICT REPLACE DEFAULT 'a', c AS (a || b) STORED
            )""",
        ),
        ("id", "a", "b"),
        ("id", "a"),
    ),
}
VALUES = ("NULL", "1", "2", "3", "-1", "'a'", "'A'", "'b'", "'a '", "1.5", "2.0", "x'01'", "'2'")
INTEGERS = ("NULL", "1", "2", "3", "-1", "2.0", "'2'")
CLAUSES = ("", "OR ROLLBACK ", "OR ABORT ", "OR FAIL ", "OR IGNORE ", "OR REPLACE ")

# Of the twin: SQLite may visit the rows of an UPDATE in another order if the table has any trigger.
IDLE_TRIGGERS = tuple(
    f"CREATE TRIGGER idle_{when} {when} UPDATE ON t WHEN 0 BEGIN SELECT 1; END" for when in ("BEFORE", "AFTER")
)


def _values(kind: Kind, column: str) -> st.SearchStrategy[str]:
    # Without a trigger, SQLite keeps the first rows of an INSERT OR ROLLBACK that ends with a datatype mismatch.
    return st.sampled_from(INTEGERS if column == kind.rowid else VALUES)


@st.composite
def statements(draw: st.DrawFn, kind: Kind) -> str:
    """Return a statement that writes, or begins or ends a transaction."""
    match draw(st.sampled_from("iiiiuuuddpppt")):
        case "i":
            return draw(_inserts(kind, CLAUSES))
        case "u":
            clause, assignments = draw(st.sampled_from(CLAUSES)), draw(_assignments(kind))
            return f"UPDATE {clause}t SET {assignments}{draw(_wheres(kind))}"
        case "d":
            return f"DELETE FROM t{draw(_wheres(kind))}"
        case "p" if kind.targets:
            target = draw(st.sampled_from(kind.targets))
            action = draw(st.sampled_from(["NOTHING", "UPDATE SET " + draw(_assignments(kind))]))
            return f"{draw(_inserts(kind, ('',)))} ON CONFLICT ({target}) DO {action}"
        case _:
            return draw(st.sampled_from(["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "RELEASE s", "ROLLBACK TO s"]))


@st.composite
def _inserts(draw: st.DrawFn, kind: Kind, clauses: Sequence[str]) -> str:
    named = draw(st.lists(st.sampled_from(kind.columns), min_size=1, unique=True))
    row = st.tuples(*(_values(kind, column) for column in named)).map(lambda row: f"({', '.join(row)})")
    rows = draw(st.lists(row, min_size=1, max_size=3))
    return f"INSERT {draw(st.sampled_from(clauses))}INTO t ({', '.join(named)}) VALUES {', '.join(rows)}"


@st.composite
def _assignments(draw: st.DrawFn, kind: Kind) -> str:
    named = draw(st.lists(st.sampled_from(kind.columns), min_size=1, max_size=2, unique=True))
    return ", ".join(f"{column} = {draw(_values(kind, column) | st.sampled_from(kind.columns))}" for column in named)


@st.composite
def _wheres(draw: st.DrawFn, kind: Kind) -> str:
    if draw(st.booleans()) and draw(st.booleans()):
        return ""
    column = draw(st.sampled_from(kind.columns))
    return f" WHERE {column} {draw(st.sampled_from(['IS', '>', 'IS NOT']))} {draw(_values(kind, column))}"


@functools.cache
def _watched(kind: Kind) -> bytes:
    """Return a database with the watched table, to be copied."""
    with closing(new_database(*kind.statements)) as made:
        watch(made, "t")
        return made.serialize()


class Twins:
    """The watched database and its twin."""

    def __init__(self, kind: Kind, *, recursive_triggers: bool) -> None:
        self.kind = kind
        self.done = [f"PRAGMA recursive_triggers = {int(recursive_triggers)}"]
        self.watched, self.plain = (sqlite3.connect(":memory:", isolation_level=None) for _ in range(2))
        self.watched.deserialize(_watched(kind))
        for statement in (*kind.statements, *IDLE_TRIGGERS):
            self.plain.execute(statement)
        for connection in (self.watched, self.plain):
            connection.execute(self.done[0])

    def __repr__(self) -> str:
        return "; ".join([*self.kind.statements, *self.done])

    def close(self) -> None:
        self.watched.close()
        self.plain.close()

    def run(self, statement: str) -> None:
        """Run *statement* in both, and assert that the program sees the same."""
        self.done.append(statement)
        seen, expected = self._seen(self.watched, statement), self._seen(self.plain, statement)
        assert seen == expected, f"{self}: {seen}, without Outfeed {expected}"

    def _seen(self, connection: sqlite3.Connection, statement: str) -> tuple[Any, ...]:
        try:
            done = connection.execute(statement)
            outcome: tuple[Any, ...] = (done.rowcount, done.lastrowid)
        except sqlite3.Error as error:
            outcome = (type(error), str(error))
        counts = connection.execute("SELECT changes(), last_insert_rowid()").fetchone()
        return outcome, counts, connection.in_transaction, self.rows(connection)

    def rows(self, connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
        rowid = f"{self.kind.rowid}, " if self.kind.rowid else ""
        return connection.execute(f"SELECT {rowid}* FROM t ORDER BY 1, 2, 3").fetchall()

    def check_replay(self) -> None:
        """Assert that the events, replayed in their order, give the table."""
        rows = self.watched.execute(f"SELECT {', '.join(self.kind.columns)} FROM t").fetchall()
        found = Counter(tuple(zip(self.kind.columns, map(_shown, row), strict=True)) for row in rows)
        got = replayed(events(self.watched), self.kind.columns)
        assert got == found, f"{self}: events give {got}, the table is {found}"


class Program(NamedTuple):
    """A random program: the kind of its table, a setting, and its statements."""

    kind: str
    recursive_triggers: bool
    statements: list[str]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Return a program of up to 20 statements."""
    name = draw(st.sampled_from(sorted(KINDS)))
    return Program(name, draw(st.booleans()), draw(st.lists(statements(KINDS[name]), min_size=1, max_size=20)))


def check(program: Program) -> None:
    """Run *program* in both databases, and compare after each statement."""
    twins = Twins(KINDS[program.kind], recursive_triggers=program.recursive_triggers)
    try:
        for statement in program.statements:
            twins.run(statement)
            twins.check_replay()
    finally:
        twins.close()


def replayed(found: Iterable[Logged], columns: Sequence[str], start: Iterable[Row] = ()) -> Counter[Row]:
    """Return the rows after the events; each must fit the rows before it."""
    rows = Counter(start)
    for event in found:
        operation, row = event.data["op"], event.data["row"]
        if operation != "insert":
            before = {**row, **event.data.get("was", {})}
            assert rows[_row(before, columns)] > 0, f"{event} does not fit {rows}"
            rows[_row(before, columns)] -= 1
        if operation != "delete":
            rows[_row(row, columns)] += 1
        if operation == "update":
            assert event.data["was"], f"{event} changes nothing"
    return +rows


def _row(values: dict[str, Any], columns: Sequence[str]) -> Row:
    # The `was` of a replaced row has no generated columns.
    return tuple((column, values[column]) for column in columns)


def _shown(value: Any) -> Any:
    return value.hex().upper() if isinstance(value, bytes) else value
