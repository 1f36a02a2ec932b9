"""The library: a log of millions that is paged and searched over HTTP.

Events are written and followed at the same time.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from scripts.soaks.stage import Mismatch
from tests.server import Server, writer
from tests.waits import wait_until

PER_SECOND = 100
PAGES = 1000
ROUNDS = 5
PAGE_MS, SEARCH_MS = 100.0, 300.0
# The tolerated delay of the live feed while the log is read. On a machine with two cores a client adds noise itself.
NOISE_MS = 50.0
INDEX_SECS_A_MILLION = 1200.0
# One event in 1,000 failed, one in 100,000 for a unique reason.
FILL = """
    WITH RECURSIVE n (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM n WHERE n < :last)
    INSERT INTO event_log (id, event_type, source, task_id, agent_id, data, timestamp)
    SELECT
        'old-' || n,
        CASE WHEN n % 1000 = 0 THEN 'task.failed' WHEN n % 3 = 0 THEN 'tool.called' ELSE 'task.created' END,
        CASE WHEN n % 10 = 0 THEN 'worker-' || (n % 70) ELSE 'coordinator' END,
        'task-' || (n / 8),
        'agent-' || (n % 50),
        json_object('n', n, 'description', 'step ' || (n % 977) || ' of ' || (n % 89), 'reason',
            CASE WHEN n % 100000 = 0 THEN 'out of memory' END),
        strftime('%Y-%m-%dT%H:%M:%S.000Z', 1767225600 + n, 'unixepoch')
    FROM n
"""
FILTERS = {
    "no filter": "",
    "a type": "event_type=task.failed",
    "a prefix": "event_type=task.*",
    "a source": "source=worker-20",
    "an agent and a type": "agent_id=agent-3&event_type=task.*",
    "an hour": "from=2026-01-01T12:00&to=2026-01-01T13:00",
    "a type in a week": "event_type=task.failed&from=2026-01-01T12:00&to=2026-01-08T12:00",
}
SEARCHES = {
    "a rare phrase": "text=%22out+of+memory%22",
    "no match": "text=nothingofthesort",
    "a common word": "text=step",
    "two words": "text=step+memory",
    "a beginning": "text=st*",
    "a text and a type": "text=memory&event_type=task.failed",
    "a text in a week": "text=step+88&from=2026-01-01T12:00&to=2026-01-08T12:00",
}


def browse(server: Server, events: int) -> Iterator[str]:
    """Fill the log, wait for its index, then run all queries. Raises Mismatch.

    Yields the durations.
    """
    with server.http() as http, Latency(server) as latency:
        quiet = latency.measure(3.0)
        fill(server.database, events)
        yield from _browse(server, http, latency, events, quiet)


def _browse(server: Server, http: httpx.Client, latency: Latency, events: int, quiet: float) -> Iterator[str]:
    began = time.monotonic()
    with writer(server.database, PER_SECOND):
        wait_until(
            lambda: is_indexed(server.database, events),
            "the search index is made",
            60 + events / 1e6 * INDEX_SECS_A_MILLION,
        )
        yield f"{events:,} events indexed in {time.monotonic() - began:.0f} s"
        latency.measure(0)
        for name, query in FILTERS.items():
            yield check(f"{name}, first page", http, f"/api/events?limit=50&{query}", PAGE_MS)
            if (cursor := turn(http, query)) is not None:
                yield check(f"{name}, page {PAGES}", http, f"/api/events?limit=50&cursor={cursor}&{query}", PAGE_MS)
        for name, query in SEARCHES.items():
            yield check(name, http, f"/api/events?limit=50&{query}", SEARCH_MS)
        busy = latency.measure(0)
    yield f"from commit to client, in the median: {quiet:.1f} ms before, {busy:.1f} ms while the log was read"
    if busy > quiet + NOISE_MS:
        raise Mismatch(f"the live feed took {busy:.1f} ms while the log was read, {quiet:.1f} ms before")


def fill(database: Path, events: int) -> None:
    """Write *events* with plain sqlite3, in commits of 50,000."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as raw:
        for first in range(1, events + 1, 50_000):
            with raw:
                raw.execute(FILL, {"first": first, "last": min(events, first + 49_999)})


def is_indexed(database: Path, events: int) -> bool:
    """Return whether the index has a block for every block of the log."""
    path = Path(f"{database}-search")
    if not path.exists():
        return False
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as raw, contextlib.suppress(sqlite3.OperationalError):
        return bool(raw.execute("SELECT count(*) FROM block").fetchone()[0] > (events - 1) >> 16)
    return False


def turn(http: httpx.Client, query: str) -> int | None:
    """Return the cursor of page PAGES; None if there are fewer pages."""
    cursor, left = None, (PAGES - 1) * 50
    while left:
        limit = min(left, 1000)
        answer = http.get(f"/api/events?limit={limit}&{query}" + (f"&cursor={cursor}" if cursor else "")).json()
        cursor, left = answer["next"], left - len(answer["events"])
        if cursor is None:
            return None
    return cursor


def check(name: str, http: httpx.Client, path: str, promised_ms: float) -> str:
    """Repeat a query and return its median duration.

    Raises Mismatch if it is longer than promised.
    """
    took = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        answer = http.get(path).raise_for_status().json()
        took.append((time.monotonic() - began) * 1000)
    median = sorted(took)[ROUNDS // 2]
    if median > promised_ms:
        load = f"the machine's load average is {os.getloadavg()[0]:.1f}"
        raise Mismatch(f"{name}: promised are {promised_ms:.0f} ms, it took {median:.0f} ms; {load}")
    return f"{name}: {len(answer['events'])} events in {median:.0f} ms"


class Latency:
    """The latency of the feed to one client, measured at intervals."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stopping = threading.Event()
        self._took: list[float] = []
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> Latency:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def measure(self, secs: float) -> float:
        """Return the median in ms since the last call, after *secs* more."""
        time.sleep(secs)
        took, self._took = sorted(self._took), []
        return took[len(took) // 2] * 1000 if took else 0.0

    def _follow(self) -> None:
        with (
            self._server.connect() as client,
            contextlib.closing(sqlite3.connect(self._server.database, timeout=30, isolation_level=None)) as raw,
        ):
            client.subscribe(types=["soak.probe"])
            while not self._stopping.wait(0.02):
                raw.execute(
                    "INSERT INTO event_log (id, event_type, source, timestamp)"
                    " VALUES (hex(randomblob(8)), 'soak.probe', 'soak', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"
                )
                began = time.monotonic()
                client.next_event()
                self._took.append(time.monotonic() - began)
