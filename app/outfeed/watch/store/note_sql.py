"""The SQL of notes: rows that a REPLACE may remove. Runs no SQL.

REPLACE removes rows without a DELETE trigger. A BEFORE trigger notes in `outfeed_replaced` each row that has the key or
a UNIQUE value of the new row, and an AFTER trigger reads the notes of its new row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from outfeed.watch.definition import DELETE, INSERT, UPDATE
from outfeed.watch.store.data_sql import SEPARATOR
from outfeed.watch.store.event_sql import ID, INTO_LOG, NOW, EventSql
from outfeed.watch.store.sql import Rows, quoted, tree
from outfeed.watch.table import UniqueIndex, folded

# Notes in the file at most: those of ignored inserts and of UPSERTs stay until a retention run.
# The triggers delete older ones after as many notes as TRIM_EVERY says, a power of two.
MAX_NOTES, TRIM_EVERY = 1000, 64
WHO = "source,task_id,agent_id"


@dataclass(frozen=True, slots=True)
class NoteSql(EventSql):
    """The statements that write, claim and report notes."""

    @property
    def _has_notes(self) -> bool:
        """Whether a REPLACE can remove a row that an event must tell of."""
        needed = (
            self.definition.rules
            if not self._is_noted_by_rowid
            else (self.definition.rules_on(INSERT) + self.definition.rules_on(UPDATE))
        )
        return self._identity is not None and bool(needed)

    @property
    def _is_noted_by_rowid(self) -> bool:
        """Whether a REPLACE can remove only the row that has the new row's rowid."""
        return self._is_keyed_by_rowid and not self.table.uniques

    @property
    def _is_keyed_by_rowid(self) -> bool:
        return self.table.rowid is not None and (self.table.has_integer_key or not self.table.primary_key)

    def _exist(self, number: int) -> str:
        return f"EXISTS(SELECT 1 FROM outfeed_replaced WHERE watch={number})"

    def _of_note(self) -> str:
        """Return the FROM clause for the note of the replaced row."""
        if self._is_noted_by_rowid:
            return f" FROM outfeed_replaced WHERE watch={self.number} AND identity=+NEW.{self._rowid}"
        return f" FROM outfeed_replaced WHERE watch={-self.number} AND is_same"

    def _noted(self, column: str) -> str:
        return f"(SELECT {column}{self._of_note()})"

    def _taken(self) -> str:
        is_same = ""
        if self._is_keyed_by_rowid:
            # Before an INSERT, -1 is the rowid of a row that names none. Such a row doesn't replace the row -1.
            is_same = f",is_same=identity=(SELECT NEW.{self._rowid})"
        return (
            f"AFTER INSERT {self._on} WHEN {self._exist(self.number)} OR {self._exist(-self.number)}"
            f" BEGIN {self._claim(is_same)}{self._removed()} END"
        )

    def _moved(self) -> str:
        return (
            f"AFTER UPDATE OF {self._unique_list()} {self._on} WHEN {self._exist(self.number)}"
            f" BEGIN {self._claim()}{self._removed()} END"
        )

    def _claim(self, is_same: str = "") -> str:
        """Return the statements that mark the notes of the new row, and no others."""
        return (
            f"DELETE FROM outfeed_replaced WHERE watch={-self.number};"
            f"UPDATE outfeed_replaced SET watch={-self.number}{is_same} WHERE {self._of_new(Rows())};"
        )

    def _of_new(self, rows: Rows) -> str:
        """Return the condition for notes with key and UNIQUE values of NEW."""
        if self._is_noted_by_rowid:
            return f"watch={self.number} AND identity=+NEW.{self._rowid}"
        key = ""
        if self.table.rowid is not None:
            # Before an INSERT, -1 is the rowid of a row that names none.
            key = f" AND(new_key=+NEW.{self._rowid} OR new_key=-1)"
        return f"watch={self.number} AND new_uniques={self._new_uniques(rows)}{key}"

    def _new_uniques(self, rows: Rows) -> str:
        columns = [name for each in self.table.uniques for name in each.names]
        if self.table.rowid is None:
            columns = [*(self._identity or ()), *columns]
        columns = [name for name in dict.fromkeys(columns) if self._may_be_stored(name)]
        return rows.nested(self._fingerprint(columns, rows.new)) if columns else "''"

    def _removed(self) -> str:
        """Return the statement that reports removed rows of claimed notes.

        A row with the key of the new row was replaced, not removed.
        """
        if not self._may_remove_others or not self.definition.rules_on(DELETE):
            return ""
        is_reported = "" if self._constant_type else " AND deleted IS NOT NULL"
        return (
            f"{INTO_LOG}SELECT {ID},{self._constant_type or 'deleted'},{self._constant_who or WHO},data,{NOW}"
            f" FROM outfeed_replaced n WHERE watch={-self.number} AND NOT is_same{is_reported}"
            f"{self._is_gone()};"
        )

    @property
    def _constant_type(self) -> str:
        """SQL for the type of a removed row's event, empty if it varies."""
        type_ = self._type(DELETE, Rows())
        return "" if type_.startswith("CASE") else type_

    @property
    def _constant_who(self) -> str:
        """SQL for source, task and agent of a removed row, empty if they vary."""
        depends = self.definition.source_column or self.definition.task_id or self.definition.agent_id
        return "" if depends else f"{self._source},NULL,NULL"

    @property
    def _may_remove_others(self) -> bool:
        """Whether a REPLACE can remove a row with another key."""
        return bool(self.table.uniques) and not (self.table.rowid is None and len(self.table.uniques) == 1)

    def _is_gone(self) -> str:
        name = quoted(self.table.name)
        if self.table.rowid is not None:
            there = f"EXISTS(SELECT 1 FROM {name} r WHERE r.{self._rowid}=n.identity)"
            return f" AND(NOT {there} OR n.identity=(SELECT NEW.{self._rowid}))"
        rows = Rows(old="r")
        partial = [each for each in self.table.uniques if each.where is not None]
        if not partial or not all(map(self._may_be_stored, self._identity or ())):
            return ""
        identity = self._fingerprint(self._identity or (), rows.old)
        there = " UNION ALL ".join(self._lookup(each, rows, identity, "") for each in partial)
        return f" AND {rows.nested(f'n.identity NOT IN({there})')}"

    def _lookup(self, unique: UniqueIndex, rows: Rows, result: str, exclusion: str) -> str:
        # Without r before it, a column that is gone is that of the source of NEW: NULL.
        conditions = [
            f"{quoted(name)} COLLATE {quoted(collation)}={rows.new(name)}" for name, collation in unique.columns
        ]
        where = f" AND({unique.where})" if unique.where else ""
        return f"SELECT {result} FROM {quoted(self.table.name)} r WHERE {' AND '.join(conditions)}{where}{exclusion}"

    def _lookups(self, rows: Rows, *, is_insert: bool) -> list[str]:
        """Return a SELECT for each constraint, of the row that NEW conflicts with."""
        if self.table.rowid is not None:
            result = f"r.{self._rowid}"
            exclusion = "" if is_insert else f" AND r.{self._rowid}<>OLD.{self._rowid}"
            name = quoted(self.table.name)
            by_rowid = [f"SELECT {result} FROM {name} r WHERE r.{self._rowid}=NEW.{self._rowid}{exclusion}"]
        else:
            columns = self._identity or ()
            result = ",".join(f"r.{quoted(name)}" for name in columns)
            same = " AND ".join(f"r.{quoted(name)} IS OLD.{quoted(name)}" for name in columns)
            exclusion = "" if is_insert else f" AND NOT({same})"
            by_rowid = []
        by_unique = [self._lookup(each, rows, result, exclusion) for each in self.table.uniques]
        return by_rowid + by_unique

    def _is_found(self, rows: Rows, *, is_insert: bool) -> str:
        """Return the condition that o is one of those rows."""
        lookups = self._lookups(rows, is_insert=is_insert)
        identity = self._identity_of("o")
        if self.table.rowid is None:
            return f"{identity} IN({' UNION ALL '.join(lookups)})"
        # No IN: SQLite would make a temporary table for it.
        return " OR ".join(f"{identity}=({lookup})" for lookup in lookups)

    def _before(self, *, is_insert: bool) -> str:
        """Return the trigger that notes the rows that the statement may remove."""
        defaults = self.table
        rows = Rows(old="r", defaults=defaults)
        if is_insert:
            found = rows.nested(f"EXISTS({' UNION ALL '.join(self._lookups(rows, is_insert=True))})")
        else:
            rows = Rows()
            found = rows.nested(tree([self._change(name, rows) for name in self._unique_names], " OR "))
        on = f"INSERT {self._on}" if is_insert else f"UPDATE OF {self._unique_list()} {self._on}"
        # Not at each note: to find that nothing is to be deleted takes as long as a note.
        oldest = f"SELECT CASE max(rowid)&{TRIM_EVERY - 1} WHEN 0 THEN max(rowid)-{MAX_NOTES} END FROM outfeed_replaced"
        trim = f"DELETE FROM outfeed_replaced WHERE rowid<=({oldest});"
        clear = f"DELETE FROM outfeed_replaced WHERE {self._of_new(Rows(defaults=defaults))};"
        return (
            f"BEFORE {on} WHEN {found} OR {self._exist(self.number)}"
            f" BEGIN {clear}{trim}{self._note(is_insert=is_insert)} END"
        )

    def _note(self, *, is_insert: bool) -> str:
        of_row = self._of_row()

        def read(rows: Rows, expression: str) -> str:
            return rows.nested(f"{expression} FROM {quoted(self.table.name)} r WHERE {of_row}")

        def noted(make: Callable[[Rows], str]) -> str:
            rows = Rows(old="r", defaults=self.table)
            expression = make(rows)
            return read(rows, expression) if rows.are_named or "r." in expression else expression

        values = {"watch": str(self.number), "identity": self._identity_value(noted)}
        if not self._is_noted_by_rowid:
            # In a SELECT of its own: SQLite before 3.35 takes the source of NEW beside it for the row.
            values["new_key"] = "NULL" if self.table.rowid is None else f"(SELECT NEW.{self._rowid})"
            values["new_uniques"] = self._new_uniques(Rows(defaults=self.table))
            values["is_same"] = noted(self._is_same) if is_insert else "0"
        if is_insert and self.definition.rules_on(UPDATE):
            values["updated"] = noted(lambda rows: self._type_of_match(UPDATE, rows, is_before=True))
            values["was"] = noted(self._was_if_updated)
        if self._may_remove_others and self.definition.rules_on(DELETE):
            if not self._constant_type:
                values["deleted"] = noted(lambda rows: self._type(DELETE, rows))
            values["data"] = noted(self._data_if_removed if is_insert else self._deleted_data)
            if not self._constant_who:
                who = self._who(lambda: Rows(old="r"), "old", read)
                values |= dict(zip(WHO.split(","), who, strict=True))
        rows = Rows(defaults=self.table)
        found = self._is_found(rows, is_insert=is_insert)
        return (
            f"INSERT INTO outfeed_replaced({','.join(values)})SELECT {','.join(values.values())}"
            f" FROM {rows.source_of_new()}{quoted(self.table.name)} o WHERE {found};"
        )

    def _was_if_updated(self, rows: Rows) -> str:
        """Return SQL for the column `was` of a note.

        It is NULL if no update rule matches the replacement.
        """
        conditions = [] if self._is_noted_by_rowid else [self._is_same(rows)]
        was = f"(SELECT {self._note_of_was(rows)})"
        if self._reports_each_change:
            was = f"nullif({was},{SEPARATOR})"
        else:
            conditions.append(f"({self._any_of(UPDATE, rows, is_before=True)})")
        return f"CASE WHEN {' AND '.join(conditions)} THEN {was} END" if conditions else was

    @property
    def _reports_each_change(self) -> bool:
        """Whether an update has an event exactly if `was` has a member."""
        (rule, *others) = self.definition.rules_on(UPDATE)
        return not (others or rule.when or rule.was) and rule.changed is None

    def _data_if_removed(self, rows: Rows) -> str:
        """Return SQL for the column `data` of a note.

        It is NULL if the noted row has the key of the new row.
        """
        unset = f" OR NEW.{self._rowid}=-1" if self._is_keyed_by_rowid else ""
        return f"CASE WHEN NOT {self._is_same(rows)}{unset} THEN {self._deleted_data(rows)} END"

    def _deleted_data(self, rows: Rows) -> str:
        return f"(SELECT {self._row_data(DELETE, rows.old, 'r')})"

    def _of_row(self) -> str:
        """Return the condition that r is the row o."""
        if self.table.rowid is not None:
            return f"r.{self._rowid}=o.{self._rowid}"
        return " AND ".join(f"r.{quoted(name)} IS o.{quoted(name)}" for name in self._identity or ())

    def _identity_of(self, alias: str) -> str:
        if self.table.rowid is not None:
            return f"{alias}.{self._rowid}"
        columns = [f"{alias}.{quoted(name)}" for name in self._identity or ()]
        return columns[0] if len(columns) == 1 else f"({','.join(columns)})"

    def _identity_value(self, noted: Callable[[Callable[[Rows], str]], str]) -> str:
        if self.table.rowid is not None:
            return f"o.{self._rowid}"
        columns = [name for name in self._identity or () if self._may_be_stored(name)]
        return noted(lambda rows: self._fingerprint(columns, rows.old)) if columns else "NULL"

    def _is_same(self, rows: Rows) -> str:
        """Return the condition that the noted row has the key of the new row."""
        if self._is_keyed_by_rowid:
            return f"r.{self._rowid}=NEW.{self._rowid}"
        if not self.table.primary_key:
            return "0"
        key = next((each for each in self.table.uniques if set(each.names) == set(self.table.primary_key)), None)
        collations = dict(key.columns) if key else {}
        parts = [
            f"{rows.old(name)} COLLATE {quoted(collations.get(name, 'BINARY'))}={rows.new(name)}"
            for name in self.table.primary_key
        ]
        return f"ifnull({' AND '.join(parts)},0)"

    def _unique_list(self) -> str:
        return ",".join(map(quoted, self._unique_names))

    @property
    def _unique_names(self) -> list[str]:
        """The columns that decide which rows an UPDATE OR REPLACE removes."""
        names = [*self.table.primary_key, *(name for each in self.table.uniques for name in each.names)]
        conditions = " ".join(folded(each.where) for each in self.table.uniques if each.where)
        names += [name for name in self.table.names if folded(name) in conditions]
        return list(dict.fromkeys(names))
