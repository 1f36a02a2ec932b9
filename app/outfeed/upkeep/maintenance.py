"""Chores: when a prune or a backup last went well, and when it last failed; whichever process did it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import DatabaseError
from outfeed.store.database import Database

PREFIX = "chore:"


class MaintenanceRun(NamedTuple):
    """What is known of one; Unix times, None where it never happened."""

    succeeded_at: float | None = None
    failed_at: float | None = None
    seconds: float | None = None


@contextmanager
def noted(database: Database, name: str) -> Iterator[None]:
    """Note how the block goes. That this can't be written down changes nothing."""
    began = clock.monotonic()
    with ExitStack() as undone:
        undone.callback(lambda: _note(database, name, failed_at=clock.now().timestamp()))
        yield
        undone.pop_all()
    _note(database, name, succeeded_at=clock.now().timestamp(), seconds=round(clock.monotonic() - began, 3))


def _note(database: Database, name: str, **changes: float) -> None:
    with suppress(DatabaseError), database.transaction() as connection:
        row = connection.execute("SELECT value FROM outfeed_meta WHERE key = ?", (PREFIX + name,)).fetchone()
        known = json.loads(row[0]) if row else {}
        connection.execute(
            "INSERT INTO outfeed_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE"
            " SET value = excluded.value",
            (PREFIX + name, json.dumps(known | changes)),
        )


def known(database: Database) -> dict[str, MaintenanceRun]:
    """Return the chores that were ever noted, by name."""
    with database.connection() as connection:
        rows = connection.execute("SELECT key, value FROM outfeed_meta WHERE key GLOB ?", (PREFIX + "*",)).fetchall()
    return {key.removeprefix(PREFIX): MaintenanceRun(**json.loads(value)) for key, value in rows}
