"""Upgrade: the migrations with what an operator wants around them: a backup first, and no server that would break."""

from __future__ import annotations

import importlib.metadata
import logging
from pathlib import Path
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import SchemaMismatch
from outfeed.log_message import LogMessage
from outfeed.store import backup, files, lease, migrate

log = logging.getLogger(__name__)


class Upgraded(NamedTuple):
    """The migrations that were applied, in order, and where the database is kept as it was; None where it was new."""

    migrations: list[str]
    kept: Path | None


def upgrade(path: Path) -> Upgraded:
    """Make or upgrade the database at *path*; one that holds something is copied beside it first.

    Raises SchemaMismatch while a server serves it that doesn't know the new schema, and as `migrate.upgrade` does;
    OutfeedError where there is no room for the copy. Nothing was changed then.
    """
    names = migrate.pending(path)
    if not names or not path.exists():
        return Upgraded(migrate.upgrade(path), None)
    if (server := serving(path)) is not None:
        raise SchemaMismatch(f"{path} is being served by outfeed {server}; stop it, then upgrade: nothing was changed")
    kept = path.with_name(f"{path.name}.before-upgrade-{clock.now():%Y%m%dT%H%M%S%f}Z")
    with files.explained(f"write {kept}"):
        backup.copy_as_it_is(path, kept)
    log.info(LogMessage("kept database as it was", path=kept))
    return Upgraded(migrate.upgrade(path), kept)


def version() -> str:
    """Return the version of this code."""
    return importlib.metadata.version(migrate.DISTRIBUTION)


def serve(path: Path) -> None:
    """Say that this process, and those forked from it, serve the database; until the last of them ends."""
    lease.share(lease.lock_file(path, "serve"), version())


def serving(path: Path) -> str | None:
    """Return the version of a server that serves the database at *path*; None where none does."""
    return lease.sharer(lease.lock_file(path, "serve"))
