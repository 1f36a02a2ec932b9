"""An upgrade that kills its own process at a given statement."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

from outfeed.store import migrate


def upgrade(path: Path, last: int, told: Path) -> None:
    """Upgrade the database up to statement number *last*.

    Statements of all connections count. Returns the number of statements.
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
    migrate.upgrade(path, adopt=True)
    told.write_text(str(statements))
