"""Prune, restore and repair under load, with writers and clients."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import selectors
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.clients import FeedClient, RawClient
from tests.database_file import head_of
from tests.server import Server, writer
from tests.waits import shortest, wait_until

EVENTS = 12_000
CLIENTS = 100
MAX_WAIT_SECS = 0.25
REPAIR_SECS = 3.0  # half a second on an idle machine
INSERT = "INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES (?, 'a.b', 's', ?, ?)"

# Makes 300 commits a second at synchronous=FULL. Prints the longest in seconds for each line on stdin.
TIMED_WRITER = """
import sqlite3, sys, threading, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("PRAGMA synchronous = FULL")
worst, count, running = 0.0, 0, True
def answer():
    global worst, running
    for line in sys.stdin:
        longest, worst = worst, 0.0
        print(longest, count, flush=True)
    running = False
threading.Thread(target=answer, daemon=True).start()
began = time.monotonic()
while running:
    at = time.monotonic()
    connection.execute(
        "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.timed', 'timed', '2999-01-01')",
        (f"timed-{count}",),
    )
    worst = max(worst, time.monotonic() - at)
    count += 1
    time.sleep(max(0.0, began + count / 300 - time.monotonic()))
"""


class TimedWriter:
    """A process of plain sqlite3 that records its longest commit."""

    def __init__(self, database: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", TIMED_WRITER, str(database)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> TimedWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=15)

    def longest(self) -> tuple[float, int]:
        """Return the longest commit since the last call, and the count so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        longest, count = self._process.stdout.readline().split()
        return float(longest), int(count)

    def longest_of(self, commits: int) -> float:
        """Return the duration of the longest of the next *commits*."""
        end = self.longest()[1] + commits
        seen: list[float] = []

        def has_ended() -> bool:
            longest, count = self.longest()
            seen.append(longest)
            return count >= end

        wait_until(has_ended, f"{commits} commits", timeout=60)
        return max(seen)


class Watchers:
    """Clients that receive on one thread. Their events are checked afterwards."""

    def __init__(self, server: Server, count: int) -> None:
        self._clients = [RawClient(server) for _ in range(count)]
        self._taken = [bytearray() for _ in range(count)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._take)

    def __enter__(self) -> Watchers:
        for client in self._clients:
            client.subscribe()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        for client in self._clients:
            client.socket.close()

    def _take(self) -> None:
        with selectors.DefaultSelector() as selector:
            for client, taken in zip(self._clients, self._taken, strict=True):
                selector.register(client.socket, selectors.EVENT_READ, taken)
            while not self._stopping.is_set():
                for key, _ in selector.select(timeout=0.1):
                    key.data.extend(key.fileobj.recv(1 << 16))  # type: ignore[union-attr]

    def have(self, seq: int) -> bool:
        """Return whether each client has the event with that seq or a later one."""
        newest = [re.findall(rb'"type":"event","seq":(\d+),', taken[-10_000:]) for taken in self._taken]
        return all(seqs and int(seqs[-1]) >= seq for seqs in newest)

    def chains(self) -> list[list[tuple[int, int]]]:
        """Return for each client the (prev, seq) of its events."""
        pattern = re.compile(rb'"type":"event","seq":(\d+),"prev":(\d+)')
        return [[(int(prev), int(seq)) for seq, prev in pattern.findall(taken)] for taken in self._taken]


