"""Stored events: a database filled by one INSERT, with its triggers, and with its search index, as one in service has.

A process of its own, so that nothing has the database open when a server starts.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from outfeed.store.database import Database
from outfeed.store.indexer import Indexer

_FILL = """
    WITH RECURSIVE stored (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM stored WHERE n < :events)
    INSERT INTO event_log (id, event_type, source, task_id, agent_id, data, timestamp)
    SELECT
        printf('0190a000-0000-7000-8000-%012x', n), 'tool.called', 'bench', 'task-0123', 'agent-0456',
        printf('{"n":1%06d,"t_ns":1000000000000000000,"text":"measured, not guessed"}', n % 1000000),
        strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    FROM stored"""


def fill(database: Path, events: int) -> None:
    """Write *events*, numbered from 1, to an upgraded *database* that nobody has open; not durably, but fast."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -500000;")
        connection.execute(_FILL, {"events": events})
        connection.execute("PRAGMA journal_mode = WAL")


def index(database: Path) -> None:
    """Make the search index, which would else be made while figures are taken."""
    Indexer(Database(database), pause_factor=0).run()


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    fill(Path(order["database"]), order["events"])
    index(Path(order["database"]))
    print("{}")
