"""High-water mark: a database that contradicts it is another history.

The database is behind the mark, or has another event at its seq.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from outfeed.store.database import Database
from outfeed.store.high_water_mark import HighWaterMark, Position, renew_epoch_if_behind
from outfeed.store.outbox import Outbox
from tests.database_file import write_events

EPOCHS = ["a" * 32, "b" * 32, "c" * 32]


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database, 65_536)


@pytest.fixture
def mark(database: Database) -> HighWaterMark:
    return HighWaterMark(database.path)


def serve_all(outbox: Outbox, mark: HighWaterMark) -> str:
    """Record the head as served, as the relay does; return the epoch."""
    page = outbox.read_after(0, 1000)
    mark.advance(page.window.epoch, Position.at(page.through, page.items))
    mark.close()
    return page.window.epoch


def run(database: Database, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(database.path)) as raw, raw:
        raw.execute(sql)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_recorded_position_is_read_by_another_process(mark: HighWaterMark, database: Database) -> None:
    assert HighWaterMark(database.path).read() == {}
    for seq in (1, 7, 99, 100_000):
        mark.advance(EPOCHS[0], Position(seq, 2**32 - seq))
        assert HighWaterMark(database.path).read() == {EPOCHS[0]: Position(seq, 2**32 - seq)}
    mark.sync()
    mark.close()
    assert HighWaterMark(database.path).read() == {EPOCHS[0]: Position(100_000, 2**32 - 100_000)}


def test_the_position_of_the_worker_ahead_is_kept(mark: HighWaterMark, database: Database) -> None:
    other = HighWaterMark(database.path)
    for seq, other_seq in ((10, 9), (11, 12), (14, 13), (14, 14)):
        mark.advance(EPOCHS[0], Position(seq, 1))
        other.advance(EPOCHS[0], Position(other_seq, 1))
        assert HighWaterMark(database.path).read() == {EPOCHS[0]: Position(max(seq, other_seq), 1)}
    other.close()
    mark.advance(EPOCHS[0], Position(15, 1))  # in any order of the workers
    assert HighWaterMark(database.path).read() == {EPOCHS[0]: Position(15, 1)}
    mark.close()


def test_two_workers_can_write_after_one_moved_to_a_new_epoch(mark: HighWaterMark, database: Database) -> None:
    other = HighWaterMark(database.path)
    mark.advance(EPOCHS[0], Position(10, 1))
    other.advance(EPOCHS[0], Position(10, 1))
    mark.advance(EPOCHS[1], Position(11, 1))
    other.advance(EPOCHS[1], Position(12, 1))
    mark.advance(EPOCHS[1], Position(13, 1))
    assert HighWaterMark(database.path).read() == {EPOCHS[0]: Position(10, 1), EPOCHS[1]: Position(13, 1)}
    mark.close()
    other.close()


def test_a_worker_in_the_old_epoch_leaves_the_file_to_the_other(mark: HighWaterMark, database: Database) -> None:
    other = HighWaterMark(database.path)
    other.advance(EPOCHS[0], Position(10, 1))
    mark.advance(EPOCHS[1], Position(11, 1))
    place = mark.path.stat().st_ino
    other.sync()
    assert mark.path.stat().st_ino == place
    mark.advance(EPOCHS[1], Position(12, 1))
    assert HighWaterMark(database.path).read() == {EPOCHS[0]: Position(10, 1), EPOCHS[1]: Position(12, 1)}
    mark.close()
    other.close()


def test_a_replaced_file_is_closed_by_the_next_sync(mark: HighWaterMark, database: Database) -> None:
    mark.advance(EPOCHS[0], Position(10, 1))
    mark.path.unlink()
    mark.sync()
    mark.advance(EPOCHS[0], Position(11, 1))
    assert HighWaterMark(database.path).read() == {EPOCHS[0]: Position(11, 1)}
    mark.close()


def test_every_epoch_keeps_its_furthest_position(mark: HighWaterMark, database: Database) -> None:
    for n, epoch in enumerate([*EPOCHS, EPOCHS[0]]):
        mark.advance(epoch, Position(10 + n, n))
    again = HighWaterMark(database.path)
    assert again.read() == {EPOCHS[0]: Position(13, 3), EPOCHS[1]: Position(11, 1), EPOCHS[2]: Position(12, 2)}
    again.advance(EPOCHS[1], Position(50, 5))
    again.close()
    mark.close()
    assert HighWaterMark(database.path).read()[EPOCHS[1]] == Position(50, 5)
    assert set(HighWaterMark(database.path).read()) == set(EPOCHS)


def test_the_longest_possible_line_fits_its_place(mark: HighWaterMark, database: Database) -> None:
    mark.advance(EPOCHS[0], Position(1, 1))
    mark.advance(EPOCHS[1], Position(2**63 - 1, 2**32 - 1))
    mark.close()
    assert HighWaterMark(database.path).read() == {EPOCHS[0]: Position(1, 1), EPOCHS[1]: Position(2**63 - 1, 2**32 - 1)}


CORRUPT: dict[str, bytes] = {
    "empty": b"",
    "binary": b"\xff\xfe\x00" * 50,
    "text": b"this is no mark\n" * 3,
    "a torn line": EPOCHS[0].encode() + b" 12",
    "a negative seq": EPOCHS[0].encode() + b" -5 7\n",
    "zeros": b"\0" * 64,
}


@pytest.mark.parametrize("content", CORRUPT.values(), ids=CORRUPT)
def test_an_invalid_line_is_skipped_and_overwritten(mark: HighWaterMark, database: Database, content: bytes) -> None:
    mark.path.write_bytes(content)
    assert mark.read() == {}
    mark.advance(EPOCHS[0], Position(5, 6))
    mark.close()
    assert HighWaterMark(database.path).read() == {EPOCHS[0]: Position(5, 6)}


def test_a_torn_line_does_not_affect_other_lines(mark: HighWaterMark) -> None:
    mark.path.write_text(f"{EPOCHS[0]} 12\n{EPOCHS[1]} 7 8\n")
    assert mark.read() == {EPOCHS[1]: Position(7, 8)}


def test_an_unreadable_mark_logs_a_warning(mark: HighWaterMark, caplog: pytest.LogCaptureFixture) -> None:
    mark.path.mkdir()
    assert mark.read() == {}
    assert "can't read the high-water mark" in caplog.text


def test_a_new_mark_can_be_synced_and_closed(mark: HighWaterMark) -> None:
    mark.sync()
    mark.close()
    assert not mark.path.exists()


# --- at the start -----------------------------------------------------------------------------------------------------


def test_a_database_that_was_never_served_keeps_its_epoch(
    database: Database, outbox: Outbox, mark: HighWaterMark
) -> None:
    write_events(database.path, 5)
    assert not renew_epoch_if_behind(database, outbox, mark)


@pytest.mark.parametrize("more", [0, 1, 10])
def test_a_database_ahead_of_its_mark_keeps_its_epoch(
    database: Database, outbox: Outbox, mark: HighWaterMark, more: int
) -> None:
    write_events(database.path, 5)
    epoch = serve_all(outbox, mark)
    write_events(database.path, more)
    assert not renew_epoch_if_behind(database, outbox, mark)
    assert outbox.window().epoch == epoch


def restore_older_copy(
    database: Database, outbox: Outbox, mark: HighWaterMark, tmp_path: Path, written_since: int
) -> str:
    """Serve ten events, and restore a copy that holds five of them.

    *written_since* more events are written to the copy.
    """
    write_events(database.path, 5)
    database.close()
    shutil.copy(database.path, tmp_path / "copy.db")
    write_events(database.path, 5)
    epoch = serve_all(outbox, mark)
    database.close()
    shutil.copy(tmp_path / "copy.db", database.path)
    write_events(database.path, written_since, source="other")
    return epoch


@pytest.mark.parametrize("written_since", [0, 4, 5, 50])
def test_a_restored_copy_gets_a_new_epoch_even_after_new_writes(
    database: Database, outbox: Outbox, mark: HighWaterMark, tmp_path: Path, written_since: int
) -> None:
    epoch = restore_older_copy(database, outbox, mark, tmp_path, written_since)
    assert renew_epoch_if_behind(database, outbox, mark)
    renewed = outbox.window().epoch
    assert renewed != epoch
    assert not renew_epoch_if_behind(database, outbox, mark)
    assert outbox.window().epoch == renewed


def test_pruning_does_not_renew_the_epoch(database: Database, outbox: Outbox, mark: HighWaterMark) -> None:
    write_events(database.path, 10)
    epoch = serve_all(outbox, mark)
    for up_to in (5, 9, 10):
        run(database, f"DELETE FROM outbox WHERE seq <= {up_to}")
        assert not renew_epoch_if_behind(database, outbox, mark)
    write_events(database.path, 3)
    assert not renew_epoch_if_behind(database, outbox, mark)
    assert outbox.window().epoch == epoch


def test_an_emptied_copy_gets_a_new_epoch(
    database: Database, outbox: Outbox, mark: HighWaterMark, tmp_path: Path
) -> None:
    restore_older_copy(database, outbox, mark, tmp_path, 0)
    run(database, "DELETE FROM outbox")
    assert renew_epoch_if_behind(database, outbox, mark)


def test_restoring_the_same_copy_twice_renews_the_epoch_twice(
    database: Database, outbox: Outbox, mark: HighWaterMark, tmp_path: Path
) -> None:
    epoch = restore_older_copy(database, outbox, mark, tmp_path, 0)
    assert renew_epoch_if_behind(database, outbox, mark)
    write_events(database.path)
    second = serve_all(outbox, mark)
    database.close()
    shutil.copy(tmp_path / "copy.db", database.path)
    assert renew_epoch_if_behind(database, outbox, mark)
    assert outbox.window().epoch not in (epoch, second)


class TestTheHeadWasErased:
    """The newest row is gone before a relay has read it.

    Clients have its seq as their cursor.
    """

    @pytest.fixture
    def copy(self, database: Database, outbox: Outbox, mark: HighWaterMark, tmp_path: Path) -> Path:
        """Serve such a head, and return a copy from before the newest event."""
        write_events(database.path, 5)
        database.close()
        shutil.copy(database.path, tmp_path / "copy.db")
        write_events(database.path)
        run(database, "DELETE FROM outbox WHERE seq = 6")
        serve_all(outbox, mark)
        database.close()
        return tmp_path / "copy.db"

    def test_the_same_database_keeps_its_epoch(
        self, database: Database, outbox: Outbox, mark: HighWaterMark, copy: Path
    ) -> None:
        assert not renew_epoch_if_behind(database, outbox, mark)

    @pytest.mark.parametrize("written_since", [0, 1, 2])
    def test_a_copy_from_before_gets_a_new_epoch(
        self, database: Database, outbox: Outbox, mark: HighWaterMark, copy: Path, written_since: int
    ) -> None:
        shutil.copy(copy, database.path)
        write_events(database.path, written_since)
        assert renew_epoch_if_behind(database, outbox, mark)


def test_a_checksum_is_kept_when_another_worker_finds_the_row_erased(mark: HighWaterMark, database: Database) -> None:
    mark.advance(EPOCHS[0], Position(10, 7))
    mark.advance(EPOCHS[0], Position.at(10, []))
    mark.close()
    assert HighWaterMark(database.path).read() == {EPOCHS[0]: Position(10, 7)}


def test_a_corrupt_mark_does_not_prevent_the_start(database: Database, outbox: Outbox, mark: HighWaterMark) -> None:
    write_events(database.path, 5)
    serve_all(outbox, mark)
    mark.path.write_bytes(b"\xff" * 64)
    assert not renew_epoch_if_behind(database, outbox, mark)
