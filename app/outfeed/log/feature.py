"""The feature for the log of events."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from outfeed.config import Settings
from outfeed.feature import NOTE, Feature, Finding, Process

if TYPE_CHECKING:
    from flask import Blueprint

    from outfeed.log.part import LogPart
    from outfeed.store.database import Connection, Database


class LogFeature(Feature):
    """The log: commands, API, pages and search index."""

    commands: ClassVar[Mapping[str, str]] = {
        "log": "log.commands:log",
        "events": "log.commands:events",
        "event": "log.commands:event_",
    }

    # A restore brings back events. The views that people saved since the backup stay, as the people do.
    kept_tables = ("outfeed_view", "outfeed_view_notification")

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.log.api import events
        from outfeed.log.board import board
        from outfeed.log.export import export
        from outfeed.log.live import pages
        from outfeed.log.notifications import notifications
        from outfeed.log.pages import log
        from outfeed.log.views import views

        return events, export, pages, log, board, views, notifications

    def part(self, process: Process) -> LogPart:
        from outfeed.log.part import LogPart

        return LogPart(process)

    def clean(self, connection: Connection) -> None:
        from outfeed.log.store import views

        views.delete_ownerless(connection)

    def check_health(self, database: Database, settings: Settings) -> Mapping[str, Iterable[Finding]]:
        from outfeed.log.store import views

        count = views.count_ownerless(database)
        finding = Finding(
            NOTE,
            f"saved views of the log without an owner: {count}",
            "their user or token was removed, so the page does not show them",
            "outfeed doctor --fix, or wait for the next retention run",
            functools.partial(self._delete_ownerless_views, database),
        )
        return {"views": [finding] if count else []}

    def _delete_ownerless_views(self, database: Database) -> None:
        with database.transaction() as connection:
            self.clean(connection)
