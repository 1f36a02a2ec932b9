"""Four programs with watched tables in one file have exact events.

No event contains a secret.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask

from outfeed import config
from outfeed.config import settings
from outfeed.http.app import create_app
from outfeed.http.services import Services
from outfeed.log.store.search import path_of
from outfeed.store import database as db
from outfeed.store.database import Database
from outfeed.watch.part import WatchPart
from outfeed.watch.store import watches
from outfeed.webhooks import store as webhook
from tests.http.visitors import Visit, signed_in
from tests.receiver import SECRET, Receiver
from tests.waits import wait_until
from tests.watch import four_systems
from tests.watch.four_systems import TABLES, Program, apply, without
from tests.watch.watched import Logged, events, types

Start = Callable[[str], Program]
DUPLICATE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute(sys.argv[2], sys.argv[3:])
"""
PAYMENT = {
    "id": "4e0c51", "tx_type": "incoming", "payment_hash": "hash-1", "amount_sats": 1000, "memo": "API access",
    "invoice": "lnbc-invoice-1", "source": "shop", "task_id": "task-7", "agent_id": "forge", "created_at": "now",
}  # fmt: skip


@pytest.fixture(params=["table first", "watch first"])
def start(request: pytest.FixtureRequest, database: Database) -> Start:
    """Return a function that returns the program of a table that is watched."""
    return lambda table: four_systems.start(database, table, table_first=request.param == "table first")


def logged(database: Database) -> list[Logged]:
    with closing(sqlite3.connect(database.path)) as raw:
        return events(raw)


def counted(database: Database) -> dict[str, int]:
    return dict(Counter(types(logged(database))))


# --- the ledger -------------------------------------------------------------------------------------------------------


def settle(ledger: Program, settled_at: str, preimage: str | None) -> None:
    ledger.run(
        "UPDATE ledger SET status = 'settled', settled_at = ?, preimage = ? WHERE payment_hash = ?",
        settled_at, preimage, PAYMENT["payment_hash"],
    )  # fmt: skip


def fail(ledger: Program, payment_hash: str, reason: str) -> None:
    ledger.run(
        "UPDATE ledger SET status = 'failed', memo = memo || ? WHERE payment_hash = ?", f" ({reason})", payment_hash
    )


def pay(ledger: Program) -> None:
    """Run the operations of the ledger.

    One invoice is paid, and two payments fail.
    """
    ledger.insert(**PAYMENT)
    settle(ledger, "t1", None)
    settle(ledger, "t2", "preimage-1")
    settle(ledger, "t3", None)
    outgoing = {**PAYMENT, "tx_type": "outgoing", "memo": "Model", "source": "agents", "task_id": None}
    for number, changed in enumerate(({}, {"memo": None, "amount_sats": 7}), 2):
        payment_hash = f"hash-{number}"
        row = {**outgoing, "id": str(number), "payment_hash": payment_hash, "invoice": f"lnbc-invoice-{number}"}
        ledger.insert(**{**row, **changed})
        fail(ledger, payment_hash, "no route")


def test_the_ledger_has_exactly_six_events(start: Start, database: Database) -> None:
    pay(start("ledger"))
    found = logged(database)
    assert types(found) == [
        "payment.invoiced", "payment.received",
        "payment.started", "payment.failed", "payment.started", "payment.failed",
    ]  # fmt: skip
    assert {(each.source, each.task_id, each.agent_id) for each in found[:2]} == {("shop", "task-7", "forge")}
    assert {(each.source, each.task_id, each.agent_id) for each in found[2:]} == {("agents", None, "forge")}
    received = found[1].data
    assert (received["op"], received["table"], received["key"]) == ("update", "ledger", {"id": "4e0c51"})
    assert received["was"] == {"status": "pending", "settled_at": None}
    assert [each.data["row"]["memo"] for each in found[2:]] == ["Model", "Model (no route)", None, None]


