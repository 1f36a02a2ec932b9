"""The triggers that fill and guard the outbox, and those that tell of rights: putting back what a tool dropped.

Rebuilding a table, as many tools do to change a column, drops its triggers without a word.
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
# What the filling trigger inserts; NEW there is the row.
_FILLED = re.compile(r"INSERT INTO outbox \(event_id, payload, created_at\) VALUES \((.*)\);\s*END", re.DOTALL)
_NEWEST_IN_BOTH = """
    SELECT event_log.rowid FROM outbox JOIN event_log ON event_log.id = outbox.event_id ORDER BY seq DESC LIMIT 1
"""
# An outbox none of whose events is left in the log: whatever is older than its last row is history.
_NEWEST_OLDER = f"""
    SELECT max(rowid) FROM event_log
    WHERE {instants.sql("timestamp")} < (SELECT {instants.sql("created_at")} FROM outbox ORDER BY seq DESC LIMIT 1)
"""  # noqa: S608 - ours


class BrokenTrigger(NamedTuple):
    """A trigger that isn't as we made it: its name, what it must say, and what it says (None: it is missing).

    Or that another one, *newer*, runs before: SQLite runs the newest first.
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
    """What was put back, one phrase each, and how many events were added that had been missed."""

    triggers: list[str]
    added: int


def problems(database: Database) -> list[str]:
    """Return what is wrong with the triggers, one phrase each; none when all is well."""
    with database.connection() as connection:
        return [str(each) for each in _broken(connection)]


class TriggerGuard:
    """Puts triggers and journal mode back. `check` is called about every second, by each process that serves."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known_id: Any = None
        self._failure: str | None = None

    def check(self) -> None:
        """Look, and mend what is broken. Never raises: what goes wrong is logged once, and tried again."""
        try:
            self._check()
            self._failure = None
        except DatabaseError as error:
            if str(error) != self._failure:
                log.error(LogMessage("triggers can't be looked after, trying again", error=error))
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
        """Put the journal mode back: a backup that was copied into place has one in which readers stop writers."""
        with self._database.connection() as connection:
            if connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",):
                log.warning(LogMessage("journal mode put back", before=before))


def repair(database: Database, known_id: Any = None) -> Repaired | None:
    """Put back every trigger that isn't as we made it and add what the outbox missed; None where all was well.

    All in one transaction, with the event that says so; of many processes one does it. *known_id* is the id of an event
    up to which nothing is missing, where the caller knows one.
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
        # Something may have been revoked meanwhile: all who are connected are looked at again.
        connection.execute("UPDATE outfeed_meta SET value = value + 1 WHERE key = 'rights'")
        mended = Repaired([str(each) for each in broken], added)
        _report(connection, mended)
    log.warning(LogMessage("triggers put back", triggers=",".join(each.name for each in broken), added=added))
    return mended


def count_missed(database: Database) -> int:
    """Return how many events the outbox has missed, as far as can be known afterwards."""
    with database.snapshot() as connection:
        row = connection.execute(
            "SELECT count(*) FROM event_log WHERE rowid > ?"
            " AND NOT EXISTS (SELECT 1 FROM outbox WHERE event_id = event_log.id)",
            (_caught_up_to(connection, None),),
        ).fetchone()
    return int(row[0])


def add_missed(database: Database) -> int:
    """Add to the outbox what it has missed though its triggers are in order; return how many events."""
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
    """Return the other triggers that run after each INSERT before the feed's own: an event that one of them adds to
    the log would get a lower seq than the event that it follows from."""
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'event_log' COLLATE NOCASE"
        " AND rowid > (SELECT rowid FROM sqlite_master WHERE type = 'trigger' AND name = ?)"
        " AND 'trigger:' || name NOT IN (SELECT key FROM outfeed_meta) ORDER BY rowid",
        (OUTBOX_TRIGGER,),
    ).fetchall()
    return [str(name) for name, sql in rows if _AFTER_INSERT.search(_COMMENT.sub(" ", str(sql)))]


def _add_missed(connection: sqlite3.Connection, trigger: str, known_id: Any) -> int:
    """Add to the outbox what came after the floor, oldest first; never what is older: the outbox has forgotten it."""
    match = _FILLED.search(trigger)
    if match is None:
        raise SchemaMismatch(f"the trigger {OUTBOX_TRIGGER} in meta says nothing that could be caught up with")
    statement = (
        f"INSERT INTO outbox (event_id, payload, created_at) SELECT {match[1]} FROM event_log AS NEW"  # noqa: S608
        " WHERE NEW.rowid > ? AND NOT EXISTS (SELECT 1 FROM outbox WHERE event_id = NEW.id) ORDER BY NEW.rowid"
    )
    return connection.execute(statement, (_caught_up_to(connection, known_id),)).rowcount


def _caught_up_to(connection: sqlite3.Connection, known_id: Any) -> int:
    """Return the rowid up to which nothing is missing. By ids: a rebuilt table may have other rowids."""
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


def _report(connection: sqlite3.Connection, mended: Repaired) -> None:
    events = "1 event that the feed" if mended.added == 1 else f"{mended.added:,} events that the feed"
    message = f"{', '.join(mended.triggers).capitalize()}: put back, and {events} had missed added"
    data = {"message": message, "triggers": mended.triggers, "added": mended.added}
    log_event(EventType.SYSTEM_WARNING, "outfeed", data=data, connection=connection)
