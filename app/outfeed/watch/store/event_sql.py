"""The SQL of one event of a watch: its type, its data, its INSERT.

Runs no SQL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from outfeed.redaction import REDACTED
from outfeed.watch.definition import DELETE, INSERT, UPDATE, Definition, Rule, Value
from outfeed.watch.store.sql import (
    MAX_MAPPED_CHARS,
    Rows,
    is_cut,
    json_name,
    json_value,
    literal,
    quoted,
    short,
    size,
    text,
    tree,
)
from outfeed.watch.table import WatchedColumn, WatchedTable, is_secret

# Of each value by which the triggers recognise their own notes.
MAX_FINGERPRINT_CHARS = 500
# UUIDv7: 48 bits of milliseconds, 36 bits of the last rowid, 36 random bits. The random part stands outside of any
# subquery, which SQLite would run once for several rows. OFFSET keeps SQLite from copying the inner expressions.
ID = (
    "(SELECT printf('%08x-%04x-7%03x-8%03x-%03x',m>>16,m&65535,r>>24&4095,r>>12&4095,r&4095)"
    "FROM(SELECT CAST(julianday('now')*864e5+.5 AS INT)-210866760000000 AS m,"
    "coalesce((SELECT max(rowid)FROM event_log),0)AS r LIMIT 1 OFFSET 0))||printf('%09x',random()&68719476735)"
)
NOW = "strftime('%Y-%m-%dT%H:%M:%fZ','now')"
INTO_LOG = "INSERT INTO event_log(id,event_type,source,task_id,agent_id,data,timestamp)"


@dataclass(frozen=True, slots=True)
class EventSql:
    """A watch, its table, and the SQL of its events."""

    number: int
    definition: Definition
    table: WatchedTable
    secrets: tuple[str, ...]
    max_event_bytes: int

    # --- columns ---

    @property
    def _on(self) -> str:
        return f"ON {quoted(self.table.name)}"

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
    def _identity(self) -> tuple[str, ...] | None:
        """The columns by which a row is found again.

        Empty for the rowid, None if there is no way.
        """
        if self.table.rowid is not None:
            return ()
        if self.table.primary_key:
            return self.table.primary_key
        return next((each.names for each in self.table.uniques if each.where is None), None)

    @property
    def _rowid(self) -> str:
        return quoted(self.table.rowid or "rowid") if self.table.has_integer_key else str(self.table.rowid)

    # --- conditions ---

    def _condition(self, rule: Rule, rows: Rows, *, is_before: bool = False) -> str:
        row = rows.old if rule.on == DELETE else rows.new
        parts = [self._test(row(self._own(name)), name, values) for name, values in rule.when]
        parts += [self._test(rows.old(self._own(name)), name, values) for name, values in rule.was]
        if rule.on == UPDATE:
            changes = [self._change(name, rows) for name in self._compared(rule, is_before=is_before)]
            if rule.changed is None and self._key == () and not is_before:
                changes.append(f"OLD.{self._rowid} IS NOT NEW.{self._rowid}")
            parts.append(f"({tree(changes, ' OR ')})" if changes else "0")
        return " AND ".join(parts) or "1"

    def _own(self, name: str) -> str:
        found = self.table.column(name)
        return found.name if found else name

    def _test(self, reference: str, name: str, values: Sequence[Value]) -> str:
        column = self.table.column(name) or WatchedColumn(name)
        return f"({reference} COLLATE BINARY)IN({','.join(literal(value, column) for value in values)})"

    def _compared(self, rule: Rule, *, is_before: bool) -> list[str]:
        if rule.changed is not None:
            return [self._own(name) for name in rule.changed]
        return [each.name for each in self._columns if not (is_before and each.generated)]

    @staticmethod
    def _change(name: str, rows: Rows) -> str:
        return f"({rows.old(name)} COLLATE BINARY)IS NOT {rows.new(name)}"

    def _any_of(self, operation: str, rows: Rows) -> str:
        return tree([f"({self._condition(rule, rows)})" for rule in self.definition.rules_on(operation)], " OR ") or "0"

    def _type(self, operation: str, rows: Rows, *, is_before: bool = False) -> str:
        """Return SQL for the type by the first rule that matches, or NULL."""
        cases = ""
        for rule in self.definition.rules_on(operation):
            condition = self._condition(rule, rows, is_before=is_before)
            if condition == "1":
                return f"CASE{cases} ELSE {text(rule.type)}END" if cases else text(rule.type)
            cases += f" WHEN {condition} THEN {text(rule.type)}"
        return f"CASE{cases} END" if cases else "NULL"

    # --- data ---

    def _head(self, operation: str, row: Callable[[str], str], rowid: str) -> str:
        """Return SQL for operation, table and key, without the closing brace."""
        start = f'{{"op":"{operation}","table":{json.dumps(self.table.name, ensure_ascii=False)},"key":'
        return f"{text(start)}||{self._key_object(row, rowid)}"

    def _key_object(self, row: Callable[[str], str], rowid: str) -> str:
        if self._key is None:
            return "'null'"
        if self._key == () or self.table.has_integer_key:
            name = self._key[0] if self._key else "rowid"
            return f"{text('{' + json_name(name))}||{rowid}||'}}'"
        return self._object(self._key, row)

    def _object(self, columns: Sequence[str], row: Callable[[str], str]) -> str:
        values = ",".join(f"({text(json_name(name))},+{row(name)})" for name in columns)
        pairs = f"SELECT group_concat(k||{json_value('v')})FROM(SELECT column1 AS k,column2 AS v FROM(VALUES{values}))"
        return f"'{{'||({pairs})||'}}'"

    @staticmethod
    def _fingerprint(columns: Sequence[str], row: Callable[[str], str]) -> str:
        """Return SQL for a text that differs if the values of *columns* differ."""
        values = ",".join(f"(+{row(name)})" for name in columns)
        return (
            f"(SELECT group_concat(quote(substr(v,1,{MAX_FINGERPRINT_CHARS})))"
            f"FROM(SELECT column1 AS v FROM(VALUES{values})))"
        )

    def _row_members(self, row: Callable[[str], str], *, extra: str = "") -> str:
        """Return SQL for `,"row":{…}` and, if a value is cut, `,"cut":{…}`.

        *extra* is SQL for more members of `cut`.
        """
        plain = [each for each in self._columns if not self._is_hidden(each.name)]
        hidden = self._redacted([each for each in self._columns if self._is_hidden(each.name)])
        if not plain:
            return text(f',"row":{{{hidden[1:]}}}')
        cut = f"group_concat(CASE WHEN {is_cut('v')} THEN','||k||{size('v')} END,'')"
        cut = f"substr({cut},2)" if not extra else f"nullif(substr(coalesce({cut},'')||{extra},2),'')"
        flag = self._json_flag(plain)
        source = self._values(plain, [row])
        return (
            f"""(SELECT ',"row":{{'||group_concat(k||{json_value("v", flag)})||{text(hidden + "}")}"""
            f"""||coalesce(',"cut":{{'||{cut}||'}}','')FROM{source})"""
        )

    @staticmethod
    def _redacted(columns: Iterable[WatchedColumn]) -> str:
        return "".join(f',{json_name(each.name)}"{REDACTED}"' for each in columns)

    @staticmethod
    def _json_flag(columns: Iterable[WatchedColumn]) -> str:
        return "j" if any(each.is_json for each in columns) else ""

    def _values(self, columns: Sequence[WatchedColumn], rows: Sequence[Callable[[str], str]]) -> str:
        """Return SQL for the columns as rows.

        k is the name, v the value in the first of *rows*, o that in the second, j whether it is declared JSON.
        """
        flag = self._json_flag(columns)
        names = ["k", "v", "o"][: len(rows) + 1] + ([flag] if flag else [])
        # The sign takes affinity and collation from the value: those of the first column would count for all.
        values = [
            ",".join(
                [text(json_name(each.name)), *(f"+{row(each.name)}" for row in rows)]
                + ([str(int(each.is_json))] if flag else [])
            )
            for each in columns
        ]
        aliases = ",".join(f"column{place} AS {name}" for place, name in enumerate(names, 1))
        return f"(SELECT {aliases} FROM(VALUES({'),('.join(values)})))"

    def _was(self, rows: Rows, *, is_before: bool) -> tuple[str, str]:
        """Return SQL for the members of `was`, and for its members of `cut`.

        The latter begin with a comma.
        """
        columns = [each for each in self._columns if not (is_before and each.generated)]
        plain = [each for each in columns if not self._is_hidden(each.name)]
        parts = [
            f"CASE WHEN {self._change(each.name, rows)} THEN {text(self._redacted([each]))}ELSE''END"
            for each in columns
            if self._is_hidden(each.name)
        ]
        if self._key == () and not is_before:
            parts.append(
                f"CASE WHEN OLD.{self._rowid} IS NOT NEW.{self._rowid} THEN ',\"rowid\":'||OLD.{self._rowid} ELSE''END"
            )
        cut = "''"
        if plain:
            source = self._values(plain, [rows.new, rows.old])
            flag = self._json_flag(plain)
            changed = "(o COLLATE BINARY)IS NOT v"
            pair = f"CASE WHEN {changed} THEN','||k||{json_value('o', flag)} END"
            parts.insert(0, f"coalesce((SELECT group_concat({pair},'')FROM{source}),'')")
            cut = (
                f"coalesce((SELECT group_concat(CASE WHEN {is_cut('o')} AND {changed} THEN"
                f" ',\"was.'||substr(k,2)||{size('o')} END,'')FROM{source}),'')"
            )
        return (f"substr({tree(parts, '||')},2)" if parts else "''"), cut

    def _limited(self, head: str, rest: str) -> str:
        """Return SQL for the data, without *rest* if it would be too large."""
        return (
            f"CASE WHEN {size('h')}+{size('d')}<{self.max_event_bytes} THEN h||d ELSE h END||'}}'"
            f"FROM(SELECT {head} AS h,{rest} AS d LIMIT 1 OFFSET 0)"
        )

    # --- events ---

    def _mapped(self, rows: Rows, row: Callable[[str], str], column: str | None, fallback: str = "NULL") -> str:
        if column is None:
            return fallback
        value = short(row(self._own(column)))
        return value if fallback == "NULL" else f"ifnull({value},{fallback})"

    @property
    def _source(self) -> str:
        return text(self.definition.source or self.table.name[:MAX_MAPPED_CHARS])

    def _who(self, make: Callable[[], Rows], side: str, wrap: Callable[[Rows, str], str]) -> list[str]:
        """Return SQL for source, task and agent; *side* is `old` or `new`."""
        found = []
        mapped = (
            (self.definition.source_column, self._source), (self.definition.task_id, "NULL"),
            (self.definition.agent_id, "NULL"),
        )  # fmt: skip
        for column, fallback in mapped:
            rows = make()
            expression = self._mapped(rows, getattr(rows, side), column, fallback)
            found.append(expression if column is None else wrap(rows, expression))
        return found

    def _event(self, side: str, type_: str, data: str) -> str:
        who = self._who(Rows, side, lambda rows, expression: rows.nested(expression))
        return f"{INTO_LOG}VALUES({ID},{type_},{','.join(who)},{data},{NOW});"

    def row_events(self, existing_type: str | None) -> str:
        rows = Rows(new="r")
        type_ = text(existing_type) if existing_type else self._type(INSERT, rows)
        who = self._who(lambda: rows, "new", lambda _, expression: expression)
        head = self._head("read" if existing_type else "insert", rows.new, f"r.{self._rowid}")
        data = f"(SELECT {self._limited(head, self._row_members(rows.new))})"
        return (
            f"{INTO_LOG}SELECT {ID},{type_},{','.join(who)},{data},{NOW} FROM {quoted(self.table.name)} AS r"
            f" WHERE ({self._any_of(INSERT, rows)})"
        )

    def _typed(self, operation: str) -> str:
        """Return SQL for the type, given that a rule matches."""
        rules = self.definition.rules_on(operation)
        rows = Rows()
        cases = "".join(f" WHEN {self._condition(rule, rows)} THEN {text(rule.type)}" for rule in rules[:-1])
        last = text(rules[-1].type) if rules else "NULL"
        return rows.nested(f"CASE{cases} ELSE {last} END") if cases else last
