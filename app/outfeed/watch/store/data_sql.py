"""The SQL of the data of one event: key, row, old values. Runs no SQL.

The columns of a row are the rows of one VALUES, so the SQL that turns a value into JSON stands once in a trigger and
runs once for each value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from outfeed.redaction import REDACTED
from outfeed.watch.definition import Definition
from outfeed.watch.store.sql import Rows, cut_size, json_name, json_value, quoted, size, text, tree
from outfeed.watch.table import WatchedColumn, WatchedTable, is_secret

# Of each value by which the triggers recognise their own notes.
MAX_FINGERPRINT_CHARS = 500
# The member that has a value. A value of the key is in the row, too. 0 is an old value that has not changed.
IN_ROW, IN_KEY, IN_WAS = 1, 2, 3
# Stands in a note between members of `was` and members of `cut`. JSON does not contain it.
SEPARATOR = "char(1)"
# Keeps SQLite from copying the inner expressions to each place that names them.
ONCE = " LIMIT 1 OFFSET 0"

Reference = Callable[[str], str]


class Entry(NamedTuple):
    """A value of an event. *value* and *place* are SQL."""

    column: WatchedColumn
    value: str
    place: str


@dataclass(frozen=True, slots=True)
class DataSql:
    """A watch, its table, and the SQL of its events' data."""

    number: int
    definition: Definition
    table: WatchedTable
    secrets: tuple[str, ...]
    max_event_bytes: int

    # --- columns ---

    @property
    def _columns(self) -> list[WatchedColumn]:
        """The columns that an event has.

        Virtual ones are omitted: SQLite computes them when they are read, and that may fail.
        """
        return [
            each for each in self.table.columns if self.definition.selects(each.name) and each.generated != "virtual"
        ]

    def _is_hidden(self, column: str) -> bool:
        return is_secret(column, self.secrets) and not self.definition.shows(column)

    def _may_be_stored(self, column: str) -> bool:
        return self.definition.selects(column) and not self._is_hidden(column)

    @property
    def _key(self) -> tuple[str, ...] | None:
        """The columns of `key`; empty for the rowid, None if `key` is null."""
        if self.definition.no_key:
            return None
        if self.table.primary_key:
            return self.table.primary_key if all(map(self._may_be_stored, self.table.primary_key)) else None
        return () if self.table.rowid is not None else None

    @property
    def _key_entries(self) -> tuple[str, ...]:
        """The columns of `key` that are read together with those of `row`."""
        return () if self.table.has_integer_key else self._key or ()

    @property
    def _rowid(self) -> str:
        return quoted(self.table.rowid or "rowid") if self.table.has_integer_key else str(self.table.rowid)

    @staticmethod
    def _change(name: str, rows: Rows) -> str:
        return f"({rows.old(name)} COLLATE BINARY)IS NOT {rows.new(name)}"

    @staticmethod
    def _fingerprint(columns: Sequence[str], row: Reference) -> str:
        """Return SQL for a text that differs if the values of *columns* differ."""
        values = ",".join(f"(+{row(name)})" for name in columns)
        return f"(SELECT group_concat(quote(substr(column1,1,{MAX_FINGERPRINT_CHARS})))FROM(VALUES{values}))"

    # --- data ---

    def _row_data(self, operation: str, row: Reference, alias: str) -> str:
        """Return SQL for the data of an event that has one row."""
        entries = self._row_entries(row)
        head = f"{self._start(operation)}||{self._key_object(alias)}"
        if not entries:
            return self._limited(head, self._row_member(), ONCE)
        return self._limited(head, f"{self._row_member(_joined())}||{_cut_member(_joined('c'))}", _read(entries))

    def _update_data(self, rows: Rows) -> str:
        """Return SQL for the data of an update."""
        entries, source = self._row_entries(rows.new), ONCE
        was = self._old_members(rows, self._columns, _joined("m", f"f={IN_WAS}"))
        row, cut = self._row_member(), ""
        if entries:
            entries += self._old_entries(rows, self._columns)
            row, cut = self._row_member(_joined("m", f"f<{IN_WAS}")), f"||{_cut_member(_joined('c'))}"
            source = _read(entries)
        head = f"{self._start('update')}||{self._key_object('NEW')}"
        return self._limited(head, f"""',"was":{{'||{was}||'}}'||{row}{cut}""", source)

    def _insert_data(self, row: Reference, note: str) -> str:
        """Return SQL for the data of an insert, or of a noted update.

        *note* is SQL for the column `was` of the note.
        """
        entries = self._row_entries(row)
        operation = "'||CASE WHEN w IS NULL THEN'insert'ELSE'update'END||'"
        start = self._start("?").replace("?", operation, 1)
        was = f"""ifnull(',"was":{{'||substr(w,1,instr(w,{SEPARATOR})-1)||'}}','')"""
        if not entries:
            head = f"{start}||{self._key_object('NEW')}"
            return self._limited(head, f"{was}||{self._row_member()}", f" FROM(SELECT {note}w){ONCE}")
        cut = _cut_member(f"nullif(substr(ifnull(','||c,'')||ifnull(substr(w,instr(w,{SEPARATOR})+1),''),2),'')")
        read = f"SELECT {note}w,{self._key_object('NEW')}q,{_joined()}r,{_joined('c')}c{_read(entries)}"
        return self._limited(f"{start}||q", f"{was}||{self._row_member('r')}||{cut}", f" FROM({read}){ONCE}")

    def _note_of_was(self, rows: Rows) -> str:
        """Return SQL for the column `was` of a note.

        It is members of `was`, SEPARATOR, and members of `cut` with a comma before each.
        """
        columns = [each for each in self._columns if not each.generated]
        entries = self._old_entries(rows, columns)
        was = self._old_members(rows, columns, _joined(), has_rowid=False)
        return (
            f"{was}||{SEPARATOR}||ifnull(','||{_joined('c')},''){_read(entries)}" if entries else f"{was}||{SEPARATOR}"
        )

    # --- parts ---

    def _start(self, operation: str) -> str:
        return text(f'{{"op":"{operation}","table":{json.dumps(self.table.name, ensure_ascii=False)},"key":')

    def _key_object(self, alias: str) -> str:
        if self._key is None:
            return "'null'"
        if self._key_entries:
            return f"'{{'||{_joined('m', f'f={IN_KEY}')}||'}}'"
        name = self._key[0] if self._key else "rowid"
        return f"{text('{' + json_name(name))}||{alias}.{self._rowid}||'}}'"

    def _row_entries(self, row: Reference) -> list[Entry]:
        return [
            Entry(each, row(each.name), str(IN_KEY if each.name in self._key_entries else IN_ROW))
            for each in self._columns
            if not self._is_hidden(each.name)
        ]

    def _old_entries(self, rows: Rows, columns: Iterable[WatchedColumn]) -> list[Entry]:
        return [
            Entry(each, rows.old(each.name), f"({self._change(each.name, rows)})*{IN_WAS}")
            for each in columns
            if not self._is_hidden(each.name)
        ]

    def _old_members(
        self, rows: Rows, columns: Iterable[WatchedColumn], members: str, *, has_rowid: bool = True
    ) -> str:
        """Return SQL for the members of `was`.

        *members* is SQL for those with shown values.
        """
        parts = [
            f"CASE WHEN {self._change(each.name, rows)} THEN {text(self._redacted([each]))}ELSE''END"
            for each in columns
            if self._is_hidden(each.name)
        ]
        if self._key == () and has_rowid:
            rowid = f"OLD.{self._rowid}"
            parts.append(f"CASE WHEN {rowid} IS NOT NEW.{self._rowid} THEN',\"rowid\":'||{rowid} ELSE''END")
        if any(not self._is_hidden(each.name) for each in columns):
            if not parts:
                return f"ifnull({members},'')"
            parts.insert(0, f"ifnull(','||{members},'')")
        return f"substr({tree(parts, '||')},2)" if parts else "''"

    def _row_member(self, members: str = "") -> str:
        """Return SQL for `,"row":{…}`.

        *members* is SQL for those with shown values.
        """
        hidden = self._redacted([each for each in self._columns if self._is_hidden(each.name)])
        if not members:
            return text(f',"row":{{{hidden[1:]}}}')
        return f"""',"row":{{'||{members}||{text(hidden + "}")}"""

    @staticmethod
    def _redacted(columns: Iterable[WatchedColumn]) -> str:
        return "".join(f',{json_name(each.name)}"{REDACTED}"' for each in columns)

    def _limited(self, head: str, members: str, source: str) -> str:
        """Return SQL for the data, without *members* if it would be too large."""
        return (
            f"CASE WHEN {size('h')}+{size('d')}<{self.max_event_bytes} THEN h||d ELSE h END||'}}'"
            f"FROM(SELECT {head} h,{members} d{source})"
        )


