"""Parts of SQL: names, literals, values as JSON. Runs no SQL."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from outfeed.watch.definition import Value
from outfeed.watch.table import INTEGER, NUMERIC, REAL, TEXT, WatchedColumn, WatchedTable

MAX_TEXT_BYTES, SHOWN_CHARS, MAX_BLOB_BYTES = 4096, 200, 64
MAX_MAPPED_CHARS = 200
# Of a nested JSON value: containers. Depth can't be asked for, and no value with fewer containers is deeper.
MAX_CONTAINERS = 500
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_TEXT_LITERAL = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")


def quoted(name: str) -> str:
    """Return *name* as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return *value* as a literal."""
    return "'" + value.replace("'", "''") + "'"


def tree(parts: Sequence[str], operator: str) -> str:
    """Join *parts* as a balanced tree.

    SQLite limits the depth of an expression to 1,000.
    """
    if len(parts) <= 8:
        return operator.join(parts)
    half = len(parts) // 2
    return f"({tree(parts[:half], operator)}){operator}({tree(parts[half:], operator)})"


def json_name(name: str) -> str:
    return json.dumps(name, ensure_ascii=False) + ":"


def literal(value: Value, column: WatchedColumn) -> str:
    """Return *value* as SQLite stores it in *column*.

    No affinity applies to `NEW.x` in a trigger.
    """
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


def json_value(v: str, json_flag: str = "") -> str:
    """Return SQL for the JSON of the value *v*."""
    cut = (
        f"CASE WHEN length(CAST({v} AS BLOB))>{MAX_TEXT_BYTES} THEN"
        f" substr(CAST(substr(CAST({v} AS BLOB),1,{4 * SHOWN_CHARS})AS TEXT),1,{SHOWN_CHARS})||'…'ELSE {v} END"
    )
    as_text = f"json_quote({cut})"
    if json_flag:
        # json_valid() stops at NUL, and a value that is cut is not JSON.
        containers = f"length({v})-length(replace(replace({v},'{{',''),'[',''))"
        nested = (
            f"{json_flag} AND length(CAST({v} AS BLOB))<={MAX_TEXT_BYTES} AND json_valid({v})AND instr({v},char(0))=0"
            f" AND {containers}<={MAX_CONTAINERS}"
        )
        as_text = f"CASE WHEN {nested} THEN {v} ELSE {as_text} END"
    infinite = f"'\"'||substr('-',1,{v}<0)||'Infinity\"'"
    return (
        f"CASE typeof({v})WHEN'text'THEN {as_text} WHEN'integer'THEN {v}"
        f" WHEN'real'THEN CASE WHEN {v}*0 IS NULL THEN{infinite}ELSE quote({v})END"
        f" WHEN'blob'THEN CASE WHEN length({v})>{MAX_BLOB_BYTES} THEN'null'ELSE'\"'||hex({v})||'\"'END ELSE'null'END"
    )


def size(v: str) -> str:
    return f"length(CAST({v} AS BLOB))"


def cut_size(v: str, name: str) -> str:
    """Return SQL for *name* and the size of the value *v*.

    It is NULL if `json_value` shows all of the value.
    """
    # Not the size first: a number would be turned into text for it.
    is_cut = (
        f"CASE typeof({v})WHEN'text'THEN {size(v)}>{MAX_TEXT_BYTES} WHEN'blob'THEN length({v})>{MAX_BLOB_BYTES} END"
    )
    return f"CASE WHEN {is_cut} THEN {name}||{size(v)} END"


def short(v: str) -> str:
    """Return SQL for at most 200 characters of *v*, NULL if it is empty."""
    blob = f"substr(hex(substr({v},1,{MAX_MAPPED_CHARS // 2})),1,{MAX_MAPPED_CHARS})"
    plain = f"substr(CAST(substr(CAST({v} AS BLOB),1,{4 * MAX_MAPPED_CHARS})AS TEXT),1,{MAX_MAPPED_CHARS})"
    return f"nullif(CASE typeof({v})WHEN'blob'THEN {blob} ELSE {plain} END,'')"


class Rows:
    """The rows that an expression reads, and which of their columns it names."""

    def __init__(self, *, old: str = "OLD", new: str = "NEW", defaults: WatchedTable | None = None) -> None:
        self._aliases = {"old": old, "new": new}
        self._used: dict[str, dict[str, None]] = {"old": {}, "new": {}}
        self._defaults = defaults

    def old(self, column: str) -> str:
        return self._reference("old", column)

    def new(self, column: str) -> str:
        """Return the column of the new row.

        A NULL in a NOT NULL column reads as its default, which REPLACE stores.
        """
        reference = self._reference("new", column)
        found = self._defaults.column(column) if self._defaults else None
        if found is None or not found.is_not_null or found.default is None:
            return reference
        return f"ifnull({reference},{_default(found)})"

    def _reference(self, row: str, column: str) -> str:
        self._used[row][column] = None
        return f"{self._aliases[row]}.{quoted(column)}"

    def source_of_new(self) -> str:
        """Return a source of NULL for each column of the new row, and a comma."""
        return f"{self._nulls('new')}," if self._used["new"] else ""

    @property
    def are_named(self) -> bool:
        """Whether the expression has named a column."""
        return any(self._used.values())

    def _nulls(self, row: str) -> str:
        nulls = ",".join(f"NULL{quoted(column)}" for column in self._used[row])
        return f"(SELECT {nulls}){self._aliases[row]}"

    def nested(self, expression: str) -> str:
        """Return *expression* so that it doesn't fail without its columns.

        One source in each FROM: SQLite makes a temporary table of a second one.
        """
        result = f"(SELECT {expression})"
        for row, used in self._used.items():
            if used:
                result = f"(SELECT{result}FROM{self._nulls(row)})"
        return result


def _default(column: WatchedColumn) -> str:
    default = column.default or "NULL"
    if _TEXT_LITERAL.fullmatch(default):
        value = default[1:-1].replace(default[0] * 2, default[0])
        return literal(value, column)
    if _NUMBER.fullmatch(default):
        number = float(default)
        return literal(int(default) if default.strip().lstrip("+-").isdigit() else number, column)
    return f"({default})"