def test_a_payment_that_the_ledger_refuses_has_no_event(start: Start, database: Database) -> None:
    ledger = start("ledger")
    ledger.insert(**PAYMENT)
    row = {**PAYMENT, "id": "other"}
    arguments = [str(database.path), ledger.insert_statement(row), *map(str, row.values())]
    done = subprocess.run(
        [sys.executable, "-c", DUPLICATE, *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert "IntegrityError: UNIQUE constraint failed: ledger.payment_hash" in done.stderr
    assert types(logged(database)) == ["payment.invoiced"]


# --- memory -----------------------------------------------------------------------------------------------------------


def memory(number: int, **changed: object) -> dict[str, object]:
    embedding = json.dumps([number / 7] * 400)
    return {
        "id": f"m{number}", "content": f"Memory {number}", "source": "echo", "agent_id": "echo", "task_id": "task-1",
        "embedding": embedding, "timestamp": "t0", **changed,
    }  # fmt: skip


def test_memories_have_exactly_103_events(start: Start, database: Database) -> None:
    memories = start("memory_entries")
    memories.insert(**memory(1, context_type="fact"))
    memories.insert(**memory(2))
    memories.run("DELETE FROM memory_entries WHERE id = 'm2'")
    for number in range(100, 150):
        memories.insert(**memory(number))
    memories.run("UPDATE memory_entries SET timestamp = 't1' WHERE id LIKE 'm1__'")
    memories.run("DELETE FROM memory_entries WHERE id LIKE 'm1__'")
    found = logged(database)
    assert types(found) == [
        "memory.fact_learned", "memory.stored", "memory.deleted", *["memory.stored"] * 50, *["memory.deleted"] * 50
    ]  # fmt: skip
    assert all("embedding" not in each.data["row"] for each in found)
    assert {(each.source, each.task_id, each.agent_id) for each in found} == {("echo", "task-1", "echo")}
    memories.run("UPDATE memory_entries SET content = 'Corrected' WHERE id = 'm1'")
    changed = logged(database)[-1]
    assert (changed.type, changed.data["was"]) == ("memory.changed", {"content": "Memory 1"})


def test_a_delete_of_500_memories_has_500_events_of_one_time(start: Start, database: Database) -> None:
    memories = start("memory_entries")
    rows = [memory(number) for number in range(500)]
    memories.run_many(memories.insert_statement(rows[0]), [tuple(row.values()) for row in rows])
    assert memories.run("DELETE FROM memory_entries") == 500
    assert counted(database) == {"memory.stored": 500, "memory.deleted": 500}
    with closing(sqlite3.connect(database.path)) as raw:
        times = raw.execute("SELECT DISTINCT timestamp FROM event_log WHERE event_type = 'memory.deleted'").fetchall()
    assert len(times) == 1


# --- the router -------------------------------------------------------------------------------------------------------

UPSERT = """
    INSERT INTO provider_metrics (provider_name, total_requests, failed_requests, circuit_state) VALUES (?, 1, ?, ?)
    ON CONFLICT (provider_name) DO UPDATE SET total_requests = total_requests + 1,
        failed_requests = failed_requests + excluded.failed_requests, circuit_state = excluded.circuit_state"""
REPLACE = """
    INSERT OR REPLACE INTO provider_metrics (provider_name, total_requests, failed_requests, circuit_state)
    VALUES (?, (SELECT 1 + coalesce(max(total_requests), 0) FROM provider_metrics), ?, ?)"""
READABLE = ("/swarm/live", "/swarm/events", "/api/events", "/api/events/export?format=csv", "/admin/watches", "/status")
CIRCUIT = [("local", 0, "closed")] * 400 + [("local", 1, "open")] * 300 + [("local", 0, "half_open")] * 100


@pytest.mark.parametrize("statement", [UPSERT, REPLACE], ids=["upserts", "replacements"])
def test_1000_requests_with_three_changes_of_the_circuit_have_four_events(
    start: Start, database: Database, statement: str
) -> None:
    metrics = start("provider_metrics")
    for row in CIRCUIT[:5]:
        metrics.run(statement, *row)
    metrics.run_many(statement, [*CIRCUIT[5:], *[("local", 0, "closed")] * 200])
    found = logged(database)
    assert types(found) == [
        "provider.added", "provider.circuit_opened", "provider.circuit_half_open", "provider.circuit_closed"
    ]  # fmt: skip
    assert found[1].data["was"]["circuit_state"] == "closed"
    assert (found[1].data["row"]["total_requests"], found[3].data["row"]["total_requests"]) == (401, 801)
    assert {each.source for each in found} == {"provider_metrics"}


# --- the upgrade queue ------------------------------------------------------------------------------------------------


def propose(upgrades: Program, upgrade: str) -> None:
    upgrades.insert(
        id=upgrade, proposed_at="t0", branch_name=f"self/{upgrade}", description=f"Upgrade {upgrade}",
        diff_preview="+secret", test_output="passed",
    )  # fmt: skip


def move(upgrades: Program, upgrade: str, now: str, then: str, **more: str) -> int:
    assignments = "".join(f", {column} = ?" for column in more)
    statement = f"UPDATE upgrades SET status = ?{assignments} WHERE id = ? AND status = ?"
    return upgrades.run(statement, then, *more.values(), upgrade, now)


def test_the_upgrade_queue_has_exactly_eight_events(start: Start, database: Database) -> None:
    upgrades = start("upgrades")
    for upgrade in ("a", "b", "c"):
        propose(upgrades, upgrade)
    assert move(upgrades, "a", "proposed", "approved", approved_by="ada", approved_at="t1") == 1
    assert move(upgrades, "a", "proposed", "approved", approved_by="bob", approved_at="t2") == 0
    assert move(upgrades, "a", "approved", "applied", applied_at="t3") == 1
    move(upgrades, "b", "proposed", "rejected", rejected_at="t4")
    move(upgrades, "c", "proposed", "approved", approved_by="ada")
    move(upgrades, "c", "approved", "failed", error_message="x" * 2**20)
    assert upgrades.run("DELETE FROM upgrades WHERE status IN ('applied', 'rejected', 'failed')") == 3
    found = logged(database)
    assert [(each.type, each.task_id) for each in found] == [
        ("upgrade.proposed", "a"), ("upgrade.proposed", "b"), ("upgrade.proposed", "c"),
        ("upgrade.approved", "a"), ("upgrade.applied", "a"),
        ("upgrade.rejected", "b"), ("upgrade.approved", "c"), ("upgrade.failed", "c"),
    ]  # fmt: skip
    assert {each.source for each in found} == {"upgrade_queue"}
    assert not any({"diff_preview", "test_output"} & each.data["row"].keys() for each in found)
    failed = found[-1].data
    assert failed["cut"] == {"error_message": 2**20}
    assert failed["row"]["error_message"] == "x" * 200 + "…"


# --- all four ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def four(database: Database) -> dict[str, Program]:
    """All four programs, watched."""
    programs = {table: Program(database.path, table) for table in TABLES}
    for program in programs.values():
        program.create()
    apply(database)
    return programs


def row_of(table: str, number: int) -> dict[str, object]:
    """Return the values of a new row."""
    return {
        "ledger": {**PAYMENT, "id": f"p{number}", "payment_hash": f"h{number}"},
        "memory_entries": memory(number),
        "provider_metrics": {"provider_name": f"provider{number}"},
        "upgrades": {"id": f"u{number}", "proposed_at": "t", "branch_name": "b", "description": "d"},
    }[table]


def test_a_rollback_leaves_no_event(four: dict[str, Program], database: Database) -> None:
    for table, program in four.items():
        row = row_of(table, 1)
        program.run_many(program.insert_statement(row), [tuple(row.values())], rolled_back=True)
    with closing(sqlite3.connect(database.path)) as raw:
        counts = [
            raw.execute(f"SELECT count(*) FROM {name}").fetchone()
            for name in ("event_log", "outbox", "outfeed_replaced")
        ]
    assert counts == [(0,)] * 3


def test_the_outbox_has_the_commit_order_of_all_tables(four: dict[str, Program], database: Database) -> None:
    for number in range(3):
        for table, program in four.items():
            program.insert(**row_of(table, number))
    with closing(sqlite3.connect(database.path)) as raw:
        payloads = raw.execute("SELECT payload FROM outbox ORDER BY seq").fetchall()
    assert [json.loads(payload)["data"]["table"] for (payload,) in payloads] == list(four) * 3


def test_programs_that_write_at_once_beside_a_server_wait_for_no_lock_in_vain(
    four: dict[str, Program], services: Services, database: Database
) -> None:
    failures: list[sqlite3.Error] = []

    def write(table: str) -> None:
        try:
            for number in range(25):
                four[table].insert(**row_of(table, number))
        except sqlite3.Error as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(table,)) for table in four]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sum(counted(database).values()) == 100


