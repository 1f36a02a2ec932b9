"""Trigger repair: missed events are added once, history never.

The repair is reported.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading

import pytest

from outfeed import list_events
from outfeed.access.store import account
from outfeed.store import triggers
from outfeed.store.triggers import TriggerGuard
from outfeed.upkeep import retention
from outfeed.upkeep.policy import Policy

DROP = "DROP TRIGGER event_log_outbox"
REBUILD = """
    BEGIN IMMEDIATE;
    CREATE TABLE rebuilt (
        id TEXT PRIMARY KEY, event_type TEXT NOT NULL, source TEXT NOT NULL, task_id TEXT, agent_id TEXT, data TEXT,
        timestamp TEXT NOT NULL
    );
    INSERT INTO rebuilt SELECT * FROM event_log ORDER BY rowid;
    DROP TABLE event_log;
    ALTER TABLE rebuilt RENAME TO event_log;
    COMMIT;
"""


@pytest.fixture
def raw(database):
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection


@pytest.fixture
def write(raw):
    def write(*ids, **columns):
        row = {"event_type": "a.b", "source": "s", "timestamp": "2026-03-10T12:00:00Z", **columns}
        for event_id in ids:
            raw.execute(
                f"INSERT INTO event_log (id, {', '.join(row)}) VALUES (?{', ?' * len(row)})", (event_id, *row.values())
            )

    return write


@pytest.fixture
def fed(raw):
    """The ids in the outbox without those of Outfeed's own events."""
    return lambda: [
        event_id for event_id, payload in raw.execute("SELECT event_id, payload FROM outbox ORDER BY seq")
        if json.loads(payload)["source"] != "outfeed"
    ]  # fmt: skip


def warnings():
    return [event.data for event in list_events(event_type="system.warning")]


def test_a_fresh_database_has_no_trigger_problem(database):
    assert triggers.problems(database) == []
    assert triggers.repair(database) is None
    assert triggers.count_missed(database) == 0


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (DROP, "trigger event_log_outbox is missing"),
        (f"{DROP}; CREATE TRIGGER event_log_outbox AFTER INSERT ON event_log BEGIN SELECT 1; END",
         "trigger event_log_outbox is altered"),
        ("ALTER TABLE event_log RENAME TO old; CREATE TABLE event_log AS SELECT * FROM old",
         "trigger event_log_outbox is altered"),
        (REBUILD, "trigger event_log_outbox is missing"),
    ],
)  # fmt: skip
def test_missed_events_are_added_once_and_reported(database, raw, write, fed, harm, problem):
    write("a", "b")
    guard = TriggerGuard(database)
    guard.check()
    raw.executescript(harm)
    write("c", "d")
    assert problem in triggers.problems(database)
    assert fed() == ["a", "b"]
    for _ in range(2):
        guard.check()
        TriggerGuard(database).check()
        assert fed() == ["a", "b", "c", "d"]
    write("e")
    assert fed() == ["a", "b", "c", "d", "e"]
    assert triggers.problems(database) == []
    (said,) = warnings()
    assert said["added"] == 2
    assert problem in said["triggers"]
    assert "added 2 events that the feed had missed" in said["message"]


def test_an_added_payload_equals_that_of_the_trigger(database, raw, write):
    rows = {"bytes": b"\x00\xff", "text": "no json", "json": '{"a": 1e999}', "null": None, "odd": b"\xe9"}
    for name, data in rows.items():
        write(f"{name}-1", data=data, task_id=b"\x01")
    raw.execute(DROP)
    for name, data in rows.items():
        write(f"{name}-2", data=data, task_id=b"\x01")
    triggers.repair(database)
    for name in rows:
        (first, second) = raw.execute(
            "SELECT CAST(replace(payload, '-2', '-1') AS BLOB) FROM outbox WHERE event_id LIKE ?", (f"{name}-_",)
        ).fetchall()
        assert first == second


def test_history_is_not_added_again_after_its_rowids_changed(database, raw, write, fed):
    """Half of the history was pruned from the outbox.

    The log has holes, and the rebuild closes them.
    """
    write(*(f"old-{n}" for n in range(20)))
    raw.execute("DELETE FROM event_log WHERE rowid % 3 = 0")
    raw.execute("DELETE FROM outbox WHERE seq <= 15")
    before = fed()
    raw.executescript(REBUILD)
    write("missed-1", "missed-2")
    TriggerGuard(database).check()
    assert fed() == [*before, "missed-1", "missed-2"]


def test_events_that_an_altered_trigger_missed_are_added_by_a_guard_that_checked_before(database, raw, write, fed):
    write("a")
    guard = TriggerGuard(database)
    guard.check()
    (text,) = raw.execute("SELECT value FROM outfeed_meta WHERE key = 'trigger:event_log_outbox'").fetchone()
    altered = text.replace("BEGIN", "WHEN NEW.source <> 'quiet'\nBEGIN", 1)
    raw.executescript(f"{DROP}; {altered}")
    write("passed over", source="quiet")
    write("taken")
    guard.check()
    assert fed() == ["a", "taken", "passed over"]


def test_a_repair_finds_its_position_in_an_outbox_emptied_by_pruning(database, raw, write, fed):
    write("a", "b", "c")
    raw.execute("UPDATE outbox SET created_at = '2020-01-01T00:00:00.000Z'")
    retention.prune(database, Policy(None, {}, 7), by="tests")
    raw.execute("DELETE FROM outbox WHERE seq > 3")  # the event that reports it
    assert fed() == ["c"]
    raw.execute(DROP)
    write("d")
    triggers.repair(database)
    assert fed() == ["c", "d"]


