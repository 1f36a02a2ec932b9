"""A watched table and its twin, whose columns the program changes.

`MigratedTwins.run` compares all that the program can see, as `Twins.run` does. `mend` repairs the triggers.
`check_events` compares the table with its events since the last repair.
"""

from __future__ import annotations

import functools
import sqlite3
from contextlib import closing
from typing import Any, NamedTuple

from hypothesis import strategies as st

from outfeed.config import settings
from outfeed.watch.store import repair, watches
from tests.watch.twins import Row, replayed
from tests.watch.watched import new_database, take_events, watch

COLUMNS = ("a", "b", "c", "d")
VALUES = ("NULL", "1", "2", "'a'", "'A'", "1.5", "x'01'")
# Each keeps the row order of an UPDATE, which can change with the first trigger of a table.
IDLE = tuple(
    f"CREATE TRIGGER IF NOT EXISTS idle_{when} {when} UPDATE ON t WHEN 0 BEGIN SELECT 1; END"
    for when in ("BEFORE", "AFTER")
)
RULES = [
    {"on": "insert", "when": {"a": [1]}, "type": "t.one"},
    {"on": "insert", "type": "t.created"},
    {"on": "update", "was": {"b": ["a"]}, "changed": ["b", "c"], "type": "t.left"},
    {"on": "update", "changed": ["a"], "type": "t.changed"},
    {"on": "delete", "when": {"c": ["a", 1]}, "type": "t.deleted"},
]


class Shape(NamedTuple):
    """A table: its key, the end of its definition, and if it has rules."""

    key: str
    end: str = ""
    has_rules: bool = False

    def create(self, columns: list[str], name: str = "t") -> str:
        """Return the statement that creates the table with *columns*.

        A column `c` is UNIQUE.
        """
        found = [self.key, *(f"{column} UNIQUE" if column == "c" else column for column in columns)]
        return f"CREATE TABLE {name} ({', '.join(found)}){self.end}"


SHAPES = {
    f"{name}{', rules' * has_rules}": Shape(key, end, has_rules)
    for name, key, end in (
        ("integer key", "id INTEGER PRIMARY KEY", ""),
        ("text key", "id TEXT PRIMARY KEY", ""),
        ("without rowid", "id TEXT PRIMARY KEY", " WITHOUT ROWID"),
    )
    for has_rules in (False, True)
}


@functools.cache
def _template(shape: Shape) -> bytes:
    with closing(new_database(shape.create(["a", "b", "c"]))) as made:
        watch(made, "t", **({"rules": RULES} if shape.has_rules else {}))
        return made.serialize()


