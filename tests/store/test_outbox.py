"""Outbox, beyond the contract of a source (test_source.py).

One consistent state, bounded pages, and any file at the path.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outfeed.errors import DatabaseMissing, SchemaMismatch
from outfeed.feed.subscription import Filter
from outfeed.history import Page, Window
from outfeed.principal import EVERYTHING, EventScope
from outfeed.store import outbox as module
from outfeed.store.database import Database
from outfeed.store.outbox import MAX_PAGE_BYTES, Outbox, renew_epoch, status
from outfeed.store.triggers import problems as trigger_problems
from tests.waits import PATIENCE_SECS

MAX_EVENT_BYTES = 65_536
ROW = "INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES (?, 'a.b', 's', ?, 't')"


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database, MAX_EVENT_BYTES)


@pytest.fixture
def raw(database: Database) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection


def write(raw: sqlite3.Connection, count: int, data: str | None = None) -> None:
    (head,) = raw.execute("SELECT coalesce(max(rowid), 0) FROM event_log").fetchone()
    raw.execute("BEGIN IMMEDIATE")
    raw.executemany(ROW, [(f"id-{head + n}", data) for n in range(1, count + 1)])
    raw.execute("COMMIT")


def seqs(page: Page) -> list[int]:
    return [item.seq for item in page.items]


def epoch_of(raw: sqlite3.Connection) -> str:
    return str(raw.execute("SELECT value FROM outfeed_meta WHERE key = 'epoch'").fetchone()[0])


def test_a_page_has_the_time_of_its_first_write(outbox: Outbox, raw: sqlite3.Connection) -> None:
    assert outbox.read_after(0, 10).written_at is None
    write(raw, 2)
    raw.execute("UPDATE outbox SET created_at = 'at ' || seq")
    assert [outbox.read_after(seq, 10).written_at for seq in (0, 1, 2)] == ["at 1", "at 2", None]


# --- pages ------------------------------------------------------------------------------------------------------------


def test_pages_are_bounded_in_bytes_and_together_skip_nothing(outbox: Outbox, raw: sqlite3.Connection) -> None:
    write(raw, 60, '"' + "x" * 60_000 + '"')
    cursor, found, pages = 0, [], 0
    while cursor < 60:
        page = outbox.read_after(cursor, 1000)
        assert sum(len(item.json) for item in page.items) <= MAX_PAGE_BYTES + MAX_EVENT_BYTES + 8192
        found += seqs(page)
        cursor, pages = page.through, pages + 1
    assert found == list(range(1, 61))
    assert pages >= 3


def test_a_row_larger_than_a_page_is_read(database: Database, raw: sqlite3.Connection) -> None:
    generous = Outbox(database, 16 * 2**20)
    write(raw, 3, '"' + "x" * (MAX_PAGE_BYTES + 10) + '"')
    assert [seqs(generous.read_after(cursor, 10)) for cursor in range(4)] == [[1], [2], [3], []]


def test_a_payload_beyond_the_limit_is_read_in_part(outbox: Outbox, raw: sqlite3.Connection) -> None:
    write(raw, 4, '"' + "x" * MAX_PAGE_BYTES + '"')
    page = outbox.read_after(0, 1000)
    assert len(page.items) == 4, "cut payloads count as what is read of them"
    assert b'"omitted_bytes":%d' % (MAX_PAGE_BYTES + 2) in page.items[0].json


def test_reading_backwards_is_bounded_in_bytes_as_well(outbox: Outbox, raw: sqlite3.Connection) -> None:
    write(raw, 60, '"' + "x" * 60_000 + '"')
    page = outbox.read_before(61, 1000)
    assert seqs(page)[0] == 60
    assert len(page.items) < 30
    assert page.through == seqs(page)[-1]


def test_odd_payloads_do_not_affect_other_rows(outbox: Outbox, raw: sqlite3.Connection) -> None:
    odd = [None, "", b"", b"\0\xff,\0", "a\0b", 5, 1.5, "\x1e", "{", "é" * 5000]
    write(raw, 2 * len(odd) + 1)
    for place, payload in enumerate(odd, 1):
        raw.execute("UPDATE outbox SET payload = ? WHERE seq = ?", (payload, 2 * place))
    for page in (outbox.read_after(0, 100), outbox.read_before(100, 100)):
        found = {item.seq: item for item in page.items}
        assert sorted(found) == list(range(1, 2 * len(odd) + 2))
        assert [found[seq].id for seq in sorted(found)[::2]] == [f"id-{seq}" for seq in sorted(found)[::2]]
        assert {found[seq].event_type for seq in sorted(found)[1::2]} == {"system.unreadable"}


def test_a_page_of_many_parts_is_complete_and_ends_at_its_limit(outbox: Outbox, raw: sqlite3.Connection) -> None:
    write(raw, 500)
    assert seqs(outbox.read_after(0, 1000)) == list(range(1, 501))
    assert seqs(outbox.read_before(501, 1000)) == list(range(500, 0, -1))
    for limit in (1, 13, 14, 15, 127, 128, 499, 500):
        page = outbox.read_after(0, limit)
        assert (seqs(page), page.through) == (list(range(1, limit + 1)), limit)


@pytest.mark.parametrize("rows", [5, 500])
@pytest.mark.parametrize("meanwhile", ["INSERT", "DELETE"])
def test_rows_and_window_of_a_page_come_from_one_read_transaction(
    outbox: Outbox, raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, meanwhile: str, rows: int
) -> None:
    # given a writer or pruning that commits after the window was read, and before the rows are
    write(raw, rows)
    window_of = module.window_of

    def take_window_then_commit(row: Any) -> Window:
        window = window_of(row)
        if meanwhile == "INSERT":
            write(raw, 2)
        else:
            raw.execute("DELETE FROM outbox WHERE seq <= 3")
        return window

    monkeypatch.setattr(module, "window_of", take_window_then_commit)
    # then the page is unchanged
    for page in (outbox.read_after(0, 1000), outbox.read_before(1000, 1000)):
        assert sorted(seqs(page)) == list(range(page.window.first_seq, page.window.last_seq + 1))
    assert (page.window.last_seq > rows) == (meanwhile == "INSERT")


# --- the epoch --------------------------------------------------------------------------------------------------------


def test_the_epoch_is_renewed_once_by_many_callers(database: Database, outbox: Outbox) -> None:
    old = outbox.window().epoch
    outbox.renew_epoch(old)
    new = outbox.window().epoch
    assert new != old
    assert len(new) == 32
    renew_epoch(database, old)
    assert outbox.window().epoch == new


def replace(path: Path, copy: Path) -> None:
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    os.replace(copy, path)


def backup(path: Path, copy: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def test_another_file_at_the_path_gets_a_new_epoch_though_its_head_is_higher(
    database: Database, outbox: Outbox, tmp_path: Path
) -> None:
    # given a copy that was written to separately
    copy = tmp_path / "copy.db"
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as raw:
        write(raw, 5)
        backup(database.path, copy)
        write(raw, 5)
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as other:
        write(other, 50)
    before = outbox.read_after(0, 100).window
    # when it replaces the file that was read
    replace(database.path, copy)
    after = outbox.read_after(10, 100).window
    # then it is another history
    assert after.epoch != before.epoch
    assert after.last_seq == 55
    assert outbox.read_after(0, 100).window.epoch == after.epoch, "once is enough"


def test_two_threads_that_find_a_replaced_database_renew_its_epoch_once(
    database: Database, outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.read_after(0, 100)
    # given a thread that is stopped after its check of the path
    has_looked, may_go_on, identity = threading.Event(), threading.Event(), database.identity

    def check_and_wait() -> tuple[int, int] | None:
        found = identity()
        if threading.current_thread() is slow and not has_looked.is_set():
            has_looked.set()
            may_go_on.wait(PATIENCE_SECS)
        return found

    monkeypatch.setattr(database, "identity", check_and_wait)
    slow = threading.Thread(target=lambda: outbox.read_after(0, 100))
    slow.start()
    assert has_looked.wait(PATIENCE_SECS)
    # when another thread notices the new file in that time
    backup(database.path, tmp_path / "copy.db")
    replace(database.path, tmp_path / "copy.db")
    renewed = outbox.read_after(0, 100).window.epoch
    may_go_on.set()
    slow.join(PATIENCE_SECS)
    # then the first thread does not renew the epoch again
    assert outbox.read_after(0, 100).window.epoch == renewed


def test_the_same_file_back_at_its_path_keeps_its_epoch(database: Database, outbox: Outbox, tmp_path: Path) -> None:
    before = outbox.read_after(0, 100).window
    database.close()
    os.rename(database.path, tmp_path / "away")
    with pytest.raises(DatabaseMissing, match=str(database.path)):
        outbox.read_after(0, 100)
    os.rename(tmp_path / "away", database.path)
    assert outbox.read_after(0, 100).window == before


def test_a_database_without_outfeeds_tables_is_named(database: Database, outbox: Outbox, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign.db")) as other:
        other.execute("CREATE TABLE foreign_table (x)")
    database.close()
    replace(database.path, tmp_path / "foreign.db")
    with pytest.raises(SchemaMismatch, match="outfeed upgrade"):
        outbox.window()


# --- status and triggers ----------------------------------------------------------------------------------------------


def test_the_status_counts_what_is_there(database: Database, raw: sqlite3.Connection) -> None:
    write(raw, 5)
    raw.execute("DELETE FROM outbox WHERE seq <= 2")
    raw.execute("DELETE FROM event_log WHERE id = 'id-1'")
    expected = {"epoch": epoch_of(raw), "head": 5, "first_seq": 3, "events": 4, "outbox": 3}
    assert status(database) == expected


def test_unchanged_triggers_are_no_problem(database: Database) -> None:
    assert trigger_problems(database) == []


NAMES = ["event_log_guard_insert", "event_log_guard_update", "event_log_outbox", "event_log_stale"]


@pytest.mark.parametrize("name", NAMES)
def test_a_trigger_that_is_missing_or_altered_is_named(database: Database, raw: sqlite3.Connection, name: str) -> None:
    (sql,) = raw.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    raw.execute(f"DROP TRIGGER {name}")
    assert trigger_problems(database) == [f"trigger {name} is missing"]
    raw.execute(f"CREATE TRIGGER {name} AFTER INSERT ON event_log BEGIN SELECT 1; END")
    assert trigger_problems(database) == [f"trigger {name} is altered"]
    raw.execute(f"DROP TRIGGER {name}")
    raw.execute(sql)
    assert trigger_problems(database) == []


def test_a_trigger_of_the_right_name_on_another_table_is_altered(database: Database, raw: sqlite3.Connection) -> None:
    raw.execute("DROP TRIGGER event_log_outbox")
    raw.execute("CREATE TRIGGER event_log_outbox AFTER INSERT ON outfeed_meta BEGIN SELECT 1; END")
    assert trigger_problems(database) == ["trigger event_log_outbox is altered"]


def test_a_table_that_was_rebuilt_has_lost_all_its_triggers(database: Database, raw: sqlite3.Connection) -> None:
    raw.executescript(
        "CREATE TABLE fresh AS SELECT * FROM event_log; DROP TABLE event_log; ALTER TABLE fresh RENAME TO event_log;"
    )
    assert trigger_problems(database) == [f"trigger {name} is missing" for name in NAMES]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(EVERYTHING), [8, 7, 6, 5, 4, 3, 2, 1]),
        (Filter(EventScope()), [8, 7, 6, 5, 4, 2, 1]),
        (Filter(EventScope(types=("task.*",))), [7, 2]),
        (Filter(EVERYTHING, types=("task.*", "a.b")), [7, 6, 2, 1]),
        (Filter(EventScope(types=("a.b",)), types=("task.created",)), []),
        (Filter(EVERYTHING, source="me"), [2]),
        (Filter(EVERYTHING, task_id="t1"), [7]),
        (Filter(EVERYTHING, agent_id="a1", types=("task.*",)), [7]),
        (Filter(EVERYTHING, types=("nothing.*",)), []),
    ],
)
def test_the_newest_matching_events_are_found_in_sql(
    outbox: Outbox, raw: sqlite3.Connection, wanted: Filter, expected: list[int]
) -> None:
    rows = [
        ("a.b", "s", None, None), ("task.created", "me", None, None), ("access.x", "s", None, None),
        ("c.d", "s", "", ""),
        (None, None, None, None), ("a.b", 7, None, None), ("task.failed", "s", "t1", "a1"), ("taskx.y", "s", "t2", "a"),
    ]  # fmt: skip
    names = ("event_type", "source", "task_id", "agent_id")
    for row in rows:
        payload = json.dumps(dict(zip(names, row, strict=True)))
        raw.execute("INSERT INTO outbox (event_id, payload) VALUES ('x', ?)", (payload,))

    assert outbox.newest(wanted, 100, after=0, up_to=100) == expected
    assert outbox.newest(wanted, 2, after=0, up_to=100) == expected[:2]
    assert outbox.newest(wanted, 100, after=2, up_to=6) == [seq for seq in expected if 2 < seq <= 6]


def test_a_foreign_payload_does_not_break_the_search_for_the_newest(outbox: Outbox, raw: sqlite3.Connection) -> None:
    for payload in ("nonsense", b"\xff", None, "[" * 5000, '{"event_type": "a.b"}'):
        raw.execute("INSERT INTO outbox (event_id, payload) VALUES ('x', ?)", (payload,))

    assert outbox.newest(Filter(EVERYTHING, types=("a.b",)), 100, after=0, up_to=100) == [5]
