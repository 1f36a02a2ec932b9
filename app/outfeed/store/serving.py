"""Serving: which server serves a database.

All processes of a server share a lease on the database.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import NamedTuple

from outfeed.store import lease, schema


class RunningServer(NamedTuple):
    """The version of a running server and the URL that it listens on.

    The URL is empty if the server recorded none.
    """

    version: str
    url: str


def version() -> str:
    """Return the version of this code."""
    return importlib.metadata.version(schema.DISTRIBUTION)


def announce(path: Path, url: str) -> None:
    """Record that this process serves the database at *url*.

    The record is valid until the last process that was forked from this one has ended.
    """
    lease.hold_shared(lease.lock_file(path, "serve"), f"{version()} {url}")


def serving(path: Path) -> RunningServer | None:
    """Return the server that serves the database at *path*, or None."""
    note = lease.shared_note(lease.lock_file(path, "serve"))
    if note is None:
        return None
    version, _, url = note.partition(" ")
    return RunningServer(version, url)


def note_clients(path: Path, worker: int, count: int) -> None:
    """Record how many clients the worker of that number has."""
    lease.write_number(lease.lock_file(path, "serve"), worker, count)


def clients(path: Path) -> int:
    """Return how many clients the workers of the running server have.

    The number is up to a second old.
    """
    return sum(lease.numbers(lease.lock_file(path, "serve")))
