"""Triggers that fill and guard the outbox or count permission changes.

`TriggerGuard` restores triggers that a tool dropped. Many tools rebuild a table to change a column, which drops its
triggers silently.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from typing import Any, NamedTuple

from outfeed.errors import DatabaseError, SchemaMismatch
from outfeed.events import MAX_NAME_CHARS, EventType
from outfeed.log_message import LogMessage
from outfeed.store import database as db
from outfeed.store import instants
from outfeed.store.database import Database
from outfeed.store.event_log import log_event

OUTBOX_TRIGGER, STALE_TRIGGER = "event_log_outbox", "event_log_stale"
log = logging.getLogger(__name__)

_AFTER_INSERT = re.compile(r"\bAFTER\s+INSERT\s+ON\b", re.IGNORECASE)
_COMMENT = re.compile(r"/\*.*?\*/|--[^\n]*", re.DOTALL)
# The values that the outbox trigger inserts. NEW is the row of event_log.
_FILLED = re.compile(r"INSERT INTO outbox \(event_id, payload, created_at\) VALUES \((.*)\);\s*END", re.DOTALL)
_NEWEST_IN_BOTH = """
    SELECT event_log.rowid FROM outbox JOIN event_log ON event_log.id = outbox.event_id ORDER BY seq DESC LIMIT 1
"""
# For an outbox of which no event is left in the log: every event older than its last row is history.
_NEWEST_OLDER = f"""
    SELECT max(rowid) FROM event_log
    WHERE {instants.sql("timestamp")} < (SELECT {instants.sql("created_at")} FROM outbox ORDER BY seq DESC LIMIT 1)
"""  # noqa: S608 - ours


class BrokenTrigger(NamedTuple):
    """A trigger that is missing, altered or in the wrong order.

    *expected* is the text that it must have, *found* the text that it has (None: it is missing). *newer* is another
    trigger that runs before it, because SQLite runs the newest first.
    """

    name: str
    expected: str
    found: str | None
    newer: str | None = None

    def __str__(self) -> str:
        if self.newer is not None:
            return f"trigger {self.name} runs after the trigger {self.newer[:MAX_NAME_CHARS]}"
        return f"trigger {self.name} is {'missing' if self.found is None else 'altered'}"


class Repaired(NamedTuple):
    """The restored triggers, one phrase each, and the added events.

    *added* is the number of events that the outbox had missed.
    """

    triggers: list[str]
    added: int


def problems(database: Database) -> list[str]:
    """Return what is wrong with the triggers, one phrase each.

    The list is empty if all triggers are in order.
    """
    with database.connection() as connection:
        return [str(each) for each in _broken(connection)]


class TriggerGuard:
    """Restores triggers and journal mode.

    Each serving process calls `check` about every second.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known_id: Any = None
        self._failure: str | None = None

    def check(self) -> None:
        """Check the triggers and repair broken ones.

        Never raises: an error is logged once, and the next call retries.
        """
        try:
            self._check()
            self._failure = None
        except DatabaseError as error:
            if str(error) != self._failure:
                log.error(LogMessage("can't check the triggers, trying again", error=error))
            self._failure = str(error)

    def _check(self) -> None:
        with self._database.snapshot() as connection:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            broken = _broken(connection)
            if not broken:
                self._known_id = _newest_id(connection)
        if mode != "wal":
            self._switch_to_wal(mode)
        if broken:
            repair(self._database, self._known_id)

    def _switch_to_wal(self, before: str) -> None:
        """Set the journal mode to WAL again.

        A backup that was copied into place may have a journal mode in which readers block writers.
        """
        with self._database.connection() as connection:
            if connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",):
                log.warning(LogMessage("journal mode restored", before=before))


def repair(database: Database, known_id: Any = None) -> Repaired | None:
    """Restore broken triggers and add the events that the outbox missed.

    Returns None if all triggers are in order. The repair is one transaction, with the event that reports it. If several
    processes call it, one does the work. *known_id* is the id of an event up to which no event is missing, if the
    caller knows one.
    """
    with database.transaction() as connection:
        broken = _broken(connection)
        if not broken:
            return None
        for each in broken:
            connection.execute(f'DROP TRIGGER IF EXISTS "{each.name}"')
            connection.execute(each.expected)
        added = 0
        for each in broken:
            if each.name == OUTBOX_TRIGGER and each.newer is None:
                added = _add_missed(connection, each.expected, known_id)
            if each.name == STALE_TRIGGER:  # the full-text index has missed deletions, and rows may have other rowids
                connection.execute("UPDATE outfeed_meta SET value = value + 1 WHERE key = 'renumberings'")
        # A permission may have been revoked while the trigger was missing, so all connected clients are checked again.
        connection.execute("UPDATE outfeed_meta SET value = value + 1 WHERE key = 'rights'")
        repaired = Repaired([str(each) for each in broken], added)
        _report(connection, repaired)
    log.warning(LogMessage("triggers restored", triggers=",".join(each.name for each in broken), added=added))
    return repaired


