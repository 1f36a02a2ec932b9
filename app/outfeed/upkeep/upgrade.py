"""Upgrade: the migrations with what an operator wants around them: a backup first, and no server that would break."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import SchemaMismatch
from outfeed.log_message import LogMessage
from outfeed.store import database, files, migrate, serving
from outfeed.upkeep import backup

log = logging.getLogger(__name__)


class Upgraded(NamedTuple):
    """The migrations that were applied, in order, and where the database is kept as it was; None where it was new."""

    migrations: list[str]
    kept: Path | None


def upgrade(path: Path, *, adopt: bool = False) -> Upgraded:
    """Make or upgrade the database at *path*; a database that holds something is copied beside it first.

    Raises AdoptionNeeded and SchemaMismatch as `migrate.upgrade` does, SchemaMismatch also while a server serves the
    database, and OutfeedError if there is no room for the copy. A call that raises has changed nothing and has left
    neither a copy nor a lock file.
    """
    names = migrate.pending(path)
    if not names or database.is_new(path):
        return Upgraded(migrate.upgrade(path), None)
    migrate.check(path, adopt=adopt)
    refuse_served(path, "upgrade")
    kept = keep(path, "before-upgrade")
    applied: list[str] = []
    try:
        applied = migrate.upgrade(path, adopt=adopt)
    finally:
        # Nothing was changed: it was refused, or another process has done it meanwhile.
        if not applied:
            kept.unlink(missing_ok=True)
    return Upgraded(applied, kept if applied else None)


def refuse_served(path: Path, doing: str) -> None:
    """Raise SchemaMismatch while a server serves the database at *path*."""
    if (server := serving.serving(path)) is not None:
        raise SchemaMismatch(
            f"{path} is being served by outfeed {server.version}; stop it, then {doing}: nothing was changed"
        )


def keep(path: Path, why: str) -> Path:
    """Copy the database at *path* beside it, as it is, and return the copy's path.

    The name has the process id, since two starters may copy within the same microsecond, and one removes its copy.
    """
    kept = path.with_name(f"{path.name}.{why}-{clock.now():%Y%m%dT%H%M%S%f}Z.{os.getpid()}")
    with files.translate_os_errors(f"write {kept}"):
        backup.copy_as_it_is(path, kept)
    log.info(LogMessage("kept database as it was", path=kept))
    return kept
