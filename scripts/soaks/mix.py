"""The mix: writers and viewers, with random faults.

The faults are stalls, kills, prunes, backups, restores and steps of the server's clock. At the end each viewer's list
is compared with the recorded outboxes, epoch by epoch. Every committed event must be in the log, in an archive, or in a
file that a restore kept. All files are read with plain sqlite3, without Outfeed's code.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from scripts.soaks.simulation import TRACE, check_trace
from scripts.soaks.stage import Mismatch
from tests.clients import RawClient
from tests.server import Server, writer
from tests.waits import wait_until

VIEWERS = 8
RAW_PER_SECOND = 60
HTTP_PER_SECOND = 10
REPLAY_DAYS = 10 / 86_400
PATIENCE_SECS = 60.0
CLOCK_STEPS = (-3600, 3600, 7 * 86_400, 0)
# The growth allowed for one worker, after its first minute of the same load.
MORE_BYTES, MORE_THREADS, MORE_DESCRIPTORS = 40 * 2**20, 24, 24
# The types that a token without the scope admin is not shown.
_AUDIT = ("access.", "system.pruned", "system.restored", "system.backed_up")


class SteppedServer(Server):
    """A server whose wall clock can be set.

    Other processes keep their clock. Only `outfeed prune` deletes young rows from the outbox: with its clock an hour
    ahead, the server would delete rows that were not recorded.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self._orders = folder / "orders"
        self.command = (sys.executable, "-m", "tests.faulty_process", str(self._orders))
        self._is_starting = False
        self.set_clock(0)

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | ({} if self._is_starting else {"OUTFEED_REPLAY_DAYS": str(REPLAY_DAYS)})

    def start(self, *arguments: str) -> None:
        self._is_starting = True
        super().start(*arguments)
        self._is_starting = False

    def set_clock(self, secs: int) -> None:
        """Set the server's clock *secs* ahead of this process's."""
        fresh = self._orders.with_suffix(".new")
        fresh.write_text(f"clock={secs} patience=10")
        fresh.replace(self._orders)


# --- the expected events ----------------------------------------------------------------------------------------------


