"""The upkeep feature: retention, backups and the doctor."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from outfeed.config import Settings
from outfeed.feature import Feature, Process, Samples
from outfeed.metrics import Metric

if TYPE_CHECKING:
    from outfeed.upkeep.retention_job import RetentionJob

ESTIMATED_ROWS = 10_000


class UpkeepFeature(Feature):
    """Retention, backups, upgrades and the doctor."""

    commands: ClassVar[Mapping[str, str]] = {
        "upgrade": "upkeep.database_commands:upgrade",
        "release": "upkeep.database_commands:release",
        "status": "upkeep.database_commands:status",
        "prune": "upkeep.commands:prune",
        "backup": "upkeep.commands:backup",
        "restore": "upkeep.commands:restore",
        "doctor": "upkeep.commands:doctor",
    }
    metrics: ClassVar[Mapping[str, Metric]] = {
        "maintenance_success_timestamp_seconds": Metric(
            "gauge", "Time of the last successful prune or backup.", ("kind",)
        ),
        "maintenance_failure_timestamp_seconds": Metric("gauge", "Time of the last failed prune or backup.", ("kind",)),
        "maintenance_seconds": Metric("gauge", "Duration of the last successful prune or backup.", ("kind",)),
    }
    status_template = "_upkeep_status.html"

    def prepare(self, settings: Settings) -> None:
        """Upgrade the database, after saving a copy of it."""
        from outfeed.upkeep import upgrade

        upgrade.upgrade(settings.database)

    def part(self, process: Process) -> RetentionJob:
        from outfeed.upkeep.policy import Policy
        from outfeed.upkeep.retention_job import RetentionJob

        return RetentionJob(process.database, functools.partial(Policy.current, process.settings, process.database))

    def status(self, process: Process) -> Mapping[str, Any]:
        from outfeed.upkeep import maintenance, retention
        from outfeed.upkeep.policy import Policy, rules_of

        policy = Policy.current(process.settings, process.database)
        expired = retention.estimate(process.database, policy, ESTIMATED_ROWS)
        done = maintenance.runs(process.database)
        runs = {name: done.get(name, maintenance.MaintenanceRun()) for name in ("backup", "prune")}
        moments = {
            name: run.succeeded_at and datetime.fromtimestamp(run.succeeded_at, UTC) for name, run in runs.items()
        }
        return {
            "rules": rules_of(process.settings), "expired": expired, "estimated_rows": ESTIMATED_ROWS,
            "last_runs": moments,
            "failed_runs": [name for name, run in runs.items() if (run.failed_at or 0) > (run.succeeded_at or 0)],
        }  # fmt: skip

    def samples(self, process: Process) -> Mapping[str, Samples]:
        from outfeed.upkeep import maintenance

        done = maintenance.runs(process.database)
        return {
            "maintenance_success_timestamp_seconds": [([name], each.succeeded_at) for name, each in done.items()],
            "maintenance_failure_timestamp_seconds": [([name], each.failed_at) for name, each in done.items()],
            "maintenance_seconds": [([name], each.seconds) for name, each in done.items()],
        }
