"""The feature: watch any table."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from outfeed.config import Settings
from outfeed.feature import NOTE, PROBLEM, AdminFact, AdminGroup, AdminPage, Feature, Finding, Process
from outfeed.store import database as db

if TYPE_CHECKING:
    from flask import Blueprint

    from outfeed.store.database import Connection, Database
    from outfeed.watch.part import WatchPart


class WatchFeature(Feature):
    """Tables of the program whose changes become events."""

    commands: ClassVar[Mapping[str, str]] = {"watch": "watch.commands:watch"}
    admin_pages = (AdminPage(AdminGroup.DATA, "Watches", "watches.show", "Tables whose changes become events."),)
    redirects: ClassVar[Mapping[str, str]] = {"/watches": "/admin/watches"}
    status_template = "_watch_status.html"

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.watch.page import page

        return (page,)

    def admin_facts(self, process: Process) -> Mapping[str, AdminFact]:
        from outfeed.watch.store import repair, watches

        with process.database.snapshot() as connection:
            found = watches.list_watches(connection)
            stuck = {each.table for each in found if each.state == watches.WAITING}
            stuck |= {each.name for each in repair.problems(connection, process.settings)}
        fact = AdminFact(f"{len(stuck):,} in trouble", True) if stuck else AdminFact(f"{len(found):,}")
        return {"watches.show": fact}

    def prepare(self, settings: Settings) -> None:
        """Repair triggers before the workers start."""
        from outfeed.watch.part import WatchPart

        database = db.at(settings.database)
        WatchPart(database, settings).check(is_start=True)
        database.close()

    def part(self, process: Process) -> WatchPart:
        from outfeed.watch.part import WatchPart

        return WatchPart(process.database, process.settings)

    def repair(self, database: Database, settings: Settings) -> None:
        from outfeed.watch.store import repair

        with database.transaction() as connection:
            repair.repair(connection, settings, is_start=True)

    def check_health(self, database: Database, settings: Settings) -> Mapping[str, Iterable[Finding]]:
        from outfeed.watch.store import repair, watches

        with database.snapshot() as connection:
            found = repair.problems(connection, settings)
            known = watches.list_watches(connection)
        fix = functools.partial(self.repair, database, settings)
        broken = [
            Finding(
                PROBLEM,
                f"the watched table {problem}",
                "its changes have no event, or writes to it fail",
                "outfeed doctor --fix, or start the server",
                fix,
            )
            for problem in dict.fromkeys(map(str, found))
        ]
        away = [
            Finding(
                NOTE,
                f"the watched table {name} does not exist",
                "its watch waits for it",
                f"outfeed watch remove {name}",
            )
            for name in (each.table for each in known if each.state == watches.WAITING)
        ]
        different = [
            Finding(
                NOTE,
                f"the watch of {each.table} {difference}",
                "its triggers keep what they had when they were made",
                f"change the setting, or remove the watch of {each.table} and add it again",
            )
            for each in known
            for difference in repair.differences(each, settings)
        ]
        return {"watches": [*broken, *away, *different]}

    def keep_days(self, connection: Connection) -> Mapping[str, float]:
        from outfeed.watch.store import watches

        return watches.keep_days(connection)

    def clean(self, connection: Connection) -> None:
        from outfeed.watch.store import notes

        notes.empty(connection)

    def erase(self, connection: Connection, event_id: str) -> None:
        from outfeed.watch.store import notes

        notes.empty(connection)

    def status(self, process: Process) -> Mapping[str, Any]:
        from outfeed.watch.store import snapshot, watches

        with process.database.snapshot() as connection:
            return {"watches": [(each, snapshot.describe(each)) for each in watches.list_watches(connection)]}
