"""Four programs whose tables are in one file.

They are a ledger, memories, a router and a queue of upgrades. Each call of a program opens a connection, creates its
table if needed, runs one statement, commits and closes. The programs import nothing of Outfeed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from outfeed.config import settings
from outfeed.store.database import Database
from outfeed.watch import definition
from outfeed.watch.part import WatchPart
from outfeed.watch.store import watches

FILE = Path(__file__).with_name("watches.toml")
TABLES = {
    "ledger": """
        id TEXT PRIMARY KEY, tx_type TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending',
        payment_hash TEXT NOT NULL UNIQUE, amount_sats INTEGER NOT NULL, memo TEXT, invoice TEXT, preimage TEXT,
        source TEXT NOT NULL, task_id TEXT, agent_id TEXT, created_at TEXT NOT NULL, settled_at TEXT,
        fee_sats INTEGER DEFAULT 0""",
    "memory_entries": """
        id TEXT PRIMARY KEY, content TEXT NOT NULL, source TEXT NOT NULL,
        context_type TEXT NOT NULL DEFAULT 'conversation', agent_id TEXT, task_id TEXT, session_id TEXT,
        metadata TEXT, embedding TEXT, timestamp TEXT NOT NULL""",
    "provider_metrics": """
        provider_name TEXT PRIMARY KEY, total_requests INTEGER DEFAULT 0, successful_requests INTEGER DEFAULT 0,
        failed_requests INTEGER DEFAULT 0, avg_latency_ms REAL DEFAULT 0, last_error_time TEXT,
        circuit_state TEXT DEFAULT 'closed', updated_at TEXT""",
    "upgrades": """
        id TEXT PRIMARY KEY, status TEXT NOT NULL DEFAULT 'proposed', proposed_at TEXT NOT NULL, approved_at TEXT,
        applied_at TEXT, rejected_at TEXT, branch_name TEXT NOT NULL, description TEXT NOT NULL, files_changed TEXT,
        diff_preview TEXT, test_passed INTEGER DEFAULT 0, test_output TEXT, error_message TEXT, approved_by TEXT""",
}


class Program:
    """One program on its table."""

    def __init__(self, path: Path, table: str) -> None:
        self.path, self.table = path, table

    def run(self, statement: str, *values: Any) -> int:
        """Run one statement as the program does.

        Returns the number of changed rows.
        """
        return self.run_many(statement, [values])

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]], *, rolled_back: bool = False) -> int:
        """Run one statement for each of *rows*, in one transaction."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(self.schema)
            done = connection.executemany(statement, rows)
            if rolled_back:
                connection.rollback()
            else:
                connection.commit()
            return done.rowcount

    def insert(self, **values: Any) -> None:
        self.run(self.insert_statement(values), *values.values())

    def insert_statement(self, values: Any) -> str:
        return f"INSERT INTO {self.table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"

    @property
    def schema(self) -> str:
        return f"CREATE TABLE IF NOT EXISTS {self.table} ({TABLES[self.table]})"

    def create(self) -> None:
        """Run a statement that changes no row."""
        self.run(f"DELETE FROM {self.table} WHERE 0")


def apply(database: Database, text: str | None = None) -> watches.Applied:
    """Make the watches of the file, or of *text*, those of the database."""
    wanted = definition.from_toml(FILE.read_text() if text is None else text)
    with database.transaction() as connection:
        return watches.apply(connection, wanted, settings())


def without(table: str) -> str:
    """Return the file without the watch of that table."""
    head, *parts = FILE.read_text().split("[[watch]]")
    return "[[watch]]".join([head, *(part for part in parts if f'table = "{table}"' not in part)])


def start(database: Database, table: str, *, table_first: bool) -> Program:
    """Return the program of that table, once the table exists and is watched."""
    program = Program(database.path, table)
    if table_first:
        program.create()
        apply(database)
    else:
        apply(database)
        program.create()
        WatchPart(database, settings()).check()
    return program
