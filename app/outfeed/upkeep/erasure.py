"""Erasure: deletes one event from everything that Outfeed stores."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from outfeed import clock
from outfeed.feature import registered
from outfeed.store import audit, database_file
from outfeed.store.database import Database
from outfeed.store.sqlite_errors import translate_errors

MAX_WAIT_SECS = 1.0
PAUSE_SECS = 0.02
CHUNK_ROWS = 500
# Rows whose JSON may be that of an event of a table.
_MARKED = (
    "SELECT rowid, id, data FROM event_log WHERE rowid > ? AND instr(data, ?) ORDER BY rowid LIMIT ?",
    "SELECT seq, event_id, payload FROM outbox WHERE seq > ? AND instr(payload, ?) ORDER BY seq LIMIT ?",
)
_COUNT_ONE = ("SELECT count(*) FROM event_log WHERE id = ?", "SELECT count(*) FROM outbox WHERE event_id = ?")
_DELETE_ONE = (
    "DELETE FROM event_log WHERE id = ?", "DELETE FROM outbox WHERE event_id = ?",
    "DELETE FROM outfeed_arrival WHERE event_id = ?",
)  # fmt: skip


def erase(database: Database, event_id: str, *, dry_run: bool = False, by: str | None = None) -> bool:
    """Delete an event from the log, the outbox and all features.

    Returns False if none of them has it. The event's bytes are overwritten in the file and, unless a reader blocks it,
    in the write-ahead log. Servers drop cached frames. Readers skip its seq. Archives, backups and events already shown
    can't be changed.
    """
    with database.transaction() as connection:
        connection.execute("PRAGMA secure_delete = ON").fetchall()
        counts = [connection.execute(statement, (event_id,)).fetchone()[0] for statement in _COUNT_ONE]
        is_found = any(counts) or any(feature.holds(connection, event_id) for feature in registered())
        if dry_run or not is_found:
            return is_found
        for feature in registered():
            feature.erase(connection, event_id)
        for statement in _DELETE_ONE:
            connection.execute(statement, (event_id,))
        connection.execute("UPDATE outfeed_meta SET value = value + 1 WHERE key = 'erasures'")
        message = f"Pruned event {event_id} from the log and the outbox"
        audit.record(connection, "system.pruned", by, message=message, events=1, id=event_id)
    _empty_write_ahead_log(database)
    return True


def erase_row(
    database: Database, table: str, key: Mapping[str, Any], *, dry_run: bool = False, by: str | None = None
) -> int:
    """Delete every event of one row of a watched table; return the number.

    Deletes as `erase` does each event with this key, and each one that changed the key. The event that reports the
    erasure names the table only.
    """
    ids = _events_of_row(database, table, key)
    if dry_run or not ids:
        return len(ids)
    for start in range(0, len(ids), CHUNK_ROWS):
        with database.transaction() as connection:
            connection.execute("PRAGMA secure_delete = ON").fetchall()
            for event_id in ids[start : start + CHUNK_ROWS]:
                for feature in registered():
                    feature.erase(connection, event_id)
                for statement in _DELETE_ONE:
                    connection.execute(statement, (event_id,))
            connection.execute("UPDATE outfeed_meta SET value = value + 1 WHERE key = 'erasures'")
    with database.transaction() as connection:
        message = f"Pruned {len(ids):,} events of one row of {table}"
        audit.record(connection, "system.pruned", by, message=message, events=len(ids), table=table)
    _empty_write_ahead_log(database)
    return len(ids)


def _events_of_row(database: Database, table: str, key: Mapping[str, Any]) -> list[str]:
    """Return the ids of the row's events in log and outbox, each once."""
    marker = f'"table":{json.dumps(table, ensure_ascii=False)},"key":{{'
    ids: dict[str, None] = {}
    for statement in _MARKED:
        place = 0
        while True:
            with database.connection(is_limited=False) as connection:
                rows = connection.execute(statement, (place, marker, CHUNK_ROWS)).fetchall()
            if not rows:
                break
            place = rows[-1][0]
            ids |= {event_id: None for _, event_id, text in rows if _is_of_row(text, table, key)}
    return list(ids)


def _is_of_row(text: str, table: str, key: Mapping[str, Any]) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    data = found.get("data", found)
    if not isinstance(data, dict) or data.get("table") != table or not isinstance(data.get("key"), dict):
        return False
    was = data.get("was") or {}
    before = {name: was.get(name, value) for name, value in data["key"].items()}
    return key in (data["key"], before)


def _empty_write_ahead_log(database: Database) -> None:
    """Truncate the write-ahead log.

    Gives up if a reader blocks it for MAX_WAIT_SECS. It retries with a busy timeout of 0: writers wait as long as
    SQLite waits for readers, which is too long during a backup.
    """
    deadline = clock.monotonic() + MAX_WAIT_SECS
    with closing(database_file.connect(database.path)) as connection, translate_errors(database.path):
        connection.execute("PRAGMA busy_timeout = 0").fetchall()
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] and clock.monotonic() < deadline:
            time.sleep(PAUSE_SECS)
