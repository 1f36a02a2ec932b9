"""Files: root's files belong to the owner of the folder.

An error about a file names the owner.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from outfeed.access import auth
from outfeed.config import Settings
from outfeed.errors import DatabaseDamaged, DatabaseError, DatabaseReadOnly, DatabaseUnreadable
from outfeed.store import database, database_file, files, lease, migrate
from outfeed.store.high_water_mark import HighWaterMark, Position
from outfeed.upkeep import backup

SERVICE = 12_345  # a user without a name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a service that runs as its own user.

    If the tests do not run as root, it belongs to their user.
    """
    made = tmp_path / "service"
    made.mkdir()
    with suppress(PermissionError):
        os.chown(made, SERVICE, SERVICE)
    return made


def owners(folder: Path) -> set[tuple[int, int]]:
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in (folder, *folder.rglob("*"))}


def test_all_files_beside_the_database_belong_to_the_owner_of_the_folder(folder: Path) -> None:
    path = folder / "new" / "outfeed.db"
    migrate.upgrade(path)
    auth.secret_key(Settings(database=path))
    with lease.hold(lease.lock_file(path, "prune"), wait=True):
        pass
    place = HighWaterMark(path)
    place.advance("0" * 32, Position(1, 2))
    place.close()
    backup.backup(database.at(path), path.with_name("copy.db"))
    with database.at(path).transaction() as connection:
        connection.execute("DELETE FROM outbox")
        names = {each.name for each in path.parent.iterdir()}
    assert {"outfeed.db", "outfeed.db-wal", "outfeed.db.secret", "outfeed.db.mark", "copy.db"} <= names
    assert len(owners(folder)) == 1
    database.at(path).close()


def test_a_new_folder_is_private(tmp_path: Path) -> None:
    files.make_folder(tmp_path / "a" / "b")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o700, 0o700]


def test_an_error_about_a_file_of_another_user_names_its_owner_and_the_command(tmp_path: Path) -> None:
    (tmp_path / "own").touch()
    assert files.owner_advice(tmp_path / "own") == ""
    other = Path("/proc/1/root") if os.geteuid() else tmp_path / "theirs"
    if not os.geteuid():
        other.touch()
        os.chown(other, SERVICE, SERVICE)
        assert f"{other} belongs to {SERVICE}, and this process runs as root: chown root {other}" in files.owner_advice(
            other
        )


def test_the_error_of_a_database_of_another_user_names_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outfeed.db"
    path.mkdir()  # so that not even root can open it
    monkeypatch.setattr(os, "geteuid", lambda: SERVICE)
    with pytest.raises(DatabaseUnreadable, match=f"this process runs as {SERVICE}: chown {SERVICE} {path}$"):
        database_file.connect(path)


def test_the_error_on_a_read_only_filesystem_names_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outfeed.db").mkdir()  # so that not even root can open it
    mount = SimpleNamespace(f_flag=os.ST_RDONLY)
    monkeypatch.setattr(os, "statvfs", lambda _: mount)
    with pytest.raises(DatabaseReadOnly, match=r"outfeed\.db is read-only, because its filesystem is"):
        database_file.connect(tmp_path / "outfeed.db")


def test_the_error_of_a_file_that_is_no_database_names_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("These are notes, and no database." * 20, "utf-8")
    with pytest.raises(DatabaseDamaged, match="is not a database of SQLite: check OUTFEED_DATABASE"):
        database.at(path).refuse_foreign()


def test_the_error_of_a_lock_file_that_can_not_be_opened_gives_the_reason(tmp_path: Path) -> None:
    (tmp_path / "x.lock").mkdir()
    with pytest.raises(DatabaseError, match=r"can't make the lock file .*x\.lock: Is a directory"):
        files.open_lock(tmp_path / "x.lock")
