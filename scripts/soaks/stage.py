"""The stage of the kill rounds: a server, a log and long-lived clients."""

from __future__ import annotations

import contextlib
import itertools
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.database_file import write_events
from tests.server import Server, writer
from tests.transports import Follower
from tests.waits import wait_until

PATIENCE_SECS = 120.0
EVENTS_PER_SECOND = 500


class Mismatch(Exception):
    """A client's list differs from the log, or a promised time was exceeded."""


class Followers:
    """Clients that follow the feed from the log's beginning, each on a thread.

    Use it in a `with`.
    """

    def __init__(self, server: Server, size: int) -> None:
        self.followers = [Follower(server) for _ in range(size)]
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(size)
        self._running: list[Future[None]] = []

    def __enter__(self) -> Followers:
        self._running = [self._pool.submit(follower.run, self._is_over) for follower in self.followers]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()

    def wait(self, is_met: Callable[[Follower], bool], what: str) -> None:
        """Wait until *is_met* for all. Raises Mismatch.

        Also raises it if a client had an unexpected result.
        """
        try:
            wait_until(lambda: self._is_well() and all(map(is_met, self.followers)), what, PATIENCE_SECS)
        except AssertionError as error:
            raise Mismatch(f"{error}; clients have {[len(follower.events) for follower in self.followers]}") from error

    def progress(self, events: int) -> None:
        """Wait until every client has *events* more."""
        goals = {id(follower): len(follower.events) + events for follower in self.followers}
        self.wait(
            lambda follower: len(follower.events) >= goals[id(follower)], f"{events} more events for every client"
        )

    def compare(self, expected: list[str]) -> None:
        """Raise Mismatch if a client's list differs from *expected*.

        Also raises it if a client was not always resumed.
        """
        for number, follower in enumerate(self.followers):
            if set(follower.verdicts) != {"resumed"}:
                raise Mismatch(f"client {number} was told {sorted(set(follower.verdicts))}")
            if follower.ids != expected:
                raise Mismatch(f"client {number}: {first_difference(follower.ids, expected)}")

    def _is_over(self, _: Follower) -> bool:
        return self._stop.is_set()

    def _is_well(self) -> bool:
        for running in self._running:
            if running.done():
                running.result()
        return True


class Stage:
    """The server, the clients and the random numbers of a round."""

    def __init__(self, server: Server, followers: Followers, rng: random.Random) -> None:
        self.server = server
        self.followers = followers
        self.rng = rng
        self._sources = (f"writer-{number}" for number in itertools.count(1))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Have another process write 500 events a second.

        Every committed event must be in the log.
        """
        with writer(self.server.database, EVENTS_PER_SECOND, next(self._sources)) as written:
            yield
        if missing := set(written) - set(log_ids(self.server.database)):
            raise Mismatch(f"{len(missing)} committed events are not in the log, one of them {missing.pop()}")

    def pause(self, at_most_secs: float) -> None:
        """Wait for a random time."""
        time.sleep(self.rng.uniform(0, at_most_secs))

    def compare(self) -> int:
        """Wait until all clients are at the head, then compare them with the log.

        Returns the log's length.
        """
        expected = log_ids(self.server.database)
        self.followers.wait(lambda follower: len(follower.events) >= len(expected), "every client at the head")
        self.followers.compare(expected)
        return len(expected)


def fill(database: Path, events: int) -> None:
    """Write *events* in one commit, with plain sqlite3."""
    write_events(database, events, event_type="soak.filled", source="soak")


def log_ids(database: Path) -> list[str]:
    """Return the ids of the log in commit order, read with plain sqlite3."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as raw:
        return [row[0] for row in raw.execute("SELECT id FROM event_log ORDER BY rowid")]


def first_difference(ids: list[str], expected: list[str]) -> str:
    """Describe the first difference of two lists."""
    for place, (ours, theirs) in enumerate(itertools.zip_longest(ids, expected)):
        if ours != theirs:
            return f"at place {place} of {len(expected)} it has {ours}, the log has {theirs}"
    return "no difference"