def test_an_emptied_log_does_not_prevent_the_repair(database, raw, write, fed):
    write("a", "b")
    raw.execute("DELETE FROM event_log")
    raw.execute(DROP)
    write("now", timestamp="2099-01-01T00:00:00Z")
    write("history", timestamp="2001-01-01T00:00:00Z")
    write("now too", timestamp="2099-01-01T00:00:00Z")
    triggers.repair(database)
    assert fed() == ["a", "b", "now too"]  # rows below an older row count as history


def test_adopted_rows_stay_history(tmp_path):
    path = tmp_path / "outfeed.db"
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(
            "CREATE TABLE event_log (id TEXT PRIMARY KEY, event_type TEXT NOT NULL, source TEXT NOT NULL, task_id TEXT,"
            " agent_id TEXT, data TEXT, timestamp TEXT NOT NULL)"
        )
        raw.executemany("INSERT INTO event_log VALUES (?, 'a.b', 's', NULL, NULL, NULL, 't')", [("x",), ("y",)])
    triggers.db.at(path).close()
    from outfeed.store import migrate

    migrate.upgrade(path, adopt=True)
    database = triggers.db.at(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute(DROP)
        raw.execute("INSERT INTO event_log VALUES ('z', 'a.b', 's', NULL, NULL, NULL, 't')")
        repaired = triggers.repair(database)
        assert repaired is not None
        assert repaired.added == 1
        assert raw.execute("SELECT event_id FROM outbox ORDER BY seq").fetchone() == ("z",)
    database.close()


def test_a_dropped_guard_trigger_is_restored_and_adds_nothing(database, raw, write, fed):
    write("a")
    raw.execute("DELETE FROM outbox")
    raw.execute("DROP TRIGGER event_log_guard_update")
    TriggerGuard(database).check()
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute("UPDATE event_log SET source = 'other'")
    assert fed() == []


def test_connected_clients_are_checked_again_after_a_repair_of_the_permission_triggers(database, raw):
    secret = account.create_token(database, "site", ["read"])
    raw.executescript(
        "ALTER TABLE outfeed_token RENAME TO old; CREATE TABLE outfeed_token AS SELECT * FROM old; DROP TABLE old"
    )
    before = account.change_counters(database)
    account.revoke_token(database, "site")
    assert account.change_counters(database) == before
    TriggerGuard(database).check()
    assert account.change_counters(database) != before
    assert triggers.problems(database) == []
    assert account.find_token(database, secret) is None


def test_one_of_many_concurrent_checks_repairs(database, raw, write, fed):
    write("a")
    raw.execute(DROP)
    write(*(f"missed-{n}" for n in range(50)))
    all_ready = threading.Barrier(6)

    def check():
        all_ready.wait()
        TriggerGuard(database).check()

    workers = [threading.Thread(target=check) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert fed() == ["a", *(f"missed-{n}" for n in range(50))]
    assert len(warnings()) == 1


def test_a_table_that_is_missing_for_a_moment_is_logged_once_and_repaired_when_it_returns(
    database, raw, write, fed, caplog
):
    write("a")
    guard = TriggerGuard(database)
    guard.check()
    raw.execute("ALTER TABLE event_log RENAME TO elsewhere")
    raw.executescript("DROP TRIGGER event_log_outbox")
    for _ in range(3):
        guard.check()
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    raw.execute("ALTER TABLE elsewhere RENAME TO event_log")
    write("b")
    guard.check()
    assert fed() == ["a", "b"]


def test_events_missed_before_a_manual_repair_are_found_and_added(database, raw, write, fed):
    write("a")
    raw.execute(DROP)
    write("b")
    (text,) = raw.execute("SELECT value FROM outfeed_meta WHERE key = 'trigger:event_log_outbox'").fetchone()
    raw.execute(text)
    assert triggers.count_missed(database) == 1
    assert triggers.add_missed(database) == 1
    assert triggers.add_missed(database) == 0
    assert fed() == ["a", "b"]


def test_a_changed_journal_mode_is_restored(database, raw, caplog):
    database.close()
    raw.execute("PRAGMA journal_mode = DELETE")
    guard = TriggerGuard(database)
    guard.check()
    guard.check()
    with contextlib.closing(sqlite3.connect(database.path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert caplog.text.count("journal mode restored before=delete") == 1


DERIVED = """
    CREATE TRIGGER {name} AFTER /* of the shop */ insert
    ON event_log WHEN NEW.event_type = 'a.b'
    BEGIN
        INSERT INTO event_log (id, event_type, source, timestamp) VALUES (NEW.id || '-effect', 'c.d', 's', 'now');
    END
"""


def test_the_feeds_trigger_stays_the_newest_so_that_a_cause_precedes_its_effect(database, raw, write, fed):
    raw.execute(DERIVED.format(name='"on order"'))
    problem = "trigger event_log_outbox runs after the trigger on order"
    assert triggers.problems(database) == [problem]
    TriggerGuard(database).check()
    assert triggers.problems(database) == []
    write("a")
    raw.execute("VACUUM")
    write("b")
    assert fed() == ["a", "a-effect", "b", "b-effect"]
    assert [each["triggers"] for each in warnings()] == [[problem]]
    assert [each["added"] for each in warnings()] == [0]


def test_a_newer_trigger_of_another_kind_is_left_as_it_is(database, raw):
    for name, when in (
        ("x", "BEFORE INSERT"),
        ("y", "AFTER UPDATE"),
        ("z", "AFTER DELETE"),
        ("after_insert", "INSERT"),
    ):
        raw.execute(f"CREATE TRIGGER {name} {when} ON event_log BEGIN SELECT 1; END")
    raw.execute("CREATE TABLE other (x)")
    raw.execute("CREATE TRIGGER w AFTER INSERT ON other BEGIN SELECT 1; END")
    assert triggers.problems(database) == []
