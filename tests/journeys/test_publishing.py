"""Publishing over a server that is killed again and again: every event once."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections import Counter
from pathlib import Path

import pytest

from app.client import Client, Receipt, retries
from app.errors import EventConflict
from tests.harness import Follower, Server, wait_until

KILLS = 3
WRITERS = 4
BATCHES = 30
BATCH_EVENTS = 25


def test_retried_publishing_over_kills_writes_every_event_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "MAX_PAUSE_SECS", 0.3)
    with Server(tmp_path) as server:
        follower = Follower(server)
        written: dict[str, list[Receipt]] = {f"writer-{n}": [] for n in range(WRITERS)}
        threads = [threading.Thread(target=publish, args=(server, name, written[name])) for name in written]
        total = WRITERS * BATCHES * BATCH_EVENTS
        threads.append(threading.Thread(target=follower.run, args=(lambda one: len(one.ids) >= total,)))
        assert server.token  # made before it dies
        for thread in threads:
            thread.start()
        kills = 0
        while any(thread.is_alive() for thread in threads[:-1]) and kills < KILLS:
            goal = min(total, (kills + 1) * total // (KILLS + 2))
            wait_until(lambda goal=goal: sum(map(len, written.values())) >= goal, "publishing goes on", timeout=60)
            server.kill()
            kills += 1
            server.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()

    assert kills == KILLS
    receipts = [receipt for some in written.values() for receipt in some]
    with contextlib.closing(sqlite3.connect(server.database)) as raw:
        logged = [row[0] for row in raw.execute("SELECT id FROM event_log")]
        outbox = dict(raw.execute("SELECT event_id, seq FROM outbox").fetchall())
        batches = raw.execute("SELECT json_extract(data, '$.batch'), count(*) FROM event_log GROUP BY 1").fetchall()
    assert len(logged) == len(set(logged)) == len(outbox) == total
    assert {receipt.id: receipt.seq for receipt in receipts} == outbox
    assert {size for _, size in batches} == {WRITERS * BATCH_EVENTS}  # each writer numbers its own, and none is halved
    assert Counter(follower.ids) == Counter(logged)


def publish(server: Server, name: str, receipts: list[Receipt]) -> None:
    """Publish numbered batches, each until it is taken."""
    with Client(server.url, server.token) as client:
        for batch in range(BATCHES):
            events = [
                {"event_type": "load.written", "source": name, "data": {"batch": batch}} for _ in range(BATCH_EVENTS)
            ]
            receipts += client.publish(events, give_up_secs=60)


def test_a_script_that_is_run_again_changes_nothing(server: Server) -> None:
    events = [{"id": f"import-{n}", "event_type": "row.imported", "source": "import"} for n in range(1500)]
    with Client(server.url, server.token) as client:
        first = client.publish(events)
        assert client.publish(events) == first
        with pytest.raises(EventConflict):
            client.publish([{**events[0], "source": "other"}])
        (follower := Follower(server)).run(lambda one: len(one.ids) >= 1500)
    assert follower.ids == [f"import-{n}" for n in range(1500)]
