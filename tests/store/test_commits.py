"""Commit notifier: every commit is noticed at once, at no idle cost.

It also survives the replacement of the files that it watches.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outfeed.store import commits as module
from outfeed.store.commits import CommitNotifier
from outfeed.store.database import Database
from tests.database_file import head_of
from tests.waits import PATIENCE_SECS, wait_until

ROW = "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.b', 's', 't')"


class Watch:
    """A commit notifier and its calls.

    At each call it reads the head, as a poll does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commits = 0
        self.ticks = 0
        self.heads: list[int] = []
        self.times: list[float] = []
        self.rest = 0.0
        self.notifier = CommitNotifier(path, self._note_commit, self._note_tick)

    def __enter__(self) -> Watch:
        self.notifier.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.notifier.stop()

    def _note_commit(self) -> float:
        self.heads.append(head_of(self.path))
        self.commits += 1
        self.times.append(time.monotonic())
        return self.rest

    def _note_tick(self) -> None:
        self.ticks += 1

    def has_begun(self) -> bool:
        return self.ticks > 0 and self.commits > 0


@pytest.fixture(params=["the system's notices", "the clock"])
def watch(database: Database, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    if request.param == "the clock":
        monkeypatch.setattr(module, "Notices", module.IntervalNotices)
    # A stall may outlast the commit notifier's checks for a commit, and no scheduler makes up for it here.
    monkeypatch.setattr(module, "RECHECK_FOR_SECS", PATIENCE_SECS)
    # Another connection keeps the -wal file in place, as a server's own does.
    with contextlib.closing(sqlite3.connect(database.path)) as keeper:
        keeper.execute("SELECT count(*) FROM event_log").fetchone()
        with Watch(database.path) as watch:
            wait_until(watch.has_begun, "it watches")
            yield watch


def commit(raw: sqlite3.Connection, event_id: str) -> None:
    raw.execute("BEGIN IMMEDIATE")
    raw.execute(ROW, (event_id,))
    raw.execute("COMMIT")


def connect(path: Path) -> contextlib.closing[sqlite3.Connection]:
    """Open a writer without fsync.

    The notifier leaves a commit that takes too long to the scheduler.
    """
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA synchronous = OFF")
    return contextlib.closing(raw)


def test_the_notifier_calls_at_the_start_for_earlier_commits(watch: Watch) -> None:
    assert watch.commits == 1


class Disk:
    """A writer's disk on a clock of its own.

    A commit is written and noticed, and visible after its fsync.
    """

    precede_commits = True

    def __init__(self, gaps: list[float], fsyncs: list[float]) -> None:
        self.now = 0.0
        self.written: list[float] = []
        self.visible: list[float] = []
        at = 1.0
        for gap, fsync in zip(gaps, fsyncs, strict=True):
            self.written.append(at + gap)
            self.visible.append(at := at + gap + fsync)
        self.unread = list(self.written)
        self._seen = 0

    def wait(self, timeout: float) -> bool:
        until = self.now + max(timeout, 1e-6)
        if self.unread and self.unread[0] <= until and timeout >= 0.001:
            until = max(self.now, self.unread[0])  # poll(2) returns; a sleep does not
        self.now = until
        are_noticed = [at for at in self.unread if at <= until]
        del self.unread[: len(are_noticed)]
        return bool(are_noticed)

    def moved(self) -> bool:
        before, self._seen = self._seen, sum(at <= self.now for at in self.visible)
        return self._seen != before

    def are_current(self) -> bool:
        return True


class Sleep(threading.Event):
    """A rest that no thread ends, on the disk's clock."""

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self._disk = disk

    def wait(self, timeout: float | None = None) -> bool:
        self._disk.now += timeout or 0
        return False


@pytest.mark.parametrize("longest_rest", [0.0, 0.2])
@pytest.mark.parametrize("fsync_secs", [0.0001, 0.0005, 0.003, 0.03, 0.3])
def test_no_commit_waits_for_the_notice_of_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch, fsync_secs: float, longest_rest: float
) -> None:
    rng = random.Random(5)
    gaps = [rng.choice([0.00002, 0.0002, 0.01, 2.5]) * rng.random() for _ in range(300)]
    disk = Disk(gaps, [fsync_secs * rng.uniform(0.5, 1.5) for _ in gaps])
    seen_at: dict[int, float] = {}
    rests: list[tuple[float, float]] = []

    def note() -> float:
        for n, visible in enumerate(disk.visible):
            if visible <= disk.now:
                seen_at.setdefault(n, disk.now)
        if disk.now > disk.visible[-1]:
            notifier.stopping.set()
        rest = rng.choice([0, longest_rest * rng.random()])
        rests.append((disk.now, disk.now + rest))
        return rest

    def wanted_at(visible: float) -> float:
        return max([visible, *(end for begin, end in rests if begin <= visible < end)])

    def give_up() -> None:
        if disk.now > disk.visible[-1] + 5:
            notifier.stopping.set()

    notifier = CommitNotifier(database.path, note, give_up, Sleep(disk))
    monkeypatch.setattr(module.clock, "monotonic", lambda: disk.now)
    notifier.watch(disk, disk)  # type: ignore[arg-type]
    commits = enumerate(zip(disk.written, disk.visible, strict=True))
    late = [seen_at[n] - wanted_at(visible) - max(0.001, (visible - written) / 4) for n, (written, visible) in commits]
    assert max(late) <= 0.0001


