"""An origin without threads.

Its uplink does what is due when a test says so.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from outfeed.config import Settings
from outfeed.edge.engine import Engine
from outfeed.edge.rules import fingerprint
from outfeed.edge.stream import read
from outfeed.edge.uplink import Uplink
from outfeed.http.services import Services
from tests.database_file import epoch_of, head_of
from tests.server import make_database

MAX_STEPS = 500


class OriginInProcess:
    """The services of an origin over a database of its own, and its uplink.

    Nothing of it runs by itself.
    """

    def __init__(self, engine: Engine, database: Path, **settings: object) -> None:
        if not database.exists():
            make_database(database)
        values = {"database": database, "engine": engine.url, **settings}
        self.settings = Settings(**values)  # type: ignore[arg-type]
        self.engine = engine
        self.path = database
        self.rules = fingerprint(self.settings)
        self.services = Services(self.settings)
        self.uplink = self.new_uplink()

    def new_uplink(self) -> Uplink:
        """Return another uplink, as of a worker that takes over."""
        uplink = Uplink(self.services, self.engine)
        uplink.stopping.set()  # so that no step waits
        self.uplink = uplink
        return uplink

    def bring_up(self) -> None:
        """Step the uplink until the engine holds what the outbox does."""
        for _ in range(MAX_STEPS):
            self.uplink.step()
            if self.is_up():
                self.uplink.step()  # which notices an erasure
                return
        raise AssertionError("the uplink does not get there")

    def is_up(self) -> bool:
        reply = read(self.engine, "after", 0, 0)
        return reply is not None and (reply.head.epoch, reply.head.position) == (
            epoch_of(self.path),
            head_of(self.path),
        )

    def note_erasure(self) -> None:
        """Count an erasure in the database, as `outfeed prune --id` does."""
        with contextlib.closing(sqlite3.connect(self.path)) as raw, raw:
            raw.execute("UPDATE outfeed_meta SET value = value + 1 WHERE key = 'erasures'")

    def close(self) -> None:
        self.services.database.close()
