"""The health of backups: their folder, their age and their last failure."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from outfeed import clock
from outfeed.config import Settings
from outfeed.errors import OutfeedError
from outfeed.feature import PROBLEM, Finding
from outfeed.store.database import Database
from outfeed.upkeep import backups, maintenance
from outfeed.upkeep.backups import BackupFile

# A scheduled backup is late once this many intervals have passed.
LATE_INTERVALS = 2


def check(database: Database, settings: Settings) -> Iterator[Finding]:
    """Yield the problems of backups; none without OUTFEED_BACKUP_DIR.

    Raises DatabaseError.
    """
    folder = settings.backup_dir
    if folder is None:
        return
    try:
        found = backups.list_backups(database, folder)
    except OutfeedError as error:
        yield _unusable(folder, str(error))
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield _unusable(folder, f"{folder} is not writable for this user")
    run = maintenance.runs(database).get(backups.JOB)
    if run is not None and run.has_failed:
        yield Finding(
            PROBLEM,
            f"the last backup failed: {run.error or 'for an unknown reason'}",
            "without a backup, a damaged disk loses every event",
            f"outfeed backup {shlex.quote(str(folder / 'by-hand.db'))}",
        )
    yield from _late(found, settings)


def _unusable(folder: Path, what: str) -> Finding:
    fix = f"mkdir -p {shlex.quote(str(folder))}, and give it to the user of the server"
    return Finding(PROBLEM, what, "no backup can be made or found in OUTFEED_BACKUP_DIR", fix)


def _late(found: list[BackupFile], settings: Settings) -> Iterator[Finding]:
    if not settings.backup_every_hours:
        return
    now = clock.now()
    last = backups.last_made(found, now)
    if last is not None and now - last < timedelta(hours=LATE_INTERVALS * settings.backup_every_hours):
        return
    what = (
        "there is no backup yet" if last is None else f"the last backup is {clock.ago(last).removesuffix(' ago')} old"
    )
    yield Finding(
        PROBLEM,
        f"{what}; OUTFEED_BACKUP_EVERY_HOURS wants one every {settings.backup_every_hours:g} hours",
        "without a backup, a damaged disk loses every event",
        "start the server, which makes the backups, or look for `backup failed` in its log",
    )
