"""Run `outfeed` in this process, with faults that FILE names.

The arguments are FILE and those of `outfeed`. `pages=N` limits the database to that many pages. `readonly` makes it
read-only. With `threads` no thread can be started. With `descriptors` no socket pair can be opened. `clock=N` sets the
wall clock N seconds ahead. The file is read again each time, so that a test may remove the fault. The busy timeout is
half a second, or `patience=N`. With `hasty` at the start, slow clients have a fifth of the time.
"""

from __future__ import annotations

import errno
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import apscheduler.executors.base
import apscheduler.schedulers.base

from outfeed import clock
from outfeed.store import database as db
from outfeed.store import database_file


def main(arguments: list[str]) -> None:
    file = Path(arguments[0])

    def missing(what: str) -> str | None:
        try:
            lines = file.read_text().split()
        except OSError:  # no fault is set, or no descriptor is left
            return None
        return next((line.removeprefix(what) for line in lines if line.startswith(what)), None)

    connection, start, make_pair = db.Database.connection, threading.Thread.start, socket.socketpair

    @contextmanager
    def limited_connection(self: db.Database, **options: Any) -> Iterator[sqlite3.Connection]:
        with connection(self, **options) as found:
            found.execute(f"PRAGMA max_page_count = {missing('pages=') or 2**30}").fetchone()
            found.execute(f"PRAGMA query_only = {int(missing('readonly') is not None)}")
            yield found

    def start_limited(self: threading.Thread) -> None:
        if missing("threads") is not None:
            raise RuntimeError("can't start new thread")
        start(self)

    def make_pair_limited(*arguments: Any) -> Any:
        if missing("descriptors") is not None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return make_pair(*arguments)

    class Stepped(datetime):
        """The wall clock for code that reads it repeatedly."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=int(missing("clock=") or 0))

    for module in (clock, apscheduler.schedulers.base, apscheduler.executors.base):
        module.datetime = Stepped  # type: ignore[attr-defined]
    database_file.BUSY_TIMEOUT_SECS = float(missing("patience=") or 0.5)
    db.Database.connection = limited_connection  # type: ignore[method-assign,assignment]
    threading.Thread.start = start_limited  # type: ignore[method-assign]
    socket.socketpair = make_pair_limited

    from outfeed.cli import main as outfeed
    from outfeed.http.server import incoming, worker

    haste = 1 if missing("hasty") is None else 5
    worker.FIRST_REQUEST_SECS /= haste
    worker.REQUEST_SECS /= haste
    worker.UNREAD_SECS = incoming.UNREAD_SECS = incoming.UNREAD_SECS / haste

    outfeed(arguments[1:])
