"""Upgrade: runs the migrations after a backup, and never under a server."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

from outfeed import clock
from outfeed.errors import SchemaMismatch
from outfeed.log_message import LogMessage
from outfeed.store import database_file, files, migrate, serving
from outfeed.upkeep import backup

log = logging.getLogger(__name__)


class Upgraded(NamedTuple):
    """The applied migrations, in order, and the copy of the previous database.

    *kept* is None if the database was new.
    """

    migrations: list[str]
    kept: Path | None


def upgrade(path: Path, *, adopt: bool = False) -> Upgraded:
    """Create or upgrade the database at *path*, after copying it beside it.

    Only a database with content is copied. Raises AdoptionNeeded and SchemaMismatch as `migrate.upgrade` does,
    SchemaMismatch also if a server uses the database, and OutfeedError if there is no space for the copy. After an
    error nothing has changed, and no copy or lock file is left.
    """
    names = migrate.pending(path)
    if not names or database_file.is_new(path):
        return Upgraded(migrate.upgrade(path), None)
    migrate.check(path, adopt=adopt)
    refuse_served(path, "upgrade")
    kept = save_copy(path, "before-upgrade")
    applied: list[str] = []
    try:
        applied = migrate.upgrade(path, adopt=adopt)
    finally:
        # Nothing was changed: the upgrade was refused, or another process has done it in between.
        if not applied:
            kept.unlink(missing_ok=True)
    return Upgraded(applied, kept if applied else None)


def refuse_served(path: Path, doing: str) -> None:
    """Raise SchemaMismatch if a server uses the database at *path*."""
    if (server := serving.serving(path)) is not None:
        raise SchemaMismatch(
            f"{path} is being served by outfeed {server.version}; stop it, then {doing}: nothing was changed"
        )


def save_copy(path: Path, why: str) -> Path:
    """Copy the database at *path* beside it. Return the copy's path.

    The name contains the process id: two processes may copy in the same microsecond, and one of them removes its copy.
    """
    kept = path.with_name(f"{path.name}.{why}-{clock.now():%Y%m%dT%H%M%S%f}Z.{os.getpid()}")
    with files.translate_os_errors(f"write {kept}"):
        backup.copy_database(path, kept)
    log.info(LogMessage("kept database as it was", path=kept))
    return kept
