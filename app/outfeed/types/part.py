"""The displays' part of each serving process, which tells of changes."""

from __future__ import annotations

import logging

from outfeed.errors import DatabaseError
from outfeed.feature import Part, Process
from outfeed.jobs import Job
from outfeed.log_message import LogMessage

log = logging.getLogger(__name__)


class TypesPart(Part):
    """Looks for a change twice a second, and has the core tell clients."""

    def __init__(self, process: Process) -> None:
        self._displays = process.displays
        self._core = process.core
        self.jobs = {"types": Job(self.check, 0.5)}

    def start(self) -> None:
        self._core.hub.types = self._displays.version()

    def check(self) -> None:
        """Tell the number of the last change. An error is logged, not raised."""
        try:
            self._core.note_types(self._displays.version())
        except DatabaseError as error:
            log.warning(LogMessage("displays not read, trying again", error=error))