class RecordedEvents:
    """The content of each outbox by seq, read repeatedly with plain sqlite3.

    `_lock` guards all of it.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._lock = threading.Lock()
        self.histories: dict[str, dict[int, tuple[str, str]]] = {}

    def take(self, file: Path | None = None) -> tuple[str, int]:
        """Record the content of the database, or of *file*.

        Returns its epoch, and the newest seq that a viewer may see.
        """
        with self._lock, contextlib.closing(sqlite3.connect(file or self._database, timeout=30)) as raw:
            raw.isolation_level = None
            raw.execute("BEGIN")
            (epoch,) = raw.execute("SELECT value FROM outfeed_meta WHERE key = 'epoch'").fetchone()
            history = self.histories.setdefault(epoch, {})
            query = "SELECT seq, event_id, payload ->> '$.event_type' FROM outbox WHERE seq > ?"
            # Some seqs are read again: their events must not have changed.
            for seq, event_id, event_type in raw.execute(query, (max(history, default=0) - 1000 if not file else 0,)):
                if history.setdefault(seq, (event_id, event_type)) != (event_id, event_type):
                    raise Mismatch(f"seq {seq} of {epoch} was given to {history[seq]} and to {event_id}")
            raw.execute("ROLLBACK")
            return epoch, max((seq for seq, (_, type_) in history.items() if not type_.startswith(_AUDIT)), default=0)

    def between(self, epoch: str, after: int, through: int) -> list[tuple[int, str]]:
        """Return the seqs and ids that a viewer must get."""
        with self._lock:
            history = self.histories.get(epoch, {})
        return [
            (seq, history[seq][0])
            for seq in sorted(history)
            if after < seq <= through and not history[seq][1].startswith(_AUDIT)
        ]


@dataclass
class Segment:
    """The events that a viewer showed between two verdicts."""

    kind: str
    epoch: str
    after: int
    missing: dict[str, int] | None
    shown: list[tuple[int, str]] = field(default_factory=list)


class Viewer:
    """Follows by cursor across all faults."""

    def __init__(self, server: Server, stopping: threading.Event) -> None:
        self._server = server
        self._stopping = stopping
        self.epoch, self.cursor = "", 0
        self.segments: list[Segment] = []
        self.thread = threading.Thread()

    def start(self) -> None:
        """Follow on a thread until stopped."""
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(OSError, ConnectionClosed, InvalidHandshake, TimeoutError, EOFError):
                self._follow()
            self._stopping.wait(0.05)

    def _follow(self) -> None:
        with self._server.connect(open_timeout=5) as client:
            verdict = client.subscribe(after=self.cursor, **({"epoch": self.epoch} if self.epoch else {}))
            self.epoch, self.cursor = verdict["epoch"], verdict["after"]
            segment = Segment(verdict["verdict"], self.epoch, self.cursor, verdict.get("missing"))
            self.segments.append(segment)
            while not self._stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    frame = client.receive(timeout=0.2)
                    if frame["type"] == "event":
                        segment.shown.append((frame["seq"], frame["payload"]["id"]))
                        self.cursor = frame["seq"]
                    elif frame["type"] == "heartbeat":
                        self.cursor = frame["payload"]["cursor"]

    def compare(self, recorded: RecordedEvents) -> None:
        """Raise Mismatch unless each segment has exactly the expected events.

        The verdicts must report all others.
        """
        epoch, cursor = "", 0
        for segment in self.segments:
            continues = segment.epoch == epoch or not epoch
            if segment.kind == "resumed" and not (continues and segment.after >= cursor):
                raise Mismatch(f"resumed after {segment.after} of {segment.epoch}, but it was at {cursor} of {epoch}")
            if segment.kind == "resumed" and (lost := recorded.between(segment.epoch, cursor, segment.after)):
                raise Mismatch(f"a heartbeat skipped {lost[:3]}")
            if segment.kind == "gap" and (segment.missing or {}).get("to") != segment.after:
                raise Mismatch(f"the gap {segment.missing} does not end at the next position {segment.after}")
            if segment.kind == "reset" and segment.epoch == epoch:
                raise Mismatch(f"reset within {epoch}")
            epoch = segment.epoch
            cursor = segment.shown[-1][0] if segment.shown else segment.after
            if segment.shown != (expected := recorded.between(epoch, segment.after, cursor)):
                lost, extra = set(expected) - {*segment.shown}, {*segment.shown} - {*expected}
                raise Mismatch(
                    f"{segment.kind} after {segment.after} of {epoch} to {cursor}: {_span(lost)} not shown,"
                    f" {_span(extra)} unknown; that epoch has {len(recorded.histories.get(epoch, {}))} seqs"
                )


def _span(events: set[tuple[int, str]]) -> str:
    return f"{len(events)}, from {min(events)} to {max(events)}," if events else "none"


# --- the faults -------------------------------------------------------------------------------------------------------


class Mix:
    """One server, its viewers, and the faults."""

    def __init__(self, server: SteppedServer, folder: Path, rng: random.Random) -> None:
        self.server = server
        self.folder = folder
        self.rng = rng
        self.recorded = RecordedEvents(server.database)
        self.stopping = threading.Event()
        self.viewers = [Viewer(server, self.stopping) for _ in range(VIEWERS)]
        self.published: list[str] = []
        self.done: Counter[str] = Counter()
        self._publisher = threading.Thread(target=self._publish)
        self._recorder = threading.Thread(target=self._record)
        self._failures: list[BaseException] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for each in (self._publisher, self._recorder, *self.viewers):
            each.start()
        try:
            yield
        finally:
            self.stop()
            self._publisher.join()
            self._recorder.join()

    def stop(self) -> None:
        """Stop the viewers."""
        self.stopping.set()
        for viewer in self.viewers:
            viewer.thread.join()

    def _publish(self) -> None:
        """Write by HTTP, each event until it is answered."""
        number = 0
        while not self.stopping.wait(1 / HTTP_PER_SECOND):
            event = {"id": f"http-{number}", "event_type": "soak.published", "source": "http"}
            with contextlib.suppress(httpx.TransportError), self.server.http() as http:
                if http.post("/api/events", json=event).status_code in (200, 201):
                    self.published.append(event["id"])
                    number += 1

    def _record(self) -> None:
        while not self.stopping.wait(0.3):
            try:
                self.recorded.take()
            except (sqlite3.OperationalError, sqlite3.DatabaseError):
                pass  # the database is being replaced
            except Mismatch as mismatch:
                self._failures.append(mismatch)

    def run(self, until: float, actions: tuple[Callable[[Mix], None], ...]) -> None:
        """Run random actions until that time. Check for losses between them."""
        while time.monotonic() < until:
            action = self.rng.choice(actions)
            action(self)
            self.done[action.__name__.replace("_", " ")] += 1
            time.sleep(self.rng.uniform(0.2, 1.5))
            if self._failures:
                raise self._failures[0]

    def command(self, *arguments: str) -> dict[str, Any]:
        done = self.server.run(*arguments, "--json", timeout=PATIENCE_SECS)
        if done.returncode:
            raise Mismatch(f"outfeed {' '.join(arguments)}: {done.stderr}")
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    def await_viewers(self) -> None:
        """Wait until every viewer has the newest event."""
        epoch, head = self.recorded.take()

        def are_there() -> bool:
            return all(viewer.epoch == epoch and viewer.cursor >= head for viewer in self.viewers)

        try:
            wait_until(are_there, f"every viewer at {head} of {epoch}", PATIENCE_SECS)
        except AssertionError as error:
            raise Mismatch(f"{error}: {[(viewer.epoch, viewer.cursor) for viewer in self.viewers]}") from error


def kill_all(mix: Mix) -> None:
    mix.server.kill()
    time.sleep(mix.rng.uniform(0, 1))
    mix.server.start()


def kill_the_master(mix: Mix) -> None:
    mix.server.kill_master()
    mix.server.start()


def prune_with_an_archive(mix: Mix) -> None:
    mix.recorded.take()
    mix.command("prune", "--older-than-days", "0", "--archive", str(mix.folder / "archive"))


def back_up(mix: Mix) -> None:
    mix.command("backup", str(mix.folder / "backup.db"))


def restore(mix: Mix) -> None:
    if (mix.folder / "backup.db").exists():
        mix.command("restore", str(mix.folder / "backup.db"))
        for kept in mix.folder.glob("*.before-restore-*"):
            mix.recorded.take(kept)


def stall(mix: Mix) -> None:
    with RawClient(mix.server, receive_buffer_bytes=4096) as client:
        client.subscribe(after=0)
        time.sleep(mix.rng.uniform(0.5, 3))


def step_the_clock(mix: Mix) -> None:
    mix.server.set_clock(mix.rng.choice(CLOCK_STEPS))


GENTLE = (prune_with_an_archive, back_up, restore, stall, step_the_clock)
ALL = (*GENTLE, kill_all, kill_the_master)


# --- at the end -------------------------------------------------------------------------------------------------------


def run(minutes: float, rng: random.Random, folder: Path) -> str:
    """Mix for *minutes*; return what was done. Raises Mismatch."""
    began = time.monotonic()
    with SteppedServer(folder, heartbeat_secs=1, trace_file=str(folder / TRACE)) as server:
        mix = Mix(server, folder, rng)
        with mix.running(), writer(server.database, RAW_PER_SECOND, "raw") as raw:
            mix.run(began + minutes * 40, ALL)
            # The last third runs without a restart, to measure the growth of the server.
            mix.run(began + minutes * 40 + min(20, minutes * 10), GENTLE)
            before = held_by(server)
            mix.run(began + minutes * 60, GENTLE)
            after = held_by(server)
        # The writers have ended, and the viewers catch up to the head.
        mix.stopping.clear()
        for viewer in mix.viewers:
            viewer.start()
        try:
            mix.await_viewers()
        finally:
            mix.stop()
        for viewer in mix.viewers:
            viewer.compare(mix.recorded)
        committed = account_for(mix, {*raw, *mix.published})
    check_growth(before, after)
    traced = check_trace(folder)
    shown = sum(len(segment.shown) for viewer in mix.viewers for segment in viewer.segments)
    verdicts = Counter(segment.kind for viewer in mix.viewers for segment in viewer.segments)
    return (
        f"{committed:,} events in {len(mix.recorded.histories)} epochs, all accounted for; {VIEWERS} viewers were shown"
        f" all {shown:,} expected events ({_counts(verdicts)}); {_counts(mix.done)}; {traced}; "
        + ", ".join(f"{name} {before[name]:,} → {after[name]:,}" for name in before)
    )


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} × {name}" for name, count in sorted(counter.items()))


def account_for(mix: Mix, committed: set[str]) -> int:
    """Return the number of committed events, all of which must be stored.

    Raises Mismatch if one is in no log and in no archive.
    """
    logs = [mix.server.database, *mix.folder.glob("*.before-restore-*")]
    found = {event_id for file in logs for event_id in ids_of(file)}
    archived: list[str] = []
    for archive in (mix.folder / "archive").glob("*.gz"):
        with gzip.open(archive, "rt") as lines:
            archived += [json.loads(line)["id"] for line in lines]
    if missing := committed - found - set(archived):
        raise Mismatch(f"{len(missing)} committed events are nowhere, such as {sorted(missing)[:3]}")
    return len(committed)


def ids_of(file: Path) -> list[str]:
    """Return the ids in a database's log. The database must be sound."""
    with contextlib.closing(sqlite3.connect(file, timeout=30)) as raw:
        if (said := raw.execute("PRAGMA integrity_check").fetchone()) != ("ok",):
            raise Mismatch(f"{file.name}: {said}")
        return [row[0] for row in raw.execute("SELECT id FROM event_log")]


def held_by(server: Server) -> dict[str, int]:
    """Return the memory, threads and descriptors of the worker."""
    worker = server.workers()[0]
    status = Path(f"/proc/{worker}/status").read_text()
    return {
        "bytes": int(status.split("VmRSS:")[1].split()[0]) * 1024,
        "threads": int(status.split("Threads:")[1].split()[0]),
        "descriptors": server.descriptors(),
    }


def check_growth(before: dict[str, int], after: dict[str, int]) -> None:
    allowed = {"bytes": MORE_BYTES, "threads": MORE_THREADS, "descriptors": MORE_DESCRIPTORS}
    for name, more in allowed.items():
        if after[name] > before[name] + more:
            raise Mismatch(f"the worker's {name} grew from {before[name]:,} to {after[name]:,}")
