"""The feature for the log of events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from outfeed.feature import Feature, Process

if TYPE_CHECKING:
    from flask import Blueprint

    from outfeed.log.part import LogPart


class LogFeature(Feature):
    """The log: commands, API, pages and search index."""

    commands: ClassVar[Mapping[str, str]] = {
        "log": "log.commands:log",
        "events": "log.commands:events",
        "event": "log.commands:event_",
    }

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.log.api import events
        from outfeed.log.board import board
        from outfeed.log.export import export
        from outfeed.log.live import pages
        from outfeed.log.pages import log

        return events, export, pages, log, board

    def part(self, process: Process) -> LogPart:
        from outfeed.log.part import LogPart

        return LogPart(process)
