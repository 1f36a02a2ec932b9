"""The part of upkeep in each serving process: its two jobs."""

from __future__ import annotations

import functools

from outfeed.config import Settings
from outfeed.feature import Part
from outfeed.store.database import Database
from outfeed.upkeep.backup_job import BackupJob
from outfeed.upkeep.policy import Policy
from outfeed.upkeep.retention_job import RetentionJob


class UpkeepPart(Part):
    """Prunes, and makes backups."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.backups = BackupJob(database, settings)
        self._retention = RetentionJob(database, functools.partial(Policy.current, settings, database))
        self.jobs = {**self._retention.jobs, **self.backups.jobs}

    def stop(self) -> None:
        """End a running prune and a running backup soon."""
        self._retention.stop()
        self.backups.stop()
