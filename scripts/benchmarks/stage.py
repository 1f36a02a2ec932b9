"""What the cases of Outfeed by itself have to play with: servers on databases of any size."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from scripts.benchmarks.cases import Sizes
from scripts.benchmarks.servers import Outfeed
from scripts.benchmarks.session import run

STOCK_TIMEOUT_SECS = 1800.0


class Stage:
    """One run's folder, and the databases that all its rounds share. *round* counts from 1."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder = folder
        self.sizes = sizes
        self.round = 1
        self._stored: dict[tuple[int, str], Path] = {}

    def outfeed(self, max_clients: int, *, workers: int = 1, database: Path | None = None) -> Outfeed:
        """Return a server that was not started yet, on an empty database or on that one."""
        return Outfeed(self._new_folder(), max_clients, workers, database)

    def stored(self, events: int, name: str = "") -> Path:
        """Return a database with *events*, numbered from 1; made once in a run, for all who give it that *name*."""
        key = (events, name)
        if key not in self._stored:
            maker = Outfeed(self._new_folder(), 1)
            maker.upgrade()
            run("stock", {"database": str(maker.database), "events": events}, STOCK_TIMEOUT_SECS)
            self._stored[key] = maker.database
        return self._stored[key]

    def in_turn(self, *things: Any) -> list[Any]:
        """Return *things*, from the other end in every second round."""
        return list(things if self.round % 2 else reversed(things))

    def _new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))
