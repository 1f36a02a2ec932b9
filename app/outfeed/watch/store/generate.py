"""The triggers of a watch, as texts. Runs no SQL.

They are a function of the watch's definition and its table's schema.

- A trigger must not fail if a column is dropped. So each `NEW.x` and `OLD.x` stands in a SELECT that has no column x
  of its own, around which a source offers `NULL AS x`: `SELECT (SELECT NEW.x) FROM (SELECT NULL AS x) AS NEW`.
- REPLACE removes rows without a DELETE trigger. A BEFORE trigger notes in `outfeed_replaced` each row that has the key
  or a UNIQUE value of the new row, and an AFTER trigger reads the notes.
- SQLite fires the newest trigger first, so the order in which the texts are returned, and created, is part of the
  result.

`triggers` is pure: a repair compares its result with the texts in the file. `watch_of` tells from a trigger's name to
which watch it belongs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from outfeed.watch.definition import DELETE, INSERT, UPDATE, Definition, fitted
from outfeed.watch.store.note_sql import NoteSql
from outfeed.watch.store.sql import Rows
from outfeed.watch.table import WatchedTable, is_secret

# The version of the texts. A process rewrites triggers only of its own version or an older one.
GENERATOR = 2
PREFIX = "outfeed_watch_"
_NAME = re.compile(rf"{PREFIX}(\d+)_[a-z_]+")


def triggers(
    number: int, definition: Definition, table: WatchedTable, *, secrets: Iterable[str], max_event_bytes: int
) -> dict[str, str]:
    """Return the triggers of watch *number*, name to text.

    They must be created in this order.

    *secrets* are the words that hide a column. The texts are as `sqlite_master` has them after their creation. Columns
    that the definition names and the table lacks are passed over (`definition.fitted`).
    """
    return _Triggers(number, fitted(definition, table), table, tuple(secrets), max_event_bytes).triggers()


def row_events(
    number: int,
    definition: Definition,
    table: WatchedTable,
    *,
    secrets: Iterable[str],
    max_event_bytes: int,
    existing_type: str | None,
) -> str:
    """Return the statement that logs rows that match an insert rule.

    With *existing_type*, each event has that type and the operation `read`. Without it, each event is that of an
    insert. The statement ends within its WHERE clause: the caller appends conditions on the alias `r`.
    """
    return _Triggers(number, fitted(definition, table), table, tuple(secrets), max_event_bytes).row_events(
        existing_type
    )


def watch_of(trigger: str) -> int | None:
    """Return the number of the watch that a trigger belongs to, or None."""
    match = _NAME.fullmatch(trigger)
    return int(match[1]) if match else None


def hidden_columns(definition: Definition, table: WatchedTable, secrets: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that events have redacted."""
    names = tuple(secrets)
    return tuple(
        column.name
        for column in table.columns
        if definition.selects(column.name) and is_secret(column.name, names) and not definition.shows(column.name)
    )


def reported_columns(definition: Definition, table: WatchedTable) -> tuple[str, ...]:
    """Return the columns that the events of the watch have."""
    return tuple(each.name for each in table.columns if definition.selects(each.name) and each.generated != "virtual")


@dataclass(frozen=True, slots=True)
class _Triggers(NoteSql):
    """The triggers of one watch."""

    def triggers(self) -> dict[str, str]:
        # The newest runs first: those that report removed rows before those that report the change.
        parts = {
            **self._insert_triggers(),
            **self._update_triggers(),
            **self._delete_triggers(),
        }
        return {self._name(part): self._text(part, rest) for part, rest in parts.items()}

    def _name(self, part: str) -> str:
        return f"{PREFIX}{self.number}_{part}"

    def _text(self, part: str, rest: str) -> str:
        return f"CREATE TRIGGER {self._name(part)} {rest}"

    # --- insert ---

    def _insert_triggers(self) -> dict[str, str]:
        """Return the triggers of an INSERT.

        `before_insert` notes the rows that the new row may replace. `taken` claims the notes and reports the rows that
        were removed, `insert` reports the new row. If the note is found by the rowid, `insert` reads it unclaimed.
        """
        found = {}
        if self.definition.rules_on(INSERT) or self.definition.rules_on(UPDATE):
            found["insert"] = self._insert()
        if self._has_notes:
            if not self._is_noted_by_rowid:
                found["taken"] = self._taken()
            found["before_insert"] = self._before(is_insert=True)
        return found

    def _insert(self) -> str:
        if not self._has_notes:
            rows = Rows()
            when = rows.nested(self._any_of(INSERT, rows))
            rows = Rows()
            data = rows.nested(self._row_data("insert", rows.new, "NEW"))
            return f"AFTER INSERT {self._on} WHEN {when} BEGIN {self._event('new', self._typed(INSERT), data)} END"
        rows = Rows()
        when = rows.nested(f"ifnull({self._noted('was IS NOT NULL')},{self._any_of(INSERT, rows)})")
        type_ = f"ifnull({self._noted('updated')},{self._typed(INSERT)})"
        rows = Rows()
        data = rows.nested(self._insert_data(rows.new, self._noted("was")))
        end = f"DELETE{self._of_note()};" if self._is_noted_by_rowid else ""
        return f"AFTER INSERT {self._on} WHEN {when} BEGIN {self._event('new', type_, data)}{end} END"

    # --- update ---

    def _update_triggers(self) -> dict[str, str]:
        found = {}
        if self.definition.rules_on(UPDATE):
            rows = Rows()
            when = rows.nested(self._any_of(UPDATE, rows))
            rows = Rows()
            event = self._event("new", self._typed(UPDATE), rows.nested(self._update_data(rows)))
            found["update"] = f"AFTER UPDATE {self._on} WHEN {when} BEGIN {event} END"
        if self._identity is not None and self._may_remove_others and self.definition.rules_on(DELETE):
            found["moved"] = self._moved()
            found["before_update"] = self._before(is_insert=False)
        return found

    # --- delete ---

    def _delete_triggers(self) -> dict[str, str]:
        found = {}
        if self._has_notes:
            rows = Rows()
            columns = [name for name in self._identity or () if self._may_be_stored(name)]
            identity = f"=+OLD.{self._rowid}" if self.table.rowid is not None else " IS NULL"
            if columns:
                identity = f"={rows.nested(self._fingerprint(columns, rows.old))}"
            found["forget"] = (
                f"AFTER DELETE {self._on} WHEN {self._exist(self.number)}"
                f" BEGIN DELETE FROM outfeed_replaced WHERE watch={self.number} AND identity{identity}; END"
            )
        if self.definition.rules_on(DELETE):
            rows = Rows()
            when = rows.nested(self._any_of(DELETE, rows))
            rows = Rows()
            data = rows.nested(self._row_data("delete", rows.old, "OLD"))
            event = self._event("old", self._typed(DELETE), data)
            found["delete"] = f"AFTER DELETE {self._on} WHEN {when} BEGIN {event} END"
        return found
