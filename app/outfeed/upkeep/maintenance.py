"""Maintenance runs: the last success and failure of a prune or backup.

Runs of all processes count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import DatabaseError, QueryCancelled
from outfeed.store.database import Database

PREFIX = "maintenance:"
MAX_ERROR_CHARS = 500


class MaintenanceRun(NamedTuple):
    """Times of one kind of run, as Unix times. None if it never happened.

    *failures* is the number of failed runs, and *error* the reason of the last one.
    """

    succeeded_at: float | None = None
    failed_at: float | None = None
    seconds: float | None = None
    failures: int = 0
    error: str | None = None

    @property
    def has_failed(self) -> bool:
        """Return whether the last run failed."""
        return (self.failed_at or 0) > (self.succeeded_at or 0)


@contextmanager
def recorded(database: Database, name: str) -> Iterator[None]:
    """Record whether the block succeeds. Errors of the recording are ignored.

    A run that the server's stop cancels is not recorded.
    """
    began = clock.monotonic()
    try:
        yield
    except QueryCancelled:
        raise
    except BaseException as error:  # Ctrl-C is a failure, too
        _save_failure(database, name, error)
        raise
    _save(database, name, succeeded_at=clock.now().timestamp(), seconds=round(clock.monotonic() - began, 3))


def _save_failure(database: Database, name: str, error: BaseException) -> None:
    reason = (str(error) or type(error).__name__)[:MAX_ERROR_CHARS]
    _save(database, name, failures=1, failed_at=clock.now().timestamp(), error=reason)


def _save(database: Database, name: str, *, failures: int = 0, **changes: float | str) -> None:
    """Change the row of that kind of run; *failures* are added."""
    with suppress(DatabaseError), database.transaction() as connection:
        row = connection.execute("SELECT value FROM outfeed_meta WHERE key = ?", (PREFIX + name,)).fetchone()
        known = json.loads(row[0]) if row else {}
        count = known.get("failures", 0) + failures
        connection.execute(
            "INSERT INTO outfeed_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE"
            " SET value = excluded.value",
            (PREFIX + name, json.dumps({**known, **changes, "failures": count})),
        )


def runs(database: Database) -> dict[str, MaintenanceRun]:
    """Return the recorded runs, by name."""
    with database.connection() as connection:
        rows = connection.execute("SELECT key, value FROM outfeed_meta WHERE key GLOB ?", (PREFIX + "*",)).fetchall()
    return {key.removeprefix(PREFIX): MaintenanceRun(**json.loads(value)) for key, value in rows}
