"""The change of a watched row, before and after. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from outfeed.log.json_tree import text_of

OPERATIONS = {"insert": "Inserted", "update": "Updated", "delete": "Deleted", "read": "Existing"}
MAX_COLUMNS = 200
MAX_VALUE_CHARS = 2000


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """One column. *before* or *after* is None if there was no row."""

    name: str
    before: str | None
    after: str | None
    is_changed: bool


@dataclass(frozen=True, slots=True)
class RowChange:
    """The change of one row of *table*, column by column.

    Changed columns come first.
    """

    operation: str
    table: str
    key: str
    columns: list[ColumnChange]

    @property
    def has_before(self) -> bool:
        """Whether there was a row before the change."""
        return any(column.before is not None for column in self.columns)

    @property
    def has_after(self) -> bool:
        """Whether there is a row after the change."""
        return any(column.after is not None for column in self.columns)


def change_in(data: Any) -> RowChange | None:
    """Return the change that an event of a watch describes, else None.

    docs/watch.md describes the payload.
    """
    if not isinstance(data, dict) or _operation(data) is None or not isinstance(data.get("table"), str):
        return None
    row, was = data.get("row"), data.get("was") or {}
    if not isinstance(row, dict) or not isinstance(was, dict):
        return None
    key = data["key"].items() if isinstance(data.get("key"), dict) else ()
    columns = [_column(data["op"], name, row, was) for name in list(row | was)[:MAX_COLUMNS]]
    return RowChange(
        OPERATIONS[data["op"]],
        data["table"],
        ", ".join(f"{name} = {_shown(value)}" for name, value in key),
        sorted(columns, key=lambda column: not column.is_changed),
    )


def _operation(data: dict[str, Any]) -> str | None:
    found = data.get("op")
    return OPERATIONS.get(found) if isinstance(found, str) else None


def _column(operation: str, name: str, row: dict[str, Any], was: dict[str, Any]) -> ColumnChange:
    after = None if operation == "delete" else _shown(row.get(name))
    if operation == "delete":
        return ColumnChange(name, _shown(row.get(name)), None, is_changed=False)
    if operation != "update":
        return ColumnChange(name, None, after, is_changed=False)
    return ColumnChange(name, _shown(was[name]) if name in was else after, after, is_changed=name in was)


def _shown(value: Any) -> str:
    text = text_of(value)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}…"
