"""Serving: which server serves a database, by a lease that all its processes share."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from outfeed.store import lease


class Server(NamedTuple):
    """A server that runs: its version, and the address that it listens on as a URL; empty if it did not say."""

    version: str
    url: str


def announce(path: Path, server: Server) -> None:
    """Say that this process, and those forked from it, serve the database; until the last of them ends."""
    lease.share(lease.lock_file(path, "serve"), f"{server.version} {server.url}")


def serving(path: Path) -> Server | None:
    """Return the server that serves the database at *path*; None if none does."""
    note = lease.sharer(lease.lock_file(path, "serve"))
    if note is None:
        return None
    version, _, url = note.partition(" ")
    return Server(version, url)