def test_after_a_rebuild_of_the_ledger_events_go_on_with_one_gap(
    four: dict[str, Program], services: Services, database: Database
) -> None:
    ledger = four["ledger"]
    ledger.insert(**PAYMENT)
    with closing(sqlite3.connect(database.path, isolation_level=None)) as migration:
        for statement in (
            "BEGIN", "ALTER TABLE ledger RENAME TO old_ledger", ledger.schema,
            "INSERT INTO ledger SELECT * FROM old_ledger", "DROP TABLE old_ledger", "COMMIT",
        ):  # fmt: skip
            migration.execute(statement)
    wait_until(lambda: "payment.gap" in counted(database), "the gap", timeout=5)
    settle(ledger, "t1", None)
    assert types(logged(database)) == ["payment.invoiced", "payment.gap", "payment.received"]


def test_a_second_apply_changes_nothing(four: dict[str, Program], database: Database) -> None:
    def state() -> tuple[int, list[str]]:
        with closing(sqlite3.connect(database.path)) as raw:
            return raw.execute("PRAGMA schema_version").fetchone()[0], list(raw.iterdump())

    before = state()
    assert not apply(database)
    assert state() == before


def test_a_watch_that_the_file_lacks_loses_its_triggers_and_no_other_does(
    four: dict[str, Program], database: Database
) -> None:
    def triggers() -> dict[str, int]:
        with closing(sqlite3.connect(database.path)) as raw:
            rows = raw.execute("SELECT tbl_name FROM sqlite_master WHERE name GLOB 'outfeed_watch_*_*'").fetchall()
        return dict(Counter(table for (table,) in rows if table in TABLES))

    before = triggers()
    assert before.keys() == four.keys()
    assert apply(database, without("memory_entries")).removed == ("memory_entries",)
    assert triggers() == {table: count for table, count in before.items() if table != "memory_entries"}
    for table, program in four.items():
        program.insert(**row_of(table, 1))
    assert counted(database) == {"payment.invoiced": 1, "provider.added": 1, "upgrade.proposed": 1}


