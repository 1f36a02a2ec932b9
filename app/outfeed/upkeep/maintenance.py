"""Maintenance runs: the last success and failure of a prune or backup.

Runs of all processes count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import DatabaseError
from outfeed.store.database import Database

PREFIX = "maintenance:"


class MaintenanceRun(NamedTuple):
    """Times of one kind of run, as Unix times. None if it never happened."""

    succeeded_at: float | None = None
    failed_at: float | None = None
    seconds: float | None = None


@contextmanager
def recorded(database: Database, name: str) -> Iterator[None]:
    """Record whether the block succeeds. Errors of the recording are ignored."""
    began = clock.monotonic()
    with ExitStack() as failed:
        failed.callback(lambda: _save(database, name, failed_at=clock.now().timestamp()))
        yield
        failed.pop_all()
    _save(database, name, succeeded_at=clock.now().timestamp(), seconds=round(clock.monotonic() - began, 3))


def _save(database: Database, name: str, **changes: float) -> None:
    with suppress(DatabaseError), database.transaction() as connection:
        row = connection.execute("SELECT value FROM outfeed_meta WHERE key = ?", (PREFIX + name,)).fetchone()
        known = json.loads(row[0]) if row else {}
        connection.execute(
            "INSERT INTO outfeed_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE"
            " SET value = excluded.value",
            (PREFIX + name, json.dumps(known | changes)),
        )


def runs(database: Database) -> dict[str, MaintenanceRun]:
    """Return the recorded runs, by name."""
    with database.connection() as connection:
        rows = connection.execute("SELECT key, value FROM outfeed_meta WHERE key GLOB ?", (PREFIX + "*",)).fetchall()
    return {key.removeprefix(PREFIX): MaintenanceRun(**json.loads(value)) for key, value in rows}
