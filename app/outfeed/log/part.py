"""The part of the log in each serving process."""

from __future__ import annotations

from outfeed.feature import Part, Process
from outfeed.jobs import Job
from outfeed.log.store.indexer import Indexer


class LogPart(Part):
    """The job that keeps the search index current."""

    def __init__(self, process: Process) -> None:
        self._indexer = Indexer(process.database)
        self.jobs = {"search": Job(self._indexer.run, 1.0)}

    def stop(self) -> None:
        self._indexer.stop()

    def close(self) -> None:
        self._indexer.close()
