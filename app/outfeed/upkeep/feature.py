"""The upkeep feature: retention, backups and the doctor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from outfeed import clock
from outfeed.config import Settings
from outfeed.errors import ConfigError
from outfeed.feature import AdminFact, AdminGroup, AdminPage, Feature, Process, Samples
from outfeed.metrics import Metric

if TYPE_CHECKING:
    from flask import Blueprint

    from outfeed.upkeep.part import UpkeepPart

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
        "maintenance_failures": Metric("counter", "Failed prunes or backups.", ("kind",)),
    }
    admin_pages = (
        AdminPage(
            AdminGroup.DATA, "Retention", "upkeep_pages.show_retention", "How long events are kept, and the next prune."
        ),
        AdminPage(AdminGroup.SERVER, "Backups", "upkeep_pages.show_backups", "Make, list and download backups."),
        AdminPage(AdminGroup.SERVER, "Doctor", "upkeep_pages.show_doctor", "Find problems that can lose events."),
    )
    status_template = "_upkeep_status.html"

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.upkeep.pages import upkeep_pages

        return (upkeep_pages,)

    def admin_facts(self, process: Process) -> Mapping[str, AdminFact]:
        from outfeed.upkeep import backups, health, maintenance

        if any(health.check(process.database, process.settings)):
            return {"upkeep_pages.show_backups": AdminFact("trouble", True)}
        run = maintenance.runs(process.database).get(backups.JOB)
        last = datetime.fromtimestamp(run.succeeded_at, UTC) if run and run.succeeded_at else None
        return {"upkeep_pages.show_backups": AdminFact(clock.ago(last))}

    def check(self, settings: Settings) -> None:
        if settings.backup_every_hours and settings.backup_dir is None:
            raise ConfigError("OUTFEED_BACKUP_EVERY_HOURS: needs OUTFEED_BACKUP_DIR, the folder of the backups")

    def prepare(self, settings: Settings) -> None:
        """Upgrade the database, after saving a copy of it."""
        from outfeed.upkeep import upgrade

        upgrade.upgrade(settings.database)

    def part(self, process: Process) -> UpkeepPart:
        from outfeed.upkeep.part import UpkeepPart

        return UpkeepPart(process.database, process.settings)

    def status(self, process: Process) -> Mapping[str, Any]:
        from outfeed.upkeep import health, maintenance, retention
        from outfeed.upkeep.policy import Policy, rules_of, schedule_of

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
            "failed_runs": [name for name, run in runs.items() if run.has_failed],
            "backup_schedule": schedule_of(process.settings),
            "backup_problems": [finding.what for finding in health.check(process.database, process.settings)],
        }  # fmt: skip

    def samples(self, process: Process) -> Mapping[str, Samples]:
        from outfeed.upkeep import maintenance

        done = maintenance.runs(process.database)
        return {
            "maintenance_success_timestamp_seconds": [([name], each.succeeded_at) for name, each in done.items()],
            "maintenance_failure_timestamp_seconds": [([name], each.failed_at) for name, each in done.items()],
            "maintenance_seconds": [([name], each.seconds) for name, each in done.items()],
            "maintenance_failures": [([name], each.failures) for name, each in done.items()],
        }
