"""File modes: new files are private under any umask.

An existing file keeps its mode.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from outfeed.log.store.indexer import Indexer
from outfeed.store import migrate
from outfeed.store.database import Database
from outfeed.store.high_water_mark import HighWaterMark, Position


@pytest.fixture(autouse=True)
def generous_umask() -> Iterator[None]:
    before = os.umask(0o000)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_new_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "above" / "folder" / "feed.db"
    migrate.upgrade(path)
    HighWaterMark(path).advance("e" * 32, Position(1, 1))
    database = Database(path)
    with closing(sqlite3.connect(path)) as raw, raw:  # open, so that -wal and -shm exist
        raw.execute("INSERT INTO event_log (id, event_type, source, timestamp) VALUES ('1', 'a.b', 's', 't')")
        Indexer(database).run()
        made = {each.name: mode(each) for each in path.parent.iterdir()}
    database.close()

    assert {"feed.db", "feed.db-wal", "feed.db-shm", "feed.db.mark", "feed.db.lock", "feed.db-search"} <= made.keys()
    assert set(made.values()) == {0o600}
    assert mode(path.parent) == mode(path.parent.parent) == 0o700


@pytest.mark.parametrize("is_empty", [True, False])
def test_an_existing_file_keeps_its_mode(tmp_path: Path, is_empty: bool) -> None:
    path = tmp_path / "app.db"
    path.touch()
    if not is_empty:
        with closing(sqlite3.connect(path)) as raw:
            raw.execute("CREATE TABLE orders (id)")
    os.chmod(path, 0o640)

    migrate.upgrade(path, adopt=True)

    assert mode(path) == 0o640
