"""A backup that kills its own process at a given statement."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

from outfeed.store import database as db
from outfeed.upkeep import backups


def make(path: Path, folder: Path, last: int, told: Path) -> None:
    """Back up the database up to statement number *last*.

    Statements of all connections count. Writes the number of statements to *told*.
    """
    statements = 0

    def count(_: str) -> None:
        nonlocal statements
        statements += 1
        if statements == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(count)
        return connection

    connect = sqlite3.connect
    sqlite3.connect = watched  # type: ignore[assignment]
    backups.make(db.at(path), folder, 5, by="tests")
    told.write_text(str(statements))
