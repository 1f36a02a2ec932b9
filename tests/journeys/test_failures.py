"""Exhausted resources and lost databases: errors for writers, no losses."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests import faulty_process
from tests.clients import FeedClient
from tests.forked import Forked, run_outfeed
from tests.server import Server
from tests.waits import PATIENCE_SECS, wait_until


class FaultyServer(Server):
    """A server whose resources a test can exhaust."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.ailments = folder / "ailments"

    def launch(self, arguments: list[str]) -> Forked:
        command = [str(self.ailments), *arguments]
        return Forked(command, self.environment, self.output_path, command=faulty_process.main)

    @contextlib.contextmanager
    def lacking(self, what: str) -> Iterator[None]:
        self.ailments.write_text(what)
        try:
            yield
        finally:
            self.ailments.unlink()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Have another process's transaction hold the write lock."""
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None)) as raw:
            raw.execute("BEGIN EXCLUSIVE")
            yield
            raw.execute("ROLLBACK")


class CrampedServer(Server):
    """A server that may open 1000 descriptors."""

    def launch(self, arguments: list[str]) -> Forked:
        return Forked(arguments, self.environment, self.output_path, command=run_cramped)


def run_cramped(arguments: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))
    run_outfeed(arguments)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    with FaultyServer(tmp_path_factory.mktemp("faulty"), poll_interval=0.2) as running:
        yield running


@pytest.fixture
def session(faulty: FaultyServer) -> Iterator[Session]:
    with Session(faulty) as running:
        yield running


