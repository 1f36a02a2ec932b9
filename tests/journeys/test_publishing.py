"""Publishing across repeated kills of the server writes every event once."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
from collections import Counter
from pathlib import Path

import pytest

from outfeed.client import Client, Receipt, retries
from outfeed.errors import EventConflict
from tests.server import Server
from tests.transports import Follower
from tests.waits import wait_until

KILLS = 3
WRITERS = 4
BATCH_EVENTS = 25
EVENTS_A_KILL = 600


def test_retries_across_kills_write_every_event_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "MAX_PAUSE_SECS", 0.3)
    with Server(tmp_path) as server:
        written: dict[str, list[Receipt]] = {f"writer-{n}": [] for n in range(WRITERS)}
        enough, all_written = threading.Event(), threading.Event()

        def count() -> int:
            return sum(map(len, written.values()))

        follower = Follower(server)
        reader = threading.Thread(
            target=follower.run, args=(lambda one: all_written.is_set() and len(one.events) >= count(),)
        )
        writers = [
            threading.Thread(target=publish, args=(server, name, receipts, enough))
            for name, receipts in written.items()
        ]
        assert server.token  # created before the kill
        for thread in (reader, *writers):
            thread.start()
        try:
            for _ in range(KILLS):
                goal = count() + EVENTS_A_KILL
                wait_until(lambda goal=goal: count() >= goal, "publishing continues", timeout=60)
                server.kill()
                server.start()
        finally:
            enough.set()
            for thread in writers:
                thread.join(60)
            all_written.set()
            reader.join(60)
        assert not any(thread.is_alive() for thread in (reader, *writers))

    receipts = [receipt for some in written.values() for receipt in some]
    with contextlib.closing(sqlite3.connect(server.database)) as raw:
        logged = [row[0] for row in raw.execute("SELECT id FROM event_log")]
        outbox = dict(raw.execute("SELECT event_id, seq FROM outbox").fetchall())
        batches = raw.execute(
            "SELECT source, json_extract(data, '$.batch'), count(*) FROM event_log GROUP BY 1, 2"
        ).fetchall()
    assert len(logged) == len(set(logged)) == len(outbox) == len(receipts)
    assert {receipt.id: receipt.seq for receipt in receipts} == outbox
    assert {size for *_, size in batches} == {BATCH_EVENTS}, "every batch is complete and written once"
    assert Counter(follower.ids) == Counter(logged)


def publish(server: Server, name: str, receipts: list[Receipt], enough: threading.Event) -> None:
    """Publish numbered batches until *enough* is set.

    Each batch is retried until the server accepts it.
    """
    with Client(server.url, server.token) as client:
        for batch in itertools.count():
            if enough.is_set():
                return
            events = [
                {"event_type": "load.written", "source": name, "data": {"batch": batch}} for _ in range(BATCH_EVENTS)
            ]
            receipts += client.publish(events, give_up_secs=60)


def test_a_repeated_script_changes_nothing(server: Server) -> None:
    events = [{"id": f"import-{n}", "event_type": "row.imported", "source": "import"} for n in range(1500)]
    with Client(server.url, server.token) as client:
        first = client.publish(events)
        assert client.publish(events) == first
        with pytest.raises(EventConflict):
            client.publish([{**events[0], "source": "other"}])
        (follower := Follower(server)).run(lambda one: len(one.events) >= 1500)
    assert follower.ids == [f"import-{n}" for n in range(1500)]
