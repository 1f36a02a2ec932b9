"""A cursor that can't be honoured first gets a gap or a reset."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.database_file import head_of, write_events
from tests.server import Server


def prune_outbox(path: Path, up_to: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("DELETE FROM outbox WHERE seq <= ?", (up_to,))


def copy(source: Path, target: Path) -> None:
    """Copy a database consistently, by SQLite's backup."""
    target.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)


def verdict_by_http(server: Server, **query: object) -> dict[str, object]:
    with server.http() as http:
        answer = http.get("/api/feed", params=query)
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        return found


def test_a_pruned_cursor_gets_a_gap_with_the_range(server: Server) -> None:
    write_events(server.database, 10)
    with server.connect() as client:
        client.subscribe(after=0)
        client.follow(10)
        prune_outbox(server.database, up_to=6)
        verdict = client.subscribe(after=2, epoch=client.epoch)
        assert (verdict["verdict"], verdict["missing"], verdict["after"]) == ("gap", {"from": 3, "to": 6}, 6)
        client.follow(10)
        assert client.seen[-4:] == [7, 8, 9, 10]
        assert client.subscribe(after=6, epoch=client.epoch)["verdict"] == "resumed"
        by_http = verdict_by_http(server, after=2, epoch=client.epoch)
        assert (by_http["verdict"], by_http["missing"]) == ("gap", {"from": 3, "to": 6})
        assert [event["seq"] for event in by_http["events"]] == [7, 8, 9, 10]  # type: ignore[attr-defined]


def test_a_replay_from_the_beginning_is_a_gap_after_a_prune(server: Server) -> None:
    write_events(server.database, 5)
    with server.connect() as client:
        assert client.subscribe(after=0)["verdict"] == "resumed"
        client.follow(5)
        prune_outbox(server.database, up_to=5)
        verdict = client.subscribe(after=0)
        assert (verdict["verdict"], verdict["missing"], verdict["head"]) == ("gap", {"from": 1, "to": 5}, 5)


def test_a_valid_cursor_is_resumed_with_an_empty_outbox(server: Server) -> None:
    write_events(server.database, 5)
    with server.connect() as client:
        client.subscribe(after=0)
        client.follow(5)
        prune_outbox(server.database, up_to=5)
        assert client.resume()["verdict"] == "resumed"


def test_a_cursor_above_the_head_is_a_reset_even_after_the_head_passes_it(server: Server) -> None:
    write_events(server.database, 5)
    with server.connect() as client:
        epoch = client.subscribe()["epoch"]
        verdict = client.subscribe(after=50, epoch=epoch)
        assert (verdict["verdict"], verdict["after"], verdict["head"]) == ("reset", 5, 5)
        assert verdict_by_http(server, after=50, epoch=epoch)["verdict"] == "reset"


def test_a_cursor_of_another_epoch_is_a_reset(server: Server) -> None:
    write_events(server.database, 5)
    with server.connect() as client:
        verdict = client.subscribe(after=2, epoch="0" * 32)
        assert (verdict["verdict"], verdict["after"]) == ("reset", 5)
        verdict = client.subscribe(after=2, epoch="0" * 32, last=2)
        assert (verdict["verdict"], verdict["after"]) == ("reset", 3)
        client.follow(5)
        assert client.seen == [4, 5]


def client_at(server: Server, seq: int) -> tuple[int, str]:
    with server.connect() as client:
        client.subscribe(after=0)
        client.follow(seq)
        return client.cursor, client.epoch


def test_a_copy_restored_during_a_downtime_resets_every_cursor(server: Server, tmp_path: Path) -> None:
    write_events(server.database, 10)
    assert server.token  # created before the copy, so that the copy has it
    copy(server.database, tmp_path / "backup.db")
    write_events(server.database, 10)
    cursor, epoch = client_at(server, 20)
    server.kill()
    remove(server.database)
    shutil.copy(tmp_path / "backup.db", server.database)
    server.start()
    write_events(server.database, 30, source="other")  # the head passes the cursor
    with server.connect() as client:
        assert client.subscribe(after=cursor, epoch=epoch)["verdict"] == "reset"
        assert client.epoch != epoch


def test_a_diverged_copy_restored_during_a_downtime_resets_every_cursor(server: Server, tmp_path: Path) -> None:
    write_events(server.database, 10)
    assert server.token  # created before the copy, so that the copy has it
    copy(server.database, tmp_path / "backup.db")
    write_events(server.database, 10)
    cursor, epoch = client_at(server, 20)
    server.kill()
    remove(server.database)
    shutil.copy(tmp_path / "backup.db", server.database)
    write_events(server.database, 30, source="other")
    server.start()
    with server.connect() as client:
        assert client.subscribe(after=cursor, epoch=epoch)["verdict"] == "reset"


def test_a_plain_restart_keeps_the_epoch(server: Server) -> None:
    write_events(server.database, 10)
    cursor, epoch = client_at(server, 10)
    server.kill()
    server.start()
    with server.connect() as client:
        assert client.subscribe(after=cursor, epoch=epoch)["verdict"] == "resumed"


@pytest.mark.parametrize("extra", [0, 30])
def test_a_replaced_file_under_a_running_server_closes_and_resets_clients(
    server: Server, tmp_path: Path, extra: int
) -> None:
    write_events(server.database, 10)
    assert server.token  # created before the copy, so that the copy has it
    copy(server.database, tmp_path / "backup.db")
    write_events(server.database, 10)
    with server.connect() as client:
        client.subscribe(after=0)
        client.follow(20)
        write_events(tmp_path / "backup.db", extra, source="other")
        for suffix in ("-wal", "-shm"):
            Path(f"{server.database}{suffix}").unlink(missing_ok=True)
        os.replace(tmp_path / "backup.db", server.database)
        assert client.closed_with()[0] == 4008
        cursor, epoch = client.cursor, client.epoch
    with server.connect() as client:
        assert client.subscribe(after=cursor, epoch=epoch)["verdict"] == "reset"
        write_events(server.database)
        assert client.next_event()["seq"] == 10 + extra + 1


def test_a_client_ahead_of_this_worker_is_not_reset(server: Server) -> None:
    """The client may come from another worker, which polled a moment earlier."""
    with server.connect() as client:
        client.subscribe()
        for _ in range(50):
            write_events(server.database)
            client.subscribe(after=client.cursor + 1, epoch=client.epoch)
            assert client.cursor == head_of(server.database)


def test_a_live_client_that_pruning_overtakes_is_closed_and_then_gets_a_gap(server: Server) -> None:
    write_events(server.database, 5)
    with server.connect() as client:
        client.subscribe(after=0)
        client.follow(5)
        with contextlib.closing(sqlite3.connect(server.database, isolation_level=None)) as raw:
            raw.execute("BEGIN IMMEDIATE")  # one commit, so that the relay can't see the rows in between
            raw.executemany(
                "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.b', 's', 't')",
                [(f"pruned-{n}",) for n in range(5)],
            )
            raw.execute("DELETE FROM outbox WHERE seq <= 8")
            raw.execute("COMMIT")
        assert client.closed_with()[0] == 4008
        cursor, epoch = client.cursor, client.epoch
    with server.connect() as client:
        verdict = client.subscribe(after=cursor, epoch=epoch)
        assert (verdict["verdict"], verdict["missing"]) == ("gap", {"from": 6, "to": 8})


def remove(path: Path) -> None:
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        name.unlink(missing_ok=True)