# --- the page ---------------------------------------------------------------------------------------------------------


def shown(visit: Visit, type_: str) -> list[tuple[str, str]]:
    """Return level and text of each row of those types, newest first."""
    page = visit("GET", f"/swarm/events?type={type_}").text
    rows = re.findall(r'<li class="event[^>]*data-level="(\w+)"[^>]*>(.*?)</li>', page, re.DOTALL)
    return [(level, html.unescape(" ".join(re.sub(r"<[^>]+>", "", row).split()))) for level, row in rows]


def test_the_page_shows_sentences_and_failures_in_red(
    four: dict[str, Program], database: Database, flask_app: Flask
) -> None:
    pay(four["ledger"])
    found = shown(signed_in(flask_app, database), "payment.*")
    assert any(level == "info" and "⚡" in row and "Received 1000 sats: API access" in row for level, row in found)
    assert any(level == "error" and "Payment of 7 sats failed: –" in row for level, row in found)


def test_the_page_shows_a_delete_of_many_memories_as_one_group(
    four: dict[str, Program], database: Database, flask_app: Flask
) -> None:
    for number in range(50):
        four["memory_entries"].insert(**memory(number))
    four["memory_entries"].run("DELETE FROM memory_entries")
    assert "50 events Forgot: " in shown(signed_in(flask_app, database), "memory.deleted")[0][1]


