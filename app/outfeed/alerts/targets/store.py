"""The rows of targets.

Their settings have secrets, which only a send reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from outfeed import clock
from outfeed.alerts.targets.notice import AlertTarget
from outfeed.errors import NameTaken, UnknownName
from outfeed.store import audit
from outfeed.store.database import Connection, Database, IntegrityError


class TargetRow(NamedTuple):
    """A target and its times."""

    target: AlertTarget
    created_at: str
    changed_at: str


def add(database: Database, target: AlertTarget, by: str | None) -> None:
    """Insert a target, and write an audit event. Raises NameTaken."""
    now = clock.timestamp()
    row = (target.name, target.kind, json.dumps(dict(target.settings)), now, now)
    with database.transaction() as connection:
        try:
            connection.execute(
                "INSERT INTO outfeed_alert_target (name, kind, settings, created_at, changed_at)"
                " VALUES (?, ?, ?, ?, ?)",
                row,
            )
        except IntegrityError:
            message = f"there is already a target named {target.name!r}; remove it or choose another name"
            raise NameTaken(message) from None
        audit.record(connection, "access.target_added", by, name=target.name, kind=target.kind)


def change(database: Database, name: str, settings: Mapping[str, str], by: str | None) -> None:
    """Replace the settings, and write an audit event. Raises UnknownName."""
    with database.transaction() as connection:
        changed = connection.execute(
            "UPDATE outfeed_alert_target SET settings = ?, changed_at = ? WHERE name = ?",
            (json.dumps(dict(settings)), clock.timestamp(), name),
        ).rowcount
        _require(changed, name)
        audit.record(connection, "access.target_changed", by, name=name)


def remove(connection: Connection, name: str, by: str | None) -> None:
    """Delete the target and its secrets, and write an audit event.

    The caller's transaction does it. Raises UnknownName.
    """
    _require(connection.execute("DELETE FROM outfeed_alert_target WHERE name = ?", (name,)).rowcount, name)
    audit.record(connection, "access.target_removed", by, name=name)


def find(database: Database, name: str) -> AlertTarget:
    """Return the target. Raises UnknownName."""
    found = [row.target for row in list_targets(database) if row.target.name == name]
    _require(len(found), name)
    return found[0]


def list_targets(database: Database) -> list[TargetRow]:
    """Return every target, by name."""
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT name, kind, settings, created_at, changed_at FROM outfeed_alert_target ORDER BY name"
        ).fetchall()
    return [TargetRow(AlertTarget(name, kind, json.loads(text)), *times) for name, kind, text, *times in rows]


def unknown(database: Database, names: Iterable[str]) -> list[str]:
    """Return those of *names* that no target has, in their order."""
    with database.connection() as connection:
        known = {name for (name,) in connection.execute("SELECT name FROM outfeed_alert_target")}
    return [name for name in names if name not in known]


def _require(changed: int, name: str) -> None:
    if not changed:
        raise UnknownName(f"target {name!r:.80} not found; `outfeed target list` shows all targets")
