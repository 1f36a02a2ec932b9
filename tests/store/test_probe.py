"""Probe: a failure to write and its end are found without a writer."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator

import pytest
from freezegun import freeze_time

from outfeed import clock, log_event
from outfeed.errors import DatabaseBusy, DatabaseDamaged, DatabaseFull, DatabaseReadOnly, QueryCancelled
from outfeed.store import database as db
from outfeed.store import database_file, lease
from outfeed.store.database import Database
from outfeed.store.probe import CHECK, FRESH_SECS, Probe
from tests.waits import PATIENCE_SECS, wait_until


@pytest.fixture
def probe(database: Database, monkeypatch: pytest.MonkeyPatch) -> Probe:
    monkeypatch.setattr(database_file, "BUSY_TIMEOUT_SECS", 0.1)
    return Probe(database)


@contextlib.contextmanager
def pragma(database: Database, ill: str, well: str) -> Iterator[None]:
    """Set a pragma on the one idle connection during the block."""
    with database.connection() as connection:
        connection.execute(ill)
    yield
    with database.connection() as connection:
        connection.execute(well)


def test_a_lock_and_its_end_are_found_without_a_writer(probe: Probe, database: Database) -> None:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as raw:
        raw.execute("BEGIN EXCLUSIVE")
        probe.check()
        assert "locked by another writer" in probe.problems()[0]
        raw.execute("ROLLBACK")
    probe.check()
    assert probe.problems() == []


def test_a_write_waits_for_threads_and_for_other_programs_within_one_time_limit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, times = time.monotonic(), iter([0.0])
    monkeypatch.setattr(clock, "monotonic", lambda: next(times, 9.9))  # another thread writes for 9.9 s
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy, match="locked by another writer"), database.transaction():
            pass
    assert time.monotonic() - began < 5
    with database.connection() as connection:
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (10_000,)


def test_a_failed_write_names_the_cause_and_the_probe_retries(probe: Probe, database: Database) -> None:
    with pragma(database, "PRAGMA query_only = 1", "PRAGMA query_only = 0"):
        with pytest.raises(DatabaseReadOnly, match="is read-only"):
            log_event("a.b", source="s")
        probe.check()
        assert "is read-only" in probe.problems()[0]
    with pragma(database, "PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1000000"):
        with pytest.raises(DatabaseFull, match="no space left"):
            log_event("a.b", source="s", data={"text": "x" * 60_000})
        probe.check()
        assert "no space left" in probe.problems()[0]
    probe.check()
    assert probe.problems() == []
    with database.connection() as connection:
        assert connection.execute("SELECT count(*) FROM outfeed_meta WHERE key = 'probe'").fetchone() == (0,)


def test_a_write_that_needs_no_space_does_not_clear_the_failure(probe: Probe, database: Database) -> None:
    with pragma(database, "PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1000000"):
        with pytest.raises(DatabaseFull):
            log_event("a.b", source="s", data={"text": "x" * 60_000})
        with database.transaction() as connection:
            connection.execute("UPDATE outfeed_meta SET value = value")
        assert "no space left" in probe.problems()[0]
    probe.check()
    assert probe.problems() == []


def test_damage_in_an_unread_page_is_found_by_the_integrity_check(probe: Probe, database: Database) -> None:
    for _ in range(50):
        log_event("a.b", source="s", data={"text": "x" * 3000})
    database.close()
    sound = database.path.read_bytes()
    page = len(sound) // 4096 // 2 * 4096
    with database.path.open("r+b") as file:
        file.seek(page)
        file.write(bytes(range(256)) * 8)
    probe.check_integrity()
    assert "is damaged" in probe.problems()[0]
    with pytest.raises(DatabaseDamaged):
        log_event("a.b", source="s")
    sound_copy = database.path.with_name("sound.db")
    sound_copy.write_bytes(sound)
    sound_copy.rename(database.path)
    log_event("a.b", source="s")
    assert probe.problems() == []


def test_a_repair_in_place_is_noticed(probe: Probe, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.note_damage(DatabaseDamaged("it was damaged"), database.identity())
    with pytest.raises(DatabaseDamaged, match="it was damaged"):
        log_event("a.b", source="s")
    later = db.clock.monotonic() + 60
    monkeypatch.setattr(db.clock, "monotonic", lambda: later)
    probe.check()
    log_event("a.b", source="s")
    assert probe.problems() == []


def test_database_full_is_a_subclass_of_database_busy() -> None:
    assert issubclass(DatabaseFull, DatabaseBusy)


def damage(database: Database) -> None:
    """Overwrite a page that no query reads."""
    for _ in range(50):
        log_event("a.b", source="s", data={"text": "x" * 3000})
    database.close()
    with database.path.open("r+b") as file:
        file.seek(database.path.stat().st_size // 4096 // 2 * 4096)
        file.write(bytes(range(256)) * 8)


def test_one_process_checks_the_file_and_the_others_check_it_after_damage(probe: Probe, database: Database) -> None:
    damage(database)
    with lease.hold(lease.lock_file(database.path, CHECK), wait=True):
        probe.check_integrity()
        probe.check()
        assert probe.problems() == []
    probe.check()
    assert "is damaged" in probe.problems()[0]
    other = Probe(Database(database.path))
    other.check_integrity()
    assert "is damaged" in other.problems()[0]


def test_a_file_that_one_process_found_sound_is_not_read_by_others(probe: Probe, database: Database) -> None:
    log_event("a.b", source="s")
    with freeze_time() as clock:
        probe.check_integrity()
        damage(database)
        other = Probe(Database(database.path))
        other.check_integrity()
        assert other.problems() == []
        clock.tick(FRESH_SECS + 1)
        other.check_integrity()
        assert "is damaged" in other.problems()[0]


def test_a_check_ends_when_it_is_interrupted_and_nothing_is_logged(
    probe: Probe, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(sqlite3.connect(database.path)) as raw, raw:
        raw.execute("CREATE TABLE large AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9000)"
                    " SELECT i, hex(zeroblob(900)) FROM n")  # fmt: skip
    file = lease.lock_file(database.path, CHECK)

    def check_repeatedly() -> None:
        while not database.is_interrupted:
            probe.check_integrity()
            file.write_text("")  # or the next check would be skipped

    thread = threading.Thread(target=check_repeatedly)
    thread.start()
    wait_until(file.exists, "looking")
    began = time.monotonic()
    database.interrupt_checks()
    thread.join(PATIENCE_SECS)
    assert time.monotonic() - began < 1
    with pytest.raises(QueryCancelled):
        database.check()
    assert (probe.problems(), caplog.records) == ([], [])
    database.close()
    database.check()
