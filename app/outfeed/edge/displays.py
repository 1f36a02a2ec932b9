"""Displays in the engine.

The origin writes the displays of event types, and edges answer `GET /api/types` with them.
"""

from __future__ import annotations

import threading
from typing import Any

import orjson

from outfeed.display import Display
from outfeed.edge.engine import HEAD, Engine
from outfeed.errors import EngineDown
from outfeed.feature import shipped_displays
from outfeed.store.displays import Displays


def publish(engine: Engine, displays: Displays) -> None:
    """Write *displays* unless the engine has them. Raises EngineDown.

    A table with the same counter and another epoch differs too: another origin wrote it.
    """
    version = _version(displays)
    if engine.call(lambda client: client.hget(HEAD, "displays_of")) == version.encode():
        return
    table = orjson.dumps({name: each.as_dict() for name, each in displays.by_type.items()})
    fields: dict[str, Any] = {"displays_of": version, "types": displays.version, "displays": table}
    engine.call(lambda client: client.hset(HEAD, mapping=fields))


def _version(displays: Displays) -> str:
    return f"{displays.epoch} {displays.version}"


class EngineDisplays:
    """The displays that the origin wrote, read again after each change.

    Any thread may call it. `_lock` guards `_found`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._found: tuple[bytes, Displays] | None = None

    def current(self) -> Displays:
        """Return the displays as they are now. Raises EngineDown.

        Costs one small read while nothing changes.
        """
        version = self._engine.call(lambda client: client.hget(HEAD, "displays_of"))
        with self._lock:
            found = self._found
        if found is None or found[0] != version:
            found = self._read()
            with self._lock:
                self._found = found
        return found[1]

    def _read(self) -> tuple[bytes, Displays]:
        version, types, table = self._engine.call(
            lambda client: client.hmget(HEAD, ["displays_of", "types", "displays"])
        )
        if version is None:
            raise EngineDown("the engine holds no displays yet; the origin writes them")
        by_type = shipped_displays() | {name: Display.of(fields) for name, fields in orjson.loads(table).items()}
        return version, Displays(version.decode().partition(" ")[0], int(types), by_type, {})
