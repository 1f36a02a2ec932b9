"""`outfeed`, run in a process that runs short of what FILE names: python -m tests.ailing FILE serve.

`pages=N` lets the database have no more than that, `readonly` lets it only be read, `threads` leaves no thread to
start. The file is read again each time, so that a test may take the cause away. Locks are waited for half a second.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from app.store import database as db


def main(file: Path) -> None:
    def missing(what: str) -> str | None:
        lines = file.read_text().split() if file.exists() else []
        return next((line.removeprefix(what) for line in lines if line.startswith(what)), None)

    take, start_new = db.Database._take, threading._start_new_thread  # type: ignore[attr-defined]

    def take_limited(self: db.Database, *arguments: Any) -> Any:
        connection = take(self, *arguments)
        connection.execute(f"PRAGMA max_page_count = {missing('pages=') or 2**30}").fetchone()
        connection.execute(f"PRAGMA query_only = {int(missing('readonly') is not None)}")
        return connection

    def start_limited(*arguments: Any) -> Any:
        if missing("threads") is not None:
            raise RuntimeError("can't start new thread")
        return start_new(*arguments)

    db.BUSY_TIMEOUT_SECS = 0.5
    db.Database._take = take_limited  # type: ignore[method-assign]
    threading._start_new_thread = start_limited  # type: ignore[attr-defined]

    from app.cli import main as outfeed

    outfeed(sys.argv[2:])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
