"""How yoyo reaches a database of ours: on our connection, in one transaction. Loaded only when there is work.

Nothing here takes yoyo's lock: it is a row, and outlives a kill -9.
"""

from __future__ import annotations

import glob
import logging
import os
import socket
import sqlite3
import uuid
from pathlib import Path
from typing import Any

from yoyo import internalmigrations, read_migrations
from yoyo.backends.core.sqlite3 import SQLiteBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import Migration, default_migration_table

from outfeed import clock
from outfeed.store import database


def apply_all(path: Path, folder: Path) -> list[str]:
    """Apply what the database at *path* lacks of the migrations in *folder*, all or nothing; return the names in order.

    The caller holds the lease. SQLite's own errors come out.
    """
    logging.getLogger("yoyo").setLevel(logging.WARNING)
    uri = DatabaseURI("sqlite", None, None, None, None, str(path), {})
    with _Backend(uri, default_migration_table) as backend, backend.transaction():
        migrations = list(backend.to_apply(read_migrations(glob.escape(str(folder)))))
        for migration in migrations:
            backend.apply_and_mark(migration)
        return [migration.id for migration in migrations]


class _Backend(SQLiteBackend):
    """yoyo's own, on connections from `database.connect`, with no commit but the caller's."""

    def connect(self, dburi: DatabaseURI) -> sqlite3.Connection:
        return database.connect(Path(dburi.database))

    def begin(self) -> None:
        self.execute("BEGIN IMMEDIATE")
        self._in_transaction = True

    def ensure_internal_schema_updated(self) -> None:
        """Make or upgrade yoyo's own tables, without its commit."""
        if internalmigrations.needs_upgrading(self):
            internalmigrations.upgrade(self)

    def apply_and_mark(self, migration: Migration) -> None:
        """Do both in the transaction that is open, so that no kill comes between: yoyo's `apply_one` takes two."""
        migration.process_steps(self, "apply")
        self.mark_one(migration)

    def get_log_data(self, migration: Migration | None = None, operation: str = "apply") -> dict[str, Any]:
        # yoyo's own asks the passwd file, which may not know us in a container, and DNS, which may take its time.
        return {
            "id": str(uuid.uuid4()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "operation": operation,
            "username": str(os.getuid()),
            "hostname": socket.gethostname(),
            "created_at_utc": clock.timestamp(),
        }