def fill(path: Path, count: int) -> None:
    """Write *count* events. Every other one is old in the log and the outbox."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA synchronous = OFF")
        raw.execute("BEGIN IMMEDIATE")
        rows = ((f"event-{n}", '{"text":"' + "x" * 100 + '"}', stamp(n)) for n in range(count))
        raw.executemany(INSERT, rows)
        raw.execute("UPDATE outbox SET created_at = '2020-01-01T00:00:00.000Z' WHERE seq <= ?", (count // 2,))
        raw.execute("COMMIT")
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def stamp(number: int) -> str:
    return "2020-01-01T00:00:00.000Z" if number % 2 else "2999-01-01T00:00:00.000Z"


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return raw.execute(sql).fetchall()


def prune_half(server: Server, events: int, patience_secs: float = 150) -> tuple[float, float]:
    """Prune half of *events* while 300 a second are written and CLIENTS watch.

    No event may be lost or skipped. Returns the writer's longest commit during the prune, and that of the two seconds
    before and after. The soak prunes more.
    """
    fill(server.database, events)
    size = server.database.stat().st_size
    with Watchers(server, CLIENTS) as watchers, TimedWriter(server.database) as timed:
        wait_until(lambda: timed.longest()[1] > 600, "the writer runs")
        before = timed.longest_of(600)
        done = server.run("prune", "--older-than-days", "30", "--json", timeout=patience_secs)
        longest, count = timed.longest()
        assert done.returncode == 0, done.stderr
        last = head_of(server.database)
        wait_until(lambda: watchers.have(last), "every client at the head", timeout=60)
        after = timed.longest_of(600)
    facts = json.loads(done.stdout)
    assert facts["deleted"] == events // 2
    # The scheduled job may have deleted them first.
    assert query(server.database, "SELECT min(seq) FROM outbox") == [(events // 2 + 1,)]
    for chain in watchers.chains():
        assert all(later[0] == earlier[1] for earlier, later in itertools.pairwise(chain)), (
            "a client has skipped events"
        )
        assert chain[-1][1] >= last
    assert query(server.database, "SELECT count(*) FROM event_log WHERE source = 's'") == [(events // 2,)]
    assert query(server.database, "SELECT count(*) FROM event_log WHERE source = 's' AND timestamp < '2999'") == [(0,)]
    assert query(server.database, "SELECT count(*) FROM event_log WHERE source = 'timed'")[0] >= (count,)
    # The scheduled job may have freed them first.
    (pages, free) = (query(server.database, f"PRAGMA {name}_count")[0][0] for name in ("page", "freelist"))
    assert free < pages / 10
    assert pages * 4096 < size
    query(server.database, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert server.database.stat().st_size < size
    return longest, max(before, after)


def test_half_is_pruned_while_events_are_written_and_watched(tmp_path: Path) -> None:
    """Checks the wait of the best of three runs: other load only adds to it."""
    waits = []
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with Server(folder) as server:
            longest, quiet = prune_half(server, EVENTS)
        waits.append(longest - quiet)
        if waits[-1] < MAX_WAIT_SECS:
            return
    raise AssertionError(f"commits took {waits} s longer than without")


def test_an_older_backup_is_restored_under_clients_and_a_raw_writer(server: Server, tmp_path: Path) -> None:
    saved = tmp_path / "saved.db"
    fill(server.database, 50)
    assert server.token
    assert server.run("backup", str(saved)).returncode == 0
    with contextlib.ExitStack() as open_:
        clients = [open_.enter_context(server.connect()) for _ in range(10)]
        for client in clients:
            client.subscribe()
        away = open_.enter_context(server.connect())
        away.subscribe(after=50, epoch=clients[0].epoch)
        fill_more(server.database, 100)
        for client in clients:
            client.follow(150)
        with writer(server.database, rate=200) as written:
            wait_until(lambda: head_of(server.database) > 200, "the writer runs")
            done = server.run("restore", str(saved), "--json")
            assert done.returncode == 0, done.stderr
            assert all(leave(client) == 4008 for client in clients)
            seen = head_of(server.database)
            wait_until(lambda: head_of(server.database) > max(seen, 400), "the writer continues past every old cursor")
            followers = [open_.enter_context(server.connect()) for _ in clients]
            for follower, client in zip(followers, clients, strict=True):
                verdict = follower.subscribe(after=client.cursor, epoch=client.epoch)
                assert verdict["verdict"] == "reset"
        last = head_of(server.database)
        for follower in followers:
            follower.follow(last)
            assert follower.seen == list(range(last - len(follower.seen) + 1, last + 1))
        with server.http() as http:
            by_http = http.get("/api/feed", params={"after": away.cursor, "epoch": away.epoch}).json()
        assert by_http["verdict"] == "reset"
    facts = json.loads(done.stdout)
    known = {
        row[0] for path in (server.database, Path(facts["kept"])) for row in query(path, "SELECT id FROM event_log")
    }
    assert set(written) <= known
    assert ("a.b",) not in query(server.database, "SELECT event_type FROM event_log WHERE id LIKE 'more-%'")
    epoch_before_restart = epoch(server)
    server.kill()
    server.start()
    assert epoch(server) == epoch_before_restart, "the mark belongs to the restored history"


def fill_more(path: Path, count: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.executemany(INSERT, [(f"more-{n}", None, "t") for n in range(count)])


def leave(client: FeedClient) -> int | None:
    """Receive until the server closes. Return the close code."""
    try:
        while True:
            client.next_event()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


def epoch(server: Server) -> str:
    with server.connect() as client:
        return str(client.subscribe()["epoch"])


def rebuild(path: Path) -> None:
    """Change a table as migration tools do: copy, drop, rename.

    The new table has consecutive rowids.
    """
    with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as raw:
        raw.executescript(
            "BEGIN IMMEDIATE;"
            "CREATE TABLE rebuilt (id TEXT PRIMARY KEY, event_type TEXT NOT NULL, source TEXT NOT NULL, task_id TEXT,"
            " agent_id TEXT, data TEXT, timestamp TEXT NOT NULL);"
            "INSERT INTO rebuilt SELECT * FROM event_log ORDER BY rowid;"
            "DROP TABLE event_log; ALTER TABLE rebuilt RENAME TO event_log; COMMIT;"
        )


def drop(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as raw:
        raw.execute("DROP TRIGGER event_log_outbox")


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def serving(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, workers=request.param) as running:
        yield running


@pytest.mark.parametrize("harm", [drop, rebuild])
def test_missed_events_arrive_once_and_history_is_not_repeated(serving: Server, harm) -> None:
    server = serving
    fill(server.database, 300)
    with contextlib.closing(sqlite3.connect(server.database, isolation_level=None)) as raw:
        raw.execute("DELETE FROM event_log WHERE rowid % 3 = 0")
        raw.execute("DELETE FROM outbox WHERE seq <= 200")
    with server.connect() as client:
        client.subscribe(after=300, epoch=epoch(server))
        with writer(server.database, rate=300) as written:
            wait_until(lambda: head_of(server.database) > 500, "the writer runs")
            took: list[float] = []

            def secs_to_repair() -> float:
                harm(server.database)
                began = time.monotonic()
                wait_until(lambda: is_repaired(server), "the trigger is repaired")
                took.append(time.monotonic() - began)
                return took[-1]

            assert shortest(secs_to_repair, REPAIR_SECS) < REPAIR_SECS
            seen = head_of(server.database)
            wait_until(lambda: head_of(server.database) > seen + 100, "the writer continues")
        client.follow(head_of(server.database))
    got = [event["id"] for event in client.events if event["source"] == "writer"]
    assert sorted(got) == sorted(written)
    assert {event["source"] for event in client.events} == {"writer", "outfeed"}
    said = [event for event in client.events if event["source"] == "outfeed"]
    assert len(said) == len(took)
    assert {event["event_type"] for event in said} == {"system.warning"}
    assert all("event_log_outbox is missing" in event["data"]["message"].lower() for event in said)
    assert httpx.get(f"{server.url}/readyz", verify=False).status_code == 200


def is_repaired(server: Server) -> bool:
    return bool(query(server.database, "SELECT 1 FROM sqlite_master WHERE name = 'event_log_outbox'"))


def test_readyz_reports_a_missing_trigger(server: Server) -> None:
    def said() -> bool:
        with contextlib.closing(sqlite3.connect(server.database, isolation_level=None)) as raw:
            raw.execute("DROP TRIGGER IF EXISTS event_log_outbox")
            raw.execute("BEGIN IMMEDIATE")  # delays the repair
            answer = httpx.get(f"{server.url}/readyz", verify=False)
            raw.execute("ROLLBACK")
        return answer.status_code == 503 and "trigger event_log_outbox is missing" in answer.json()["problems"]

    wait_until(said, "unready, with the reason")
    wait_until(lambda: httpx.get(f"{server.url}/readyz", verify=False).status_code == 200, "ready again")
