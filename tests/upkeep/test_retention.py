"""Retention: limits of age, clocks, and rows that are kept for consumers."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import threading
from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time

from outfeed import clock, list_events, prune_events
from outfeed.config import settings
from outfeed.store import lease
from outfeed.upkeep import retention
from outfeed.upkeep.policy import Policy
from outfeed.upkeep.retention import plan, prune
from outfeed.upkeep.retention_job import RetentionJob, is_clock_plausible

NOW = "2026-03-10T12:00:00Z"
numbers = itertools.count()


@pytest.fixture
def raw(database):
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection


@pytest.fixture
def write(raw):
    """Return a function that inserts an event with plain sqlite3.

    It returns the event's id.
    """

    def write(timestamp, event_type="a.b", created_at=None):
        event_id = f"event-{next(numbers)}"
        row = (event_id, event_type, timestamp)
        raw.execute("INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, ?, 's', ?)", row)
        if created_at is not None:
            raw.execute("UPDATE outbox SET created_at = ? WHERE event_id = ?", (created_at, event_id))
        return event_id

    return write


@pytest.fixture
def left(raw):
    """Return the ids in the log, without the events of pruning itself."""
    query = "SELECT id FROM event_log WHERE source <> 'outfeed' ORDER BY rowid"
    return lambda: [row[0] for row in raw.execute(query)]


@pytest.fixture
def outbox(raw):
    return lambda: [row[0] for row in raw.execute("SELECT seq FROM outbox ORDER BY seq")]


def days_ago(days, now=None):
    return clock.isoformat((now or clock.now()) - timedelta(days=days))


class TestEstimate:
    @pytest.fixture
    def policy(self):
        return Policy(log_days=30, days_by_type={"tool.*": 1}, replay_days=7)

    def estimated(self, database, policy, limit):
        with freeze_time(NOW):
            return retention.estimate(database, policy, limit)[:2]

    def test_the_estimate_equals_the_prune(self, database, write, policy):
        for days, event_type in ((40, "a.b"), (20, "a.b"), (2, "tool.called"), (0, "tool.called")):
            at = days_ago(days, datetime(2026, 3, 10, 12, tzinfo=UTC))
            write(at, event_type, created_at=at)
        assert self.estimated(database, policy, 100) == (2, 2)
        with freeze_time(NOW):
            done = prune(database, policy, by="tests")
        assert (done.events, done.outbox_rows) == (2, 2)

    def test_the_estimate_reads_only_the_oldest_rows(self, database, write, policy, monkeypatch):
        monkeypatch.setattr(retention, "SCAN_ROWS", 2)
        for _ in range(6):
            write("2020-01-01T00:00:00Z", created_at="2020-01-01T00:00:00.000Z")
        assert self.estimated(database, policy, 3) == (3, 3)
        assert self.estimated(database, policy, 5) == (5, 5)
        assert self.estimated(database, policy, 10) == (6, 5)  # the newest outbox row stays

    def test_the_estimate_reads_nothing_that_is_kept_for_ever(self, database, write):
        write("2020-01-01T00:00:00Z", created_at="2020-01-01T00:00:00.000Z")
        assert self.estimated(database, Policy(), 10) == (0, 0)


class TestLimits:
    @pytest.mark.parametrize(
        ("now", "days", "stays", "goes"),
        [
            ("2026-03-10T12:00:00Z", 7, "2026-03-03T12:00:00.000Z", "2026-03-03T11:59:59.999Z"),
            ("2026-03-10T00:00:00Z", 1, "2026-03-09T00:00:00.000Z", "2026-03-08T23:59:59.999Z"),
            ("2024-03-01T00:00:00Z", 1, "2024-02-29T00:00:00.000Z", "2024-02-28T23:59:59.999Z"),
            ("2023-03-01T00:00:00Z", 1, "2023-02-28T00:00:00.000Z", "2023-02-27T23:59:59.999Z"),
            ("2025-02-28T10:00:00Z", 365, "2024-02-29T10:00:00.000Z", "2024-02-29T09:59:59.999Z"),
            ("2026-01-01T00:00:00Z", 1, "2025-12-31T00:00:00.000Z", "2025-12-30T23:59:59.999Z"),
            # Europe's clocks went forward on 29 March and back on 25 October: a day is still 24 hours.
            ("2026-03-29T12:00:00Z", 1, "2026-03-28T13:00:00.000+01:00", "2026-03-28T12:59:59.999+01:00"),
            ("2026-10-25T12:00:00Z", 1, "2026-10-24T14:00:00.000+02:00", "2026-10-24T13:59:59.999+02:00"),
        ],
    )
    def test_the_age_limit_is_exact_to_the_millisecond(self, write, left, now, days, stays, goes):
        young, old = write(stays), write(goes)
        with freeze_time(now):
            assert prune_events(days) == 1
        assert left() == [young]
        assert old not in left()

    @pytest.mark.parametrize(
        "old",
        [
            "2026-03-08T11:59:59Z", "2026-03-08T11:59:59+00:00", "2026-03-08T11:59:59.123456", "2026-03-08 11:59:59",
            "2026-03-09T02:59:59+15:00", "2026-03-07T20:59:59-15:00", "2026-03-08T13:59:59+0200", "2026-03-08",
            "20260308T115959Z", "2026-W10-7T11:59:59Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00",
        ],
    )  # fmt: skip
    def test_any_iso_8601_time_is_understood(self, write, left, old):
        write(old)
        with freeze_time(NOW):
            assert prune_events(2) == 1
        assert left() == []

    @pytest.mark.parametrize(
        "young",
        [
            "2026-03-08T12:00:00Z", "2026-03-07T22:00:00-14:00", "2026-03-09T02:00:00+14:00",
            "2026-03-08T14:00:00+0200", "2099-01-01T00:00:00Z",
        ],
    )  # fmt: skip
    def test_a_younger_event_stays_with_any_utc_offset(self, write, left, young):
        kept = write(young, created_at="2000-01-01T00:00:00.000Z")
        with freeze_time(NOW):
            assert prune_events(2) == 0
        assert left() == [kept]

    @pytest.mark.parametrize("bad", [-1, float("nan")])
    def test_an_invalid_age_is_rejected(self, database, bad):
        with pytest.raises(ValueError, match="older_than_days"):
            prune_events(bad)


ODD = ["now", "12:30", "1705314600", "1612010812345", "2026", "yesterday", "", "2026-13-45T00:00:00Z", b"\x00\xff",
       "Tue, 10 Mar 2026 12:00:00 GMT", 2460000.5, "16120108"]  # fmt: skip


class TestInvalidTimestamps:
    @pytest.mark.parametrize("odd", ODD)
    def test_an_undated_event_has_the_age_of_its_outbox_row(self, write, left, odd):
        write(odd, created_at="2026-03-01T00:00:00.000Z")
        young = write(odd, created_at="2026-03-10T00:00:00.000Z")
        with freeze_time(NOW):
            assert plan_of(5).events == 1
            assert prune_events(5) == 1
        assert left() == [young]

    @pytest.mark.parametrize("odd", ODD)
    def test_the_age_is_still_known_after_the_outbox_row_is_pruned(self, database, raw, write, left, odd):
        write(odd, created_at="2026-03-01T00:00:00.000Z")
        newest = write("2026-03-10T00:00:00Z")
        with freeze_time("2026-03-09T00:00:00Z"):
            assert prune(database, Policy(None, {}, 7, None), by="tests").outbox_rows == 1
        with freeze_time("2026-03-31T00:00:00Z"):
            assert prune_events(31) == 0
        with freeze_time("2026-03-31T00:00:01Z"):
            assert prune_events(30) == 1
        assert left() == [newest]
        assert raw.execute("SELECT * FROM outfeed_arrival").fetchall() == []

    def test_an_event_of_unknown_age_stays(self, raw, write, left):
        kept = write("yesterday")
        raw.execute("DELETE FROM outbox")
        assert prune_events(0) == 0
        assert left() == [kept]

    def test_thousands_of_invalid_timestamps_are_each_read_once(self, raw, left):
        with raw:
            raw.execute("BEGIN")
            raw.executemany(
                "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.b', 's', CAST(? AS TEXT))",
                [(f"odd-{n}", b"\xe9\xff%d" % (n % 7)) for n in range(1500)],
            )
            raw.execute("UPDATE outbox SET created_at = '2026-03-01T00:00:00.000Z' WHERE seq % 3 <> 0")
        with freeze_time("2026-03-10T12:00:00Z"):
            assert prune_events(5) == 1000
        assert len(left()) == 500


def plan_of(days):
    return plan(retention.db.default(), Policy.older_than(days, settings()))


class TestPolicy:
    def test_the_most_specific_type_takes_precedence(self):
        policy = Policy(30, {"tool.*": 7, "tool.db.*": 3, "tool.failed": None})
        expected = {"tool.called": 7, "tool.db.query": 3, "tool.failed": None, "task.failed": 30, "tool": 30, b"x": 30}
        assert {type_: policy.days_for(type_) for type_ in expected} == expected

    def test_each_type_is_kept_for_its_own_time(self, database, write, left):
        rows = [("tool.called", 8), ("tool.called", 6), ("audit.x", 300), ("a.b", 40), ("a.b", 20), ("audit.x", 400)]
        ids = [write(days_ago(days), type_) for type_, days in rows]
        done = prune(database, Policy(30, {"tool.*": 7, "audit.*": 365}), by="tests")
        assert done.events == 3
        assert left() == [ids[1], ids[2], ids[4]]

    def test_types_that_are_kept_longer_do_not_slow_the_prune(self, database, raw, write):
        """Each row is read once per run, not once per chunk."""
        raw.executemany(
            "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, ?, 's', ?)",
            [(f"{type_}-{n}", type_, days_ago(50)) for n in range(1200) for type_ in ("a.kept", "a.b")],
        )
        run = retention.Prune(database, Policy(30, {"a.kept": None}), "tests")
        looked = []
        run.candidates = lambda read=run.candidates: ((looked.extend(chunk), chunk)[1] for chunk in read())
        assert run.run().events == 1200
        assert len(looked) == 2400

    def test_an_explicit_age_applies_to_every_type(self, monkeypatch, database, write, left):
        monkeypatch.setenv("OUTFEED_RETENTION_DAYS_BY_TYPE", "audit.*=365")
        write(days_ago(100), "audit.x")
        assert prune_events(30) == 1
        assert left() == []

    def test_zero_in_the_settings_means_for_ever(self, monkeypatch):
        monkeypatch.setenv("OUTFEED_REPLAY_DAYS", "0")
        assert Policy.of(settings()) == Policy(None, {}, None, 30)


class TestTheOutbox:
    def prune(self, database, replay_days=7, lag_days=None):
        return prune(database, Policy(None, {}, replay_days, lag_days), by="tests").outbox_rows

    def fill(self, write, *ages):
        for age in ages:
            write(days_ago(0), created_at=age if isinstance(age, str) else days_ago(age))

    def test_only_the_prefix_before_the_first_young_row_is_deleted(self, database, write, outbox):
        self.fill(write, 9, 8, 6, 9, 0)
        assert self.prune(database) == 2
        assert outbox() == [3, 4, 5, 6]  # and the event about the prune

    def test_pruning_the_outbox_keeps_the_log(self, database, write, left):
        self.fill(write, 9, 0)
        self.prune(database)
        assert len(left()) == 2

    def test_the_next_dated_row_decides_on_an_undated_row(self, database, write, outbox):
        self.fill(write, 9, "2099-01-01T00:00:00.000Z", "no date", 8, "2099-01-01T00:00:00.000Z", 1, 0)
        assert self.prune(database) == 4
        assert outbox()[0] == 5

    def test_the_newest_row_stays_for_repairs(self, database, write, outbox):
        self.fill(write, 9, 9, 9)
        assert self.prune(database) == 2
        assert outbox()[0] == 3

    def test_a_prune_deletes_more_than_one_chunk(self, database, raw, write, outbox):
        raw.executemany(
            "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.b', 's', 't')",
            [(f"many-{n}",) for n in range(1201)],
        )
        raw.execute("UPDATE outbox SET created_at = '2020-01-01T00:00:00.000Z'")
        assert self.prune(database) == 1200
        assert outbox()[0] == 1201


class TestProtectedConsumers:
    @pytest.fixture
    def consumer(self, raw):
        def consumer(seq, is_protected=1, epoch=None):
            (ours,) = raw.execute("SELECT value FROM outfeed_meta WHERE key = 'epoch'").fetchone()
            row = (f"consumer-{next(numbers)}", epoch or ours, seq, is_protected)
            raw.execute(
                "INSERT INTO outfeed_checkpoint (name, epoch, seq, generation, is_protected, created_at, seen_at)"
                " VALUES (?, ?, ?, 1, ?, 't', 't')",
                row,
            )

        return consumer

    def left_after(self, database, outbox, write, lag_days=30):
        TestTheOutbox().fill(write, 40, 35, 20, 10, 8, 1, 0)
        prune(database, Policy(None, {}, 7, lag_days), by="tests")
        return outbox()[0]

    def test_unacknowledged_rows_stay(self, database, outbox, write, consumer):
        consumer(3)
        consumer(5)
        assert self.left_after(database, outbox, write) == 4

    def test_unacknowledged_rows_stay_only_up_to_the_limit(self, database, outbox, write, consumer):
        consumer(0)
        assert self.left_after(database, outbox, write) == 3

    def test_unacknowledged_rows_stay_for_ever_without_a_limit(self, database, outbox, write, consumer):
        consumer(0)
        assert self.left_after(database, outbox, write, lag_days=None) == 1

    def test_unprotected_consumers_and_other_epochs_keep_nothing(self, database, outbox, write, consumer):
        consumer(0, is_protected=0)
        consumer(1, epoch="another")
        assert self.left_after(database, outbox, write) == 6

    def test_rows_after_the_reported_reset_stay(self, database, outbox, write, consumer, raw):
        consumer(9, epoch="another")
        raw.execute(
            "UPDATE outfeed_checkpoint SET reset_epoch = (SELECT value FROM outfeed_meta"
            " WHERE key = 'epoch'), reset_seq = 4"
        )
        assert self.left_after(database, outbox, write) == 5

    def test_an_earlier_reset_keeps_nothing(self, database, outbox, write, consumer, raw):
        consumer(9, epoch="another")
        raw.execute("UPDATE outfeed_checkpoint SET reset_epoch = 'a third', reset_seq = 4")
        assert self.left_after(database, outbox, write) == 6

    def test_consumers_are_read_in_the_deleting_transaction(self, database, raw, outbox, write, consumer, monkeypatch):
        """A consumer that is added during the prune."""
        monkeypatch.setattr(retention, "CHUNK_ROWS", 1)
        TestTheOutbox().fill(write, 9, 9, 9, 9, 0)
        chunk = retention.Prune.pause_after
        monkeypatch.setattr(
            retention.Prune, "pause_after", lambda self, began: (outbox()[0] == 3 and consumer(2), chunk(self, began))
        )
        prune(database, Policy(None, {}, 7, 30), by="tests")
        assert outbox()[0] == 3


class TestTraces:
    def test_an_event_reports_the_prune(self, database, write):
        write(days_ago(40))
        write(days_ago(0), created_at=days_ago(9))
        write(days_ago(0))
        prune_events(30)
        (event,) = list_events(source="outfeed")
        assert event.event_type == "system.pruned"
        assert event.data.pop("freed_bytes") >= 0
        assert event.data == {
            "message": "Pruned 1 event older than 30 days",
            "events": 1,
            "outbox_rows": 0,
            "by": "prune_events",
        }
        with_rows = prune(database, Policy(None, {}, 0, None), by="tests")
        assert with_rows.outbox_rows == 3
        assert list_events(source="outfeed")[0].data["message"] == "Pruned 0 events and 3 outbox rows"

    def test_a_prune_of_nothing_writes_no_event(self, database, write):
        write(days_ago(0))
        prune_events(30)
        assert list_events(source="outfeed") == []

    def test_the_file_shrinks_in_few_steps(self, database, raw, monkeypatch):
        with raw:
            raw.execute("BEGIN")
            raw.executemany(
                "INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES (?, 'a.b', 's', ?, ?)",
                [(f"large-{n}", json.dumps("x" * 2000), days_ago(40)) for n in range(3000)],
            )
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        before = database.path.stat().st_size
        steps, pause = [], retention.Prune.pause_after
        monkeypatch.setattr(
            retention.Prune, "pause_after", lambda self, began: (steps.append(began), pause(self, began))
        )
        freed = prune(database, Policy(30, {}, None, None), by="tests").freed_bytes
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert freed > before / 3
        assert len(steps) < freed / 4096 / 20
        assert database.path.stat().st_size < before * 2 / 3
        assert raw.execute("PRAGMA freelist_count").fetchone()[0] < retention.VACUUM_PAGES
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


class TestBesideWriters:
    def test_a_writer_gets_the_lock_after_each_chunk(self, database, raw):
        raw.executemany(
            "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.b', 's', ?)",
            [(f"many-{n}", days_ago(40)) for n in range(2100)],
        )
        chunks = []
        with contextlib.closing(sqlite3.connect(database.path, isolation_level=None, timeout=0)) as writer:

            def write(count):
                chunks.append(count)
                writer.execute("INSERT INTO event_log VALUES (?, 'a.b', 's', NULL, NULL, NULL, ?)", (str(chunks), NOW))

            prune(database, Policy(30, {}, None, None), by="tests", on_progress=write)
        assert sum(chunks) == 2100
        assert max(chunks) <= retention.CHUNK_ROWS

    def test_a_slow_chunk_makes_the_next_one_smaller(self, database, write, monkeypatch):
        monkeypatch.setattr(retention, "TARGET_SECS", 0.0)
        monkeypatch.setattr(retention, "CHUNK_ROWS", 100)
        for _ in range(200):
            write(days_ago(40))
        chunks = []
        prune(database, Policy(30), by="tests", on_progress=chunks.append)
        assert chunks[:4] == [100, 50, 25, 20]

    def test_other_commits_stay_at_synchronous_full(self, database, write):
        write(days_ago(40))
        prune(database, Policy(30), by="tests")
        with database.connection() as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


class TestConcurrentPrunes:
    def test_a_second_prune_waits_for_the_first_and_reports_it(self, database, write, left):
        write(days_ago(40))
        waits, done = threading.Event(), []
        with lease.hold(lease.lock_file(database.path, "prune"), wait=True):
            policy = Policy(30)
            second = threading.Thread(
                target=lambda: done.append(prune(database, policy, by="tests", on_wait=waits.set).events)
            )
            second.start()
            assert waits.wait(10)
            assert len(left()) == 1
        second.join(10)
        assert done == [1]

    def test_the_scheduled_prune_skips_if_another_runs(self, database, write, left):
        write(days_ago(40))
        scheduled = RetentionJob(database, lambda: Policy(30))
        with lease.hold(lease.lock_file(database.path, "prune"), wait=True):
            scheduled.run()
            assert len(left()) == 1
        scheduled.run()
        assert left() == []

    def test_a_stopped_scheduled_prune_ends_after_its_chunk(self, database, raw, left):
        raw.executemany(
            "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.b', 's', ?)",
            [(f"many-{n}", days_ago(40)) for n in range(1200)],
        )
        scheduled = RetentionJob(database, lambda: Policy(30))
        scheduled.stop()
        scheduled.run()
        assert len(left()) == 700


class TestImplausibleClock:
    """The scheduled job. A command with an explicit age checks no clock."""

    @pytest.fixture
    def scheduled(self, database):
        return RetentionJob(database, lambda: Policy(30, {}, None, None))

    def run_at(self, scheduled, moment):
        with freeze_time(moment):
            scheduled.run()

    def test_a_clock_a_year_ahead_deletes_nothing_and_warns_once(self, scheduled, write, left):
        kept = write("2026-03-01T00:00:00Z")
        for moment in ("2026-03-10T12:00:00Z", "2027-03-10T12:30:00Z", "2027-03-10T13:30:00Z", "2026-03-10T15:00:00Z"):
            self.run_at(scheduled, moment)
        assert left() == [kept]
        warnings = [event for event in list_events(source="outfeed") if event.event_type == "system.warning"]
        assert len(warnings) == 1
        assert "365.0 days on" in warnings[0].data["message"]

    def test_a_leap_is_accepted_after_a_day_across_restarts(self, database, scheduled, write, left):
        write("2026-03-01T00:00:00Z")
        self.run_at(scheduled, NOW)
        for hour in range(24):
            self.run_at(RetentionJob(database, lambda: Policy(30)), datetime(2026, 5, 1, hour, tzinfo=UTC))
            assert len(left()) == 1
        self.run_at(RetentionJob(database, lambda: Policy(30)), "2026-05-02T00:00:00Z")
        assert left() == []

    def test_a_second_leap_restarts_the_day(self, scheduled, write, left):
        kept = write("2026-03-01T00:00:00Z")
        for moment in (NOW, "2026-05-01T00:00:00Z", "2028-01-01T00:00:00Z", "2028-01-01T23:00:00Z"):
            self.run_at(scheduled, moment)
        assert left() == [kept]
        self.run_at(scheduled, "2028-01-02T00:00:01Z")
        assert left() == []

    def test_a_clock_set_back_deletes_no_young_event_and_prunes_on(self, scheduled, write, left):
        kept, old = write("2026-03-01T00:00:00Z"), write("1999-01-01T00:00:00Z")
        for moment in (NOW, "2000-01-01T00:00:00Z", "2000-01-01T01:00:00Z"):
            self.run_at(scheduled, moment)
        assert left() == [kept]
        assert old not in left()

    def test_hourly_runs_are_not_a_leap(self, database):
        with freeze_time(NOW) as frozen:
            for _ in range(50):
                frozen.tick(timedelta(hours=1))
                assert is_clock_plausible(database)
