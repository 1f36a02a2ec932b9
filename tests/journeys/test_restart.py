"""After kills at any moment, each client has the log's events in order."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.database_file import head_of, write_events
from tests.server import Server, writer
from tests.transports import Follower, Singles
from tests.waits import wait_until

FOLLOWERS = 20


def log_ids(server: Server) -> list[str]:
    """Return the ids of the log in commit order, read with plain sqlite3."""
    with contextlib.closing(sqlite3.connect(server.database)) as raw:
        return [row[0] for row in raw.execute("SELECT id FROM event_log ORDER BY rowid")]


@contextlib.contextmanager
def following(followers: list[Follower]) -> Iterator[Callable[[int], None]]:
    """Run each follower on a thread.

    Yields a function that ends them once all are at a seq, or fails.
    """
    goal: list[int] = []
    stop = threading.Event()

    def is_done(follower: Follower) -> bool:
        return stop.is_set() or (bool(goal) and follower.cursor >= goal[0])

    threads = [threading.Thread(target=follower.run, args=(is_done,)) for follower in followers]
    for thread in threads:
        thread.start()

    def finish(seq: int) -> None:
        goal.append(seq)
        wait_until(lambda: not any(thread.is_alive() for thread in threads), f"every client at {seq}", timeout=60)

    try:
        yield finish
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def kill_whole(server: Server) -> None:
    server.kill()
    server.start()


def kill_master_alone(server: Server) -> None:
    """The worker must exit with its master, or it would keep the port."""
    server.kill_master()
    server.start()


def kill_and_write_during_the_downtime(server: Server) -> None:
    server.kill()
    seen = head_of(server.database)
    wait_until(lambda: head_of(server.database) > seen + 100, "events written while the server is down")
    server.start()


@pytest.mark.parametrize("bring_down", [kill_whole, kill_master_alone, kill_and_write_during_the_downtime])
def test_twenty_clients_have_exactly_the_log_after_a_kill(server: Server, bring_down: Callable[[Server], None]) -> None:
    followers = [Follower(server) for _ in range(FOLLOWERS)]
    assert server.token
    with following(followers) as finish:
        with writer(server.database, rate=500) as written:
            wait_until(lambda: all(len(follower.events) > 200 for follower in followers), "all live", timeout=60)
            bring_down(server)
            resumed = {id(follower): len(follower.events) for follower in followers}
            wait_until(
                lambda: all(len(f.events) > resumed[id(f)] + 100 for f in followers), "all live again", timeout=60
            )
        finish(head_of(server.database))
    expected = log_ids(server)
    assert set(written) == set(expected)
    for follower in followers:
        assert follower.ids == expected
        assert set(follower.verdicts) == {"resumed"}


def test_a_client_that_reconnects_before_any_new_event_misses_nothing(server: Server) -> None:
    follower = Follower(server)
    with following([follower]) as finish:
        server.log_event("a.b", "before")
        wait_until(lambda: len(follower.events) == 1, "the first event")
        kill_whole(server)
        wait_until(lambda: len(follower.verdicts) == 2, "resumed")
        server.log_event("a.b", "after")
        finish(2)
    assert follower.ids == log_ids(server)


def test_a_kill_during_a_replay_loses_no_event(server: Server) -> None:
    write_events(server.database, 10_000)
    has_killed = threading.Event()
    killing = partial(KillingSingles, at=random.Random(7).randint(500, 5_000), has_killed=has_killed)
    killer = Follower(server, killing)
    followers = [killer, *(Follower(server) for _ in range(4))]
    with following(followers) as finish:
        wait_until(has_killed.is_set, "killed in the middle of a replay")
        server.start()
        finish(10_000)
    expected = log_ids(server)
    assert all(follower.ids == expected for follower in followers)


class KillingSingles(Singles):
    """Kills the server once it has shown *at* events, from inside the client.

    An outside observer could be too late.
    """

    def __init__(self, server: Server, at: int, has_killed: threading.Event, **query: Any) -> None:
        self._at = at
        self._has_killed = has_killed
        super().__init__(server, **query)

    def take(self, frame: dict[str, Any]) -> None:
        super().take(frame)
        if len(self.events) == self._at and not self._has_killed.is_set():
            self.server.kill()
            self._has_killed.set()
