"""The schema of a watched table changes, or a process is killed.

No statement of the program fails because of the watch, and after a repair the events give the table again.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from outfeed.config import settings
from outfeed.store import schema as store_schema
from outfeed.store.database import Connection, Database
from outfeed.watch import definition
from outfeed.watch.store import repair, schema, snapshot, watches
from tests.killed import Act, killed_at
from tests.watch.migrated import check
from tests.watch.watched import events, new_database, run, take_events, types, watch


@examples(max_examples=300, deadline=None)
@given(st.data())
def test_random_changes_of_the_schema_make_no_statement_fail(data: st.DataObject) -> None:
    check(data)


# --- what schema tools do ---------------------------------------------------------------------------------------------

ORDERS = "CREATE TABLE orders (id INTEGER PRIMARY KEY, status varchar(20) NOT NULL, note TEXT)"
TOOLS = {
    "Django's remove_field": ('ALTER TABLE "orders" DROP COLUMN "note"',),
    "Django's alter_field": (
        "PRAGMA foreign_keys = OFF",
        "BEGIN",
        'CREATE TABLE "new__orders" ("id" integer NOT NULL PRIMARY KEY, "status" varchar(40) NOT NULL, "note" text)',
        'INSERT INTO "new__orders" ("id", "note", "status") SELECT "id", "note", "status" FROM "orders"',
        'DROP TABLE "orders"',
        'ALTER TABLE "new__orders" RENAME TO "orders"',
        "COMMIT",
        "PRAGMA foreign_keys = ON",
    ),
    "a batch of Alembic": (
        "BEGIN",
        "CREATE TABLE _alembic_tmp_orders (id INTEGER NOT NULL, status VARCHAR(20) NOT NULL, PRIMARY KEY (id))",
        "INSERT INTO _alembic_tmp_orders (id, status) SELECT orders.id, orders.status FROM orders",
        "DROP TABLE orders",
        "ALTER TABLE _alembic_tmp_orders RENAME TO orders",
        "COMMIT",
    ),
    "sqlite-utils transform": (
        "PRAGMA foreign_keys=0;",
        "BEGIN",
        "CREATE TABLE [orders_new_8b2a] ([id] INTEGER PRIMARY KEY, [status] TEXT, [memo] TEXT);",
        """INSERT INTO [orders_new_8b2a] ([rowid], [id], [status], [memo])
            SELECT [rowid], [id], [status], [note] FROM [orders];""",
        "DROP TABLE [orders];",
        "ALTER TABLE [orders_new_8b2a] RENAME TO [orders];",
        "COMMIT",
        "PRAGMA foreign_keys=1;",
    ),
    "Rails' copy": (
        "BEGIN",
        'CREATE TEMPORARY TABLE "aorders" ("id" integer PRIMARY KEY NOT NULL, "status" varchar NOT NULL)',
        'INSERT INTO "aorders" ("id", "status") SELECT "id", "status" FROM "orders"',
        'DROP TABLE "orders"',
        'CREATE TABLE "orders" ("id" integer PRIMARY KEY NOT NULL, "status" varchar DEFAULT \'open\' NOT NULL)',
        'INSERT INTO "orders" ("id", "status") SELECT "id", "status" FROM "aorders"',
        'DROP TABLE "aorders"',
        "COMMIT",
    ),
    "Prisma's redefine": (
        "PRAGMA defer_foreign_keys=ON",
        "PRAGMA foreign_keys=OFF",
        'CREATE TABLE "new_orders" ("id" INTEGER NOT NULL PRIMARY KEY, "status" TEXT NOT NULL DEFAULT \'open\')',
        'INSERT INTO "new_orders" ("id", "status") SELECT "id", "status" FROM "orders"',
        'DROP TABLE "orders"',
        'ALTER TABLE "new_orders" RENAME TO "orders"',
        "PRAGMA foreign_keys=ON",
        "PRAGMA defer_foreign_keys=OFF",
    ),
}


def mend(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    repair.repair(connection, settings(), is_start=False)
    connection.execute("COMMIT")


@pytest.mark.parametrize("tool", TOOLS)
def test_a_migration_succeeds_and_its_copy_has_no_event(tool: str) -> None:
    with closing(new_database(ORDERS)) as program:
        watch(program, "orders")
        run(program, "INSERT INTO orders VALUES (1, 'open', 'x'), (2, 'paid', NULL)")
        for statement in TOOLS[tool]:
            assert run(program, statement) == [], statement
        assert program.execute("SELECT id, status FROM orders").fetchall() == [(1, "open"), (2, "paid")]
        mend(program)
        assert types(take_events(program)) == ([] if "remove_field" in tool else ["orders.gap"])
        (event,) = run(program, "UPDATE orders SET status = 'paid' WHERE id = 1")
        assert (event.type, event.data["was"]) == ("orders.updated", {"status": "open"})


def test_the_notes_keep_the_columns_that_triggers_of_an_older_version_write() -> None:
    before = Path(store_schema.__file__).parents[1].joinpath("migrations", "0016.watch.sql").read_text()
    with closing(sqlite3.connect(":memory:")) as old, closing(new_database()) as new:
        old.executescript(before)
        columns = [{row[1] for row in each.execute("PRAGMA table_info(outfeed_replaced)")} for each in (old, new)]
    assert columns[0] <= columns[1]


# --- a kill at each statement -----------------------------------------------------------------------------------------

FILE = """
[[watch]]
table = "orders"
only_changes = ["status"]

