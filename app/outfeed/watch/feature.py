"""The feature: watch any table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from outfeed.feature import Feature
from outfeed.store.database import Connection
from outfeed.watch.store import notes


class WatchFeature(Feature):
    """Tables of the program whose changes become events."""

    commands: ClassVar[Mapping[str, str]] = {"watch": "watch.commands:watch"}

    def erase(self, connection: Connection, event_id: str) -> None:
        notes.empty(connection)