def _joined(name: str = "m", condition: str = "") -> str:
    """Return SQL for the members of the entries that fulfil *condition*."""
    return f"group_concat(CASE WHEN {condition} THEN {name} END)" if condition else f"group_concat({name})"


def _cut_member(members: str) -> str:
    return f"""ifnull(',"cut":{{'||{members}||'}}','')"""


def _read(entries: Sequence[Entry]) -> str:
    """Return a FROM clause that reads the values as rows.

    m is the member of `row` or `was`, c the member of `cut` if the value is shortened, f the place. The sign takes
    affinity and collation from a value: those of the first column would count for all. LIMIT keeps SQLite from
    computing m at each place that names it.
    """
    has_json = any(each.column.is_json for each in entries)
    has_places = any(each.place != str(IN_ROW) for each in entries)
    has_old = any(each.place.endswith(f"*{IN_WAS}") for each in entries)
    columns = [("k", [text(json_name(each.column.name)) for each in entries])]
    columns.append(("v", [f"+{each.value}" for each in entries]))
    if has_places:
        columns.append(("f", [each.place for each in entries]))
    if has_json:
        columns.append(("j", [str(int(each.column.is_json)) for each in entries]))
    aliases = ",".join(f"column{number} {name}" for number, (name, _) in enumerate(columns, 1))
    values = ",".join(f"({','.join(row)})" for row in zip(*(values for _, values in columns), strict=True))
    name_of_cut = f"CASE f WHEN {IN_WAS} THEN'\"was.'||substr(k,2)ELSE k END" if has_old else "k"
    return (
        f" FROM(SELECT {'f,' if has_places else ''}k||{json_value('v', 'j' if has_json else '')} m,"
        f"{cut_size('v', name_of_cut)} c FROM(SELECT {aliases} FROM(VALUES{values})){' WHERE f' if has_old else ''}"
        f"{' LIMIT -1' if has_places else ''})"
    )
