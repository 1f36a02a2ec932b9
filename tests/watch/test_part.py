"""The part of the watches that runs in each serving process."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from outfeed import config
from outfeed.config import settings
from outfeed.store import database as db
from outfeed.upkeep.policy import Policy
from outfeed.watch.part import WatchPart
from outfeed.watch.store import activity, repair, watches
from tests.http.visitors import signed_in
from tests.waits import wait_until
from tests.watch.watched import events, take_events, types, watch


@pytest.fixture
def raw(database):
    with closing(sqlite3.connect(database.path, isolation_level=None, timeout=10)) as program:
        program.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, status TEXT)")
        with database.transaction() as connection:
            watch(connection, "orders", keep_days=3)
        yield program


def rebuild(raw: sqlite3.Connection) -> None:
    for statement in (
        "BEGIN", "CREATE TABLE other (id INTEGER PRIMARY KEY, status TEXT)", "INSERT INTO other SELECT * FROM orders",
        "DROP TABLE orders", "ALTER TABLE other RENAME TO orders", "COMMIT",
    ):  # fmt: skip
        raw.execute(statement)


def test_a_server_brings_triggers_back_within_a_second(raw, services):
    rebuild(raw)
    wait_until(lambda: "orders.gap" in types(events(raw)), "the gap")
    take_events(raw)
    raw.execute("INSERT INTO orders VALUES (1, 'open')")
    assert types(take_events(raw)) == ["orders.created"]


def test_of_two_processes_one_repairs(raw, database):
    first, second = WatchPart(database, settings()), WatchPart(db.at(database.path), settings())
    rebuild(raw)
    for part in (first, second, first, second):
        part.check()
    assert types(take_events(raw)) == ["orders.gap"]


def test_a_clean_stop_lets_the_next_start_report_missed_inserts(raw, database):
    part = WatchPart(database, settings())
    part.check()
    part.stop()
    part.close()
    rebuild(raw)
    raw.execute("INSERT INTO orders VALUES (7, 'open')")
    WatchPart(database, settings()).check(is_start=True)
    assert types(take_events(raw)) == ["orders.created", "orders.gap"]


def test_a_killed_server_leaves_the_missed_inserts_uncertain(raw, database):
    WatchPart(database, settings()).check()
    rebuild(raw)
    raw.execute("INSERT INTO orders VALUES (7, 'open')")
    WatchPart(database, settings()).check(is_start=True)
    (gap,) = take_events(raw)
    assert (gap.data["added"], gap.data["uncertain"]) == (0, True)


def test_a_lost_table_makes_the_process_unready_and_frees_the_program(raw, services):
    raw.execute("DROP TABLE outfeed_replaced")
    wait_until(lambda: any("outfeed_replaced" in each for each in services.unready_reasons()), "unready")
    wait_until(lambda: watches.present_triggers(raw) == {}, "no triggers")
    raw.execute("INSERT INTO orders VALUES (1, 'open')")


def test_the_days_of_a_watch_count_for_its_types_unless_a_setting_names_them(raw, database):
    policy = Policy.current(settings(), database)
    assert (policy.days_for("orders.created"), policy.days_for("orders.gap")) == (3, 3)
    assert policy.days_for("other.created") is None
    assert Policy({}, {"orders.*": 9}, days_by_feature=policy.days_by_feature).days_for("orders.created") == 9
    with database.transaction() as connection:
        watches.remove(connection, "orders")
    assert Policy.current(settings(), database).days_for("orders.created") == 3


def test_the_doctor_finds_and_fixes_lost_triggers(raw, database, outfeed):
    rebuild(raw)
    assert "the watched table orders has lost triggers" in outfeed("doctor").output
    assert "Fixed: the watched table orders has lost triggers." in outfeed("doctor", "--fix").output
    assert types(take_events(raw))[-1] == "orders.gap"


def test_the_doctor_reports_triggers_that_differ_from_the_settings(raw, database, outfeed, monkeypatch):
    assert "OUTFEED_REDACT_KEYS" not in outfeed("doctor").output
    monkeypatch.setenv("OUTFEED_REDACT_KEYS", "iban")
    monkeypatch.setenv("OUTFEED_MAX_EVENT_BYTES", "9000")
    raw.execute("UPDATE outfeed_watch SET generator = 99")
    with closing(sqlite3.connect(database.path)) as again:
        (watched,) = watches.list_watches(again)
    config.settings.cache_clear()
    found = list(repair.differences(watched, settings()))
    output = " ".join(outfeed("doctor").output.split())
    assert len(found) == 3
    for each in found:
        assert each in output


def test_an_upgrade_repairs_triggers(raw, database, outfeed):
    rebuild(raw)
    assert outfeed("upgrade").exit_code == 0
    assert repair.problems(raw, settings()) == []


def test_operators_see_rules_and_triggers(raw, database, flask_app):
    operator = signed_in(flask_app, database)
    assert operator("GET", "/watches").location == "/admin/watches"
    page = operator("GET", "/admin/watches").text
    assert "orders.created" in page
    assert "CREATE TRIGGER" in page
    assert "<dt>Columns</dt>" in page
    assert page.count('<section class="panel watch"') == 1


def test_operators_see_the_rate_and_the_trouble_of_a_watch(raw, database, flask_app):
    operator = signed_in(flask_app, database)
    raw.execute("INSERT INTO orders DEFAULT VALUES")
    raw.execute("INSERT INTO orders DEFAULT VALUES")
    page = operator("GET", "/admin/watches").text
    assert "<dt>Events</dt><dd>2 in the last hour</dd>" in page
    assert "note bad" not in page
    assert "outfeed watch pause TABLE" in page

    raw.execute("DROP TABLE orders")
    page = operator("GET", "/admin/watches").text
    assert "The table orders no longer exists; the server repairs it" in page
    assert "1 in trouble" in operator("GET", "/admin").text


def test_the_rate_reads_so_many_rows_at_most(raw, database, monkeypatch):
    monkeypatch.setattr(activity, "MAX_ROWS", 3)
    for _ in range(5):
        raw.execute("INSERT INTO orders DEFAULT VALUES")
    with closing(sqlite3.connect(database.path)) as connection:
        found = activity.read(connection)
    assert (found.of({"orders.created"}), found.is_whole) == (3, False)
