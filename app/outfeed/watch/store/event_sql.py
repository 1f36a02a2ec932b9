"""The SQL of one event of a watch: its conditions, its type, its INSERT.

Runs no SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from outfeed.watch.definition import DELETE, INSERT, UPDATE, Rule, Value
from outfeed.watch.store.data_sql import DataSql
from outfeed.watch.store.sql import MAX_MAPPED_CHARS, Rows, literal, quoted, short, text, tree
from outfeed.watch.table import WatchedColumn

# UUIDv7: 48 bits of milliseconds, 36 bits of the last rowid, 36 random bits. The random part stands outside of any
# subquery, which SQLite would run once for several rows. OFFSET keeps SQLite from copying the inner expressions.
ID = (
    "(SELECT printf('%08x-%04x-7%03x-8%03x-%03x',m>>16,m&65535,r>>24&4095,r>>12&4095,r&4095)"
    "FROM(SELECT CAST(julianday('now')*864e5+.5 AS INT)-210866760000000 m,"
    "ifnull((SELECT max(rowid)FROM event_log),0)r LIMIT 1 OFFSET 0))||printf('%09x',random()&68719476735)"
)
NOW = "strftime('%Y-%m-%dT%H:%M:%fZ','now')"
INTO_LOG = "INSERT INTO event_log(id,event_type,source,task_id,agent_id,data,timestamp)"


@dataclass(frozen=True, slots=True)
class EventSql(DataSql):
    """The SQL of conditions, types and events."""

    @property
    def _on(self) -> str:
        return f"ON {quoted(self.table.name)}"

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

    def _any_of(self, operation: str, rows: Rows, *, is_before: bool = False) -> str:
        conditions = [self._condition(rule, rows, is_before=is_before) for rule in self.definition.rules_on(operation)]
        return tree([f"({each})" for each in conditions], " OR ") or "0"

    def _type(self, operation: str, rows: Rows, *, is_before: bool = False) -> str:
        """Return SQL for the type by the first rule that matches, or NULL."""
        cases = ""
        for rule in self.definition.rules_on(operation):
            condition = self._condition(rule, rows, is_before=is_before)
            if condition == "1":
                return f"CASE{cases} ELSE {text(rule.type)}END" if cases else text(rule.type)
            cases += f" WHEN {condition} THEN {text(rule.type)}"
        return f"CASE{cases} END" if cases else "NULL"

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
        data = f"(SELECT {self._row_data('read' if existing_type else 'insert', rows.new, 'r')})"
        return (
            f"{INTO_LOG}SELECT {ID},{type_},{','.join(who)},{data},{NOW} FROM {quoted(self.table.name)} AS r"
            f" WHERE ({self._any_of(INSERT, rows)})"
        )

    def _typed(self, operation: str) -> str:
        """Return SQL for the type, given that a rule matches."""
        rows = Rows()
        type_ = self._type_of_match(operation, rows)
        return rows.nested(type_) if type_.startswith("CASE") else type_

    def _type_of_match(self, operation: str, rows: Rows, *, is_before: bool = False) -> str:
        rules = self.definition.rules_on(operation)
        last = text(rules[-1].type) if rules else "NULL"
        cases = "".join(
            f" WHEN {self._condition(rule, rows, is_before=is_before)} THEN {text(rule.type)}" for rule in rules[:-1]
        )
        return f"CASE{cases} ELSE {last} END" if cases else last
