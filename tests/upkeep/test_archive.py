"""Archives: complete and private before a delete, and importable."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import stat
import sys
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import pytest

from outfeed.errors import BadArchive, OutfeedError
from outfeed.store import files
from outfeed.store.database import Database
from outfeed.upkeep import archive, retention
from outfeed.upkeep.policy import Policy
from outfeed.upkeep.retention import prune

COLUMNS = "id, event_type, source, task_id, agent_id, data, timestamp"
OLD = "2020-01-01T00:00:00.000Z"


@pytest.fixture
def raw(database):
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "archive"


def fill(raw, count, text="x", prefix="event"):
    with raw:
        raw.execute("BEGIN")
        raw.executemany(
            f"INSERT INTO event_log ({COLUMNS}) VALUES (?, 'a.b', 's', NULL, NULL, ?, ?)",
            [
                (f"{prefix}-{n:06}", json.dumps({"text": text, "n": n}, separators=(",", ":")), OLD)
                for n in range(count)
            ],
        )


def whole(folder):
    """Return the ids in complete archives as {path: [id, …]}.

    It uses none of the tested code.
    """
    found = {}
    for path in sorted(folder.glob("*.ndjson.gz")):
        digest, name = Path(f"{path}.sha256").read_text().split()
        assert name == path.name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
        found[path] = [json.loads(line)["id"] for line in gzip.decompress(path.read_bytes()).splitlines()]
    return found


def log(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT {COLUMNS} FROM event_log WHERE source <> 'outfeed' ORDER BY id").fetchall()


def test_an_archive_contains_the_deleted_events(database, raw, folder):
    fill(raw, 1200)
    done = prune(database, Policy(30), by="tests", archive=folder)
    assert done.events == 1200
    assert log(database.path) == []
    ((path, ids),) = whole(folder).items()
    assert done.archives == (path,)
    assert ids == [f"event-{n:06}" for n in range(1200)]
    line = json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])
    assert line == {
        "id": "event-000000", "event_type": "a.b", "source": "s", "task_id": None, "agent_id": None,
        "data": {"text": "x", "n": 0}, "timestamp": OLD,
    }  # fmt: skip


def test_only_the_owner_can_read_an_archive(database, raw, folder):
    fill(raw, 5)
    prune(database, Policy(30), by="tests", archive=folder)
    modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]}
    assert modes == {"": 0o700, ".gz": 0o600, ".sha256": 0o600}


def test_archives_sort_by_time_and_none_is_overwritten(database, raw, folder, monkeypatch):
    monkeypatch.setattr(archive, "MAX_EVENTS", 500)
    now = datetime(2026, 3, 10, 12, tzinfo=UTC)
    for _ in range(2):
        fill(raw, 1100)
        monkeypatch.setattr(retention.clock, "now", lambda: now)
        prune(database, Policy(30), by="tests", archive=folder)
    names = [path.name for path in whole(folder)]
    assert names == [f"outfeed-20260310T120000Z-{number:04}.ndjson.gz" for number in range(1, 7)]
    assert sum(len(ids) for ids in whole(folder).values()) == 2200


@pytest.mark.parametrize("moment", ["_digest", "_create_checksum"])
def test_a_prune_of_another_database_leaves_the_files_in_the_folder(database, raw, folder, monkeypatch, moment):
    fill(raw, 5)
    other = database.path.with_name("elsewhere") / database.path.name
    step = getattr(archive, moment)

    def step_and_start_another(*arguments):
        done = step(*arguments)
        archive.Archive(other, folder, datetime.now(UTC)).close()
        return done

    monkeypatch.setattr(archive, moment, step_and_start_another)
    prune(database, Policy(log_days=30), by="tests", archive=folder)
    assert [len(ids) for ids in whole(folder).values()] == [5]


def test_prunes_with_the_same_process_id_may_share_a_folder(database, raw, folder, tmp_path):
    """Two containers, for example, whose databases have the same name."""
    fill(raw, 5)
    other = tmp_path / "elsewhere" / database.path.name
    other.parent.mkdir()
    with contextlib.closing(sqlite3.connect(other)) as copy:
        raw.backup(copy)
    with contextlib.ExitStack() as archives:
        first, second = (
            archives.enter_context(contextlib.closing(archive.Archive(path, folder, datetime.now(UTC))))
            for path in (database.path, other)
        )
        first.add([1, 2, 3])
        second.add([4, 5])
        first.finish()
        second.finish()
    assert [len(ids) for ids in whole(folder).values()] == [3, 2]


def test_a_prune_without_old_events_writes_no_file(database, raw, folder):
    prune(database, Policy(30), by="tests", archive=folder)
    assert list(folder.iterdir()) == []


def test_an_archive_is_on_the_disk_before_events_are_deleted(database, raw, folder, monkeypatch):
    fill(raw, 700)
    happened = []
    fsync, delete = os.fsync, retention.Prune.delete_keys
    monkeypatch.setattr(
        archive.os, "fsync", lambda fd: (happened.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    monkeypatch.setattr(
        retention.Prune, "delete_keys", lambda self, keys: (happened.append("delete"), delete(self, keys))[1]
    )
    prune(database, Policy(30), by="tests", archive=folder)
    kinds = [Path(one).suffix or Path(one).name for one in happened]
    assert kinds == [".partial", ".sha256", "archive", "delete"]


def test_nothing_is_deleted_if_the_folder_is_not_writable(database, raw, tmp_path, monkeypatch):
    fill(raw, 10)
    (tmp_path / "file").touch()
    with pytest.raises(OutfeedError, match="can't use the archive folder"):
        prune(database, Policy(30), by="tests", archive=tmp_path / "file")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OutfeedError, match=r"can't write.*No space left"):
        prune(database, Policy(30), by="tests", archive=tmp_path / "archive")
    assert len(log(database.path)) == 10


def test_a_row_that_was_renumbered_is_not_deleted(database, raw, folder):
    """The table is rebuilt with other rowids before the delete."""
    fill(raw, 3)
    run = retention.Prune(database, Policy(30), "tests")
    assert run.delete_keys([archive.Key(1, b"event-000001"), archive.Key(3, b"event-000002")]) == 1
    assert [row[0] for row in log(database.path)] == ["event-000000", "event-000001"]


POISON = [
    ("blob", b"\x00\xff", b"a", b"b", b"c", b"d", b"e"),
    ("text", "a.b", "s", None, None, "no json", OLD),
    ("spaced", "a.b", "s", None, None, '{"a":  1}', OLD),
    ("infinite", "a.b", "s", None, None, '{"a":1e999}', OLD),
    ("surrogate", "a.b", "s", None, None, '"\\ud800"', OLD),
    ("escaped", "a.b", "s", None, None, '"\\u00e9"', OLD),
    ("twice", "a.b", "s", None, None, '{"a":1,"a":2}', OLD),
    ("null", "a.b", "s", "", "a\nb\u2028", "null", OLD),
    ("none", "a.b", "s", None, None, None, OLD),
    ("lowest", "a.b", -(2**63), None, None, None, OLD),
    ("float", "a.b", "s", None, None, "1.0", OLD),
    ("integer", "a.b", "s", None, None, "123456789012345678901234567890", OLD),
    ("unicode", "a.b", "s", None, None, '{"ä":"😀"}', OLD),
    ("deep", "a.b", "s", None, None, "[" * 5000 + "]" * 5000, OLD),
]


def test_every_row_is_imported_unchanged(database, raw, folder, tmp_path):
    raw.executemany(f"INSERT INTO event_log ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", POISON)
    raw.execute(
        f"INSERT INTO event_log ({COLUMNS}) VALUES ('latin', 'a.b', CAST(? AS TEXT), '', '', '', ?)", (b"\xe9", OLD)
    )
    raw.execute("UPDATE outbox SET created_at = ?", (OLD,))
    types = ", ".join(f"typeof({name}), CAST({name} AS BLOB)" for name in COLUMNS.split(", "))
    query = f"SELECT {types} FROM event_log WHERE source IS NOT 'outfeed' ORDER BY id"
    before = raw.execute(query).fetchall()
    assert prune(database, Policy(30), by="tests", archive=folder).events == len(POISON) + 1
    assert archive.import_archives(folder.glob("*.gz"), tmp_path / "new.db") == len(POISON) + 1
    with contextlib.closing(sqlite3.connect(tmp_path / "new.db")) as new:
        assert new.execute(query).fetchall() == before
        assert new.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
        assert new.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert stat.S_IMODE((tmp_path / "new.db").stat().st_mode) == 0o600


def line_with(name, text):
    return json.dumps({**dict.fromkeys(COLUMNS.split(", "), "x"), name: "VALUE"}).replace('"VALUE"', text).encode()


ODD_LINES = {
    "a list": b"[]", "a text": b'"x"', "a number": b"7", "null": b"null", "an empty object": b"{}", "no JSON": b"{",
    "a blank line": b"\n\n", "no UTF-8": line_with("id", '"\\ud800"').replace(b"\\ud800", b"\xff"),
    "an object for a text": line_with("id", "{}"), "a list for a text": line_with("source", "[]"),
    "half a surrogate": line_with("id", '"\\ud800"'), "half a surrogate in data": line_with("data", '"\\ud800"'),
    "an integer of 5,000 digits": line_with("id", "1" * 5000), "an integer of 30 digits": line_with("id", "1" * 30),
    "another shape of raw": line_with("raw", "[]"), "raw that is no pair": line_with("raw", '{"id": 5}'),
    "raw that is no hex": line_with("raw", '{"id": ["text", "zz"]}'),
}  # fmt: skip


class TestImport:
    @pytest.fixture
    def one(self, database, raw, folder):
        fill(raw, 100)
        (path,) = prune(database, Policy(30), by="tests", archive=folder).archives
        return path

    def test_an_event_in_two_archives_is_imported_once(self, one, tmp_path):
        again = one.with_name("again.ndjson.gz")
        shutil.copy(one, again)
        digest = hashlib.sha256(again.read_bytes()).hexdigest()
        Path(f"{again}.sha256").write_text(f"{digest}  again.ndjson.gz\n")
        assert archive.import_archives([one, again], tmp_path / "new.db") == 100

    def flip(self, one):
        content = bytearray(one.read_bytes())
        content[len(content) // 2] ^= 1
        one.write_bytes(content)

    def cut(self, one):
        one.write_bytes(one.read_bytes()[:-9])
        digest = hashlib.sha256(one.read_bytes()).hexdigest()
        Path(f"{one}.sha256").write_text(f"{digest}  {one.name}\n")

    def strip(self, one):
        Path(f"{one}.sha256").unlink()

    def nest(self, one):
        self.replace(
            one,
            json.dumps({**dict.fromkeys(COLUMNS.split(", "), "x"), "data": "DATA"})
            .replace('"DATA"', "[" * 65 + "]" * 65)
            .encode(),
        )

    def lengthen(self, one):
        self.replace(one, b"[" + b"[]," * 6_000_000 + b"[]]")

    def nest_beyond_the_stack(self, one):
        self.replace(one, b"[" * 100_000)

    @pytest.mark.parametrize("line", ODD_LINES.values(), ids=ODD_LINES)
    def test_a_line_that_is_no_event_is_refused(self, one, tmp_path, line):
        self.replace(one, line)
        with pytest.raises(BadArchive, match="is not an archive of events"):
            archive.import_archives([one], tmp_path / "new.db")
        assert not list(tmp_path.glob("new.db*"))

    def replace(self, one, line):
        one.write_bytes(gzip.compress(line))
        digest = hashlib.sha256(one.read_bytes()).hexdigest()
        Path(f"{one}.sha256").write_text(f"{digest}  {one.name}\n")

    @pytest.mark.parametrize(
        ("harm", "message"),
        [
            ("nest", "line 1 is nested too deeply"),
            ("nest_beyond_the_stack", "line 1 is nested too deeply"),
            ("lengthen", "line 1 has more than"),
        ],
    )
    def test_a_hostile_archive_is_rejected_cheaply(self, one, tmp_path, harm, message):
        getattr(self, harm)(one)
        tracemalloc.start()
        try:
            with pytest.raises(BadArchive, match=message):
                archive.import_archives([one], tmp_path / "new.db")
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 6 * archive.MAX_LINE_BYTES
        assert not list(tmp_path.glob("new.db*"))

    def test_deeply_nested_events_are_imported_unchanged(self, database, raw, folder, tmp_path):
        fill(raw, 3)
        deep = "[" * 970 + "]" * 970
        raw.execute(f"INSERT INTO event_log ({COLUMNS}) VALUES ('deep', 'a.b', 's', NULL, NULL, ?, ?)", (deep, OLD))
        (path,) = prune(database, Policy(30), by="tests", archive=folder).archives

        assert archive.import_archives([path], tmp_path / "new.db") == 4

        with contextlib.closing(sqlite3.connect(tmp_path / "new.db")) as new:
            assert new.execute("SELECT data FROM event_log WHERE id = 'deep'").fetchone() == (deep,)

    @pytest.mark.parametrize(
        ("harm", "message"),
        [("flip", "was changed after it was written"), ("cut", "not an archive"), ("strip", "has no checksum")],
    )
    def test_a_damaged_archive_creates_no_database(self, one, tmp_path, harm, message):
        getattr(self, harm)(one)
        with pytest.raises(BadArchive, match=message):
            archive.import_archives([one], tmp_path / "new.db")
        assert not list(tmp_path.glob("new.db*"))

    def test_an_existing_database_is_not_changed(self, one, database, tmp_path):
        with pytest.raises(BadArchive, match="exists"):
            archive.import_archives([one], database.path)


def calls_of_a_prune(path, folder, last=None):
    """Prune in a child that kills itself at call number *last*.

    Returns the number of calls, None if the child died.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        calls = itertools.count(1)

        def count(*_):
            if next(calls) == last:
                os.kill(os.getpid(), signal.SIGKILL)

        archive.MAX_EVENTS = 700
        with contextlib.suppress(BaseException):
            sys.setprofile(count)
            prune(Database(path), Policy(30), by="tests", archive=folder)
            sys.setprofile(None)
            os.write(writer, str(next(calls)).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as told:
        answer = told.read()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or answer
    return int(answer) if answer else None


def test_each_event_of_a_killed_prune_is_in_the_log_or_a_complete_archive(database, raw, folder):
    rng = random.Random(11)
    expected: set[str] = set()
    calls = 0
    for number in range(12):
        fill(raw, 1500, text="y" * 100, prefix=f"round-{number}")
        expected |= {row[0] for row in log(database.path)}
        if not calls:
            calls = calls_of_a_prune(database.path, folder)
        else:
            assert calls_of_a_prune(database.path, folder, last=rng.randrange(calls * 3 // 4)) is None
        archived = set(itertools.chain(*whole(folder).values()))
        assert {row[0] for row in log(database.path)} | archived == expected
    prune(database, Policy(30), by="tests", archive=folder)
    assert log(database.path) == []
    assert set(itertools.chain(*whole(folder).values())) == expected
    assert not list(folder.glob("*.partial"))
