"""Upgrade: copies the database first, and waits for the running server."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from outfeed.errors import SchemaMismatch
from outfeed.store import migrate, schema, serving
from outfeed.store.lease import hold_shared, lock_file
from outfeed.upkeep import doctor, upgrade
from tests.server import Server
from tests.waits import wait_until


@pytest.fixture
def old(tmp_path: Path, upgraded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of an earlier release, up to migration 0006, with an event."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    for file in schema.migrations_dir().glob("*.sql"):
        if file.name < "0007":
            shutil.copy(file, folder)
    path = tmp_path / "old.db"
    with monkeypatch.context() as patched:
        patched.setattr(schema, "migrations_dir", lambda: folder)
        migrate.upgrade(path)
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("INSERT INTO event_log (id, event_type, source, timestamp) VALUES ('e', 'a.b', 's', 't')")
    return path


def tables(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT id FROM event_log").fetchall() == [("e",)]
        return {row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_the_previous_database_is_kept_unchanged(old: Path) -> None:
    done = upgrade.upgrade(old)
    assert done.migrations[0] == "0007.swarm"
    assert migrate.pending(old) == []
    assert done.kept is not None
    assert done.kept.name.startswith("old.db.before-upgrade-")
    assert done.kept.stat().st_mode & 0o777 == 0o600
    assert "outfeed_task" in tables(old) - tables(done.kept)


def test_an_upgrade_without_migrations_copies_nothing(old: Path, tmp_path: Path) -> None:
    upgrade.upgrade(old)
    assert upgrade.upgrade(old) == upgrade.Upgraded([], None)
    assert upgrade.upgrade(tmp_path / "new.db").kept is None
    assert len(list(tmp_path.glob("*before-upgrade*"))) == 1


def test_an_upgrade_is_refused_while_a_server_runs(old: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        assert serving.serving(server.database) == (serving.version(), server.url)
        assert upgrade.upgrade(server.database).migrations == [], "up to date: nothing to refuse"
        with monkeypatch.context() as patched:
            newer = [*sorted(schema.migrations_dir().glob("*.sql")), Path("9999.newer.sql")]
            patched.setattr(migrate, "pending", lambda path: [newer[-1].stem])
            with pytest.raises(SchemaMismatch, match=f"served by outfeed {serving.version()}; stop it"):
                upgrade.upgrade(server.database)
        assert list(server.database.parent.glob("*before-upgrade*")) == []
        server.kill()
        wait_until(lambda: serving.serving(server.database) is None, "freed by the kernel")


def test_the_doctor_names_a_server_of_another_version(database, tmp_path: Path, monkeypatch) -> None:
    from outfeed.config import settings

    assert doctor.run_checks(database, settings())["server"] == []
    hold_shared(lock_file(database.path, "serve"), "0.0.9")
    (found,) = doctor.run_checks(database, settings())["server"]
    assert "outfeed 0.0.9 serves this database" in found.what