def test_a_commit_of_another_process_is_noticed(watch: Watch) -> None:
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA synchronous = OFF');"
        " c.execute(sys.argv[2], ('x',)); c.commit()"
    )
    subprocess.run([sys.executable, "-c", script, str(watch.path), ROW], check=True)
    wait_until(lambda: 1 in watch.heads, "noticed")


def test_each_commit_is_visible_when_it_calls_back(watch: Watch) -> None:
    with connect(watch.path) as raw:
        for n in range(1, 31):
            commit(raw, f"id-{n}")
            wait_until(lambda n=n: n in watch.heads, f"commit {n} seen")


def test_a_commit_that_waits_for_the_disk_is_noticed_as_well(watch: Watch) -> None:
    """The file is written before the commit is visible.

    One check at each notice would miss nearly all commits.
    """
    seen = 0
    with contextlib.closing(sqlite3.connect(watch.path, isolation_level=None)) as raw:
        raw.execute("PRAGMA synchronous = FULL")
        for n in range(1, 21):
            commit(raw, f"id-{n}")
            with contextlib.suppress(AssertionError):  # a disk may be slower than the commit notifier waits
                seen += bool(wait_until(lambda n=n: n in watch.heads, f"commit {n} seen", timeout=0.5))
    assert seen >= 10, f"{seen} of 20"


def test_a_rolled_back_transaction_causes_no_call(watch: Watch) -> None:
    with connect(watch.path) as raw:
        raw.execute("BEGIN IMMEDIATE")
        raw.execute(ROW, ("gone",))
        raw.execute("ROLLBACK")
        before = watch.commits
        commit(raw, "kept")
        wait_until(lambda: 1 in watch.heads, "the commit noticed")
        assert before < watch.commits <= before + 2