def test_a_display_that_a_command_sets_wins_and_a_changed_file_changes_the_others(
    four: dict[str, Program], database: Database, outfeed
) -> None:
    def displays() -> dict[str, tuple[str, str]]:
        with closing(sqlite3.connect(database.path)) as raw:
            rows = raw.execute("SELECT name, label, level FROM outfeed_type").fetchall()
        return {name: (label, level) for name, label, level in rows}

    assert displays()["payment.gap"] == (None, "warning")
    outfeed("type", "set", "upgrade.applied", "--label", "Ours")
    text = four_systems.FILE.read_text().replace("Applied: ", "Done: ").replace("Rejected: ", "No: ")
    text = text.replace(', icon="🧬", label="Upgrade proposed: {description}"', "")
    apply(database, text)
    assert displays()["upgrade.applied"] == ("Ours", "info")
    assert displays()["upgrade.rejected"] == ("No: {description}", "info")
    assert "upgrade.proposed" not in displays()
    outfeed("watch", "remove", "--all")
    assert displays()["payment.failed"] == ("Payment of {amount_sats} sats failed: {memo}", "error")


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def receiver(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A target that gets every event from a webhook."""
    monkeypatch.setenv("OUTFEED_WEBHOOK_ALLOW", "127.0.0.1")
    config.settings.cache_clear()
    with Receiver() as running:
        webhook.add(database, "ops", running.url, types=("payment.*",), secret=SECRET, batch=0)
        yield running


def pages(visit: Visit) -> Iterator[bytes]:
    """Yield what an operator can read."""
    for path in READABLE:
        answer = visit("GET", path)
        assert answer.status_code == 200, path
        yield answer.data


def own_rows(path: Path) -> bytes:
    """Return all rows of all tables but those of the programs, as SQL."""
    with closing(sqlite3.connect(path)) as raw:
        lines = [line for line in raw.iterdump() if not line.startswith('INSERT INTO "ledger"')]
    return "\n".join(lines).encode()


def files_beside(database: Database) -> Iterator[bytes]:
    """Yield the contents of all files but those of the database itself."""
    for path in database.path.parent.rglob("*"):
        if path.is_file() and path.name not in {database.path.name + end for end in ("", "-wal", "-shm")}:
            content = path.read_bytes()
            yield gzip.decompress(content) if path.suffix == ".gz" else content


def test_no_secret_of_the_ledger_leaves_its_table(
    four: dict[str, Program], receiver: Receiver, database: Database, outfeed
) -> None:
    app = create_app(settings())
    visit = signed_in(app, database)
    services: Services = app.extensions["outfeed"]
    services.start()
    try:
        pay(four["ledger"])
        four["ledger"].run("UPDATE ledger SET preimage = 'preimage-2' WHERE id = '2'")
        four["ledger"].run("INSERT OR REPLACE INTO ledger SELECT * FROM ledger WHERE id = '2'")
        wait_until(lambda: len(receiver.accepted) == 6, "six posts")
        wait_until(lambda: "payment.failed" in visit("GET", "/swarm/events?text=route").text, "indexed events")
        places = list(pages(visit))
    finally:
        services.stop()
    places += [own_rows(database.path), *files_beside(database)]
    folder = database.path.parent / "archive"
    assert outfeed("prune", "--older-than-days", "0", "--archive", folder).exit_code == 0
    assert list(folder.glob("*.ndjson.gz"))
    places += files_beside(database)
    places += [json.dumps(post.body).encode() for post in receiver.posts]
    assert sum(b"no route" in each for each in places) > 5, "the memo is in pages, log, archive and posts"
    for secret in (b"preimage-", b"lnbc-invoice"):
        assert not any(secret in each for each in places)
    db.at(path_of(database.path)).close()


# --- the watch is first -----------------------------------------------------------------------------------------------


def test_a_table_that_appears_has_its_first_row_reported_once_it_is_watched(database: Database) -> None:
    apply(database)
    ledger = Program(database.path, "ledger")
    ledger.insert(**PAYMENT)
    assert logged(database) == []
    WatchPart(database, settings()).check()
    assert types(logged(database)) == ["payment.invoiced"]
    with database.snapshot() as connection:
        assert watches.find(connection, "ledger").state == watches.ACTIVE
