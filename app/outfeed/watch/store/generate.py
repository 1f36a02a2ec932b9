"""The triggers of a watch, as texts: a function of its definition and its table's schema. Runs no SQL.

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

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from outfeed.redaction import REDACTED
from outfeed.watch.definition import DELETE, INSERT, UPDATE, Definition, Rule, Value, fitted
from outfeed.watch.table import (
    INTEGER,
    NUMERIC,
    REAL,
    TEXT,
    UniqueIndex,
    WatchedColumn,
    WatchedTable,
    folded,
    is_secret,
)

# The version of the texts. A process rewrites triggers only of its own version or an older one.
GENERATOR = 1
PREFIX = "outfeed_watch_"
MAX_TEXT_BYTES, SHOWN_CHARS, MAX_BLOB_BYTES = 4096, 200, 64
MAX_MAPPED_CHARS = 200
# Of each value by which the triggers recognise their own notes.
MAX_FINGERPRINT_CHARS = 500
# Of a nested JSON value: containers. Depth can't be asked for, and no value with fewer containers is deeper.
MAX_CONTAINERS = 500
# Notes in the file at most: those of ignored inserts and of UPSERTs stay until a retention run.
MAX_NOTES = 1000
_NAME = re.compile(rf"{PREFIX}(\d+)_[a-z_]+")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_TEXT_LITERAL = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")

# UUIDv7: 48 bits of milliseconds, 36 bits of the last rowid, 36 random bits. The random part stands outside of any
# subquery, which SQLite would run once for several rows. OFFSET keeps SQLite from copying the inner expressions.
_ID = (
    "(SELECT printf('%08x-%04x-7%03x-8%03x-%03x',m>>16,m&65535,r>>24&4095,r>>12&4095,r&4095)"
    "FROM(SELECT CAST(julianday('now')*864e5+.5 AS INT)-210866760000000 AS m,"
    "coalesce((SELECT max(rowid)FROM event_log),0)AS r LIMIT 1 OFFSET 0))||printf('%09x',random()&68719476735)"
)
_NOW = "strftime('%Y-%m-%dT%H:%M:%fZ','now')"
_INTO_LOG = "INSERT INTO event_log(id,event_type,source,task_id,agent_id,data,timestamp)"


def triggers(
    number: int, definition: Definition, table: WatchedTable, *, secrets: Iterable[str], max_event_bytes: int
) -> dict[str, str]:
    """Return the triggers of watch *number*, name to text, in the order in which they must be created.

    *secrets* are the words that hide a column. The texts are as `sqlite_master` has them after their creation. Columns
    that the definition names and the table lacks are passed over (`definition.fitted`).
    """
    return _Watch(number, fitted(definition, table), table, tuple(secrets), max_event_bytes).triggers()


def row_events(
    number: int,
    definition: Definition,
    table: WatchedTable,
    *,
    secrets: Iterable[str],
    max_event_bytes: int,
    existing_type: str | None,
) -> str:
    """Return the statement that logs rows of the table for which an insert rule matches.

    With *existing_type*, each event has that type and the operation `read`. Without it, each event is that of an
    insert. The statement ends within its WHERE clause: the caller appends conditions on the alias `r`.
    """
    return _Watch(number, fitted(definition, table), table, tuple(secrets), max_event_bytes).row_events(existing_type)


def watch_of(trigger: str) -> int | None:
    """Return the number of the watch to which a trigger of that name belongs, None if it belongs to none."""
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


# --- SQL --------------------------------------------------------------------------------------------------------------


def quoted(name: str) -> str:
    """Return *name* as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return *value* as a literal."""
    return "'" + value.replace("'", "''") + "'"


def _tree(parts: Sequence[str], operator: str) -> str:
    """Join *parts* as a balanced tree: SQLite limits the depth of an expression to 1,000."""
    if len(parts) <= 8:
        return operator.join(parts)
    half = len(parts) // 2
    return f"({_tree(parts[:half], operator)}){operator}({_tree(parts[half:], operator)})"


def json_name(name: str) -> str:
    return json.dumps(name, ensure_ascii=False) + ":"


def _literal(value: Value, column: WatchedColumn) -> str:
    """Return *value* as SQLite stores it in *column*: no affinity applies to `NEW.x` in a trigger."""
    stored = _stored(value, column.affinity)
    return text(stored) if isinstance(stored, str) else repr(stored)


def _stored(value: Value, affinity: str) -> Value:
    if affinity == TEXT and not isinstance(value, str):
        return _as_text(value)
    if affinity in (INTEGER, NUMERIC, REAL) and isinstance(value, str) and _NUMBER.fullmatch(value):
        number = float(value)
        exact = value.strip().lstrip("+-").isdigit() and -(2**63) <= int(value) < 2**63
        return int(value) if exact else number
    return value


def _as_text(value: float) -> str:
    """Return a number as SQLite turns it into text."""
    if isinstance(value, int):
        return str(value)
    mantissa, e, exponent = f"{value:.15g}".partition("e")
    return mantissa + ("" if "." in mantissa else ".0") + e + exponent


def _value(v: str, json_flag: str = "") -> str:
    """Return SQL for the JSON of the value *v*."""
    cut = (
        f"CASE WHEN length(CAST({v} AS BLOB))>{MAX_TEXT_BYTES} THEN"
        f" substr(CAST(substr(CAST({v} AS BLOB),1,{4 * SHOWN_CHARS})AS TEXT),1,{SHOWN_CHARS})||'…'ELSE {v} END"
    )
    as_text = f"json_quote({cut})"
    if json_flag:
        # json_valid() stops at NUL, and a value that is cut is no JSON.
        containers = f"length({v})-length(replace(replace({v},'{{',''),'[',''))"
        nested = (
            f"{json_flag} AND length(CAST({v} AS BLOB))<={MAX_TEXT_BYTES} AND json_valid({v})AND instr({v},char(0))=0"
            f" AND {containers}<={MAX_CONTAINERS}"
        )
        as_text = f"CASE WHEN {nested} THEN {v} ELSE {as_text} END"
    infinite = f"CASE WHEN {v}>0 THEN'\"Infinity\"'ELSE'\"-Infinity\"'END"
    return (
        f"CASE typeof({v})WHEN'text'THEN {as_text} WHEN'integer'THEN {v}"
        f" WHEN'real'THEN CASE WHEN {v}*0 IS NULL THEN {infinite} ELSE quote({v})END"
        f" WHEN'blob'THEN CASE WHEN length({v})>{MAX_BLOB_BYTES} THEN'null'ELSE'\"'||hex({v})||'\"'END ELSE'null'END"
    )


def _is_cut(v: str) -> str:
    limit = f"CASE typeof({v})WHEN'text'THEN {MAX_TEXT_BYTES} WHEN'blob'THEN {MAX_BLOB_BYTES} END"
    return f"length(CAST({v} AS BLOB))>{limit}"


def _size(v: str) -> str:
    return f"length(CAST({v} AS BLOB))"


def _short(v: str) -> str:
    """Return SQL for *v* as text of 200 characters at most, NULL if it is empty."""
    blob = f"substr(hex(substr({v},1,{MAX_MAPPED_CHARS // 2})),1,{MAX_MAPPED_CHARS})"
    plain = f"substr(CAST(substr(CAST({v} AS BLOB),1,{4 * MAX_MAPPED_CHARS})AS TEXT),1,{MAX_MAPPED_CHARS})"
    return f"nullif(CASE typeof({v})WHEN'blob'THEN {blob} ELSE {plain} END,'')"


class _Rows:
    """The rows that an expression reads, and which of their columns it names."""

    def __init__(self, *, old: str = "OLD", new: str = "NEW", defaults: WatchedTable | None = None) -> None:
        self._aliases = {"old": old, "new": new}
        self._used: dict[str, dict[str, None]] = {"old": {}, "new": {}}
        self._defaults = defaults

    def old(self, column: str) -> str:
        return self._reference("old", column)

    def new(self, column: str) -> str:
        """Return the column of the new row. A NULL in a NOT NULL column reads as its default, which REPLACE stores."""
        reference = self._reference("new", column)
        found = self._defaults.column(column) if self._defaults else None
        if found is None or not found.is_not_null or found.default is None:
            return reference
        return f"ifnull({reference},{_default(found)})"

    def _reference(self, row: str, column: str) -> str:
        self._used[row][column] = None
        return f"{self._aliases[row]}.{quoted(column)}"

    def source_of_new(self) -> str:
        """Return what offers NULL for the columns of the new row, with a comma for what follows in the FROM."""
        nulls = ",".join(f"NULL AS {quoted(column)}" for column in self._used["new"])
        return f"(SELECT {nulls})AS {self._aliases['new']}," if nulls else ""

    def nested(self, expression: str) -> str:
        """Return *expression* so that it doesn't fail without its columns.

        One source in each FROM: SQLite makes a temporary table of a second one.
        """
        result = f"(SELECT {expression})"
        for row, used in self._used.items():
            if used:
                nulls = ",".join(f"NULL AS {quoted(column)}" for column in used)
                result = f"(SELECT{result}FROM(SELECT {nulls})AS {self._aliases[row]})"
        return result


def _default(column: WatchedColumn) -> str:
    default = column.default or "NULL"
    if _TEXT_LITERAL.fullmatch(default):
        value = default[1:-1].replace(default[0] * 2, default[0])
        return _literal(value, column)
    if _NUMBER.fullmatch(default):
        number = float(default)
        return _literal(int(default) if default.strip().lstrip("+-").isdigit() else number, column)
    return f"({default})"


# --- a watch ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Watch:
    number: int
    definition: Definition
    table: WatchedTable
    secrets: tuple[str, ...]
    max_event_bytes: int

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

    # --- columns ---

    @property
    def _on(self) -> str:
        return f"ON {quoted(self.table.name)}"

    @property
    def _columns(self) -> list[WatchedColumn]:
        """The columns that an event has; virtual ones are computed only when they are read, and may fail."""
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
        """The columns by which a row is found again; empty for the rowid, None if there is no way."""
        if self.table.rowid is not None:
            return ()
        if self.table.primary_key:
            return self.table.primary_key
        return next((each.names for each in self.table.uniques if each.where is None), None)

    @property
    def _rowid(self) -> str:
        return quoted(self.table.rowid or "rowid") if self.table.has_integer_key else str(self.table.rowid)

    # --- conditions ---

    def _condition(self, rule: Rule, rows: _Rows, *, is_before: bool = False) -> str:
        row = rows.old if rule.on == DELETE else rows.new
        parts = [self._test(row(self._own(name)), name, values) for name, values in rule.when]
        parts += [self._test(rows.old(self._own(name)), name, values) for name, values in rule.was]
        if rule.on == UPDATE:
            changes = [self._change(name, rows) for name in self._compared(rule, is_before=is_before)]
            if rule.changed is None and self._key == () and not is_before:
                changes.append(f"OLD.{self._rowid} IS NOT NEW.{self._rowid}")
            parts.append(f"({_tree(changes, ' OR ')})" if changes else "0")
        return " AND ".join(parts) or "1"

    def _own(self, name: str) -> str:
        found = self.table.column(name)
        return found.name if found else name

    def _test(self, reference: str, name: str, values: Sequence[Value]) -> str:
        column = self.table.column(name) or WatchedColumn(name)
        return f"({reference} COLLATE BINARY)IN({','.join(_literal(value, column) for value in values)})"

    def _compared(self, rule: Rule, *, is_before: bool) -> list[str]:
        if rule.changed is not None:
            return [self._own(name) for name in rule.changed]
        return [each.name for each in self._columns if not (is_before and each.generated)]

    @staticmethod
    def _change(name: str, rows: _Rows) -> str:
        return f"({rows.old(name)} COLLATE BINARY)IS NOT {rows.new(name)}"

    def _any_of(self, operation: str, rows: _Rows) -> str:
        return (
            _tree([f"({self._condition(rule, rows)})" for rule in self.definition.rules_on(operation)], " OR ") or "0"
        )

    def _type(self, operation: str, rows: _Rows, *, is_before: bool = False) -> str:
        """Return SQL for the type by the first rule that matches, NULL if there is none."""
        cases = ""
        for rule in self.definition.rules_on(operation):
            condition = self._condition(rule, rows, is_before=is_before)
            if condition == "1":
                return f"CASE{cases} ELSE {text(rule.type)}END" if cases else text(rule.type)
            cases += f" WHEN {condition} THEN {text(rule.type)}"
        return f"CASE{cases} END" if cases else "NULL"

    # --- data ---

    def _head(self, operation: str, row: Callable[[str], str], rowid: str) -> str:
        """Return SQL for the members before `row`: operation, table and key, without the closing brace."""
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
        pairs = f"SELECT group_concat(k||{_value('v')})FROM(SELECT column1 AS k,column2 AS v FROM(VALUES{values}))"
        return f"'{{'||({pairs})||'}}'"

    @staticmethod
    def _fingerprint(columns: Sequence[str], row: Callable[[str], str]) -> str:
        """Return SQL for a short text that differs where the values of *columns* differ."""
        values = ",".join(f"(+{row(name)})" for name in columns)
        return (
            f"(SELECT group_concat(quote(substr(v,1,{MAX_FINGERPRINT_CHARS})))"
            f"FROM(SELECT column1 AS v FROM(VALUES{values})))"
        )

    def _row_members(self, row: Callable[[str], str], *, extra: str = "") -> str:
        """Return SQL for `,"row":{…}` and, if a value is cut, `,"cut":{…}`. *extra* is SQL for more of `cut`."""
        plain = [each for each in self._columns if not self._is_hidden(each.name)]
        hidden = self._redacted([each for each in self._columns if self._is_hidden(each.name)])
        if not plain:
            return text(f',"row":{{{hidden[1:]}}}')
        cut = f"group_concat(CASE WHEN {_is_cut('v')} THEN','||k||{_size('v')} END,'')"
        cut = f"substr({cut},2)" if not extra else f"nullif(substr(coalesce({cut},'')||{extra},2),'')"
        flag = self._json_flag(plain)
        source = self._values(plain, [row])
        return (
            f"""(SELECT ',"row":{{'||group_concat(k||{_value("v", flag)})||{text(hidden + "}")}"""
            f"""||coalesce(',"cut":{{'||{cut}||'}}','')FROM{source})"""
        )

    @staticmethod
    def _redacted(columns: Iterable[WatchedColumn]) -> str:
        return "".join(f',{json_name(each.name)}"{REDACTED}"' for each in columns)

    @staticmethod
    def _json_flag(columns: Iterable[WatchedColumn]) -> str:
        return "j" if any(each.is_json for each in columns) else ""

    def _values(self, columns: Sequence[WatchedColumn], rows: Sequence[Callable[[str], str]]) -> str:
        """Return the columns as rows: k is the name, v the value in the first row, o that in the second, j for JSON."""
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

    def _was(self, rows: _Rows, *, is_before: bool) -> tuple[str, str]:
        """Return SQL for the members of `was`, and for the members of `cut` that concern it, with a comma first."""
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
            pair = f"CASE WHEN {changed} THEN','||k||{_value('o', flag)} END"
            parts.insert(0, f"coalesce((SELECT group_concat({pair},'')FROM{source}),'')")
            cut = (
                f"coalesce((SELECT group_concat(CASE WHEN {_is_cut('o')} AND {changed} THEN"
                f" ',\"was.'||substr(k,2)||{_size('o')} END,'')FROM{source}),'')"
            )
        return (f"substr({_tree(parts, '||')},2)" if parts else "''"), cut

    def _limited(self, head: str, rest: str) -> str:
        """Return SQL for the data: without *rest* if it would exceed OUTFEED_MAX_EVENT_BYTES."""
        return (
            f"CASE WHEN {_size('h')}+{_size('d')}<{self.max_event_bytes} THEN h||d ELSE h END||'}}'"
            f"FROM(SELECT {head} AS h,{rest} AS d LIMIT 1 OFFSET 0)"
        )

    # --- events ---

    def _mapped(self, rows: _Rows, row: Callable[[str], str], column: str | None, fallback: str = "NULL") -> str:
        if column is None:
            return fallback
        short = _short(row(self._own(column)))
        return short if fallback == "NULL" else f"ifnull({short},{fallback})"

    @property
    def _source(self) -> str:
        return text(self.definition.source or self.table.name[:MAX_MAPPED_CHARS])

    def _who(self, make: Callable[[], _Rows], side: str, wrap: Callable[[_Rows, str], str]) -> list[str]:
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
        who = self._who(_Rows, side, lambda rows, expression: rows.nested(expression))
        return f"{_INTO_LOG}VALUES({_ID},{type_},{','.join(who)},{data},{_NOW});"

    def row_events(self, existing_type: str | None) -> str:
        rows = _Rows(new="r")
        type_ = text(existing_type) if existing_type else self._type(INSERT, rows)
        who = self._who(lambda: rows, "new", lambda _, expression: expression)
        head = self._head("read" if existing_type else "insert", rows.new, f"r.{self._rowid}")
        data = f"(SELECT {self._limited(head, self._row_members(rows.new))})"
        return (
            f"{_INTO_LOG}SELECT {_ID},{type_},{','.join(who)},{data},{_NOW} FROM {quoted(self.table.name)} AS r"
            f" WHERE ({self._any_of(INSERT, rows)})"
        )

    def _typed(self, operation: str) -> str:
        rows = _Rows()
        return rows.nested(self._type(operation, rows))

    # --- insert ---

    def _insert_triggers(self) -> dict[str, str]:
        """Return the triggers of an INSERT.

        If no note concerns the new row, `insert` reports it. Else `taken` claims the notes and reports the rows that
        were removed, `replaced` reports the new row, and `clear` empties the notes.
        """
        found = {}
        if self._identity is not None and self.definition.rules:
            found["clear"] = (
                f"AFTER INSERT {self._on} WHEN {self._exist(-self.number)}"
                f" BEGIN DELETE FROM outfeed_replaced WHERE watch={-self.number}; END"
            )
            if self.definition.rules_on(INSERT) or self.definition.rules_on(UPDATE):
                found["replaced"] = self._replaced()
            found["taken"] = self._taken()
        if self.definition.rules_on(INSERT):
            found["insert"] = self._insert()
        if self._identity is not None and self.definition.rules:
            found["before_insert"] = self._before(is_insert=True)
        return found

    def _insert(self) -> str:
        rows = _Rows()
        when = rows.nested(self._any_of(INSERT, rows))
        if self._identity is not None:
            noted = f"EXISTS(SELECT 1 FROM outfeed_replaced WHERE {self._claimed()})"
            when = f"NOT({self._exist(self.number)} AND {noted})AND {when}"
        rows = _Rows()
        head = self._head("insert", rows.new, f"NEW.{self._rowid}")
        data = rows.nested(self._limited(head, self._row_members(rows.new)))
        return f"AFTER INSERT {self._on} WHEN {when} BEGIN {self._event('new', self._typed(INSERT), data)} END"

    def _replaced(self) -> str:
        note = f"FROM outfeed_replaced WHERE watch={-self.number} AND is_same"
        rows = _Rows()
        reported = rows.nested(f"coalesce((SELECT updated IS NOT NULL {note}),{self._any_of(INSERT, rows)})")
        type_ = f"coalesce((SELECT updated {note}),{self._typed(INSERT)})"
        rows = _Rows()
        head = self._head("insert", rows.new, f"NEW.{self._rowid}")
        head = head.replace("insert", f"'||coalesce((SELECT'update'{note}),'insert')||'", 1)
        was = f"""coalesce((SELECT ',"was":{{'||was||'}}'{note}),'')"""
        members = self._row_members(rows.new, extra=f"coalesce((SELECT cut {note}),'')")
        data = rows.nested(self._limited(head, f"{was}||{members}"))
        return (
            f"AFTER INSERT {self._on} WHEN {self._exist(-self.number)} AND {reported}"
            f" BEGIN {self._event('new', type_, data)} END"
        )

    def _exist(self, number: int) -> str:
        return f"EXISTS(SELECT 1 FROM outfeed_replaced WHERE watch={number})"

    def _taken(self) -> str:
        claim = f"UPDATE outfeed_replaced SET watch={-self.number} WHERE {self._claimed()};"
        removed = self._removed(f"n.watch={-self.number}")
        return f"AFTER INSERT {self._on} WHEN {self._exist(self.number)} BEGIN {claim}{removed} END"

    def _claimed(self) -> str:
        """Return the condition for the notes that concern the new row."""
        mine = self._of_new(_Rows())
        if self.table.rowid is not None and (self.table.has_integer_key or not self.table.primary_key):
            # -1 is the rowid of a row that names none: a row that has it was not replaced.
            mine += f" AND NOT(is_same AND new_key=-1 AND NEW.{self._rowid}<>-1)"
        return mine

    def _of_new(self, rows: _Rows) -> str:
        """Return the condition for the notes with the key and the UNIQUE values of the new row."""
        key = "=0" if self.table.rowid is None else f"=+NEW.{self._rowid}"
        if self.table.rowid is not None and self.table.uniques:
            key = f" IN((SELECT NEW.{self._rowid}),-1)"
        return f"watch={self.number} AND new_key{key} AND new_uniques={self._new_uniques(rows)}"

    def _new_uniques(self, rows: _Rows) -> str:
        columns = [name for each in self.table.uniques for name in each.names]
        if self.table.rowid is None:
            columns = [*(self._identity or ()), *columns]
        columns = [name for name in dict.fromkeys(columns) if self._may_be_stored(name)]
        return rows.nested(self._fingerprint(columns, rows.new)) if columns else "''"

    def _removed(self, which: str) -> str:
        """Return the statement that reports the noted rows that are gone and had another key."""
        if not self._may_remove_others or not self.definition.rules_on(DELETE):
            return ""
        return (
            f"{_INTO_LOG}SELECT {_ID},n.deleted,n.source,n.task_id,n.agent_id,n.data,{_NOW}"
            f" FROM outfeed_replaced AS n WHERE {which} AND NOT n.is_same AND n.deleted IS NOT NULL{self._is_gone()};"
        )

    @property
    def _may_remove_others(self) -> bool:
        """Whether a REPLACE can remove a row with another key than that of the new row."""
        return bool(self.table.uniques) and not (self.table.rowid is None and len(self.table.uniques) == 1)

    def _is_gone(self) -> str:
        name = quoted(self.table.name)
        if self.table.rowid is not None:
            there = f"EXISTS(SELECT 1 FROM {name} AS r WHERE r.{self._rowid}=n.identity)"
            return f" AND(NOT {there} OR n.identity=(SELECT NEW.{self._rowid}))"
        rows = _Rows(old="r")
        partial = [each for each in self.table.uniques if each.where is not None]
        if not partial or not all(map(self._may_be_stored, self._identity or ())):
            return ""
        identity = self._fingerprint(self._identity or (), rows.old)
        there = " UNION ALL ".join(self._lookup(each, rows, identity, "") for each in partial)
        return f" AND {rows.nested(f'n.identity NOT IN({there})')}"

    # --- notes ---

    def _lookup(self, unique: UniqueIndex, rows: _Rows, result: str, exclusion: str) -> str:
        # Without r before it, a column that is gone is that of the source of NEW: NULL.
        conditions = [
            f"{quoted(name)} COLLATE {quoted(collation)}={rows.new(name)}" for name, collation in unique.columns
        ]
        where = f" AND({unique.where})" if unique.where else ""
        return f"SELECT {result} FROM {quoted(self.table.name)} AS r WHERE {' AND '.join(conditions)}{where}{exclusion}"

    def _lookups(self, rows: _Rows, *, is_insert: bool) -> list[str]:
        """Return a SELECT for each constraint: of the row that has the key or the UNIQUE values of the new row."""
        if self.table.rowid is not None:
            result = f"r.{self._rowid}"
            exclusion = "" if is_insert else f" AND r.{self._rowid}<>OLD.{self._rowid}"
            name = quoted(self.table.name)
            by_rowid = [f"SELECT {result} FROM {name} AS r WHERE r.{self._rowid}=NEW.{self._rowid}{exclusion}"]
        else:
            columns = self._identity or ()
            result = ",".join(f"r.{quoted(name)}" for name in columns)
            same = " AND ".join(f"r.{quoted(name)} IS OLD.{quoted(name)}" for name in columns)
            exclusion = "" if is_insert else f" AND NOT({same})"
            by_rowid = []
        by_unique = [self._lookup(each, rows, result, exclusion) for each in self.table.uniques]
        return by_rowid + by_unique

    def _is_found(self, rows: _Rows, *, is_insert: bool) -> str:
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
        rows = _Rows(old="r", defaults=defaults)
        found = rows.nested(f"EXISTS({' UNION ALL '.join(self._lookups(rows, is_insert=is_insert))})")
        on = f"INSERT {self._on}" if is_insert else f"UPDATE OF {self._unique_list()} {self._on}"
        trim = f"DELETE FROM outfeed_replaced WHERE rowid<=(SELECT max(rowid)FROM outfeed_replaced)-{MAX_NOTES};"
        clear = f"DELETE FROM outfeed_replaced WHERE {self._of_new(_Rows(defaults=defaults))};"
        return (
            f"BEFORE {on} WHEN {found} OR {self._exist(self.number)}"
            f" BEGIN {clear}{trim}{self._note(is_insert=is_insert)} END"
        )

    def _note(self, *, is_insert: bool) -> str:
        of_row = self._of_row()

        def read(rows: _Rows, expression: str) -> str:
            return rows.nested(f"{expression} FROM {quoted(self.table.name)} AS r WHERE {of_row}")

        def noted(make: Callable[[_Rows], str]) -> str:
            rows = _Rows(old="r", defaults=self.table)
            return read(rows, make(rows))

        def same(rows: _Rows) -> str:
            return self._is_same(rows) if is_insert else "0"

        values = {
            "watch": str(self.number),
            "new_key": "0" if self.table.rowid is None else f"(SELECT NEW.{self._rowid})",
            "new_uniques": self._new_uniques(_Rows(defaults=self.table)),
            "identity": self._identity_value(noted),
            "is_same": noted(same) if is_insert else "0",
        }
        if is_insert and self.definition.rules_on(UPDATE):

            def if_same(make: Callable[[_Rows], str]) -> str:
                return noted(lambda rows: f"CASE WHEN {same(rows)} THEN {make(rows)} END")

            values["updated"] = if_same(lambda rows: self._type(UPDATE, rows, is_before=True))
            values["was"] = if_same(lambda rows: self._was(rows, is_before=True)[0])
            values["cut"] = if_same(lambda rows: self._was(rows, is_before=True)[1])
        if self._may_remove_others and self.definition.rules_on(DELETE):
            values["deleted"] = noted(lambda rows: self._type(DELETE, rows))
            values["data"] = noted(lambda rows: f"CASE WHEN NOT {same(rows)} THEN {self._deleted_data(rows)} END")
            who = self._who(lambda: _Rows(old="r"), "old", read)
            values |= dict(zip(("source", "task_id", "agent_id"), who, strict=True))
        rows = _Rows(defaults=self.table)
        found = self._is_found(rows, is_insert=is_insert)
        return (
            f"INSERT INTO outfeed_replaced({','.join(values)})SELECT {','.join(values.values())}"
            f" FROM {rows.source_of_new()}{quoted(self.table.name)} AS o WHERE {found};"
        )

    def _deleted_data(self, rows: _Rows) -> str:
        head = self._head(DELETE, rows.old, f"r.{self._rowid}")
        return f"(SELECT {self._limited(head, self._row_members(rows.old))})"

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

    def _identity_value(self, noted: Callable[[Callable[[_Rows], str]], str]) -> str:
        if self.table.rowid is not None:
            return f"o.{self._rowid}"
        columns = [name for name in self._identity or () if self._may_be_stored(name)]
        return noted(lambda rows: self._fingerprint(columns, rows.old)) if columns else "NULL"

    def _is_same(self, rows: _Rows) -> str:
        """Return the condition that the noted row has the key of the new row."""
        if not self.table.primary_key or self.table.has_integer_key:
            if self.table.rowid is not None:
                return f"r.{self._rowid}=NEW.{self._rowid}"
            return "0"
        key = next((each for each in self.table.uniques if set(each.names) == set(self.table.primary_key)), None)
        collations = dict(key.columns) if key else {}
        parts = [
            f"{rows.old(name)} COLLATE {quoted(collations.get(name, 'BINARY'))}={rows.new(name)}"
            for name in self.table.primary_key
        ]
        return f"coalesce({' AND '.join(parts)},0)"

    def _unique_list(self) -> str:
        names = [*self.table.primary_key, *(name for each in self.table.uniques for name in each.names)]
        conditions = " ".join(folded(each.where) for each in self.table.uniques if each.where)
        names += [name for name in self.table.names if folded(name) in conditions]
        return ",".join(quoted(name) for name in dict.fromkeys(names))

    # --- update ---

    def _update_triggers(self) -> dict[str, str]:
        found = {}
        if self.definition.rules_on(UPDATE):
            rows = _Rows()
            when = rows.nested(self._any_of(UPDATE, rows))
            rows = _Rows()
            head = self._head("update", rows.new, f"NEW.{self._rowid}")
            was, cut = self._was(rows, is_before=False)
            rest = f"""',"was":{{'||{was}||'}}'||{self._row_members(rows.new, extra=cut)}"""
            event = self._event("new", self._typed(UPDATE), rows.nested(self._limited(head, rest)))
            found["update"] = f"AFTER UPDATE {self._on} WHEN {when} BEGIN {event} END"
        if self._identity is not None and self._may_remove_others and self.definition.rules_on(DELETE):
            mine = self._of_new(_Rows())
            removed = self._removed(mine.replace("watch=", "n.watch=", 1))
            found["moved"] = (
                f"AFTER UPDATE OF {self._unique_list()} {self._on} WHEN {self._exist(self.number)}"
                f" BEGIN {removed}DELETE FROM outfeed_replaced WHERE {mine}; END"
            )
            found["before_update"] = self._before(is_insert=False)
        return found

    # --- delete ---

    def _delete_triggers(self) -> dict[str, str]:
        found = {}
        if self._identity is not None:
            rows = _Rows()
            columns = [name for name in self._identity if self._may_be_stored(name)]
            identity = f"=+OLD.{self._rowid}" if self.table.rowid is not None else " IS NULL"
            if columns:
                identity = f"={rows.nested(self._fingerprint(columns, rows.old))}"
            found["forget"] = (
                f"AFTER DELETE {self._on} WHEN {self._exist(self.number)}"
                f" BEGIN DELETE FROM outfeed_replaced WHERE watch={self.number} AND identity{identity}; END"
            )
        if self.definition.rules_on(DELETE):
            rows = _Rows()
            when = rows.nested(self._any_of(DELETE, rows))
            rows = _Rows()
            head = self._head("delete", rows.old, f"OLD.{self._rowid}")
            data = rows.nested(self._limited(head, self._row_members(rows.old)))
            event = self._event("old", self._typed(DELETE), data)
            found["delete"] = f"AFTER DELETE {self._on} WHEN {when} BEGIN {event} END"
        return found