class Session:
    """A writer and a viewer of one server, and their results."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.written: list[str] = []
        self._open = contextlib.ExitStack()
        self.http: httpx.Client = self._open.enter_context(server.http())
        self.viewer: FeedClient = self._open.enter_context(server.connect())
        self.viewer.subscribe()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._open.close()

    def write(self, number: int = 1) -> httpx.Response:
        """Write up to *number* events until a rejection. Return the last answer."""
        for _ in range(number):
            answer = self.http.post(
                "/api/events", json={"event_type": "a.b", "source": "s", "data": {"text": "x" * 5000}}
            )
            if answer.status_code != 201:
                break
            self.written.append(answer.json()["id"])
        return answer

    def refusal(self, number: int = 1) -> str:
        """Write until an event is rejected. Return the reason."""
        answer = self.write(number)
        assert answer.status_code == 503, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert int(answer.headers["Retry-After"]) > 0
        return str(answer.json()["detail"])

    def unready(self) -> str:
        """Return why the server is not ready; empty if it is."""
        answer = httpx.get(f"{self.server.url}/readyz", timeout=PATIENCE_SECS, verify=False)
        assert (answer.status_code == 503) == bool(answer.json()["problems"])
        return "; ".join(answer.json()["problems"])

    def assert_recovered(self) -> None:
        """Check that the server has recovered by itself.

        It is ready, accepts events, and the viewer has each event once.
        """
        wait_until(lambda: not self.unready(), "ready again")
        wait_until(lambda: self.write(3).status_code == 201, "events are accepted again")
        while len(self.viewer.events) < len(self.written):
            self.viewer.next_event()
        assert [event["id"] for event in self.viewer.events] == self.written
        with contextlib.closing(sqlite3.connect(self.server.database)) as raw:
            ids = [row[0] for row in raw.execute("SELECT id FROM event_log WHERE event_type = 'a.b' ORDER BY rowid")]
            (rows,) = raw.execute("SELECT count(*) FROM outbox WHERE payload LIKE '%\"a.b\"%'").fetchone()
            assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert ids[-len(self.written) :] == self.written
        assert rows == len(ids)


# --- the database can't be written to ---------------------------------------------------------------------------------


def test_a_full_disk_is_reported_to_writers_and_recovers(session: Session, faulty: FaultyServer) -> None:
    session.write(2)
    with faulty.lacking(f"pages={faulty.database.stat().st_size // 4096 + 10}"):
        assert "no space is left" in session.refusal(100)
        assert "no space left to write" in session.unready()
        assert "no space left to write" in wait_until(session.unready, "the reason is still reported")
    session.assert_recovered()


def can_mount() -> bool:
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return os.geteuid() == 0 and bool(shutil.which("unshare")) and not subprocess.run(command, check=False).returncode


@pytest.mark.skipif("CI" not in os.environ and not can_mount(), reason="only root may mount")
def test_a_really_full_filesystem_is_reported_and_recovers(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=True)
    try:
        with Server(folder, poll_interval=0.2) as server, Session(server) as session:
            session.write(2)
            ballast = folder / "ballast"
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            assert "no space is left" in session.refusal(1000)
            assert "no space left to write" in session.unready()
            ballast.unlink()
            session.assert_recovered()
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_read_only_file_is_reported_and_recovers(session: Session, faulty: FaultyServer) -> None:
    session.write()
    with faulty.lacking("readonly"):
        assert "read-only" in session.refusal()
        assert "read-only" in session.unready()
    session.assert_recovered()


def test_a_held_write_lock_is_reported_and_recovers(session: Session, faulty: FaultyServer) -> None:
    session.write()
    with faulty.locked():
        assert "locked by another writer" in session.refusal()
        assert "locked by another writer" in session.unready()
    session.assert_recovered()


def test_the_probe_notices_the_lock_and_its_release_without_writers(session: Session, faulty: FaultyServer) -> None:
    with faulty.locked():
        wait_until(lambda: "locked by another writer" in session.unready(), "unready", timeout=PATIENCE_SECS + 10)
    session.assert_recovered()


# --- exhausted resources ----------------------------------------------------------------------------------------------


def free_descriptor(pid: int, place: int) -> int:
    """Return the process's free descriptor number at that *place* from below.

    The system assigns the lowest number.
    """
    samples = ({int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()} for _ in range(100))
    used = set.intersection(*samples)  # a job may have a file open for a moment
    free = (number for number in itertools.count() if number not in used)
    return next(itertools.islice(free, place, None))


def test_exhausted_descriptors_are_reported_and_recover(session: Session, faulty: FaultyServer) -> None:
    session.write()
    worker = faulty.workers()[0]
    before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    try:
        # Too few to accept, too few to serve, and just enough.
        for place, more, status in ((0, 0, 503), (0, 4, 503), (20, 0, 201)):
            limit = free_descriptor(worker, place) + more
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, before[1]))
            with faulty.http() as stranger:
                answer = stranger.post("/api/events", json={"event_type": "c.d", "source": "s"})
            assert answer.status_code == status, (limit, answer.text)
            if status == 503:
                assert "out of file descriptors" in answer.json()["detail"]
                assert "out of file descriptors" in session.unready()
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
    assert session.viewer.next_event()["payload"]["event_type"] == "a.b"
    assert session.viewer.next_event()["payload"]["event_type"] == "c.d"
    session.viewer.events.pop()
    session.assert_recovered()
    assert faulty.workers() == [worker]


def test_a_server_with_too_few_threads_does_not_start(tmp_path: Path) -> None:
    """All threads that clients may need start with the server."""
    server = FaultyServer(tmp_path, max_connections=1000)
    with server.lacking("threads"), pytest.raises(AssertionError, match="server ended with 3"):
        server.start()
    assert "OUTFEED_MAX_CONNECTIONS needs 1032 threads a worker" in server.output


def test_a_server_with_too_few_descriptors_does_not_start(tmp_path: Path) -> None:
    server = CrampedServer(tmp_path, max_connections=1000)
    with pytest.raises(AssertionError, match="server ended with 1"):
        server.start()
    assert "OUTFEED_MAX_CONNECTIONS: 1000 needs" in server.output


def test_a_websocket_without_enough_descriptors_is_rejected_before_the_handshake(
    session: Session, faulty: FaultyServer
) -> None:
    with faulty.lacking("descriptors"), pytest.raises(InvalidStatus) as refused:
        faulty.connect()
    assert refused.value.response.status_code == 503
    assert b"out of file descriptors" in (refused.value.response.body or b"")
    session.assert_recovered()
    faulty.connect().__exit__()


# --- lost databases ---------------------------------------------------------------------------------------------------


@pytest.fixture
def unshared(tmp_path: Path) -> Iterator[Session]:
    with Server(tmp_path, poll_interval=0.2) as server, Session(server) as session:
        yield session


def files_of(database: Path) -> list[Path]:
    return [path for suffix in ("", "-wal", "-shm") if (path := Path(f"{database}{suffix}")).exists()]


def test_a_deleted_database_is_reported_and_rejects_writes(unshared: Session) -> None:
    unshared.write(3)
    server = unshared.server
    files = files_of(server.database)
    for file in files:
        file.rename(file.with_name(f"away-{file.name}"))
    assert "is missing" in unshared.refusal()
    assert "no database at" in unshared.unready()
    assert not server.database.exists()
    wait_until(lambda: "no database at" in server.output, "logged")
    for file in reversed(files):  # the database last: without its -wal it would be an older state
        file.with_name(f"away-{file.name}").rename(file)
    unshared.assert_recovered()


def test_a_damaged_database_is_reported_and_rejects_writes_until_restored(unshared: Session) -> None:
    unshared.write(300)
    server = unshared.server
    backup = server.database.with_name("backup.db")
    assert server.run("backup", str(backup)).returncode == 0
    with contextlib.closing(sqlite3.connect(server.database)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages = server.database.stat().st_size // 4096
    with server.database.open("r+b") as file:
        for page in range(1, pages):
            file.seek(page * 4096)
            file.write(os.urandom(64))
    wait_until(lambda: "is damaged" in unshared.unready(), "unready")
    assert "damaged" in unshared.refusal()
    wait_until(lambda: "can't write to the database" in server.output, "logged")
    size = server.database.stat().st_size
    assert all("damaged" in unshared.refusal() for _ in range(5))
    assert server.database.stat().st_size == size
    assert "`outfeed restore FILE`" in server.run("log", "a.b", "--source", "s").stderr
    for each in files_of(server.database):
        each.rename(each.with_name(f"away-{each.name}"))
    done = server.run("restore", str(backup))
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not unshared.unready(), "ready again")
    assert unshared.viewer.closed_with()[0] == 4008  # the cursor belongs to another history
    with server.connect() as viewer:
        assert viewer.subscribe(after=0)["verdict"] in ("resumed", "gap")
        assert unshared.write().status_code == 201
