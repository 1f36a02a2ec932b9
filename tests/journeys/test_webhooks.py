"""Webhooks of a real server deliver in order and delay no client."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from outfeed.store import database as db
from outfeed.webhooks import store as webhook
from tests.receiver import SECRET, Post, Receiver, Reply
from tests.server import Server, writer
from tests.waits import wait_until


@contextlib.contextmanager
def serving(folder: Path, **settings: object) -> Iterator[Server]:
    with Server(folder, webhook_allow="127.0.0.1", **settings) as running:
        yield running
    db.at(running.database).close()


def add(server: Server, receiver: Receiver, name: str = "ops", batch: int = 0) -> None:
    """Add a webhook from this process, not the server's.

    tests/webhooks has the command.
    """
    webhook.add(db.at(server.database), name, receiver.url, types=(), secret=SECRET, batch=batch)


def read(server: Server, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(server.database, timeout=10)) as connection:
        return connection.execute(query).fetchall()


class FaultyTarget:
    """A target with random faults.

    It is slow, closes the connection after it accepted an event, or answers 500 or 503.
    """

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, _: Post) -> Reply:
        self._count += 1
        if self._count % 150 == 10:
            threading.Event().wait(0.3)
        replies = {20: Reply(0), 30: Reply(500), 40: Reply(503, {"retry-after": "0"})}
        return replies.get(self._count % 150, Reply())


def test_all_events_arrive_in_order_across_faulty_targets_and_kills(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Receiver(behave=FaultyTarget()) as one, Receiver(behave=FaultyTarget()) as many:
        add(server, one, "one")
        add(server, many, "many", batch=20)
        with writer(server.database, rate=30) as written:
            wait_until(lambda: len(one.accepted) > 25 and len(many.accepted) > 5, "the deliveries begin")
            server.kill()
            server.start()
            before = len(one.accepted)
            wait_until(lambda: len(one.accepted) > before + 5, "the delivery continues after a kill")
            one.stop()
            many.stop()
            query = "SELECT 1 FROM outfeed_webhook WHERE last_status IS NULL AND failing_since IS NOT NULL"
            wait_until(lambda: len(read(server, query)) == 2, "the deliveries fail")
            one.start()
            many.start()
            server.kill()
            server.start()
        for receiver in (one, many):
            wait_until(lambda receiver=receiver: len(receiver.seqs()) >= len(written), "all events arrive", 30)  # type: ignore[misc]

    for receiver in (one, many):
        assert receiver.seqs() == list(range(1, len(written) + 1))
        assert receiver.problems == []
        events = {event["seq"]: event["id"] for post in receiver.accepted for event in _events(post)}
        assert [events[seq] for seq in sorted(events)] == written
        again = len(receiver.accepted) - len({post.id for post in receiver.accepted})
        assert again < 100, "a restart repeats only unacknowledged events"
    assert max(len(post.seqs) for post in many.accepted) > 1


def _events(post: Post) -> list[dict[str, object]]:
    data = post.body["data"]
    return data if isinstance(data, list) else [data]


def test_the_other_worker_takes_over_when_the_delivering_one_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2) as server, Receiver() as receiver:
        wait_until(lambda: len(server.workers()) == 2, "two workers")
        add(server, receiver)
        with writer(server.database, rate=50) as written:
            wait_until(lambda: len(receiver.accepted) > 30, "the delivery begins")
            assert all(post.is_first for post in receiver.posts), [(post.id, post.seqs) for post in receiver.posts]
            assert receiver.connections == 1
            (holder,) = wait_until(lambda: _holders(server), "one holds the lease")
            os.kill(holder, signal.SIGKILL)
            before = len(receiver.accepted)
            wait_until(lambda: len(receiver.accepted) > before + 30, "the other worker takes over")
        wait_until(lambda: len(receiver.seqs()) >= len(written), "all events arrive")
        assert [each for each in _holders(server) if each != holder]
        assert receiver.seqs() == list(range(1, len(written) + 1))
        assert receiver.connections == 2


def _holders(server: Server) -> list[int]:
    """Return the workers that hold the lease, as the kernel lists them."""
    inode = os.stat(f"{server.database}.webhooks.lock").st_ino
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [int(lock[4]) for lock in locks if lock[1] == "FLOCK" and lock[5].endswith(f":{inode}")]


def test_a_hanging_target_delays_neither_clients_nor_the_shutdown(tmp_path: Path) -> None:
    released = threading.Event()

    def hang(_: Post) -> Reply:
        released.wait(60)
        return Reply()

    with serving(tmp_path) as server, Receiver(behave=hang) as receiver, server.connect() as client:
        add(server, receiver)
        server.log_event("a.b", "s")
        wait_until(lambda: receiver.posts, "the target hangs")
        client.subscribe()
        took: dict[str, list[float]] = {"pause": [], "resume": []}
        for command in ("pause", "resume") * 3:
            posts = len(receiver.posts)
            getattr(webhook, command)(db.at(server.database), "ops")
            wait_until(lambda: command == "pause" or len(receiver.posts) > posts, "the target hangs again")  # noqa: B023
            took[command].append(_time_of_events(server, client, 40))
        assert min(took["resume"]) < 2 * min(took["pause"]) + 0.1, took
        print("without, with a hanging webhook:", {name: statistics.median(each) for name, each in took.items()})
        assert server.stop() < 5
        released.set()
        assert server.process is not None
        assert server.process.returncode == 0


def _time_of_events(server: Server, client: object, count: int) -> float:
    began = time.monotonic()
    with server.http() as http:
        for _ in range(count):
            assert http.post("/api/events", json={"event_type": "a.b", "source": "s"}).status_code == 201
            client.next_event()  # type: ignore[attr-defined]
    return time.monotonic() - began


def test_a_running_server_applies_commands_and_gives_up_as_configured(tmp_path: Path) -> None:
    with serving(tmp_path, webhook_give_up_hours=0.00001) as server, Receiver() as receiver:
        add(server, receiver)
        server.log_event("a.b", "s")
        wait_until(lambda: receiver.seqs() == [1], "added")
        wait_until(
            lambda: read(server, "SELECT seq FROM outfeed_checkpoint") == [(1,)], "the first event is acknowledged"
        )
        receiver.stop()
        server.log_event("a.b", "s")
        wait_until(
            lambda: read(server, "SELECT 1 FROM outfeed_webhook WHERE state = 'paused'"), "the webhook is paused"
        )
        ((message,),) = read(
            server, "SELECT json_extract(data, '$.message') FROM event_log WHERE event_type = 'system.warning'"
        )
        assert str(message).startswith("Webhook ops is paused: it has failed since ")
        assert "Connection refused" in str(message)
        assert "key=1" not in str(message) + server.output, "a URL may hold a secret"
        receiver.start()
        assert webhook.resume(db.at(server.database), "ops").lag == 2
        wait_until(lambda: receiver.seqs() == [1, 2, 3], "the delivery resumes, with the warning")
        webhook.remove(db.at(server.database), "ops")
        add(server, receiver)
        server.log_event("a.b", "s")
        wait_until(lambda: receiver.seqs() == [1, 2, 3, 4], "the new webhook of that name delivers")
        # The removed webhook may have been posting the last event: it is posted again, under the same id.
        assert all(post.is_first for post in receiver.posts if post.seqs != [4])