class MigratedTwins:
    """The watched table and its twin."""

    def __init__(self, shape: Shape, *, is_legacy: bool) -> None:
        self.shape = shape
        self.done: list[str] = []
        self.watched, self.plain = (sqlite3.connect(":memory:", isolation_level=None) for _ in range(2))
        self.watched.deserialize(_template(shape))
        for statement in (shape.create(["a", "b", "c"]), *IDLE):
            self.plain.execute(statement)
        for connection in (self.watched, self.plain):
            connection.execute(f"PRAGMA legacy_alter_table = {int(is_legacy)}")
        self.old_triggers = self._triggers()
        self.is_mended = True
        self.has_renamed = False
        self.start: list[Row] = []

    def close(self) -> None:
        self.watched.close()
        self.plain.close()

    @property
    def columns(self) -> list[str]:
        """The columns that the table has now, except the key."""
        return [row[1] for row in self.plain.execute("PRAGMA table_info(t)")][1:]

    def run(self, statement: str) -> None:
        """Run *statement* in both databases.

        The program must see the same.
        """
        self.done.append(statement)
        seen, expected = self._seen(self.watched, statement), self._seen(self.plain, statement)
        assert seen == expected, f"{self.done}: {seen}, without Outfeed {expected}"

    def _seen(self, connection: sqlite3.Connection, statement: str) -> tuple[Any, ...]:
        try:
            outcome: Any = connection.execute(statement).rowcount
        except sqlite3.Error as error:
            outcome = (type(error), str(error))
        return outcome, sorted(connection.execute("SELECT * FROM t").fetchall(), key=repr)

    def add(self, column: str) -> None:
        self._alter(f"ALTER TABLE t ADD COLUMN {column}")

    def rename(self, column: str, name: str) -> None:
        self._alter(f"ALTER TABLE t RENAME COLUMN {column} TO {name}")
        self.has_renamed = True

    def drop(self, column: str) -> None:
        """Drop a column.

        A column that was renamed since the last repair is an exception to G5.
        """
        if self.has_renamed:
            self.mend()
        self._alter(f"ALTER TABLE t DROP COLUMN {column}")

    def rebuild(self, columns: list[str], *, is_renamed_first: bool, keeps_triggers: bool) -> None:
        """Copy the table into one that has *columns*, as schema tools do.

        With *keeps_triggers*, the tool creates the triggers again that it found at the start.
        """
        kept = ", ".join(["id", *(column for column in columns if column in self.columns)])
        if is_renamed_first:
            statements = [
                "ALTER TABLE t RENAME TO old_t", self.shape.create(columns),
                f"INSERT INTO t ({kept}) SELECT {kept} FROM old_t", "DROP TABLE old_t",
            ]  # fmt: skip
        else:
            statements = [
                self.shape.create(columns, "new_t"), f"INSERT INTO new_t ({kept}) SELECT {kept} FROM t",
                "DROP TABLE t", "ALTER TABLE new_t RENAME TO t",
            ]  # fmt: skip
        self.done += statements
        for statement in statements:
            self.watched.execute(statement)
            self.plain.execute(statement)
        for trigger in self.old_triggers if keeps_triggers else ():
            self.watched.execute(trigger)
        self._idle()
        self.is_mended = False

    def _alter(self, statement: str) -> None:
        self.run(statement)
        self.is_mended = False

    def _idle(self) -> None:
        for statement in IDLE:
            self.plain.execute(statement)
            if not self._triggers():
                self.watched.execute(statement)

    def _triggers(self) -> list[str]:
        return list(watches.present_triggers(self.watched).values())

    def mend(self) -> None:
        """Repair the triggers. From here on, the events must give the table."""
        self.done.append("repair")
        self.watched.execute("BEGIN IMMEDIATE")
        repair.repair(self.watched, settings(), is_start=False)
        self.watched.execute("COMMIT")
        assert repair.problems(self.watched, settings()) == [], self.done
        take_events(self.watched)
        self.start = self._rows()
        self.is_mended, self.has_renamed = True, False

    def check_events(self) -> None:
        """Assert that the events since the last repair give the table."""
        if not self.is_mended or self.shape.has_rules:
            return
        found = take_events(self.watched)
        rows = self._rows()
        got = replayed(found, ["id", *self.columns], self.start)
        assert sorted(got.elements(), key=repr) == sorted(rows, key=repr), f"{self.done}: {found}"
        self.start = rows

    def _rows(self) -> list[Row]:
        names = ["id", *self.columns]
        found = self.watched.execute(f"SELECT {', '.join(names)} FROM t").fetchall()
        return [tuple(zip(names, map(_shown, row), strict=True)) for row in found]


def _shown(value: Any) -> Any:
    return value.hex().upper() if isinstance(value, bytes) else value


def write(data: st.DataObject, columns: list[str]) -> str:
    """Draw a statement that writes to the table."""
    values = st.sampled_from(VALUES)
    column = data.draw(st.sampled_from(columns or ["id"]))
    clause = data.draw(st.sampled_from(["", "", "OR REPLACE ", "OR IGNORE "]))
    match data.draw(st.sampled_from("iiud")):
        case "i":
            names = ["id", *columns]
            row = ", ".join([data.draw(st.sampled_from("123")), *(data.draw(values) for _ in columns)])
            return f"INSERT {clause}INTO t ({', '.join(names)}) VALUES ({row})"
        case "u":
            return f"UPDATE {clause}t SET {column} = {data.draw(values)} WHERE id > {data.draw(st.sampled_from('012'))}"
        case _:
            return f"DELETE FROM t WHERE {column} IS {data.draw(values)}"


def migrate(data: st.DataObject, twins: MigratedTwins) -> None:
    """Draw a change of the schema, and run it."""
    columns = twins.columns
    free = [name for name in COLUMNS if name not in columns]
    match data.draw(st.sampled_from(["add", "drop", "rename", "rebuild"])):
        case "add" if free:
            twins.add(data.draw(st.sampled_from(free)))
        case "drop" if columns:
            twins.drop(data.draw(st.sampled_from(columns)))
        case "rename" if free and columns:
            twins.rename(data.draw(st.sampled_from(columns)), data.draw(st.sampled_from(free)))
        case _:
            wanted = data.draw(st.lists(st.sampled_from(COLUMNS), unique=True))
            twins.rebuild(wanted, is_renamed_first=data.draw(st.booleans()), keeps_triggers=data.draw(st.booleans()))


def check(data: st.DataObject) -> None:
    """Draw a program that writes and changes its schema, and run it.

    No statement fails because of the watch, and after a repair the events give the table.
    """
    twins = MigratedTwins(SHAPES[data.draw(st.sampled_from(sorted(SHAPES)))], is_legacy=data.draw(st.booleans()))
    try:
        for step in data.draw(st.lists(st.sampled_from("wwwmr"), min_size=3, max_size=10)):
            if step == "w":
                twins.run(write(data, twins.columns))
                twins.check_events()
            elif step == "m":
                migrate(data, twins)
            else:
                twins.mend()
    finally:
        twins.close()