def count_missed(database: Database) -> int:
    """Return the number of events that the outbox has missed.

    Only the events that can be recognised afterwards are counted.
    """
    with database.snapshot() as connection:
        row = connection.execute(
            "SELECT count(*) FROM event_log WHERE rowid > ?"
            " AND NOT EXISTS (SELECT 1 FROM outbox WHERE event_id = event_log.id)",
            (_caught_up_to(connection, None),),
        ).fetchone()
    return int(row[0])


def add_missed(database: Database) -> int:
    """Add missed events to the outbox; return their number.

    Use it if the triggers are in order.
    """
    with database.transaction() as connection:
        added = _add_missed(connection, db.meta(connection, f"trigger:{OUTBOX_TRIGGER}"), None)
        if added:
            _report(connection, Repaired([f"trigger {OUTBOX_TRIGGER} was missing for a while"], added))
    return added


def _broken(connection: sqlite3.Connection) -> list[BrokenTrigger]:
    rows = connection.execute(
        "SELECT substr(key, 9), value, sql FROM outfeed_meta LEFT JOIN sqlite_master ON type = 'trigger'"
        " AND name = substr(key, 9) WHERE key LIKE 'trigger:%'"
    ).fetchall()
    broken = [BrokenTrigger(name, expected, found) for name, expected, found in rows if found != expected]
    for name, expected, found in rows:
        if name == OUTBOX_TRIGGER and found == expected:
            broken += [BrokenTrigger(name, expected, found, newer) for newer in _newer(connection)[:1]]
    return broken


def _newer(connection: sqlite3.Connection) -> list[str]:
    """Return the foreign insert triggers that run before the feed's own.

    An event that such a trigger adds to the log would get a lower seq than the event that caused it.
    """
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'event_log' COLLATE NOCASE"
        " AND rowid > (SELECT rowid FROM sqlite_master WHERE type = 'trigger' AND name = ?)"
        " AND 'trigger:' || name NOT IN (SELECT key FROM outfeed_meta) ORDER BY rowid",
        (OUTBOX_TRIGGER,),
    ).fetchall()
    return [str(name) for name, sql in rows if _AFTER_INSERT.search(_COMMENT.sub(" ", str(sql)))]


def _add_missed(connection: sqlite3.Connection, trigger: str, known_id: Any) -> int:
    """Add the events after the last known one to the outbox.

    They are added oldest first. Older events are never added, because the outbox has pruned them.
    """
    match = _FILLED.search(trigger)
    if match is None:
        raise SchemaMismatch(
            f"the trigger {OUTBOX_TRIGGER} in outfeed_meta has no INSERT into the outbox; missed events can't be added"
        )
    statement = (
        f"INSERT INTO outbox (event_id, payload, created_at) SELECT {match[1]} FROM event_log AS NEW"  # noqa: S608
        " WHERE NEW.rowid > ? AND NOT EXISTS (SELECT 1 FROM outbox WHERE event_id = NEW.id) ORDER BY NEW.rowid"
    )
    return connection.execute(statement, (_caught_up_to(connection, known_id),)).rowcount


def _caught_up_to(connection: sqlite3.Connection, known_id: Any) -> int:
    """Return the rowid up to which no event is missing.

    It is found by ids, because a rebuilt table may have other rowids.
    """
    if known_id is not None and (found := _rowid_of(connection, known_id)) is not None:
        return found
    row = connection.execute(_NEWEST_IN_BOTH).fetchone()
    if row:
        return int(row[0])
    adopted = db.meta(connection, "adopted")
    if adopted is not None and (found := _rowid_of(connection, adopted)) is not None:
        return found
    (older,) = connection.execute(_NEWEST_OLDER).fetchone()
    return -(2**63) if older is None else int(older)


def _rowid_of(connection: sqlite3.Connection, event_id: Any) -> int | None:
    row = connection.execute("SELECT rowid FROM event_log WHERE id = ?", (event_id,)).fetchone()
    return int(row[0]) if row else None


def _newest_id(connection: sqlite3.Connection) -> Any:
    row = connection.execute("SELECT id FROM event_log ORDER BY rowid DESC LIMIT 1").fetchone()
    return row[0] if row else None


def _report(connection: sqlite3.Connection, repaired: Repaired) -> None:
    events = "1 event that the feed" if repaired.added == 1 else f"{repaired.added:,} events that the feed"
    message = f"{', '.join(repaired.triggers).capitalize()}: restored; added {events} had missed"
    data = {"message": message, "triggers": repaired.triggers, "added": repaired.added}
    log_event(EventType.SYSTEM_WARNING, "outfeed", data=data, connection=connection)
