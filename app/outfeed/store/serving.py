"""Serving: which server serves a database, by a lease that all its processes share."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import NamedTuple

from outfeed.store import lease, schema


class RunningServer(NamedTuple):
    """A server that runs: its version, and the address that it listens on as a URL; empty if it did not say."""

    version: str
    url: str


def version() -> str:
    """Return the version of this code."""
    return importlib.metadata.version(schema.DISTRIBUTION)


def announce(path: Path, url: str) -> None:
    """Record that this process, and those forked from it, serve the database at *url*, until the last of them ends."""
    lease.share(lease.lock_file(path, "serve"), f"{version()} {url}")


def serving(path: Path) -> RunningServer | None:
    """Return the server that serves the database at *path*; None if none does."""
    note = lease.sharer(lease.lock_file(path, "serve"))
    if note is None:
        return None
    version, _, url = note.partition(" ")
    return RunningServer(version, url)
