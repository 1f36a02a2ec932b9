"""The table of displays, and the number that moves with each change."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from outfeed.display import Display, Level
from outfeed.errors import InvalidDisplay
from outfeed.store import displays
from outfeed.store.database import Database
from outfeed.store.displays import DisplayCache, MadeBy

PAID = Display("⚡", "Paid {amount}")
FAILED = Display(None, None, Level.ERROR)


def put(database: Database, by_type: dict[str, Display], made_by: MadeBy = MadeBy.COMMAND) -> None:
    with database.transaction() as connection:
        displays.put(connection, by_type, made_by)


def read(database: Database) -> displays.Displays:
    with database.snapshot() as connection:
        return displays.read(connection)


def test_what_is_put_is_read(database: Database):
    put(database, {"a.paid": PAID})
    put(database, {"a.failed": FAILED}, MadeBy.WATCH)

    found = read(database)
    assert found.by_type == {"a.failed": FAILED, "a.paid": PAID}
    assert found.made_by == {"a.failed": MadeBy.WATCH, "a.paid": MadeBy.COMMAND}


def test_a_display_of_a_command_replaces_one_of_a_watch_and_not_the_other_way_round(database: Database):
    put(database, {"a.paid": FAILED}, MadeBy.WATCH)
    put(database, {"a.paid": PAID})
    put(database, {"a.paid": FAILED}, MadeBy.WATCH)

    assert (read(database).by_type, read(database).made_by) == ({"a.paid": PAID}, {"a.paid": MadeBy.COMMAND})


def test_a_watch_removes_its_own_displays_only(database: Database):
    put(database, {"a.paid": PAID})
    put(database, {"a.failed": FAILED}, MadeBy.WATCH)

    with database.transaction() as connection:
        assert displays.remove(connection, ["a.paid", "a.failed", "a.unknown"], MadeBy.WATCH) == 1
    assert list(read(database).by_type) == ["a.paid"]


def test_the_version_moves_with_each_change_and_with_nothing_else(database: Database):
    versions = [read(database).version]
    steps = [
        lambda: put(database, {"a.paid": PAID}),
        lambda: put(database, {"a.paid": FAILED}),
        lambda: change(database, "UPDATE outfeed_type SET icon = 'x'"),
        lambda: change(database, "DELETE FROM outfeed_type"),
    ]
    for step in steps:
        step()
        versions.append(read(database).version)
    assert versions == sorted(set(versions))

    put(database, {"a.paid": PAID})
    before = read(database).version
    put(database, {"a.paid": PAID})
    put(database, {"a.paid": FAILED}, MadeBy.WATCH)
    assert read(database).version == before


def change(database: Database, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(database.path)) as raw, raw:
        raw.execute(statement)


def test_too_many_displays_are_refused_as_a_whole(database: Database):
    put(database, {f"a.t{number}": PAID for number in range(displays.MAX_DISPLAYS)})

    with pytest.raises(InvalidDisplay, match="at most 1,000 types may have a display; these would be 1,001"):
        put(database, {"b.one_more": PAID, "a.t1": FAILED})
    assert read(database).by_type["a.t1"] == PAID


def test_the_cache_reads_again_after_a_change_by_another_process(database: Database):
    cache = DisplayCache(database)
    put(database, {"a.paid": PAID})
    first = cache.current()
    assert cache.current() is first

    change(database, "UPDATE outfeed_type SET icon = 'x'")
    assert cache.current().by_type == {"a.paid": Display("x", "Paid {amount}")}


def test_the_cache_reads_again_if_another_history_has_the_same_version(database: Database):
    cache = DisplayCache(database)
    put(database, {"a.paid": PAID})
    first = cache.current()

    change(database, "UPDATE outfeed_meta SET value = 'another' WHERE key = 'epoch'")
    assert cache.current() is not first
