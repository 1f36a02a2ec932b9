"""Rows of rules, for operators.

Each change raises the revision, so that a running evaluation reads the rules again before it writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from outfeed import clock
from outfeed.alerts.progress import AlertState
from outfeed.alerts.rule import MAX_RULES, AlertRule, Condition, joined_names, split_names
from outfeed.errors import InvalidRequest, NameTaken, UnknownName
from outfeed.store import audit, checkpoint
from outfeed.store.database import Connection, Database, IntegrityError
from outfeed.store.outbox import read_window

# The checkpoint of the evaluation. No client can claim it: the names of clients' consumers have no colon.
CONSUMER = "alerts:rules"
_RULE = "name, query, condition, threshold, window_secs, pause_secs, targets"
_SELECT = f"SELECT {_RULE}, is_paused, state, raises, raised_at, created_at FROM outfeed_alert"  # noqa: S608 - ours


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule with its state. *raised_at* is the time of the last alert."""

    rule: AlertRule
    is_paused: bool
    state: AlertState
    raises: int
    raised_at: str | None
    created_at: str

    @property
    def name(self) -> str:
        """The name of the rule."""
        return self.rule.name

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows of the alert."""
        rule = self.rule
        return {
            "name": rule.name, "query": rule.query, "condition": rule.condition.value, "threshold": rule.threshold,
            "window_secs": rule.window_secs, "pause_secs": rule.pause_secs, "targets": list(rule.targets),
            "is_paused": self.is_paused, "state": self.state.value, "raises": self.raises,
            "raised_at": self.raised_at, "created_at": self.created_at,
        }  # fmt: skip


def list_alerts(database: Database) -> list[Alert]:
    """Return every rule, by name."""
    with database.connection() as connection:
        return [_alert(row) for row in connection.execute(f"{_SELECT} ORDER BY name").fetchall()]


def find(database: Database, name: str) -> Alert:
    """Return the rule. Raises UnknownName."""
    with database.connection() as connection:
        return _find(connection, name)


def add(database: Database, rule: AlertRule, by: str) -> Alert:
    """Add a checked rule, which watches events from now on.

    Raises NameTaken, and InvalidRequest above MAX_RULES.
    """
    with database.transaction() as connection:
        (count,) = connection.execute("SELECT count(*) FROM outfeed_alert").fetchone()
        if count >= MAX_RULES:
            raise InvalidRequest("too_many_rules", f"there are {count} rules, the limit is {MAX_RULES}; remove one")
        _begin_watching(connection)
        _note_change(
            connection, "access.alert_added", by, rule.name
        )  # before the head, so that the rule does not match it
        try:
            connection.execute(
                f"INSERT INTO outfeed_alert ({_RULE}, is_paused, after_seq, state, raises, created_at)"  # noqa: S608
                " VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, 0, ?)",
                (*_columns(rule), read_window(connection).last_seq, AlertState.OK, clock.timestamp()),
            )
        except IntegrityError:
            raise NameTaken(f"there is already an alert {rule.name!r}; remove it or choose another name") from None
        return _find(connection, rule.name)


def edit(database: Database, rule: AlertRule, by: str) -> Alert:
    """Replace the rule of the same name by a checked one. Raises UnknownName.

    A rule with another query or condition begins again, in the state OK.
    """
    with database.transaction() as connection:
        before = _find(connection, rule.name).rule
        connection.execute(
            "UPDATE outfeed_alert SET query = ?, condition = ?, threshold = ?, window_secs = ?, pause_secs = ?,"
            " targets = ? WHERE name = ?",
            (*_columns(rule)[1:], rule.name),
        )
        _note_change(connection, "access.alert_changed", by, rule.name)
        if before.restarts(rule):
            _restart(connection, rule.name)
        return _find(connection, rule.name)


def remove(database: Database, name: str, by: str) -> None:
    """Delete the rule and its waiting notices. Raises UnknownName."""
    with database.transaction() as connection:
        _require(connection.execute("DELETE FROM outfeed_alert WHERE name = ?", (name,)).rowcount, name)
        connection.execute("DELETE FROM outfeed_alert_notice WHERE rule = ?", (name,))
        _end_watching(connection)
        _note_change(connection, "access.alert_removed", by, name)


def pause(database: Database, name: str, by: str) -> None:
    """Stop watching for the rule. Raises UnknownName."""
    with database.transaction() as connection:
        changed = connection.execute("UPDATE outfeed_alert SET is_paused = 1 WHERE name = ?", (name,)).rowcount
        _require(changed, name)
        _end_watching(connection)
        _note_change(connection, "access.alert_paused", by, name)


def resume(database: Database, name: str, by: str) -> None:
    """Watch for a paused rule from now on, in the state OK.

    Raises UnknownName.
    """
    with database.transaction() as connection:
        if not _find(connection, name).is_paused:
            return
        _begin_watching(connection)
        connection.execute("UPDATE outfeed_alert SET is_paused = 0 WHERE name = ?", (name,))
        _note_change(connection, "access.alert_resumed", by, name)
        _restart(connection, name)


def rules_with_target(connection: Connection, target: str) -> list[str]:
    """Return the names of the rules that send to *target*."""
    rows = connection.execute("SELECT name, targets FROM outfeed_alert ORDER BY name").fetchall()
    return [name for name, targets in rows if target in split_names(targets)]


def exist(database: Database) -> bool:
    """Return whether there is a rule, paused or not."""
    with database.connection() as connection:
        return connection.execute("SELECT 1 FROM outfeed_alert LIMIT 1").fetchone() is not None


def has_active(connection: Connection) -> bool:
    """Return whether a rule is not paused."""
    return connection.execute("SELECT 1 FROM outfeed_alert WHERE NOT is_paused LIMIT 1").fetchone() is not None


def rule_of(row: tuple[str, str, str, int, int, int, str]) -> AlertRule:
    """Return the rule of the columns RULE."""
    name, query, condition, threshold, window_secs, pause_secs, targets = row
    return AlertRule(name, query, Condition(condition), threshold, window_secs, pause_secs, split_names(targets))


def _columns(rule: AlertRule) -> tuple[str | int, ...]:
    targets = joined_names(rule.targets)
    return rule.name, rule.query, rule.condition, rule.threshold, rule.window_secs, rule.pause_secs, targets


def _begin_watching(connection: Connection) -> None:
    """Move the checkpoint to the head if no rule needs the events before."""
    if not has_active(connection):
        checkpoint.renew(connection, CONSUMER, is_protected=False)
        window = read_window(connection)
        connection.execute("UPDATE outfeed_alert_evaluation SET epoch = ?, seq = ?", (window.epoch, window.last_seq))


def _end_watching(connection: Connection) -> None:
    """Delete the checkpoint if no rule is left that needs it."""
    if not has_active(connection):
        checkpoint.delete(connection, CONSUMER)


def _restart(connection: Connection, name: str) -> None:
    connection.execute(
        "UPDATE outfeed_alert SET progress = NULL, state = ?, after_seq = ? WHERE name = ?",
        (AlertState.OK, read_window(connection).last_seq, name),
    )


def _note_change(connection: Connection, event_type: str, by: str, name: str) -> None:
    connection.execute("UPDATE outfeed_alert_evaluation SET revision = revision + 1")
    audit.record(connection, event_type, by, name=name)


def _require(changed: int, name: str) -> None:
    if not changed:
        raise UnknownName(f"alert {name!r:.80} not found; `outfeed alert list` shows all alerts")


def _find(connection: Connection, name: str) -> Alert:
    row = connection.execute(f"{_SELECT} WHERE name = ?", (name,)).fetchone()
    _require(row is not None, name)
    return _alert(row)


def _alert(row: tuple[object, ...]) -> Alert:
    is_paused, state, raises, raised_at, created_at = row[7:]
    return Alert(rule_of(row[:7]), bool(is_paused), AlertState(state), raises, raised_at, created_at)  # type: ignore[arg-type]