def test_the_notifier_ticks_without_commits(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECS", 0.02)
    before = watch.ticks
    wait_until(lambda: watch.ticks > before + 5, "ticks")
    assert watch.commits == 1


def test_an_idle_notifier_uses_almost_no_cpu(watch: Watch) -> None:
    began = time.process_time()
    threading.Event().wait(1)
    assert time.process_time() - began < 0.3


def test_a_commit_without_fsync_is_checked_for_a_few_times(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    # given commits that are visible before their notice is read, and one that is noticed twice
    disk = Disk([0.01] * 300, [0.0] * 300)
    disk.unread.insert(1, disk.written[0] + 0.00001)
    reads, read = [0], disk.moved

    def count() -> bool:
        reads[0] += 1
        return read()

    disk.moved = count  # type: ignore[method-assign]
    notifier = CommitNotifier(database.path, lambda: 0, lambda: disk.now > disk.visible[-1] and notifier.stopping.set())
    monkeypatch.setattr(module.clock, "monotonic", lambda: disk.now)
    notifier.watch(disk, disk)  # type: ignore[arg-type]
    assert reads[0] < 10 * 300


def test_a_constant_writer_does_not_keep_a_core_busy(watch: Watch) -> None:
    """Notices come faster than commits become visible.

    They are taken all at once.
    """
    with connect(watch.path) as raw:
        raw.execute("PRAGMA cache_size = 1")
        raw.execute("BEGIN IMMEDIATE")  # spills to the -wal file without a commit
        for n in range(2000):
            raw.execute(ROW, (f"id-{n}" + "x" * 500,))
        assert watch.commits <= 2  # one at the start, one for the first notice
        raw.execute("COMMIT")
    wait_until(lambda: 2000 in watch.heads, "the commit noticed")
    assert watch.commits <= 4


def test_the_notifier_rests_as_long_as_requested_and_misses_nothing(watch: Watch) -> None:
    watch.rest = 0.05
    with connect(watch.path) as raw:
        for n in range(1, 31):
            commit(raw, f"id-{n}")
            time.sleep(0.005)  # the writer's pace
    wait_until(lambda: 30 in watch.heads, "all noticed")
    assert min(later - earlier for earlier, later in itertools.pairwise(watch.times[1:])) >= 0.05


def test_the_notifier_calls_again_at_once_if_it_is_woken_during_a_call_that_requests_a_rest(database: Database) -> None:
    calls: list[int] = []

    def rest_for_an_hour() -> float:
        calls.append(len(calls))
        if len(calls) == 1:
            notifier.wake()
        return 3600

    notifier = CommitNotifier(database.path, rest_for_an_hour, lambda: None)
    notifier.start()
    try:
        wait_until(lambda: len(calls) == 2, "it calls again")
    finally:
        notifier.stop()


def test_the_notifier_ticks_while_it_rests_until_it_is_woken_or_stopped(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_SECS", 0.02)
    watch.rest, before = 3600, watch.commits
    with connect(watch.path) as raw:
        commit(raw, "one")
        wait_until(lambda: watch.commits > before, "noticed")
        commit(raw, "two")
    ticks = watch.ticks
    wait_until(lambda: watch.ticks > ticks + 5, "ticks")
    assert watch.commits == before + 1
    watch.notifier.wake()
    wait_until(lambda: 2 in watch.heads, "called again")
    ticks = watch.ticks
    wait_until(lambda: watch.ticks > ticks + 5, "ticks")
    assert watch.commits == before + 2
    began = time.monotonic()
    watch.notifier.stop()
    assert time.monotonic() - began < 5


def test_the_notifier_watches_a_file_that_replaces_the_first(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a commit notifier of one file, and a copy
    monkeypatch.setattr(module, "TICK_SECS", 0.05)
    copy_path = tmp_path / "copy.db"
    with (
        contextlib.closing(sqlite3.connect(database.path)) as raw,
        contextlib.closing(sqlite3.connect(copy_path)) as copy,
    ):
        raw.backup(copy)
    with Watch(database.path) as watch:
        wait_until(watch.has_begun, "it watches")
        # when the copy replaces the file
        for suffix in ("-wal", "-shm"):
            Path(f"{database.path}{suffix}").unlink(missing_ok=True)
        os.replace(copy_path, database.path)
        wait_until(lambda: watch.commits > 1, "it checks again for missed commits")
        # then commits to it are noticed
        with connect(database.path) as raw:
            for n in range(1, 6):
                commit(raw, f"id-{n}")
                wait_until(lambda n=n: n in watch.heads, f"commit {n} to the new file seen")


def test_the_notifier_waits_for_a_missing_file(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "TICK_SECS", 0.05)
    os.rename(database.path, tmp_path / "away")
    with Watch(database.path) as watch:
        wait_until(lambda: "can't watch commits" in caplog.text, "the failure is logged")
        assert watch.commits == 0
        os.rename(tmp_path / "away", database.path)
        wait_until(watch.has_begun, "it watches")


def test_the_notifier_continues_when_the_file_is_removed_and_returns(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_SECS", 0.05)
    with Watch(database.path) as watch:
        wait_until(watch.has_begun, "it watches")
        for suffix in ("", "-wal", "-shm"):
            if Path(f"{database.path}{suffix}").exists():
                os.rename(f"{database.path}{suffix}", tmp_path / f"away{suffix}")
        before = watch.ticks
        for suffix in ("-wal", "-shm", ""):
            if Path(tmp_path / f"away{suffix}").exists():
                os.rename(tmp_path / f"away{suffix}", f"{database.path}{suffix}")
        wait_until(lambda: watch.ticks > before, "it ticks")
        with connect(database.path) as raw:
            commit(raw, "one")
        wait_until(lambda: 1 in watch.heads, "noticed")


def test_the_notifier_stops_at_once_in_every_state(database: Database) -> None:
    for _ in range(20):
        watch = Watch(database.path)
        watch.notifier.start()
        began = time.monotonic()
        watch.notifier.stop()
        assert time.monotonic() - began < 5
