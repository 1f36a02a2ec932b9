"""Evaluation in the database: what it begins with, and what it writes.

The changes by a page of events are one transaction: the state of the rules, the events about alerts, the
notices and the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from outfeed import clock
from outfeed.alerts.progress import AlertState, RuleProgress
from outfeed.alerts.rule import PREFIX, AlertRule
from outfeed.alerts.store import notices, rules
from outfeed.alerts.targets import NoticeKind
from outfeed.alerts.timeline import Timeline
from outfeed.errors import Superseded
from outfeed.history import Claim, Window
from outfeed.store import checkpoint, event_log
from outfeed.store.database import Connection, Database
from outfeed.store.outbox import read_window

SOURCE = "alerts"  # of the events about alerts
_RULES = """
    SELECT name, query, condition, threshold, window_secs, pause_secs, targets, after_seq, state, progress
    FROM outfeed_alert WHERE NOT is_paused ORDER BY name
"""
# The evaluation writes its position at least every few seconds. A longer delay is a problem.
MAX_SECS_BEHIND = 300.0
# One row, because each step of SQLite may wait for Python's lock.
_TIMES = """
    SELECT json_group_array(json_array(seq, (julianday(created_at) - 2440587.5) * 86400.0))
    FROM outbox WHERE seq >= ? AND seq <= ?
"""


class ActiveRule(NamedTuple):
    """A rule that is not paused. *progress* is None if it begins."""

    rule: AlertRule
    after_seq: int
    state: AlertState
    progress: Mapping[str, Any] | None


class Matched(NamedTuple):
    """The newest matching event of an alert."""

    seq: int
    id: str | None


class Decision(NamedTuple):
    """An event about an alert, to be written. *message* is one sentence."""

    rule: AlertRule
    kind: NoticeKind
    message: str
    matches: int
    matched: Matched | None


@dataclass(frozen=True, slots=True)
class HeldRules:
    """The right to evaluate, with the rules and the position at its begin.

    *epoch* and *seq* are the position that was last written, which a moved checkpoint differs from.
    """

    claim: Claim
    window: Window
    revision: int
    epoch: str | None
    seq: int | None
    timeline: Timeline | None
    rules: tuple[ActiveRule, ...]


def claim(database: Database) -> HeldRules | None:
    """Take over the evaluation. None if there is no active rule.

    An evaluation that another process holds can write no more.
    """
    with database.connection() as connection:
        if not rules.has_active(connection):
            return None
    with database.transaction() as connection:
        active = tuple(map(_active_rule, connection.execute(_RULES).fetchall()))
        if not active:
            return None
        claimed = checkpoint.renew(connection, rules.CONSUMER, is_protected=False)
        revision, epoch, seq, timeline = _row(connection)
        read = None if timeline is None else Timeline(*json.loads(timeline))
        return HeldRules(claimed, read_window(connection), revision, epoch, seq, read, active)


def is_current(database: Database, held: HeldRules) -> bool:
    """Return whether no rule has changed since the claim."""
    with database.connection() as connection:
        return bool(_row(connection)[0] == held.revision)


def commit_secs(database: Database, first_seq: int, last_seq: int) -> dict[int, float | None]:
    """Return the wall time of each outbox row, in seconds since 1970."""
    with database.connection() as connection:
        return dict(json.loads(connection.execute(_TIMES, (first_seq, last_seq)).fetchone()[0]))


def save(
    database: Database,
    held: HeldRules,
    seq: int,
    timeline: Timeline,
    changed: Iterable[RuleProgress],
    decisions: Iterable[Decision],
) -> None:
    """Write the result of the events up to *seq*, all or nothing.

    Raises Superseded if another process has taken over, or if a rule or the checkpoint was changed.
    """
    with database.transaction() as connection:
        _require_unchanged(connection, held)
        checkpoint.advance(connection, rules.CONSUMER, held.window.epoch, seq, held.claim.generation)
        connection.execute(
            "UPDATE outfeed_alert_evaluation SET epoch = ?, seq = ?, timeline = ?",
            (held.window.epoch, seq, json.dumps(timeline)),
        )
        for each in changed:
            connection.execute(
                "UPDATE outfeed_alert SET state = ?, progress = ? WHERE name = ?",
                (each.state, json.dumps(each.as_dict()), each.rule.name),
            )
        for decision in decisions:
            _record(connection, decision)


def forget_positions(database: Database, held: HeldRules, seq: int) -> None:
    """Let every rule watch the events after *seq* of a new history.

    Raises Superseded if another process has taken over, or if a rule was changed.
    """
    with database.transaction() as connection:
        _require_unchanged(connection, held)
        checkpoint.prove(connection, held.claim.name, held.claim.generation)
        connection.execute("UPDATE outfeed_alert SET after_seq = ?", (seq,))


def _require_unchanged(connection: Connection, held: HeldRules) -> None:
    if _row(connection)[0] != held.revision:
        raise Superseded("a rule has changed")


def lag(database: Database) -> int | None:
    """Return the number of seqs that are not evaluated, None without rules."""
    with database.snapshot() as connection:
        at, window = _position(connection), read_window(connection)
    return None if at is None else window.last_seq - at


def secs_behind(database: Database) -> float:
    """Return the age of the oldest event that is not evaluated, or 0."""
    with database.snapshot() as connection:
        at = _position(connection)
        row = connection.execute("SELECT created_at FROM outbox WHERE seq > ? ORDER BY seq LIMIT 1", (at,)).fetchone()
    written = clock.parsed(row[0]) if row else None
    return 0.0 if written is None else (clock.now() - written).total_seconds()


def _position(connection: Connection) -> int | None:
    """Return the checkpoint's seq, 0 in another epoch, None without rules."""
    if not rules.has_active(connection) or not checkpoint.exists(connection, rules.CONSUMER):
        return None
    at = checkpoint.prove(connection, rules.CONSUMER, None)
    return at.seq if at.epoch == read_window(connection).epoch else 0


def _record(connection: Connection, decision: Decision) -> None:
    """Write the event of a decision, its notices, and the rule's counter."""
    rule, matched = decision.rule, decision.matched
    data = {
        "message": decision.message, "rule": rule.name, "condition": rule.condition.value, "count": decision.matches,
        "matched_seq": matched.seq if matched else None, "matched_id": matched.id if matched else None,
    }  # fmt: skip
    event = event_log.log_event(f"{PREFIX}{decision.kind}", SOURCE, data=data, connection=connection)
    for target in rule.targets:
        notices.add(
            connection, target, event_id=event.id, rule=rule.name, kind=decision.kind, title=decision.message,
            matches=decision.matches, matched_id=matched.id if matched else None, occurred_at=event.timestamp,
        )  # fmt: skip
    if decision.kind is NoticeKind.RAISED:
        connection.execute(
            "UPDATE outfeed_alert SET raises = raises + 1, raised_at = ? WHERE name = ?", (event.timestamp, rule.name)
        )


def _row(connection: Connection) -> tuple[int, str | None, int | None, str | None]:
    sql = "SELECT revision, epoch, seq, timeline FROM outfeed_alert_evaluation"
    found: tuple[int, str | None, int | None, str | None] = connection.execute(sql).fetchone()
    return found


def _active_rule(row: tuple[Any, ...]) -> ActiveRule:
    after_seq, state, progress = row[7:]
    return ActiveRule(rules.rule_of(row[:7]), after_seq, AlertState(state), progress and json.loads(progress))