[[watch]]
table = "stock"
"""


def add(database: Database) -> None:
    with database.transaction() as connection:
        watch(connection, "stock")


def apply(database: Database) -> None:
    with database.transaction() as connection:
        watches.apply(connection, definition.from_toml(FILE), settings())


def remove(database: Database) -> None:
    with database.transaction() as connection:
        watches.remove(connection, "orders")


def mend_file(database: Database) -> None:
    with database.transaction() as connection:
        repair.repair(connection, settings(), is_start=False)


def prepare(path: Path, *statements: str) -> None:
    """Watch a table with rows, and run *statements* after that."""
    with closing(sqlite3.connect(path, isolation_level=None)) as program:
        program.execute(ORDERS)
        program.execute("CREATE TABLE stock (id INTEGER PRIMARY KEY, name TEXT)")
        program.executemany("INSERT INTO stock VALUES (?, 'x')", [(number,) for number in range(1, 41)])
        watch(program, "orders")
        for statement in statements:
            program.execute(statement)


def state(path: Path) -> object:
    """Return the watches, triggers and events of a file."""
    with closing(sqlite3.connect(path)) as raw:
        rows = raw.execute("SELECT name, type, state, options FROM outfeed_watch ORDER BY number").fetchall()
        return rows, watches.present_triggers(raw), types(events(raw))


LOST = ("DROP TRIGGER outfeed_watch_1_delete",)


@pytest.mark.parametrize(("act", "damage"), [(add, ()), (apply, ()), (remove, ()), (mend_file, LOST)])
def test_a_kill_at_any_statement_leaves_all_or_nothing(
    database: Database, tmp_path: Path, act: Act, damage: tuple[str, ...]
) -> None:
    database.close()
    prepare(database.path, *damage)
    before, copy, found = state(database.path), tmp_path / "copy.db", []
    is_killed = True
    while is_killed:
        shutil.copy(database.path, copy)
        is_killed = killed_at(len(found), act, copy)
        found.append(state(copy))
        for end in ("-wal", "-shm"):
            copy.with_name(copy.name + end).unlink(missing_ok=True)
    after = found.pop()
    assert after != before
    assert len(found) > 3
    assert all(each == before for each in found)


def begin_snapshot(connection: Connection) -> None:
    found = watch(connection, "stock")
    snapshot.begin(connection, found, schema.required(connection, "stock"))


def test_a_snapshot_that_is_killed_at_any_statement_reports_each_row_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "MAX_ROWS", 25)
    prepare(database.path)
    with database.transaction() as connection:
        begin_snapshot(connection)
    database.close()
    copy, kills, is_killed = tmp_path / "copy.db", 0, True
    while is_killed:
        shutil.copy(database.path, copy)
        is_killed = killed_at(kills, snapshot.run, copy)
        kills += is_killed
        resumed = Database(copy)
        snapshot.run(resumed)
        resumed.close()
        with closing(sqlite3.connect(copy)) as raw:
            assert [event.data["key"]["id"] for event in events(raw)] == list(range(1, 41))
    assert kills > 10


# --- two processes ----------------------------------------------------------------------------------------------------


def test_two_lists_of_secrets_do_not_rewrite_triggers_in_turns() -> None:
    lists = [settings().model_copy(update={"redact_keys": (*settings().redact_keys, word)}) for word in ("iban", "tax")]
    with closing(new_database(ORDERS)) as program:
        watch(program, "orders")
        done = []
        for each in [*lists, *lists, settings()]:
            program.execute("BEGIN IMMEDIATE")
            done.append(bool(repair.repair(program, each, is_start=False)))
            program.execute("COMMIT")
        assert done == [False] * 5 or done == [True, True, False, False, False]
